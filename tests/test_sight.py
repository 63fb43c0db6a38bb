import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from planted_findings import PlantedChallenger, make_finding, make_findings, make_plan
from torch import nn

from search import sight
from search.cost import Budget
from search.errors import StorageError
from search.evaluate import Failed, Scored
from search.findings import Findings
from search.networks import build
from search.schedule import FilterSchedule
from search.sight import BudgetSight, SeenNetwork, StageInUse, sight_of, train_rule, write_sight
from search.splits import Splits
from search.study import run_seeds

BUDGET = Budget("params", 1500)  # the best is 8-8-8, doubling's the planted plan's member
BEST = FilterSchedule((8, 8, 8))


def _run(plan, schedule, seed=5):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        weights = build(plan.config.network, schedule, plan.data.image_shape[0], plan.data.classes).state_dict()
    return Scored(seed, 0.95, 0.1, np.ones(20, bool), 15, 0.1, weights=weights)


def _failed(seed=5):
    return Failed(seed, "diverged", "training loss not finite in epoch 2", 0.1)


def _rule(plan):
    return plan.judged[0].schedule


@pytest.fixture(scope="module")
def written(tmp_path_factory, plan, findings):
    folder = tmp_path_factory.mktemp("study")
    return folder, write_sight(plan, findings, folder, BUDGET, _run(plan, BEST), _run(plan, _rule(plan), 7))


def test_the_rule_is_trained_once_by_its_own_first_confirmation_seed_and_keeps_weights(plan, findings):
    asked = []

    def evaluate(schedule, seeds, fidelity, score_on, on_epoch=None, keep_weights=False):
        asked.append((schedule, seeds, fidelity.epochs, score_on, keep_weights))
        return [_run(plan, schedule, seeds[0])]

    run = train_rule(plan, findings, BUDGET, evaluate)
    seeds = run_seeds(plan.config.seed, "confirm", _rule(plan), 0, 1)
    assert run.seed == seeds[0]
    assert asked == [(_rule(plan), seeds, plan.config.training.epochs, "test", True)]


def _rule_is_best(plan):
    worse = [PlantedChallenger("8-8-8", "uniform", -0.02)]
    return Findings(plan, (make_finding(plan, 0, 16, worse),), (), None)


def test_a_rule_that_is_the_best_is_not_trained_again_and_stands_alone(plan, tmp_path):
    findings = _rule_is_best(plan)
    assert train_rule(plan, findings, BUDGET, None) is None
    seen = write_sight(plan, findings, tmp_path, BUDGET, _run(plan, _rule(plan)), None)
    (only,) = seen.networks
    assert only.title == f"best confirmed, itself doubling: {_rule(plan)}"
    assert "The best confirmed is doubling itself, so there is one network to look into." in sight.sentences(seen)
    assert sight_of(tmp_path, BUDGET) == seen


