import csv
import json
import re
import signal
import sys

import pytest
import torch
from planted_exports import Keeping, without_onnx
from planted_findings import make_findings, make_plan

from search import display, fulltraining
from search.errors import ConfigError, InterruptedStudyError, NoTrialError
from search.export import export_best
from search.exported import load_model
from search.fulltraining import EpochReport, Trained, train_best
from search.plainyaml import dump, load
from search.schedule import FilterSchedule
from search.verdict import Interval

EPOCHS = 4
AUGMENTED = {"flip": True, "crop": 1, "mixup": 0.2, "cutmix": 0.3}


@pytest.fixture(autouse=True)
def _cheaply(monkeypatch):
    monkeypatch.setattr(fulltraining, "_SHARE_OF_SAVING", float("inf"))  # keep the state after every epoch
    with without_onnx():
        yield


@pytest.fixture
def exported(tmp_path):
    """Makes a folder of a study whose full training is short; equal settings make equal ones."""

    def make(name="one", **values):
        training = {"epochs": 1, "full_epochs": EPOCHS, "batch_size": 256} | values.pop("training", {})
        plan = make_plan(training=training, **values)
        return export_best(plan, make_findings(plan), tmp_path / name, Keeping(plan), tell=lambda _: None)[0]

    return make


def interrupted_after(epoch, error):
    def show(report):
        if report.epoch == epoch:
            raise error

    return show


def files(folder):
    return sorted(path.name for path in (folder / "trained").iterdir())


def weights(folder):
    return (folder / "trained" / "weights.safetensors").read_bytes()


@pytest.mark.parametrize("content", [None, "", "- 1", "schema: 2", "schema: 1\nschedule: 4-8\nseed: -1\nstudy: {}"])
def test_training_something_else_is_one_configuration_error(tmp_path, content):
    if content is not None:
        (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(ConfigError, match=r"is no exported configuration \(schema 1\): .*; name a folder"):
        train_best(tmp_path, print)
    assert not (tmp_path / "trained").exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [("schedule: 4-x", "is no schedule"), ("schedule: 2-2-2-2-2-2", "6 stages"), ("study: {seeed: 1}", "seeed")],
)
def test_a_damaged_export_is_one_configuration_error(tmp_path, line, said):
    lines = {"schedule": "schedule: 4-8", "study": "study: {}"} | {line.partition(":")[0]: line}
    (tmp_path / "config.yaml").write_text("\n".join(["schema: 1", "seed: 1", *lines.values()]))
    with pytest.raises(ConfigError, match=said):
        train_best(tmp_path, print)


