"""An exported candidate trained at full fidelity: shown, logged and kept as it goes, resumed bit for bit.

Owns the content of `trained/`. How a network is trained is the business of `training`.
"""

import hashlib
import json
import os
import shlex
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from search import wording
from search.artifact import Provenance, about, is_worth_threads, loading_text, write_artifact
from search.device import choose_device
from search.errors import ConfigError, InterruptedStudyError, NoTrialError, StorageError
from search.evaluate import Failed, Fidelity, Run, Scored
from search.exported import read
from search.fitting import fit
from search.folder import environment, make, write_json, write_whole
from search.metering import price
from search.networks import check_stages
from search.pages import fill
from search.plainyaml import dump
from search.replicatraining import ReplicaTraining
from search.schedule import FilterSchedule
from search.sources import load
from search.splits import Splits
from search.training import TrainingEvaluator
from search.trainingconfig import ScoreName
from search.traininglog import carry_on, make_logger
from search.trust import PERMISSION, refuse_code, refuse_links, without_fetching
from search.verdict import Interval

_SHARE_OF_SAVING = 0.02
"""Of the time a training takes, the most that its checkpoints may: so much sets after how many epochs one is due."""
_CHECKPOINT, _RESULT = "checkpoint.ckpt", "result.json"


@dataclass(frozen=True)
class EpochReport:
    """How a training stands after an epoch.

    Attributes:
        epoch: Its number, from 1.
        epochs: How many there are to be.
        training_loss: Mean over the epoch, in nats.
        learning_rate: That of the next step.
        accuracy: Validation score, a fraction.
        loss: Mean cross-entropy on the validation split, in nats.
        seconds_left: As long as the epochs to come take at the pace of this launch.
    """

    epoch: int
    epochs: int
    training_loss: float
    learning_rate: float
    accuracy: float
    loss: float
    seconds_left: float

    def metrics(self) -> dict[str, float]:
        """What a logger gets."""
        return {
            "train_loss": self.training_loss,
            "learning_rate": self.learning_rate,
            "validation_accuracy": self.accuracy,
            "validation_loss": self.loss,
        }


@dataclass(frozen=True)
class Trained:
    """A candidate trained at full fidelity.

    Attributes:
        schedule: The candidate.
        epochs: Epochs trained.
        accuracy: On the test split, with its 95 % interval over images: a fraction.
        score: Which accuracy that is.
        images: Images of the test split.
        folder: Where weights and result lie.
        anew: Whether it was trained now; else it had been before.
        unlogged: Whether a logger was given in vain, since nothing was trained.
        onnx_missing: Why there is no ONNX file; None where there is one.
    """

    schedule: FilterSchedule
    epochs: int
    accuracy: Interval
    score: ScoreName
    images: int
    folder: Path
    anew: bool = True
    unlogged: bool = False
    onnx_missing: str | None = None


def train_best(
    best: Path,
    show: Callable[[EpochReport], None],
    *,
    resume: bool = False,
    logger: str | None = None,
    allow_code: bool = False,
) -> Trained:
    """Train an exported candidate for `training.full_epochs` on the study's own training split; score it on test.

    The seed is that of the exported weights, so training and validation images are theirs as well. What is trained
    goes to `trained/` in the candidate's folder, in the same files as an export.

    Args:
        best: A folder `export_best` wrote.
        show: Called after each epoch.
        resume: Go on from the checkpoint of a training that was stopped, if there is one.
        logger: `csv`, `tensorboard`, or a Lightning logger as `package.module:Class`; None for none.
        allow_code: Import the code, and fetch the data, that the folder's configuration names.

    Raises:
        ConfigError: The folder holds no configuration, or one that cannot be used or names code; a training that was
            stopped and `resume` is off; one of another configuration; a logger there is not.
        DataError: The data cannot be read.
        NoTrialError: The training diverged or ran out of memory.
        StorageError: The result cannot be written, or would land outside the folder.
        InterruptedStudyError: A signal stopped it; the last checkpoint is kept.
    """
    refuse_links(best)
    provenance = _provenance(best, allow_code)
    where = best / "trained"
    keeper = Keeper(where / _CHECKPOINT, _fingerprint(provenance), provenance.fidelity.epochs, show, logger)
    if (done := _finished(where, keeper.fingerprint, provenance)) is not None:
        return replace(done, unlogged=make_logger(logger, where, keeper.saved) is not None)
    resumed = keeper.path if _check_checkpoint(keeper, best, resume, allow_code) else None
    make(where)
    made = make_logger(logger, where, keeper.saved)
    carry_on(made, keeper.saved)
    command = _command(best, logger, allow_code)
    run_under = partial(fit, keeper=keeper, logger=made, resume=resumed)
    try:
        run = _train(provenance, run_under)
    except (KeyboardInterrupt, SystemExit) as stop:
        raise _interrupted(stop, keeper, command) from None
    keeper.path.unlink(missing_ok=True)
    if isinstance(run, Failed):
        epochs, schedule = provenance.fidelity.epochs, provenance.schedule
        msg = f"training {schedule} for {epochs} epochs failed: {run.detail}; lower training.learning_rate"
        raise NoTrialError(msg)
    return _write(where, provenance, run, keeper.fingerprint, command)


