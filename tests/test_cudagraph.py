"""A stand-in for the graph carries the recorded passes out again, in the tensors they were recorded in."""

import contextlib
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from search.cudagraph import CapturedPasses


class Learning:
    """A linear network and its passes."""

    def __init__(self):
        torch.manual_seed(0)
        self.network = nn.Linear(3, 2, dtype=torch.double)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=0.1)

    def passes(self, images, labels):
        self.optimiser.zero_grad()
        losses = nn.functional.cross_entropy(self.network(images), labels, reduction="none")
        losses.sum().backward()
        return losses.detach()


class Graph:
    """What it holds is carried out again with the gradients written where they were."""

    def __init__(self, learning):
        self.learning, self.replays = learning, 0

    @contextlib.contextmanager
    def recording(self):
        yield
        self.gradients = [weight.grad for weight in self.learning.network.parameters()]

    def replay(self):
        self.replays += 1
        self.learning.passes(self.captured._images, self.captured._labels)
        for weight, kept in zip(self.learning.network.parameters(), self.gradients, strict=True):
            kept.copy_(weight.grad)
            weight.grad = kept


@pytest.fixture
def captured(monkeypatch):
    learning = Learning()
    graph = Graph(learning)
    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: graph.recording())
    captured = CapturedPasses(learning.passes, torch.device("cpu"))
    graph.captured, captured.learning, captured.graph = captured, learning, graph
    return captured


def test_training_by_a_graph_ends_with_the_weights_of_training_without(captured):
    alone = Learning()
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        images = torch.randn(4, 3, generator=generator, dtype=torch.double)
        labels = torch.randint(2, (4,), generator=generator)
        for learning, passes in ((alone, alone.passes), (captured.learning, captured)):
            passes(images, labels)
            learning.optimiser.step()
    assert captured.graph.replays == 5
    torch.testing.assert_close(captured.learning.network.state_dict(), alone.network.state_dict(), rtol=0, atol=0)