@pytest.mark.integration
def test_a_trained_folder_can_be_used_like_an_export_and_says_what_it_reached(exported):
    folder, seen = exported(), []
    trained = train_best(folder, seen.append)
    assert [report.epoch for report in seen] == [1, 2, 3, 4]
    assert seen[-1].seconds_left == 0
    assert seen[0].training_loss > seen[-1].training_loss > 0
    assert seen[0].seconds_left > 0
    assert (trained.epochs, trained.images, trained.folder) == (EPOCHS, 539, folder / "trained")
    assert trained.accuracy.low < trained.accuracy.mean < trained.accuracy.high
    result = json.loads((folder / "trained" / "result.json").read_text())
    assert (result["score"], result["accuracy"]["mean"]) == ("accuracy", trained.accuracy.mean)
    assert result["right"] == round(539 * trained.accuracy.mean)
    assert result["environment"]["command"] == f"filter-search train {folder}"
    values = load((folder / "trained" / "config.yaml").read_text(), "")
    assert values["fidelity"]["epochs"] == EPOCHS
    assert values["weights"] == {"accuracy": trained.accuracy.mean, "right": result["right"], "images": 539}
    assert files(folder) == [
        "README.md", "config.yaml", "model.py", "result.json", "test_images.txt", "weights.safetensors",
    ]  # fmt: skip
    assert load_model(folder / "trained")(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert trained.onnx_missing == "not asked for here"
    assert f"{result['right']} of\n539 test images right" in (folder / "trained" / "README.md").read_text()


@pytest.mark.integration
def test_training_again_gives_what_was_reached_before_and_trains_nothing(exported):
    folder = exported()
    first, seen = train_best(folder, lambda _: None), []
    again = train_best(folder, seen.append)
    assert (seen, again.anew, first.anew) == ([], False, True)
    assert again.accuracy == first.accuracy


@pytest.mark.integration
@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(128 + signal.SIGINT)])
@pytest.mark.parametrize(
    ("network", "augment"), [({}, AUGMENTED), ({"family": "factory", "factory": "drawing:build"}, {})]
)
def test_a_resumed_training_is_the_uninterrupted_one_bit_for_bit(
    exported, tmp_path, monkeypatch, stop, network, augment
):
    (tmp_path / "drawing.py").write_text(
        "from torch import nn\n"
        "def build(filters, channels, classes):\n"
        "    return nn.Sequential(nn.Conv2d(channels, filters[0], 3), nn.BatchNorm2d(filters[0]), nn.ReLU(),\n"
        "                         nn.Dropout(0.3), nn.Flatten(), nn.Linear(36 * filters[0], classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    values = {"network": network, "training": {"augment": augment}}
    whole, parted = exported("whole", **values), exported("parted", **values)
    seen = {}
    allowed = {"allow_code": bool(network)}
    train_best(whole, lambda report: seen.setdefault(report.epoch, report), **allowed)
    with pytest.raises(InterruptedStudyError, match="the state after epoch 2 is kept; go on with") as raised:
        train_best(parted, interrupted_after(3, stop), **allowed)
    assert raised.value.exit_code == 130
    assert f"`filter-search train {parted} {'--allow-code ' * bool(network)}--resume`" in str(raised.value)
    assert files(parted) == ["checkpoint.ckpt"]
    with pytest.raises(ConfigError, match="a training was stopped after epoch 2; go on with"):
        train_best(parted, lambda _: None, **allowed)
    resumed = {}
    train_best(parted, lambda report: resumed.setdefault(report.epoch, report), resume=True, **allowed)
    assert list(resumed) == [3, 4]
    assert weights(parted) == weights(whole)
    assert [resumed[n].metrics() for n in (3, 4)] == [seen[n].metrics() for n in (3, 4)]
    assert "checkpoint.ckpt" not in files(parted)


@pytest.mark.integration
def test_before_the_first_checkpoint_resuming_begins_anew(exported):
    whole, parted = exported("whole"), exported("parted")
    train_best(whole, lambda _: None)
    with pytest.raises(InterruptedStudyError, match="stopped, before anything could be kept; go on with"):
        train_best(parted, interrupted_after(1, KeyboardInterrupt()))
    train_best(parted, lambda _: None, resume=True)
    assert weights(parted) == weights(whole)


@pytest.mark.integration
def test_a_checkpoint_of_another_configuration_or_none_at_all_is_refused(exported):
    folder = exported()
    with pytest.raises(InterruptedStudyError):
        train_best(folder, interrupted_after(3, KeyboardInterrupt()))
    values = load((folder / "config.yaml").read_text(), "")
    values["study"]["training"]["learning_rate"] = 0.01
    (folder / "config.yaml").write_text(dump(values))
    with pytest.raises(ConfigError, match="is of another configuration or other data, so nothing can go on from it"):
        train_best(folder, lambda _: None, resume=True)
    for content in (b"", b"no checkpoint"):
        (folder / "trained" / "checkpoint.ckpt").write_bytes(content)
        with pytest.raises(ConfigError, match=r"checkpoint.ckpt is no checkpoint of a training .*; remove"):
            train_best(folder, lambda _: None, resume=True)


class _Opens:
    """Pickled, it runs code where it is loaded."""

    def __reduce__(self):
        return print, ("run",)


@pytest.mark.integration
def test_a_checkpoint_that_would_run_code_is_refused(exported, capsys):
    folder = exported()
    (folder / "trained").mkdir()
    torch.save({"fingerprint": _Opens()}, folder / "trained" / "checkpoint.ckpt")
    with pytest.raises(ConfigError, match="is no checkpoint of a training"):
        train_best(folder, lambda _: None, resume=True)
    assert capsys.readouterr().out == ""


@pytest.mark.integration
def test_a_result_of_another_configuration_is_not_overwritten(exported):
    folder = exported()
    (folder / "trained").mkdir()
    (folder / "trained" / "result.json").write_text('{"schema": 1}')
    with pytest.raises(ConfigError, match="holds a training of another configuration or other data; move it away"):
        train_best(folder, lambda _: None)


@pytest.mark.integration
def test_a_training_that_diverges_says_so_and_leaves_nothing_to_go_on_from(exported, monkeypatch):
    folder = exported(training={"learning_rate": 10.0, "weight_decay": 10.0})
    monkeypatch.setattr("search.replicatraining.replica_losses", lambda logits, labels: logits.mean(-1) * float("nan"))
    with pytest.raises(NoTrialError, match="failed: training loss not finite in epoch 1 of 4; lower training"):
        train_best(folder, lambda _: None)
    assert files(folder) == []


@pytest.mark.integration
@pytest.mark.parametrize("name", ["csv", "pytorch_lightning.loggers:CSVLogger"])
def test_a_lightning_logger_gets_every_epoch(exported, name):
    folder, seen = exported(), []
    train_best(folder, seen.append, logger=name)
    rows = logged(folder)
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4]
    for row, report in zip(rows, seen, strict=True):
        assert {key: float(row[key]) for key in report.metrics()} == pytest.approx(report.metrics())


