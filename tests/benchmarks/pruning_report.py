"""The tables of `benchmarks.pruning`, in Markdown, a line at a time."""

import csv
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from platform import python_version

import numpy as np
from benchmarks.pruning_replay import Curves, Outcome, Recommended, reference
from scipy.stats import spearmanr

from search.surrogate import Surrogate

Known = dict[tuple[str, tuple[int, ...]], float]
"""Mean test accuracy of schedules over fresh seeds, by configuration and filters."""
Replay = tuple[Outcome, list[Recommended], list[list[float]]]
"""What a policy left of one search, what is recommended after it, and of every case in points: what the first choice
and the strongest challenger lack to the best within the budget, and what that challenger has over the rule."""
_TIMED_OTHERWISE = ("median", "worst", "halving", "half the epochs", "a third")
"""Kept seconds are of full passes scored after every epoch, which only what is pruned needs, and of brief ones scored
once: policies whose names start so are compared with full passes scored once."""
_SHOWN = ("halving at 1/2, within a size band", "a third of the epochs", "half the proposals")


def speeds(searches: Sequence[Curves], judge: Surrogate) -> Iterator[str]:
    """Whether wide networks learn faster, and what early ranks tell of final ones."""
    epochs = searches[0].epochs
    yield f"### Early and final ranks, {searches[0].data}\n"
    yield (
        "Mean over searches. Gain of size: points of validation accuracy per doubling of MACs at that epoch. Favour: "
        "partial rank correlation of that epoch's accuracy with MACs, given what the surrogate of all searches' final "
        "runs says of the schedule; above the last row's, early ranks favour large networks. The rest are Spearman's "
        "correlations with the same trial's final accuracy: of all trials, within thirds of the trials by MACs, and "
        "within the trials aimed at one budget.\n"
    )
    yield "| epoch | gain of size | favour | all | within a third | within a budget |"
    yield "|" + " --- |" * 6
    for epoch in sorted({*range(1, min(epochs, 9) + 1), *range(11, epochs, 2), epochs}):
        gain, *rest = np.mean([_ranks(each, epoch, judge) for each in searches], axis=0)
        yield f"| {epoch} | {gain:.2f} | " + " | ".join(f"{value:.2f}" for value in rest) + " |"
    yield ""


def _ranks(curves: Curves, epoch: int, judge: Surrogate) -> list[float]:
    early, final, size = curves.curve[:, epoch - 1], curves.curve[:, -1], np.log2(curves.macs)
    gain = 100 * np.polyfit(size, early, 1)[0]
    favour = _partial(early, size, judge.predict(curves.filters)[0])
    thirds = np.array_split(size.argsort(kind="stable"), 3)
    budgets = [np.flatnonzero(np.array(curves.budgets) == each) for each in dict.fromkeys(curves.budgets)]
    within = [np.mean([spearmanr(early[p], final[p]).statistic for p in parts]) for parts in (thirds, budgets)]
    return [gain, favour, spearmanr(early, final).statistic, *within]


def _partial(a, b, given) -> float:
    """Spearman's correlation of a and b with the third held fixed."""
    r = spearmanr(np.stack([a, b, given], axis=1)).statistic
    return (r[0, 1] - r[0, 2] * r[1, 2]) / np.sqrt((1 - r[0, 2] ** 2) * (1 - r[1, 2] ** 2))


def spent(outcomes: Sequence[Outcome], whole: Sequence[Outcome], what: Callable) -> float:
    """Share of what all trials, seeds and epochs take."""
    return float(np.mean([what(a).sum() / what(b).sum() for a, b in zip(outcomes, whole, strict=True)]))


def spent_seconds(policy: str, found: dict[str, list[Replay]], watched: float) -> float:
    """Share of the seconds of passes that are scored once; `watched` is what one scored after every epoch takes."""
    outcomes, whole = ([outcome for outcome, _, _ in found[name]] for name in (policy, next(iter(found))))
    share = spent(outcomes, whole, lambda outcome: outcome.seconds)
    return share * watched if policy.startswith(_TIMED_OTHERWISE) else share