class Keeper(Checkpoint):  # Lightning calls such callbacks after the module's own hooks
    """Tells, logs and keeps a training after each epoch.

    A checkpoint replaces the one before in one step. It is due when the training since has taken fifty times as long
    as the last one took to write, so keeping costs two per cent at most and what is lost is little.

    Args:
        path: Where the checkpoint lies.
        fingerprint: Of what is trained; a checkpoint of anything else is refused.
        epochs: How many there are to be.
        show: Called after each epoch.
        logger: The name of what it logs to, to be told to whoever finds the checkpoint; None for nothing.

    Attributes:
        saved: The epoch of the checkpoint; 0 without one.
    """

    def __init__(
        self, path: Path, fingerprint: str, epochs: int, show: Callable[[EpochReport], None], logger: str | None
    ) -> None:
        super().__init__()
        self.path, self.fingerprint, self.saved = path, fingerprint, 0
        self._logger = logger
        self._epochs, self._show = epochs, show
        self._due = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the time from here, after what a checkpoint held was put back."""
        self._started, self._first = time.perf_counter(), trainer.current_epoch

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell and log how it went, and save when it is time."""
        assert isinstance(pl_module, ReplicaTraining)
        if trainer.should_stop:  # it diverged, so there is no score to tell and nothing to go on from
            return
        epoch, validated = pl_module.epochs_done, pl_module.validated
        seconds = (time.perf_counter() - self._started) / (epoch - self._first)
        report = EpochReport(
            epoch,
            self._epochs,
            float(pl_module.losses.mean()),
            pl_module.learning_rate,
            validated.mean_accuracy(),
            float(validated.loss.mean()),
            seconds * (self._epochs - epoch),
        )
        if trainer.logger is not None:
            trainer.logger.log_metrics(report.metrics(), step=epoch)
            trainer.logger.save()
        self._show(report)
        # of the last epoch nothing is kept: there would be nothing left to train, and the result follows at once
        if epoch < self._epochs and time.perf_counter() >= self._due:
            self._save(trainer, epoch)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Say what it is a checkpoint of, and what was logged to."""
        checkpoint["fingerprint"], checkpoint["logger"] = self.fingerprint, self._logger

    def _save(self, trainer: pl.Trainer, epoch: int) -> None:
        began = time.perf_counter()
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            trainer.save_checkpoint(temporary)
            temporary.replace(self.path)
        except OSError as error:
            msg = f"{self.path} cannot be written ({error.strerror}); make room, then go on with --resume"
            raise StorageError(msg) from None
        finally:
            temporary.unlink(missing_ok=True)
        ended = time.perf_counter()
        self.saved, self._due = epoch, ended + (ended - began) / _SHARE_OF_SAVING


def _provenance(best: Path, allow_code: bool) -> Provenance:
    """What is trained; see `train_best` for what can be wrong."""
    export = read(best)
    config = export.config
    if not allow_code:
        refuse_code(config, best / "config.yaml")
    data = load((config if allow_code else without_fetching(config)).data)
    check_stages(config.network, len(export.schedule), data.image_shape)
    full = Fidelity.full(config.training)
    return Provenance(config, data, Splits(data, config.data), export.schedule, export.seed, full)


def _fingerprint(provenance: Provenance) -> str:
    """Of all that decides a training, so that one is never taken for another."""
    config = provenance.config
    parts: list[Any] = [each.model_dump(mode="json") for each in (config.data, config.network)]
    parts += [config.training.deciding(), provenance.data.fingerprint, str(provenance.schedule), provenance.seed]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _finished(where: Path, fingerprint: str, provenance: Provenance) -> Trained | None:
    """What a finished training of the same reached; None where there is none.

    Raises:
        ConfigError: There is one of another configuration.
    """
    path = where / _RESULT
    if not path.exists():
        return None
    try:
        result = json.loads(path.read_text())
        same = result.get("fingerprint") == fingerprint
        reached = Interval(*(float(result["accuracy"][key]) for key in ("mean", "low", "high")))
        epochs, images = int(result["epochs"]), int(result["images"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        same = False
    if not same:
        msg = f"{where} holds a training of another configuration or other data; move it away to train this one"
        raise ConfigError(msg)
    score = provenance.config.training.score
    return Trained(provenance.schedule, epochs, reached, score, images, where, anew=False)


def _check_checkpoint(keeper: Keeper, best: Path, resume: bool, allow_code: bool) -> bool:
    """Whether there is a checkpoint to go on from.

    Raises:
        ConfigError: There is one and `resume` is off, or it is damaged or of another configuration.
    """
    if not keeper.path.exists():
        return False
    again = f"remove {keeper.path} to begin again"
    try:
        kept = torch.load(keeper.path, map_location="cpu", weights_only=True)  # runs no code found in it
        of, epoch = kept["fingerprint"], int(kept["training"]["epochs_done"])
        logger = None if kept.get("logger") is None else str(kept["logger"])
    except Exception as error:  # torch has no one exception for a file that is damaged, or would run code
        msg = f"{keeper.path} is no checkpoint of a training ({type(error).__name__}); {again}"
        raise ConfigError(msg) from None
    if of != keeper.fingerprint:
        msg = f"{keeper.path} is of another configuration or other data, so nothing can go on from it; {again}"
        raise ConfigError(msg)
    if not resume:
        command = shlex.join([*_command(best, logger, allow_code), "--resume"])
        msg = f"a training was stopped after epoch {epoch}; go on with `{command}`, or {again}"
        raise ConfigError(msg)
    keeper.saved = epoch
    return True


def _command(best: Path, logger: str | None, allow_code: bool) -> list[str]:
    options = [*(["--logger", logger] if logger else []), *([PERMISSION] if allow_code else [])]
    return ["filter-search", "train", str(best), *options]


def _train(provenance: Provenance, run_under: Callable[[pl.LightningModule, int, torch.device], None]) -> Run:
    config, data, schedule = provenance.config, provenance.data, provenance.schedule
    size = price(config.network, schedule, data.image_shape, data.classes, config.training.batch_size)
    if not is_worth_threads(size, config.training.batch_size):
        torch.set_num_threads(1)
    device = choose_device(config.compute.device)
    evaluate = TrainingEvaluator(config.network, config.training, data, provenance.splits, device, run_under)

    def go_on(epoch: int, accuracy: float) -> bool:  # asked for, so that there is a validation score to tell
        return False

    (run,) = evaluate(schedule, [provenance.seed], provenance.fidelity, "test", go_on, keep_weights=True)
    return run


def _interrupted(stop: BaseException, keeper: Keeper, command: list[str]) -> InterruptedStudyError:
    kept = f"the state after epoch {keeper.saved} is kept" if keeper.saved else "before anything could be kept"
    code = stop.code if isinstance(stop, SystemExit) and isinstance(stop.code, int) else 128 + signal.SIGINT
    msg = f"stopped, {kept}; go on with `{shlex.join([*command, '--resume'])}`"
    return InterruptedStudyError(msg, code - 128)


def _write(where: Path, provenance: Provenance, run: Scored, fingerprint: str, command: list[str]) -> Trained:
    """Write the files of a trained network; the result last, since it means that all the rest is whole."""
    assert run.weights is not None  # asked for
    config = provenance.config
    artifact = write_artifact(where, provenance, run.weights)
    values: dict[str, Any] = about(provenance) | artifact.values() | {"study": config.model_dump(mode="json")}
    write_whole(where / "config.yaml", "# A candidate trained at full fidelity.\n" + dump(values))
    card = {
        "provenance": provenance,
        "artifact": artifact,
        "epochs": run.epochs,
        "loading": loading_text(where, provenance, artifact),
        "words": wording,
        "score": wording.score_text(config.training.score),
    }
    write_whole(where / "README.md", fill("trained_card.md", card))
    reached, images = artifact.accuracy, len(artifact.correct)
    result = {
        "schema": 1,
        "schedule": str(provenance.schedule),
        "epochs": run.epochs,
        "split": "test",
        "images": images,
        "right": int(artifact.correct.sum()),
        "score": config.training.score,
        "accuracy": {"mean": reached.mean, "low": reached.low, "high": reached.high},
        "fingerprint": fingerprint,
        "environment": environment(command, provenance.seed, 1, str(choose_device(config.compute.device))),
    }
    write_json(where / _RESULT, result)
    missing = artifact.onnx if isinstance(artifact.onnx, str) else None
    return Trained(
        provenance.schedule, run.epochs, reached, config.training.score, images, where, onnx_missing=missing
    )
