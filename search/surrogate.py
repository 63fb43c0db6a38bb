"""What the search runs say of every schedule, trained or not.

Owns a Gaussian process over log2 filters and what is read off it: the challengers, the chance that something better
was never confirmed, the growth ratio that serves best. It sees validation scores only, and must not know budgets,
storage or training: the caller hands in the schedules in question.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular
from scipy.optimize import Bounds, minimize
from scipy.special import expit, logit
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from search.schedule import FilterSchedule

_CLIP = 1e-3  # a mean accuracy of 1 has no logit; a tenth of a point is below what a search run resolves
_KERNEL_ROWS = 200  # schedules the kernel is fitted to; its cost grows with their cube, its gain stops well before
# Log-normal priors of the kernel, median and sd of the log, for a target of variance 1 and inputs in octaves.
_BEND, _LENGTH, _TREND, _NOISE = (3.0, 1.0), (5.0, 0.7), (0.125, 1.0), (0.3, 1.0)
_REPEATS = 8  # runs beyond the first of their schedule; from fewer, a variance may be several times too large
_BLOCK = 4096  # schedules predicted at once, so that a pool of a whole space fits in memory
_SCREENED = 1500  # schedules drawn jointly; a draw costs the cube of their number once
_DRAWS = 2000
_NEAR_OCTAVES = 0.2  # root mean square over stages; nearer schedules would spend two challengers on one question
_NODES, _NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(16)  # integrates over a standard normal


@dataclass(frozen=True)
class RatioInterval:
    """The growth ratio that serves best, and the ratios that may.

    Attributes:
        ratio: The middle one of the ratios with the highest predicted accuracy.
        low: Lower limit.
        high: Upper limit.
    """

    ratio: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Surrogate:
    """A Gaussian process for the mean accuracy of schedules, made by `fit`.

    The target is the logit of accuracy: near 1 it is minus the log of the error, which falls about linearly in log
    filters, and a seed moves the error by a share of it, so curvature and noise are both more even than in accuracy.
    The kernel is a Matérn of smoothness 5/2 (Rasmussen & Williams 2006, ch. 4) with a length scale per stage, plus a
    linear trend, since more filters nearly always help and a budget's band shows that trend only askew, plus white
    noise for what is not smooth. Predictions are of the latent mean: neither kind of noise is in them.

    Assumes that accuracy is smooth in log filters. It misleads where accuracy jumps (a stage of one or two filters may
    do that), far outside the schedules seen, where it falls back to their trend, where runs sometimes collapse, and
    with few schedules, since the kernel is learnt from the same runs and then taken for known: its sd is too small.
    So it is, by far, inside a budget when all runs lie at its edge; tests/benchmarks/samplers.md measures both.
    """

    _kernel: Any
    _origin: NDArray[np.float64] = field(repr=False)
    _inputs: NDArray[np.float64] = field(repr=False)
    _cholesky: NDArray[np.float64] = field(repr=False)
    _weights: NDArray[np.float64] = field(repr=False)
    _centre: float
    _scale: float
    # A study asks about the same schedules again and again, and thousands of runs make an answer take seconds.
    _predicted: dict[bytes, tuple[float, float]] = field(default_factory=dict, repr=False)

    @classmethod
    def fit(cls, filters: NDArray[np.int64], accuracy: NDArray[np.float64], seed: int) -> Self:
        """The surrogate of these runs, whatever their order.

        Args:
            filters: One row per run, shape `(n_runs, n_stages)`, all at least 1.
            accuracy: Validation accuracy of each run, a fraction; shape `(n_runs,)`.
            seed: Settles the rows the kernel is fitted to, where there are more than it takes.

        Raises:
            ValueError: Shapes that do not match, values out of range, or fewer distinct schedules than stages plus
                two, the numbers the kernel has to learn.
        """
        _check_runs(filters, accuracy)
        schedules, target, run_variance = _aggregate(filters, accuracy)
        needed = filters.shape[1] + 2
        if len(schedules) < needed:
            msg = (
                f"{len(schedules)} distinct schedules came; a surrogate over {filters.shape[1]} stages needs at least "
                f"{needed}; run more trials"
            )
            raise ValueError(msg)
        centre, scale = float(target.mean()), float(target.std()) or 1.0
        octaves = np.log2(schedules)
        origin = octaves.mean(axis=0)
        inputs, target, run_variance = octaves - origin, (target - centre) / scale, run_variance / scale**2
        kernel = _fit_kernel(inputs, target, run_variance, seed)
        covariance = kernel(inputs) + np.diag(run_variance)  # of the runs' means, white noise included
        lower = cholesky(covariance, lower=True)
        return cls(kernel.k1, origin, inputs, lower, cho_solve((lower, True), target), centre, scale)

    def predict(self, filters: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and sd of what is believed of each schedule's mean accuracy.

        Args:
            filters: Shape `(m, n_stages)`.

        Returns:
            Two arrays of shape `(m,)`, fractions.
        """
        rows = [row.tobytes() for row in np.ascontiguousarray(filters, np.int64)]
        fresh = {row: place for place, row in enumerate(rows) if row not in self._predicted}
        places = list(fresh.values())
        for start in range(0, len(places), _BLOCK):
            block = filters[places[start : start + _BLOCK]]
            for row, *predicted in zip(list(fresh)[start : start + _BLOCK], *self._predict_block(block), strict=True):
                self._predicted[row] = (float(predicted[0]), float(predicted[1]))
        known = np.array([self._predicted[row] for row in rows]).reshape(-1, 2)
        return known[:, 0], known[:, 1]

    def draws(self, filters: NDArray[np.int64], n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Joint draws of the schedules' mean accuracies.

        Args:
            filters: Shape `(m, n_stages)`; cost and memory grow with the cube and the square of m, up to about 2,000.
            n: How many draws.
            rng: Draws them.

        Returns:
            Shape `(n, m)`, fractions.
        """
        inputs = np.log2(filters) - self._origin
        mean, reduced = self._condition(inputs)
        covariance = self._kernel(inputs) - reduced.T @ reduced
        lower = _stable_cholesky(covariance)
        return np.asarray(expit(self._centre + self._scale * (mean + rng.standard_normal((n, len(inputs))) @ lower.T)))

    def _condition(self, inputs: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Standardised posterior mean, shape `(m,)`, and what the runs explain, shape `(n_schedules, m)`."""
        cross = self._kernel(self._inputs, inputs)
        return cross.T @ self._weights, solve_triangular(self._cholesky, cross, lower=True)

    def _predict_block(self, filters: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        inputs = np.log2(filters) - self._origin
        mean, reduced = self._condition(inputs)
        variance = np.maximum(self._kernel.diag(inputs) - np.einsum("ij,ij->j", reduced, reduced), 0.0)
        # The mean of a logistic normal has no closed form; 16 nodes are exact to far below the sd.
        nodes = expit(self._centre + self._scale * (mean[:, None] + np.sqrt(variance)[:, None] * _NODES))
        weights = _NODE_WEIGHTS / _NODE_WEIGHTS.sum()
        expected = nodes @ weights
        return expected, np.sqrt(((nodes - expected[:, None]) ** 2) @ weights)


def recommend(
    surrogate: Surrogate, pool: NDArray[np.int64], count: int, taken: Sequence[FilterSchedule]
) -> list[FilterSchedule]:
    """The schedules of the pool with the best predicted mean, best first, no two alike.

    The posterior mean and not the best score seen, which is mostly luck (the winner's curse); nothing is added for
    uncertainty, since a challenger is meant to win, not to teach.

    Args:
        surrogate: Predicts.
        pool: Schedules to choose from, shape `(m, n_stages)`.
        count: How many; fewer come when the pool has no more that differ.
        taken: Already chosen: nothing within 0.2 octave (root mean square over stages) of them is recommended.
    """
    pool = np.unique(pool, axis=0)  # sorted, so that ties do not depend on the pool's order
    log_pool = np.log2(pool)
    score = surrogate.predict(pool)[0]
    for schedule in taken:
        score[_near(log_pool, np.log2(schedule.filters))] = -np.inf
    chosen: list[FilterSchedule] = []
    while len(chosen) < count and len(pool) and np.isfinite(score.max()):
        best = int(score.argmax())
        chosen.append(FilterSchedule(tuple(int(f) for f in pool[best])))
        score[_near(log_pool, log_pool[best])] = -np.inf
    return chosen


def unexplored_probability(
    surrogate: Surrogate,
    pool: NDArray[np.int64],
    rule: FilterSchedule,
    margin: float,
    rng: np.random.Generator,
    draws: int = 1000,
) -> float:
    """How likely some schedule of the pool beats the rule by more than the margin.

    The share of joint posterior draws in which one does, so that neighbours, which stand or fall together, are not
    counted as many chances. A pool of more than 1,500 is cut to those likeliest to beat the rule, each for itself.

    Assumes the surrogate. It misleads with it (see `Surrogate`); because it knows validation scores of the search and
    not the confirmation; and when read as a finding: a value near 1 after few runs says that little is known, not that
    something better exists.

    Args:
        surrogate: Its joint posterior is drawn from.
        pool: Schedules within the budget that were not confirmed, shape `(m, n_stages)`.
        rule: The rule's schedule.
        margin: A fraction of accuracy.
        rng: Draws.
        draws: How many; the Monte Carlo error is at most `0.5 / sqrt(draws)`.

    Returns:
        A probability; 0 for an empty pool.
    """
    if not len(pool):
        return 0.0
    rule_row = np.array([rule.filters])
    pool = np.unique(pool, axis=0)
    if len(pool) > _SCREENED:
        mean, sd = surrogate.predict(pool)
        promise = (mean - surrogate.predict(rule_row)[0] - margin) / np.maximum(sd, np.finfo(float).tiny)
        pool = pool[np.argsort(-promise, kind="stable")[:_SCREENED]]
    accuracy = surrogate.draws(np.vstack([rule_row, pool]), draws, rng)
    return float(np.mean(accuracy[:, 1:].max(axis=1) > accuracy[:, 0] + margin))


def best_ratio(
    surrogate: Surrogate,
    ratios: NDArray[np.float64],
    schedules: NDArray[np.int64],
    rng: np.random.Generator,
    confidence: float = 0.95,
) -> RatioInterval:
    """Which growth ratio serves best under a budget, among the ratios given.

    The ratio with the best posterior mean; limits are quantiles of the best ratio over joint posterior draws. Ratios
    that round to one schedule are one candidate: the middle of them is named and the limits take in all of them.

    Assumes the surrogate and a credible, not a confidence, interval. It misleads when the limits reach the ends of the
    ratios given, when two distant ratios do equally well, and when the best schedule is not geometric at all.

    Args:
        surrogate: Its joint posterior is drawn from.
        ratios: Shape `(r,)`.
        schedules: `geometric(ratio)` fitted to the budget for each of them, shape `(r, n_stages)`.
        rng: Draws.
        confidence: Of the limits.

    Raises:
        ValueError: No ratio, or not one schedule per ratio.
    """
    if not len(ratios) or len(ratios) != len(schedules):
        msg = f"{len(ratios)} ratios and {len(schedules)} schedules came; each ratio, at least one, needs its schedule"
        raise ValueError(msg)
    distinct, group = np.unique(schedules, axis=0, return_inverse=True)
    members = [np.sort(ratios[group == g]) for g in range(len(distinct))]
    best = members[int(surrogate.predict(distinct)[0].argmax())]
    ratio = float(best[(len(best) - 1) // 2])
    winners = surrogate.draws(distinct, _DRAWS, rng).argmax(axis=1)
    lowest, highest = np.array([m[0] for m in members])[winners], np.array([m[-1] for m in members])[winners]
    tail = (1 - confidence) / 2
    low = float(np.quantile(lowest, tail, method="inverted_cdf"))
    high = float(np.quantile(highest, 1 - tail, method="inverted_cdf"))
    return RatioInterval(ratio, min(low, ratio), max(high, ratio))


def _check_runs(filters: NDArray[np.int64], accuracy: NDArray[np.float64]) -> None:
    if filters.ndim != 2 or accuracy.shape != filters.shape[:1]:
        msg = (
            f"filters of shape {filters.shape}, accuracy of shape {accuracy.shape}; give one row and one score per run"
        )
        raise ValueError(msg)
    if np.any(filters < 1) or not np.all((accuracy >= 0) & (accuracy <= 1)):
        msg = "filters must be at least 1 and accuracies within [0, 1]; leave failed runs out"
        raise ValueError(msg)


def _aggregate(
    filters: NDArray[np.int64], accuracy: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Distinct schedules, the logit of each one's mean accuracy, and that logit's variance from run noise.

    One row per schedule in place of one per run gives nearly the same posterior at a fraction of the cost. The run
    variance is pooled over schedules with several runs; without enough of them it is left to the white noise.
    """
    order = np.lexsort((accuracy, *filters.T))  # so that sums do not depend on the order of the runs
    filters, accuracy = filters[order], accuracy[order]
    schedules, group, runs = np.unique(filters, axis=0, return_inverse=True, return_counts=True)
    mean = np.bincount(group, accuracy) / runs
    clipped = np.clip(mean, _CLIP, 1 - _CLIP)
    deviation = (accuracy - mean[group]) / (clipped * (1 - clipped))[group]  # on the logit's scale, to first order
    spare = len(accuracy) - len(schedules)
    pooled = float(deviation @ deviation) / spare if spare >= _REPEATS else 0.0
    return schedules, logit(clipped), pooled / runs


def _fit_kernel(
    inputs: NDArray[np.float64], target: NDArray[np.float64], run_variance: NDArray[np.float64], seed: int
) -> Any:  # noqa: ANN401 # scikit-learn has no types
    """Signal plus white kernel of greatest posterior density, for inputs of mean 0 and a target of mean 0 and sd 1.

    Half an octave is the least length scale, since filters are whole and nothing finer than a ratio of 1.4 should sway
    a challenger; 50 octaves means that a stage does not matter.
    """
    # Here, since no other part of a study needs what takes a second to import and 50 MiB.
    from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped]
    from sklearn.gaussian_process import GaussianProcessRegressor, kernels  # type: ignore[import-untyped]

    if len(inputs) > _KERNEL_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(len(inputs), _KERNEL_ROWS, replace=False))
        inputs, target, run_variance = inputs[rows], target[rows], run_variance[rows]
    bend = kernels.ConstantKernel(_BEND[0], (0.05, 100.0))
    bend *= kernels.Matern([_LENGTH[0]] * inputs.shape[1], (0.5, 50.0), nu=2.5)
    trend = kernels.ConstantKernel(_TREND[0], (1e-4, 100.0)) * kernels.DotProduct(0.0, sigma_0_bounds="fixed")
    # One start suffices: with these priors a second one changed none of 270 first recommendations.
    noise = kernels.WhiteKernel(_NOISE[0], (1e-5, 2.0))
    model = GaussianProcessRegressor(bend + trend + noise, alpha=run_variance, optimizer=_maximise_posterior)
    # Over many small matrices the threads of BLAS wait for each other, on a busy machine several times as long as one
    # thread alone needs.
    with threadpool_limits(1), warnings.catch_warnings():
        # A value at its bound (no noise, a stage that does not matter) is a finding, not a failure to converge.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(inputs, target)
    return model.kernel_


def _maximise_posterior(
    negative_likelihood: Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]],
    start: NDArray[np.float64],
    bounds: NDArray[np.float64],
) -> tuple[NDArray[np.float64], float]:
    """Log kernel parameters (bend, a length per stage, trend, white noise) of greatest posterior density.

    The log-normal priors matter below some 50 schedules: by likelihood alone everything is sometimes explained as
    noise and the sd collapses, or noise as bends.
    """
    lengths = [_LENGTH] * (len(start) - 3)
    centre, spread = np.array([_BEND, *lengths, _TREND, _NOISE]).T
    centre = np.log(centre)

    def objective(theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        value, gradient = negative_likelihood(theta)
        away = (theta - centre) / spread
        return value + float(away @ away) / 2, gradient + away / spread

    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=Bounds(bounds[:, 0], bounds[:, 1]))
    return found.x, float(found.fun)


def _stable_cholesky(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lower Cholesky factor of a covariance that rounding, or a schedule given twice, has made singular."""
    scale = max(float(covariance.diagonal().max()), np.finfo(float).eps)
    for jitter in (1e-10, 1e-8, 1e-6):
        try:
            return np.asarray(cholesky(covariance + jitter * scale * np.eye(len(covariance)), lower=True))
        except LinAlgError:
            continue
    return np.asarray(cholesky(covariance + 1e-4 * scale * np.eye(len(covariance)), lower=True))


def _near(log_pool: NDArray[np.float64], log_filters: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows of `log_pool`, shape `(m, n_stages)`, are too near to `log_filters`, shape `(n_stages,)`."""
    return np.asarray(np.sqrt(np.mean((log_pool - log_filters) ** 2, axis=1)) < _NEAR_OCTAVES)
