"""What other ways to spend would bring: error over the looks, and runs over the cases of a study.

Owns the comparisons that the choices of `looks.Plan.tails` and `verdict.next_case` rest on; it judges no study.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from search.looks import Plan, replay
from search.simulation import DEFAULTS, MARGIN, Cell, Rivals, Truth
from search.verdict import Verdict, decide, next_case

CASES = 6
"""Cases of a simulated study."""

_GRID = 2001  # points of the integrals in `exact_tails`; 4001 give the same five digits

Row = Mapping[str, Any]
Order = Callable[[Sequence[Verdict], int], int | None]


@dataclass(frozen=True)
class OtherPlan(Plan):
    """A plan that spends its error otherwise.

    Attributes:
        spent: What `tails` gives, shape `(n_looks,)`.
    """

    spent: tuple[float, ...]

    def tails(self) -> tuple[float, ...]:
        """Tail probability of each look on one side."""
        return self.spent


def exact_tails(looks: Sequence[int], shares: Sequence[float]) -> tuple[float, ...]:
    """Tail probability of each look at which the looks together err exactly as much as the shares add up to.

    Group-sequential bounds by recursive integration (Armitage, McPherson & Rowe 1969, doi:10.2307/2343787) for sums of
    independent normal scores, whose correlations over the looks are thus made use of. They mislead where scores are
    not normal or variances are estimated from few runs: the error is then not bounded by anything.

    Args:
        looks: Runs at each look.
        shares: Error each look may add, of those not stopped before.
    """
    steps = np.diff((0, *looks))
    points, weighted = np.zeros(1), np.ones(1)  # where the sum may stand, and with which probability
    tails = []
    for look, step, share in zip(looks, steps, shares, strict=True):
        sd, edge = np.sqrt(step), np.sqrt(look)

        def excess(
            z: float,
            sd: float = sd,
            edge: float = edge,
            share: float = share,
            at: tuple[Any, ...] = (points, weighted),
        ) -> float:
            return float(at[1] @ ndtr((at[0] - z * edge) / sd) - share)

        bound = brentq(excess, 0.0, 12.0)
        grid, width = np.linspace(-9 * edge, bound * edge, _GRID, retstep=True)
        density = np.exp(-(((grid[:, None] - points) / sd) ** 2) / 2) @ weighted / (sd * np.sqrt(2 * np.pi))
        points, weighted = grid, density * width
        weighted[[0, -1]] /= 2
        tails.append(float(ndtr(-bound)))
    return tuple(tails)


def spendings() -> dict[str, tuple[float, ...]]:
    """Tail probabilities of each look, by the name of the way to spend them."""
    looks, half = DEFAULTS.looks, (1 - DEFAULTS.confidence) / 2
    time = np.array(looks) / looks[-1]
    shares = {
        "linear": half * time,
        "equal at every look": half * np.arange(1, len(looks) + 1) / len(looks),
        "quadratic": half * time**2,
        "O'Brien-Fleming-like": 2 * ndtr(ndtri(half / 2) / np.sqrt(time)),
    }
    ways = {name: tuple(map(float, np.diff(spent, prepend=0))) for name, spent in shares.items()}
    exact = {f"{name}, exact": exact_tails(looks, spent) for name, spent in ways.items()}
    return {**ways, **exact, "linear, alpha on each side": tuple(2 * share for share in ways["linear"])}


def compare_spendings(simulations: int, seed: int) -> list[Row]:
    """What each way to spend costs and how often it errs, on the same scores for all; one row a way.

    `wrong_most` is the largest share of wrong verdicts, `wrong_most_side` that of one of the two wrong verdicts, over
    cells at a regret of one margin; runs and decided are averaged over cells of 0, 0.5, 1.5 and 2 margins.
    """
    regrets: tuple[tuple[float, Rivals], ...] = (
        (0, "alike"), (0.5, "alike"), (1, "alike"), (1, "hopeless"), (1.5, "hopeless"), (2, "hopeless"),
    )  # fmt: skip
    cells = [
        Cell(regret, noise, 1, 1, k, rivals) for k in (1, 4) for noise in (0.5, 1.0) for regret, rivals in regrets
    ]
    ways = spendings()
    shares: dict[str, list[tuple[float, ...]]] = {name: [] for name in ways}
    for number, cell in enumerate(cells):
        scores = cell.truth.draw(np.random.default_rng([seed, number]), simulations, DEFAULTS.looks[-1])
        for name, tails in ways.items():
            plan = OtherPlan(DEFAULTS.looks, DEFAULTS.confidence, cell.challengers, tails)
            stand = replay(*scores, MARGIN, plan)
            runs = float((stand.reached + stand.runs.sum(-1)).mean())
            shares[name].append((float(stand.near_optimal.mean()), float(stand.not_near_optimal.mean()), runs))
    at_margin = np.array([cell.regret == 1 for cell in cells])
    rows: list[Row] = []
    for name, tails in ways.items():
        found = np.array(shares[name])
        rows.append(
            {
                "spending": name,
                **{f"tail_{look}": round(tail, 5) for look, tail in zip(DEFAULTS.looks, tails, strict=True)},
                "wrong_most": round(float(found[at_margin, :2].sum(-1).max()), 4),
                "wrong_most_side": round(float(found[at_margin, :2].max()), 4),
                "decided": round(float(found[~at_margin, :2].sum(-1).mean()), 4),
                "runs": round(float(found[~at_margin, 2].mean()), 1),
            }
        )
    return rows


def in_turn(verdicts: Sequence[Verdict], allowance: int) -> int | None:
    """Equal sharing: the affordable case with the fewest runs per schedule so far."""
    affordable = [i for i, verdict in enumerate(verdicts) if 0 < verdict.next_runs <= allowance]
    return min(affordable, key=lambda i: verdicts[i].runs, default=None)


def one_by_one(verdicts: Sequence[Verdict], allowance: int) -> int | None:
    """The first affordable case, until it is decided or its looks are spent."""
    return next((i for i, verdict in enumerate(verdicts) if 0 < verdict.next_runs <= allowance), None)


ORDERS: Mapping[str, Order] = {"next_case": next_case, "in turn": in_turn, "one by one": one_by_one}


def compare_orders(allowances: Sequence[int], studies: int, seed: int) -> list[Row]:
    """Share of cases decided for a total allowance of runs, by the order of looks; one row an allowance.

    Each study has `CASES` cases of four challengers, regrets uniform over 0 to 3 margins and noise log-uniform over
    0.15 to 1.5 points; all orders see the same scores.
    """
    rng = np.random.default_rng(seed)
    every = [[_path(rng) for _ in range(CASES)] for _ in range(studies)]
    return [
        {
            "allowance": allowance,
            "studies": studies,
            **{
                name: round(sum(_decided(paths, allowance, order) for paths in every) / (studies * CASES), 4)
                for name, order in ORDERS.items()
            },
        }
        for allowance in allowances
    ]


def _path(rng: np.random.Generator) -> list[Verdict]:
    """The verdicts of one random case after no look, the first, the second and so on, to its last."""
    regret, noise = float(rng.uniform(0, 3)), float(np.exp(rng.uniform(np.log(0.0015), np.log(0.015))))
    truth = Truth(regret * MARGIN, noise, noise, 4, "alike" if regret < 1 else "hopeless")
    rule, challengers = (arms[0] for arms in truth.draw(rng, 1, DEFAULTS.looks[-1]))
    plan, path = Plan(DEFAULTS.looks, DEFAULTS.confidence, 4), []
    for runs in (0, *plan.looks):
        path.append(decide(rule[:runs], {str(i): scores[:runs] for i, scores in enumerate(challengers)}, MARGIN, plan))
        if path[-1].next_look is None:
            break
    return path


def _decided(paths: Sequence[Sequence[Verdict]], allowance: int, order: Order) -> int:
    """How many of these cases an allowance decides when spent in this order."""
    looks = [0] * len(paths)
    while True:
        stand = [path[look] for path, look in zip(paths, looks, strict=True)]
        chosen = order(stand, allowance)
        if chosen is None:
            return sum(verdict.outcome != "undecided" for verdict in stand)
        allowance -= stand[chosen].next_runs
        looks[chosen] += 1
