"""Exports made in milliseconds: nothing is trained, and ONNX is left out unless a test is about it."""

from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import torch

from search.evaluate import Scored
from search.networks import build
from search.onnxfile import OnnxError


def random_network(plan, schedule, seed):
    """The study's network with weights and batch-norm statistics of no special value."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build(plan.config.network, schedule, 1, plan.data.classes)
        for norm in network.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.5, 2)
    return network.eval()


class Keeping:
    """An `Evaluate` that trains nothing, keeps weights and remembers what it was asked."""

    def __init__(self, plan):
        self.plan, self.asked = plan, []

    def __call__(self, schedule, seeds, fidelity, score_on, on_epoch=None, keep_weights=False):
        self.asked.append((schedule, tuple(seeds), fidelity.epochs, score_on, keep_weights))
        weights = random_network(self.plan, schedule, seeds[0]).state_dict()
        return [Scored(seeds[0], 0.95, 0.1, np.arange(20) > 0, fidelity.epochs, 0.1, weights=weights)]


@contextmanager
def without_onnx():
    """A second saved for every export."""
    with patch("search.artifact.to_onnx", side_effect=OnnxError("not asked for here")):
        yield