def policies(name: str, found: dict[str, list[Replay]], fresh: Known, margin: float, watched: float) -> Iterator[str]:
    """One row per policy."""
    baseline = next(iter(found.values()))
    whole = [outcome for outcome, _, _ in baseline]
    trials, budgets = len(whole[0].epochs), len(baseline[0][1])
    searches = f"{len(whole)} searches" if len(whole) > 1 else "One search, judged by its own unpruned runs,"
    yield f"### What is recommended, {name}\n"
    yield f"{searches} of {trials} trials under {budgets} budgets.\n"
    heads = (
        "scored",
        "epochs",
        "seconds",
        "first choice",
        "best challenger",
        "same side",
        "fresh",
        "fresh, difference",
    )
    yield "| policy | " + " | ".join(heads) + " |"
    yield "|" + " --- |" * (1 + len(heads))
    for policy, replays in found.items():
        outcomes = [outcome for outcome, _, _ in replays]
        scored = np.mean([len(outcome.scored) / len(outcome.epochs) for outcome in outcomes])
        cells = [f"{100 * scored:.0f} %", f"{100 * spent(outcomes, whole, lambda outcome: outcome.epochs):.0f} %"]
        timed = "seeds" not in policy or policy == next(iter(found))
        cells.append(f"{100 * spent_seconds(policy, found, watched):.0f} %" if timed else "")
        cells += _judged(replays, baseline, margin)
        cells += _fresh(name, replays, baseline, fresh)
        yield f"| {policy} | " + " | ".join(cells) + " |"
    yield ""


def _judged(replays, baseline, margin: float) -> list[str]:
    shortfalls = np.array([case for _, _, cases in replays for case in cases])
    before = np.array([case for _, _, cases in baseline for case in cases])
    same = (shortfalls[:, 2] > 100 * margin) == (before[:, 2] > 100 * margin)
    first, best = shortfalls[:, 0], shortfalls[:, 1]
    cells = [f"{each.mean():.2f} ({np.median(each):.2f}, {each.max():.2f})" for each in (first, best)]
    return [*cells, f"{same.sum()} of {len(same)}"]


def _fresh(name: str, replays, baseline, fresh: Known) -> list[str]:
    def known(all_replays) -> np.ndarray:
        return np.array([100 * fresh.get((name, case.first), np.nan) for _, cases, _ in all_replays for case in cases])

    accuracy, difference = known(replays), known(replays) - known(baseline)
    if np.isnan(difference).any():
        return ["", ""]
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    return [f"{accuracy.mean():.2f} %", f"{difference.mean():+.2f} ± {error:.2f}"]


def shares(folder: Path, saved: dict[str, float]) -> Iterator[str]:
    """What of a whole kept study's seconds each saving in the search, a share of it, is worth."""
    yield "## Of a whole study\n"
    yield (
        "Seconds of training by purpose in the kept studies, and what of the whole a policy would have saved: the "
        "search's share times what the policy saves of it on digits.\n"
    )
    yield "| study | runs | search | confirmation | probes | " + " | ".join(saved) + " |"
    yield "|" + " --- |" * (5 + len(saved))
    for path in sorted(folder.rglob("runs.csv")):
        seconds: dict[str, float] = defaultdict(float)
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            seconds[row["purpose"]] += float(row["wall_seconds"])
        part = {purpose: value / sum(seconds.values()) for purpose, value in seconds.items()}
        cells = [f"{len(rows)}", *(f"{100 * part.get(each, 0):.0f} %" for each in ("search", "confirm", "probe"))]
        cells += [f"{100 * share * part.get('search', 0):.0f} %" for share in saved.values()]
        yield f"| {path.parent.relative_to(folder)} | " + " | ".join(cells) + " |"
    yield ""


def tables(regrets: dict[tuple[str, int, int], list[float]]) -> Iterator[str]:
    """Regret by truth, trials and seeds."""
    sizes = sorted({(trials, seeds) for _, trials, seeds in regrets}, key=lambda size: (size[0] * size[1], size))
    yield "## Fewer trials, fewer seeds, on truths that are known\n"
    yield (
        "Regret of the surrogate's recommendation in points, mean (median, worst), by trials x seeds; see samplers.md "
        "for the truths. A table has one fidelity and no curves, so nothing is stopped there.\n"
    )
    yield "| truth | " + " | ".join(f"{trials} x {seeds}" for trials, seeds in sizes) + " |"
    yield "|" + " --- |" * (1 + len(sizes))
    for name in dict.fromkeys(name for name, _, _ in regrets):
        cells = [np.array(regrets[name, trials, seeds]) for trials, seeds in sizes]
        shown = " | ".join(f"{each.mean():.2f} ({np.median(each):.2f}, {each.max():.2f})" for each in cells)
        yield f"| {name} | {shown} |"
    yield f"\n{len(next(iter(regrets.values())))} repeats."