@pytest.mark.integration
@pytest.mark.parametrize(("share", "again"), [(float("inf"), [3, 4]), (1e-9, [2, 3, 4])])
def test_the_log_of_a_resumed_training_has_every_epoch_once(exported, monkeypatch, share, again):
    folder = exported()
    monkeypatch.setattr(fulltraining, "_SHARE_OF_SAVING", share)
    with pytest.raises(InterruptedStudyError):
        train_best(folder, interrupted_after(3, KeyboardInterrupt()), logger="csv")
    seen = []
    with pytest.raises(ConfigError, match=re.escape(f"`filter-search train {folder} --logger csv --resume`")):
        train_best(folder, lambda _: None)
    train_best(folder, seen.append, logger="csv", resume=True)
    assert [report.epoch for report in seen] == again
    rows = logged(folder)
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4]
    for row, report in zip(rows[-len(seen) :], seen, strict=True):
        assert {key: float(row[key]) for key in report.metrics()} == pytest.approx(report.metrics())


@pytest.mark.integration
def test_a_log_is_begun_again_where_no_checkpoint_was_kept(exported):
    folder = exported()
    with pytest.raises(InterruptedStudyError, match=re.escape("--logger csv --resume`")):
        train_best(folder, interrupted_after(1, KeyboardInterrupt()), logger="csv")
    train_best(folder, lambda _: None, logger="csv", resume=True)
    assert [int(row["step"]) for row in logged(folder)] == [1, 2, 3, 4]


@pytest.mark.integration
def test_a_finished_training_refuses_what_is_no_logger_and_leaves_its_log_alone(exported):
    folder = exported()
    assert not train_best(folder, lambda _: None, logger="csv").unlogged
    before = logged(folder)
    with pytest.raises(ConfigError, match=r"importing nothing\.here failed"):
        train_best(folder, lambda _: None, logger="nothing.here:Logger")
    again = train_best(folder, lambda _: None, logger="csv")
    assert (again.anew, again.unlogged, logged(folder)) == (False, True, before)
    assert not train_best(folder, lambda _: None).unlogged


def logged(folder):
    (path,) = (folder / "trained").rglob("metrics.csv")
    with path.open() as file:
        return list(csv.DictReader(file))


def no_logger(save_dir):
    return save_dir


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing.here:Logger", "--logger nothing.here:Logger: importing nothing.here failed"),
        ("wandb", "--logger is 'wandb'; write it package.module:function"),
        ("test_fulltraining:no_logger", "made a str; give csv, tensorboard or a Lightning logger"),
        ("tensorboard", r"--logger tensorboard could not be made \(ModuleNotFoundError"),
    ],
)
def test_a_logger_there_is_not_is_told(exported, name, said, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    for package in ("tensorboard", "tensorboardX"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=said):
        train_best(exported(), lambda _: None, logger=name)


def test_a_terminal_or_a_file_is_told_how_far_it_is(capsys, monkeypatch):
    monkeypatch.setattr(display, "PLAIN_SECONDS", 0.0)
    with display.epochs() as show:
        show(EpochReport(3, 4, 0.5, 0.01, 0.9712, 0.1234, 125.0))
        show(EpochReport(4, 4, 0.5, 0.01, 0.9812, 0.1134, 0.0))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "epoch 3/4: validation score 97.12 %, loss 0.123, 2 min left",
        "epoch 4/4: validation score 98.12 %, loss 0.113",
    ]


@pytest.mark.parametrize("anew", [True, False])
def test_what_was_reached_is_shown_and_whether_it_was_before(capsys, tmp_path, anew):
    reached = Interval(0.975, 0.96, 0.99)
    display.show_trained(
        Trained(FilterSchedule((8, 16)), 60, reached, "accuracy", 1539, tmp_path, anew, not anew, "no package")
    )
    out, err = capsys.readouterr()
    assert "8-16 after 60 epochs: test accuracy 97.50 % (95 % interval over 1,539 images 96.00 % to" in out
    assert f"model    {tmp_path}" in out
    assert ("trained before" in err) == (not anew)
    assert ("nothing was logged, since nothing was trained now" in err) == (not anew)
    assert "no model.onnx: no package" in err