def test_figure_and_numbers_are_written_and_read_back(written, plan):
    folder, seen = written
    assert (folder / "figures" / "filters-params-1500.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "figures" / "filters-params-1500.svg").read_text().startswith("<?xml")
    assert seen.figure == "filters-params-1500"
    assert sight_of(folder, BUDGET) == seen
    values = json.loads((folder / "best" / "params-1500" / "filters.json").read_text())
    assert values["schema"] == 1
    assert [each["schedule"] for each in values["networks"]] == ["8-8-8", str(_rule(plan))]
    assert [stage["receptive_field"] for stage in values["networks"][0]["stages"]] == [[3, 3], [8, 8], [8, 8]]
    assert not list(folder.rglob(".*"))  # nothing half written


def test_the_same_runs_give_the_same_files(written, plan, findings, tmp_path):
    folder, _ = written
    write_sight(plan, findings, tmp_path, BUDGET, _run(plan, BEST), _run(plan, _rule(plan), 7))
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert path.read_bytes() == (folder / path.relative_to(tmp_path)).read_bytes()


def test_each_network_is_shown_validation_images_of_its_own_seed_only(plan, findings, tmp_path, monkeypatch):
    splits, looked, look = Splits(plan.data, plan.config.data), [], sight.look
    monkeypatch.setattr(sight, "_MOST_IMAGES", 30)
    monkeypatch.setattr(sight, "look", lambda network, images: looked.append(images) or look(network, images))
    seen = write_sight(plan, findings, tmp_path, BUDGET, _run(plan, BEST, 5), _run(plan, _rule(plan), 7))
    assert [each.images for each in seen.networks] == [30, 30]
    for seed, images in zip((5, 7), looked, strict=True):
        split = splits.train_validation(seed)
        mean, deviation = plan.data.normalisation(split.training)
        pixels = (images * deviation[0] + mean[0]).round().byte().flatten(1).tolist()
        allowed = plan.data.images[split.validation].reshape(-1, 64).tolist()
        assert all(each in allowed for each in pixels)
        assert not any(each in plan.data.images[splits.test].reshape(-1, 64).tolist() for each in pixels)


def test_a_run_that_failed_is_told_of_and_the_other_network_shown(plan, findings, tmp_path):
    seen = write_sight(plan, findings, tmp_path, BUDGET, _run(plan, BEST), _failed())
    assert [bool(each.stages) for each in seen.networks] == [True, False]
    assert f"Doubling's {_rule(plan)} cannot be looked into: its training diverged." in sight.sentences(seen)
    assert seen.figure


class _OtherNames(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.body = nn.Conv2d(channels, classes, 3)

    def forward(self, images):
        return self.body(images).mean((2, 3))


def make_other(filters, channels, classes):
    """A network of a user's own."""
    return _OtherNames(channels, classes)


def test_networks_of_the_users_own_with_other_names_are_left_out_with_the_reason(tmp_path):
    plan = make_plan(network={"family": "factory", "factory": "test_sight:make_other"})
    findings = make_findings(plan)
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "filters-params-1500.png").write_bytes(b"of networks before")
    seen = write_sight(plan, findings, tmp_path, BUDGET, _run(plan, BEST), _run(plan, _rule(plan)))
    assert seen.figure is None
    assert not list((tmp_path / "figures").iterdir())
    assert sight_of(tmp_path, BUDGET) == seen
    reason = "cannot be looked into: it has no children named stage1, stage2 and so on."
    assert sight.sentences(seen) == [f"8-8-8 {reason}", f"Doubling's {_rule(plan)} {reason}"]


def _written(**values):
    stage = {"filters": 8, "effective": 2.0, "dead": 0, "receptive_field": [3, 3]} | values
    network = {
        "schedule": "8-8",
        "best": True,
        "rule": None,
        "seed": 1,
        "images": 9,
        "unseen": None,
        "stages": [stage],
    }
    return json.dumps({"networks": [network], "budget": "params <= 1500"})


def test_so_much_is_enough(tmp_path):
    path = tmp_path / "best" / "params-1500" / "filters.json"
    path.parent.mkdir(parents=True)
    path.write_text(_written())
    assert sight_of(tmp_path, BUDGET).networks[0].stages == (StageInUse(8, 2.0, 0, (3, 3)),)


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "[]",
        "{}",
        "[" * 10**5,
        '{"networks": [3], "budget": "params <= 1500"}',
        '{"networks": [], "budget": "params <= 1500"}',
        _written(effective="many"),
        _written(effective=[2.0]),
        _written(dead=float("inf")),
        _written(receptive_field=3),
        _written(receptive_field=[3, 3, 3]),
        _written(filters="<b>"),
    ],
)
def test_what_cannot_be_read_is_as_if_nothing_was_written(tmp_path, content):
    path = tmp_path / "best" / "params-1500" / "filters.json"
    path.parent.mkdir(parents=True)
    if content is not None:
        path.write_text(content)
    assert sight_of(tmp_path, BUDGET) is None


def test_a_folder_that_cannot_be_written_is_refused(plan, findings, tmp_path):
    (tmp_path / "figures").write_text("no folder")
    with pytest.raises(StorageError, match="cannot be made"):
        write_sight(plan, findings, tmp_path, BUDGET, _run(plan, BEST), _run(plan, _rule(plan)))


def _planted_sight():
    best = SeenNetwork(
        FilterSchedule((12, 10)), True, None, 3, 359, (StageInUse(12, 5.37, 2, (3, 3)), StageInUse(10, 7.9, 0, (8, 8)))
    )
    stages = StageInUse(4, 3.13, 0, (3, 3)), StageInUse(15, 5.1, 0, (8, 8))
    rule = replace(best, schedule=FilterSchedule((4, 15)), best=False, rule="doubling", stages=stages)
    return BudgetSight(BUDGET, (best, rule))


def test_sentences_tell_the_numbers():
    assert sight.sentences(_planted_sight()) == [
        "Within 1,500 parameters, stage by stage, 12-10 has 5.4 of 12 and 7.9 of 10 filters in effect; doubling's "
        "4-15 has 3.1 of 4 and 5.1 of 15 filters in effect.",
        "Of 12-10 some filters are dead, the same for every image: 2 in stage 1.",
    ]


def test_picture_has_a_reading_and_words_for_who_cannot_see_it():
    seen = _planted_sight()
    assert "(3x3 and 8x8 pixels)" in sight.reading(seen)
    words = sight.alt_text(seen)
    assert "best confirmed: 12-10 and doubling: 4-15" in words
    assert "5.1 of 15" in words
    assert "no evidence" in sight.CAUTION