READING = """\
## What it says

Predicted before: a pruner within size bands takes 70 % of the search and costs 0.02 to 0.05 points, to save 5 % of a
digits study at most; pruning among all trials favours large budgets; half the epochs or half the seeds cost little.

- Large networks are further ahead early (11 points per doubling of MACs after two epochs of digits, 2.5 after 15), but
  early ranks do not clearly favour them beyond their worth: the partial correlation is at most 0.15 above the last's.
  So bands do not help: halving at half of the epochs has a mean regret of 0.81 among all trials, 0.76 within bands.
- Every pruner makes the recommendation on digits worse, most of them once by 13 to 16 points. What is stopped is what
  teaches the surrogate that narrow stages are bad: after one halved search it recommended 4-25-2, at 84 %. The least
  harmful, a median within the budget, costs 0.18 points on average; of a digits study it would save 5 %.
- Optuna's median is of those trained to the end, so it rises as the search goes on: 13 to 32 % of the trials survive.
- Scoring after every epoch takes 15 % of a digits trial by itself, and search is 15 % of a digits study.
- A search of five epochs in place of 15, with the challengers confirmed at 15, recommends as well as the whole: fresh
  runs differ by -0.04 points (standard error 0.04), and every case stays on its side of the margin. On Fashion-MNIST
  three epochs of six cost 0.06 points by one search, too few to say more, and move one case of three.
- Leaving out half of the proposals, or half of the seeds, costs 0.04 and 0.09 points in the first choice, nothing in
  the best challenger, and saves 4 % of a digits study; see below for truths that are known.
- Fewer seeds save little on small networks, whose passes take 72 % of the time with two seeds of four.

So nothing is pruned. Of all that was tried, a constant, briefer search saves most.
"""


def heading() -> Iterator[str]:
    yield "# Stopping early, and doing less, measured\n"
    packages = ", ".join(f"{name} {version(name)}" for name in ("optuna", "torch", "scikit-learn", "scipy", "numpy"))
    made = f"Made by `python -m benchmarks.pruning`, {datetime.now(UTC):%Y-%m-%d}"
    yield f"{made}, Python {python_version()}, {packages}.\n"
    yield (
        "Curves are of real trials: the whole searches of studies with seeds from 0, every trial trained once more "
        "for fewer epochs under a one-cycle schedule of that length. Policies are replayed on them in the trials' "
        "order, with one worker. What is stopped has no score and is not shown to the surrogate. Pruners are "
        "Optuna's; within a size band they see the finished trials nearest in log MACs, half of all, "
        "and no fewer than five.\n"
    )
    yield (
        "`scored`: trials trained to the end; `epochs`, `seconds`: share of what all of it takes; `first choice`: "
        "regret in points of the schedule the surrogate recommends, mean over searches and budgets (median, worst), "
        "by a surrogate of the other searches' runs; `best challenger`: the same of the best schedule chosen for "
        "confirmation, rules among them; `same side`: cases in which what the best challenger has over the rule falls "
        "on the same side of the margin as without pruning; `fresh`: test accuracy of first choices, mean over fresh "
        "seeds of their own, and its difference from no pruning, ± standard error over cases.\n"
    )


def write(measured, fresh: Known, studies: Path, regrets) -> Iterator[str]:
    """The whole report.

    Args:
        measured: Per configuration: plan, searches, replays by policy, shares of a trial's seconds by kind of pass.
        fresh: See `Known`.
        studies: Folder of the kept studies.
        regrets: By truth, trials and seeds, one per repeat.
    """
    yield from heading()
    yield READING
    for plan, searches, found, timed in measured:
        name = plan.config.name
        finals = np.concatenate([each.finals[each.epochs] for each in searches])
        noise = 100 * np.median(finals.std(axis=1, ddof=1))
        yield f"## {name}\n"
        yield (
            f"{plan.config.training.epochs} epochs, {finals.shape[1]} seeds a trial, whose standard deviation has a "
            f"median of {noise:.2f} points. Seconds of a pass as a share of a trial's: "
            + ", ".join(f"{side} {100 * share:.0f} %" for side, share in timed.items())
            + ".\n"
        )
        yield from speeds(searches, reference(searches))
        yield from policies(name, found, fresh, plan.config.confirm.margin, timed["watched"])
    _, _, found, timed = measured[0]
    saved = {policy: 1 - spent_seconds(policy, found, timed["watched"]) for policy in _SHOWN}
    yield from shares(studies, saved)
    yield from tables(regrets)
