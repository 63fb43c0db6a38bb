"""The best candidates as files that need nothing of this package, and their training at full fidelity.

Owns the content of `best/`. Which schedule is best is decided in `findings`, how it is trained in `training`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from scipy.special import ndtri
from scipy.stats import binomtest

from search import wording
from search.config import StudyConfig
from search.configfile import parse
from search.cost import COST_NAMES, Budget, amount
from search.errors import ConfigError, NoTrialError
from search.evaluate import Evaluate, Failed, Fidelity, OnEpoch, Run, Scored
from search.findings import Confirmed, Findings, by_budget
from search.folder import environment, make, write_json, write_whole
from search.networks import check_stages, source
from search.pages import fill
from search.plainyaml import dump
from search.plainyaml import load as load_yaml
from search.plan import StudyPlan
from search.pricing import price
from search.schedule import FilterSchedule
from search.scoring import Parts, accuracy, parts_of
from search.sources import load
from search.splits import Splits
from search.study import run_seeds
from search.training import TrainingEvaluator, choose_device
from search.trainingconfig import ScoreName
from search.verdict import Interval

# Forward MACs of a step from which a second thread pays on a CPU. Below, threads mostly wait for each other: on two
# busy cores 64-128-256 on 8x8 images (5 * 10^7) took 3.4 times as long on two threads as on one, 4-7-15 30 times.
_MACS_WORTH_THREADS = 10**9


@dataclass(frozen=True)
class Trained:
    """A candidate trained at full fidelity.

    Attributes:
        schedule: The candidate.
        seed: What settled the run.
        epochs: Epochs trained.
        accuracy: On the test split, with its 95 % interval over images: a fraction.
        score: Which accuracy that is.
        images: Images of the test split.
        folder: Where weights and result lie.
    """

    schedule: FilterSchedule
    seed: int
    epochs: int
    accuracy: Interval
    score: ScoreName
    images: int
    folder: Path


def export_best(
    plan: StudyPlan,
    findings: Findings,
    folder: Path,
    evaluate: Evaluate,
    interrupted: Callable[[], bool] = lambda: False,
) -> list[Path]:
    """Write each budget's best confirmed schedule to `best/<budget>/` as configuration, weights, model and card.

    The weights are those of the first confirmation seed, fixed in advance and never the best on test, trained again
    here since no run of a study keeps weights. A run that fails is told of in the card in place of weights.

    Args:
        plan: The study.
        findings: What it says.
        folder: Its folder.
        evaluate: Trains.
        interrupted: Asked before each budget; True leaves out those still to come.

    Returns:
        The folders written, in the order of the budgets.

    Raises:
        ConfigError: A table stood in training's place.
        StorageError: A file cannot be written.
    """
    if plan.config.table is not None:
        _ = plan.data  # says why there is nothing to export
    written = []
    for budget, best in by_budget(findings.findings).items():
        if interrupted():
            break
        seed = run_seeds(plan.config.seed, "confirm", best.schedule, 0, 1)[0]
        fidelity = Fidelity.brief(plan.config.training)
        (run,) = evaluate(best.schedule, [seed], fidelity, "test", keep_weights=True)
        where = folder / "best" / budget.folder
        _write(plan, budget, best, run, where)
        written.append(where)
    return written


def is_exported(findings: Findings, folder: Path) -> bool:
    """Whether `best/` is complete and of these findings; a model card is written last."""
    for budget, best in by_budget(findings.findings).items():
        where = folder / "best" / budget.folder
        if not (where / "README.md").exists():
            return False
        kept = load_yaml((where / "config.yaml").read_text(), str(where / "config.yaml"))
        if (kept["schedule"], kept["confirmed"]["runs"]) != (str(best.schedule), best.runs):
            return False
    return True


def train_best(best: Path, on_epoch: OnEpoch) -> Trained:
    """Train an exported candidate for `training.full_epochs` on the study's own training split; score it on test.

    The seed is that of the exported weights, so training and validation images are theirs as well. Weights and result
    go to `trained/` in the candidate's folder.

    Args:
        best: A folder `export_best` wrote.
        on_epoch: Called after each epoch with its number and the validation accuracy; True stops.

    Raises:
        ConfigError: The folder holds no configuration, or one that cannot be used.
        DataError: The data cannot be read.
        NoTrialError: The training diverged or ran out of memory.
        StorageError: The result cannot be written.
    """
    config, schedule, seed = _read(best)
    data = load(config.data)
    check_stages(config.network, len(schedule), data.image_shape)
    splits = Splits(data, config.data)
    device = choose_device(config.compute.device)
    evaluate = TrainingEvaluator(config.network, config.training, data, splits, device)
    size = price(config.network, schedule, data.image_shape, data.classes, config.training.batch_size)
    if size["macs"] * config.training.batch_size < _MACS_WORTH_THREADS:
        torch.set_num_threads(1)
    fidelity = Fidelity.full(config.training)
    (run,) = evaluate(schedule, [seed], fidelity, "test", on_epoch, keep_weights=True)
    if isinstance(run, Failed):
        msg = f"training {schedule} for {fidelity.epochs} epochs failed: {run.detail}; lower training.learning_rate"
        raise NoTrialError(msg)
    assert run.correct is not None  # a training tells it
    score = config.training.score
    reached = accuracy_interval(run.correct, parts_of(data.labels[splits.test], score))
    trained = Trained(schedule, seed, run.epochs, reached, score, len(run.correct), best / "trained")
    make(trained.folder)
    write_whole(trained.folder / "weights.safetensors", _weights(run))
    command = ["filter-search", "train", str(best)]
    result = {
        "schema": 1,
        "schedule": str(schedule),
        "epochs": run.epochs,
        "split": "test",
        "images": trained.images,
        "score": trained.score,
        "accuracy": _limits(trained.accuracy),
        "environment": environment(command, seed, 1, str(device)),
    }
    write_json(trained.folder / "result.json", result)
    return trained


def _write(plan: StudyPlan, budget: Budget, best: Confirmed, run: Run, where: Path) -> None:
    make(where)
    splits = Splits(plan.data, plan.config.data)
    drawn = splits.train_validation(run.seed, plan.config.training.share)
    sizes = {"training": len(drawn.training), "validation": len(drawn.validation), "test": len(splits.test)}
    moments = plan.data.normalisation(drawn.training)
    mean, deviation = ([round(float(value), 6) for value in values] for values in moments)
    values: dict[str, Any] = {
        "schema": 1,
        "schedule": str(best.schedule),
        "budget": str(budget),
        "seed": run.seed,
        "input_shape": list(plan.data.image_shape),
        "classes": plan.data.classes,
        "class_names": list(plan.data.class_names),
        "normalisation": {"mean": mean, "deviation": deviation},
        "confirmed": {
            "split": "test",
            "accuracy": None if best.accuracy is None else _limits(best.accuracy),
            "runs": best.runs,
        },
        "weights": {"accuracy": run.accuracy} if isinstance(run, Scored) else {"failed": run.reason},
        "study": plan.config.model_dump(mode="json"),
    }
    head = "# An exported candidate; `filter-search train` on its folder trains it at full fidelity.\n"
    write_whole(where / "config.yaml", head + dump(values))
    write_whole(where / "model.py", model_source(plan, best.schedule, mean, deviation))
    if isinstance(run, Scored):
        write_whole(where / "weights.safetensors", _weights(run))
    else:
        (where / "weights.safetensors").unlink(missing_ok=True)
    write_whole(where / "README.md", _card(plan, budget, best, run, sizes, where))


def model_source(plan: StudyPlan, schedule: FilterSchedule, mean: Sequence[float], deviation: Sequence[float]) -> str:
    """Plain PyTorch source of the network, its modules named as in the study so that weights load.

    Args:
        plan: The study.
        schedule: The candidate.
        mean: Of each channel over the training images, shape `(channels,)`.
        deviation: Likewise.
    """
    channels, height, width = plan.data.image_shape
    return fill(
        "model.py",
        {
            "schedule": schedule,
            "source": source(plan.config.network, schedule, channels, plan.data.classes),
            "image": f"{channels}x{height}x{width}",
            "classes": plan.data.classes,
            "mean": list(mean),
            "deviation": list(deviation),
        },
    )


def _card(plan: StudyPlan, budget: Budget, best: Confirmed, run: Run, sizes: Mapping[str, int], where: Path) -> str:
    """The model card; `sizes` says how many images trained, validated and tested."""
    return fill(
        "model_card.md",
        {
            "plan": plan,
            "config": plan.config,
            "budget": wording.budget_text(budget),
            "best": best,
            "origin": "by the surrogate model" if best.origin == "surrogate" else f"as the rule {best.origin}",
            "run": run,
            "scored": isinstance(run, Scored),
            "images": sizes,
            "folder": where,
            "costs": {cost: amount(cost, best.costs[cost]) for cost in COST_NAMES},
            "words": wording,
            "score": wording.score_text(plan.config.training.score),
        },
    )


def _read(best: Path) -> tuple[StudyConfig, FilterSchedule, int]:
    """What an exported configuration asks for.

    Raises:
        ConfigError: It cannot be read, or is none.
    """
    path = best / "config.yaml"
    try:
        values = load_yaml(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError):
        values = None
    match values:
        case {"schema": 1, "schedule": str(schedule), "seed": int(seed), "study": dict(study)} if seed >= 0:
            return parse(study, str(path)), FilterSchedule.parse(schedule), seed
    msg = (
        f"{path} is no exported configuration; name a folder that `filter-search export` wrote, below a study's best/"
    )
    raise ConfigError(msg)


def _weights(run: Scored) -> bytes:
    assert run.weights is not None  # asked for
    return save({name: tensor.contiguous().cpu() for name, tensor in run.weights.items()})


def accuracy_interval(correct: NDArray[np.bool_], parts: Parts) -> Interval:
    """An accuracy with its 95 % interval over images drawn independently, within each part by itself.

    One part has its Wilson interval (1927, doi:10.1080/01621459.1927.10502953), the mean of several that of Price and
    Bonett (2004, Computational Statistics & Data Analysis 45:449): normal, from each part's binomial variance, with 4
    images more spread over the parts, half of them right, so that parts without an error do not narrow it to nothing.
    In 40,000 simulated splits each of up to 100 classes of 5 to 1,000 images it covered 94 to 99.9 %. It misleads
    where images come in groups.

    Args:
        correct: Per image, whether it was classified correctly; shape `(n_images,)`.
        parts: See `scoring.parts_of`.
    """
    right, sizes = (
        np.array(column) for column in zip(*((correct[part].sum(), len(part)) for part in parts), strict=True)
    )
    if len(parts) == 1:
        limits = binomtest(int(right[0]), int(sizes[0])).proportion_ci(method="wilson")
        return Interval(float(right[0] / sizes[0]), float(limits.low), float(limits.high))
    added = 4 / len(parts)
    shares = (right + added / 2) / (sizes + added)
    half = float(ndtri(0.975) * np.sqrt((shares * (1 - shares) / (sizes + added)).sum()) / len(parts))
    centre = float(shares.mean())
    return Interval(accuracy(correct, parts), max(0.0, centre - half), min(1.0, centre + half))


def _limits(interval: Interval) -> dict[str, float]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}
