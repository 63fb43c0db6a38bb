import pytest
import torch
from planted_exports import Keeping, without_onnx
from planted_findings import make_findings, make_plan

from search.evaluate import Failed
from search.export import export_best, is_exported
from search.exported import load_model
from search.plainyaml import load
from search.schedule import FilterSchedule
from search.splits import Splits
from search.study import run_seeds

pytestmark = pytest.mark.usefixtures("no_onnx")


@pytest.fixture(scope="module")
def no_onnx():
    with without_onnx():
        yield


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
def exported(request, tmp_path_factory, no_onnx):
    plan = make_plan(network=request.param)
    evaluate = Keeping(plan)
    folder = tmp_path_factory.mktemp("study")
    return plan, evaluate, export_best(plan, make_findings(plan), folder, evaluate)


def test_every_budget_has_its_best_schedule_with_weights_of_the_first_confirmation_seed(exported):
    plan, evaluate, folders = exported
    assert [folder.name for folder in folders] == ["params-1500", "macs-40000", "activations-500"]
    for folder in folders:
        values = load((folder / "config.yaml").read_text(), "config.yaml")
        schedule = FilterSchedule.parse(values["schedule"])
        (seed,) = run_seeds(plan.config.seed, "confirm", schedule, 0, 1)
        assert (schedule, (seed,), plan.config.training.epochs, "test", True) in evaluate.asked
        assert values["seed"] == seed
        assert values["confirmed"]["split"] == "test"
    assert load((folders[0] / "config.yaml").read_text(), "")["schedule"] == "8-8-8"


def test_the_weights_are_scored_as_the_files_give_them(exported):
    plan, _, folders = exported
    for folder in folders:
        values = load((folder / "config.yaml").read_text(), "config.yaml")
        places = [int(line) for line in (folder / "test_images.txt").read_text().splitlines()]
        assert places == Splits(plan.data, plan.config.data).test.tolist()
        with torch.no_grad():
            found = load_model(folder)(torch.from_numpy(plan.data.images[places])).argmax(1).numpy()
        right = int((found == plan.data.labels[places]).sum())
        assert values["weights"] == {"accuracy": right / len(places), "right": right, "images": len(places)}


def test_the_configuration_says_all_that_a_repetition_needs(exported):
    plan, _, folders = exported
    values = load((folders[0] / "config.yaml").read_text(), "config.yaml")
    assert list(values)[:4] == ["schema", "schedule", "budget", "seed"]
    assert values["fidelity"] == {"epochs": 15, "share": 1.0, "resolution": None}
    assert values["split"] == {
        "seed": 0,
        "test_drawn": True,
        "test_images": "test_images.txt",
        "training": 200,
        "validation": 80,
        "test": 120,
    }
    schedule = FilterSchedule.parse(values["schedule"])
    confirmed = values["confirmed"]
    assert confirmed["seeds"] == run_seeds(plan.config.seed, "confirm", schedule, 0, 16)
    assert values["seed"] == confirmed["seeds"][0]
    assert confirmed["accuracy"]["low"] < confirmed["accuracy"]["mean"] < confirmed["accuracy"]["high"]
    assert confirmed["confidence"] == 0.95
    assert values["versions"]["torch"] == torch.__version__.partition("+")[0]


def test_the_card_says_what_the_numbers_mean(exported):
    _, evaluate, folders = exported
    card = (folders[0] / "README.md").read_text()
    said = " ".join(card.split())
    assert card.startswith("# 8-8-8 for noise, within 1,500 parameters\n")
    assert "16 runs)" in said
    assert f"first confirmation seed, {evaluate.asked[0][1][0]}, which was fixed before" in said
    values = load((folders[0] / "config.yaml").read_text(), "")["weights"]
    assert f"These very weights reach {100 * values['accuracy']:.2f} % on the 120 test images" in said
    assert f"{values['right']} of them right" in said
    assert "not of other images" in said


def test_a_failed_run_is_told_and_leaves_no_weights(plan, findings, tmp_path):
    export_best(plan, findings, tmp_path, Keeping(plan))
    folder = export_best(plan, findings, tmp_path, _diverging)[0]
    assert not (folder / "weights.safetensors").exists()
    assert not (folder / "model.onnx").exists()
    assert "There are no weights" in (folder / "README.md").read_text()
    assert "training loss not finite in epoch 2" in (folder / "README.md").read_text()
    assert load((folder / "config.yaml").read_text(), "")["weights"] == {"failed": "diverged"}


def test_the_card_says_which_accuracy_it_means(tmp_path):
    plan = make_plan(training={"score": "balanced_accuracy"})
    folder = export_best(plan, make_findings(plan), tmp_path, Keeping(plan))[0]
    said = " ".join((folder / "README.md").read_text().split())
    assert "Mean test balanced accuracy over training seeds" in said
    assert "These very weights reach a balanced accuracy of " in said


def test_normalisation_is_of_the_share_of_images_the_weights_saw(tmp_path):
    plan = make_plan(training={"share": 0.1})
    folder = export_best(plan, make_findings(plan), tmp_path, Keeping(plan))[0]
    values = load((folder / "config.yaml").read_text(), "")
    splits = Splits(plan.data, plan.config.data)
    seen, whole = (splits.train_validation(values["seed"], share).training for share in (0.1, 1))
    assert values["normalisation"]["mean"] == pytest.approx(plan.data.normalisation(seen)[0], abs=1e-6)
    assert values["normalisation"]["mean"] != pytest.approx(plan.data.normalisation(whole)[0], abs=1e-6)
    card = (folder / "README.md").read_text()
    assert f"on {len(seen)} images" in card
    assert f"filter-search train {folder}" in card


def test_why_there_is_no_onnx_file_is_told_once_and_in_every_card(plan, findings, tmp_path):
    told = []
    folders = export_best(plan, findings, tmp_path, Keeping(plan), tell=told.append)
    assert told == ["no model.onnx: not asked for here"]
    for folder in folders:
        assert "There is no `model.onnx`: not asked for here." in (folder / "README.md").read_text()
        assert load((folder / "config.yaml").read_text(), "")["onnx"] == {"missing": "not asked for here"}


def test_an_export_is_complete_once_its_card_is_written(plan, findings, tmp_path):
    assert not is_exported(findings, tmp_path)
    folders = export_best(plan, findings, tmp_path, Keeping(plan), interrupted=iter([False, False, True]).__next__)
    assert [folder.name for folder in folders] == ["params-1500", "macs-40000"]
    assert not is_exported(findings, tmp_path)
    export_best(plan, findings, tmp_path, Keeping(plan))
    assert is_exported(findings, tmp_path)
    (folders[0] / "README.md").unlink()
    assert not is_exported(findings, tmp_path)
