import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from planted_findings import make_findings, make_plan
from safetensors.torch import load_file
from scipy.stats import binomtest

from search.errors import ConfigError
from search.evaluate import Failed, Scored
from search.export import accuracy_interval, export_best, train_best
from search.networks import build
from search.plainyaml import load
from search.schedule import FilterSchedule
from search.scoring import parts_of
from search.splits import Splits
from search.study import run_seeds

# Runs alone in the exported folder, as its reader would: plain PyTorch, nothing of this package.
_READER = """
import sys
sys.path.insert(0, ".")
from model import network, normalise
from safetensors.torch import load_file
network.load_state_dict(load_file("weights.safetensors"))
import torch
torch.save(network(normalise(torch.load("images.pt"))).detach(), "logits.pt")
assert not [name for name in sys.modules if name.split(".")[0] == "search"]
"""


def _network(plan, schedule, seed):
    """The study's network with weights and batch-norm statistics of no special value."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build(plan.config.network, schedule, 1, plan.data.classes)
        for norm in network.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.5, 2)
    return network.eval()


class _Keeping:
    """An `Evaluate` that trains nothing, keeps weights and remembers what it was asked."""

    def __init__(self, plan):
        self.plan, self.asked = plan, []

    def __call__(self, schedule, seeds, fidelity, score_on, on_epoch=None, keep_weights=False):
        self.asked.append((schedule, tuple(seeds), fidelity.epochs, score_on, keep_weights))
        weights = _network(self.plan, schedule, seeds[0]).state_dict()
        return [Scored(seeds[0], 0.95, 0.1, np.arange(20) > 0, fidelity.epochs, 0.1, weights=weights)]


def _diverging(schedule, seeds, fidelity, score_on, on_epoch=None, keep_weights=False):
    return [Failed(seed, "diverged", "training loss not finite in epoch 2", 0.1) for seed in seeds]


NETWORKS = {
    "plain": {},
    "vgg": {"blocks_per_stage": 2},
    "residual": {"family": "residual"},
    "inverted": {"family": "inverted", "expansion": 2.5, "squeeze_excite": True},
    "regnet": {"family": "regnet", "group_width": 1},
}


@pytest.fixture(scope="module", params=NETWORKS.values(), ids=NETWORKS)
def exported(request, tmp_path_factory):
    plan = make_plan(network=request.param)
    evaluate = _Keeping(plan)
    folder = tmp_path_factory.mktemp("study")
    return plan, evaluate, export_best(plan, make_findings(plan), folder, evaluate)


def test_every_budget_has_its_best_schedule_with_weights_of_the_first_confirmation_seed(exported):
    plan, evaluate, folders = exported
    assert [folder.name for folder in folders] == ["params-1500", "macs-40000", "activations-500"]
    for folder, asked in zip(folders, evaluate.asked, strict=True):
        values = load((folder / "config.yaml").read_text(), "config.yaml")
        schedule = FilterSchedule.parse(values["schedule"])
        (seed,) = run_seeds(plan.config.seed, "confirm", schedule, 0, 1)
        assert asked == (schedule, (seed,), plan.config.training.epochs, "test", True)
        assert values["seed"] == seed
        assert values["weights"] == {"accuracy": 0.95}
        assert values["confirmed"]["split"] == "test"
    assert load((folders[0] / "config.yaml").read_text(), "")["schedule"] == "8-8-8"


def test_the_model_file_needs_nothing_of_this_package_and_gives_the_same_logits(exported):
    plan, evaluate, folders = exported
    schedule, (seed,), *_ = evaluate.asked[0]
    images = torch.from_numpy(plan.data.images[:16])
    torch.save(images, folders[0] / "images.pt")
    subprocess.run([sys.executable, "-I", "-c", _READER], cwd=folders[0], check=True, capture_output=True)
    values = load((folders[0] / "config.yaml").read_text(), "")["normalisation"]
    mean, deviation = (torch.tensor(values[key]).view(-1, 1, 1) for key in ("mean", "deviation"))
    expected = _network(plan, schedule, seed)((images.float() - mean) / deviation)
    assert torch.equal(torch.load(folders[0] / "logits.pt"), expected)


def test_the_card_says_what_the_numbers_mean(exported):
    _, evaluate, folders = exported
    card = (folders[0] / "README.md").read_text()
    said = " ".join(card.split())
    assert card.startswith("# 8-8-8 for noise, within 1,500 parameters\n")
    assert "16 runs)" in said
    assert f"first confirmation seed, {evaluate.asked[0][1][0]}, which was fixed before" in said
    assert "These very weights reach 95.00 %" in said
    assert "not of other images" in said


def test_a_failed_run_is_told_and_leaves_no_weights(plan, findings, tmp_path):
    export_best(plan, findings, tmp_path, _Keeping(plan))
    folder = export_best(plan, findings, tmp_path, _diverging)[0]
    assert not (folder / "weights.safetensors").exists()
    assert "There are no weights" in (folder / "README.md").read_text()
    assert "training loss not finite in epoch 2" in (folder / "README.md").read_text()
    assert load((folder / "config.yaml").read_text(), "")["weights"] == {"failed": "diverged"}


@pytest.mark.parametrize("content", [None, "", "- 1", "schema: 2", "schema: 1\nschedule: 4-8\nseed: -1\nstudy: {}"])
def test_training_something_else_is_one_configuration_error(tmp_path, content):
    if content is not None:
        (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(ConfigError, match="is no exported configuration; name a folder"):
        train_best(tmp_path, lambda *_: False)
    assert not (tmp_path / "trained").exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [("schedule: 4-x", "is no schedule"), ("schedule: 2-2-2-2-2-2", "6 stages"), ("study: {seeed: 1}", "seeed")],
)
def test_a_damaged_export_is_one_configuration_error(tmp_path, line, said):
    lines = {"schedule": "schedule: 4-8", "study": "study: {}"} | {line.partition(":")[0]: line}
    (tmp_path / "config.yaml").write_text("\n".join(["schema: 1", "seed: 1", *lines.values()]))
    with pytest.raises(ConfigError, match=said):
        train_best(tmp_path, lambda *_: False)


LABELS = np.repeat([0, 1, 2], [200, 40, 10])


def test_plain_accuracy_has_its_wilson_interval():
    correct = np.arange(250) < 225
    interval = accuracy_interval(correct, parts_of(LABELS, "accuracy"))
    expected = binomtest(225, 250).proportion_ci(method="wilson")
    assert (interval.mean, interval.low, interval.high) == (0.9, expected.low, expected.high)


def test_balanced_accuracy_has_an_interval_that_covers_over_images():
    rng, truth = np.random.default_rng(0), np.array([0.95, 0.8, 0.6])
    parts, covered = parts_of(LABELS, "balanced_accuracy"), 0
    for _ in range(400):
        interval = accuracy_interval(rng.random(250) < truth[LABELS], parts)
        assert 0 <= interval.low <= interval.mean <= interval.high <= 1
        covered += interval.low <= truth.mean() <= interval.high
    assert 0.91 <= covered / 400 <= 0.97


def test_a_class_without_an_error_leaves_its_doubt_in_the_interval():
    interval = accuracy_interval(np.ones(250, bool), parts_of(LABELS, "balanced_accuracy"))
    assert (interval.mean, interval.high) == (1, 1)
    assert interval.low < accuracy_interval(np.ones(250, bool), parts_of(LABELS, "accuracy")).low


def test_the_card_says_which_accuracy_it_means(tmp_path):
    plan = make_plan(training={"score": "balanced_accuracy"})
    folder = export_best(plan, make_findings(plan), tmp_path, _Keeping(plan))[0]
    said = " ".join((folder / "README.md").read_text().split())
    assert "Mean test balanced accuracy over training seeds" in said
    assert "These very weights reach a balanced accuracy of 95.00 %" in said


@pytest.mark.integration
def test_train_scores_an_export_at_full_fidelity(tmp_path):
    plan = make_plan(training={"epochs": 1, "full_epochs": 2})
    folder = export_best(plan, make_findings(plan), tmp_path, _Keeping(plan))[0]
    seen = []
    trained = train_best(folder, lambda epoch, accuracy: seen.append(epoch) is not None)
    assert seen == [1, 2]
    assert trained.epochs == 2
    assert trained.images == 539
    assert trained.accuracy.low < trained.accuracy.mean < trained.accuracy.high
    result = json.loads((folder / "trained" / "result.json").read_text())
    assert (result["score"], result["accuracy"]["mean"]) == ("accuracy", trained.accuracy.mean)
    assert result["environment"]["seed"] == trained.seed
    assert load_file(folder / "trained" / "weights.safetensors")["head.weight"].shape == (10, 8)


def test_normalisation_is_of_the_share_of_images_the_weights_saw(tmp_path):
    plan = make_plan(training={"share": 0.1})
    folder = export_best(plan, make_findings(plan), tmp_path, _Keeping(plan))[0]
    values = load((folder / "config.yaml").read_text(), "")
    splits = Splits(plan.data, plan.config.data)
    seen, whole = (splits.train_validation(values["seed"], share).training for share in (0.1, 1))
    assert values["normalisation"]["mean"] == pytest.approx(plan.data.normalisation(seen)[0], abs=1e-6)
    assert values["normalisation"]["mean"] != pytest.approx(plan.data.normalisation(whole)[0], abs=1e-6)
    card = (folder / "README.md").read_text()
    assert f"on {len(seen)} images" in card
    assert f"filter-search train {folder}" in card
