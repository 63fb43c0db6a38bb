"""Simulated confirmations whose true regret is known: scores of a rule and its challengers, as test splits give them.

Owns the truths that calibration is measured on, and which verdicts are wrong of them. Scores are accuracies on a
finite test split: normal over seeds, rounded to whole images and clipped at 1. A true mean is that of what is drawn,
after rounding and clipping.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr

from search.config import ConfirmConfig
from search.looks import Bools, Floats

DEFAULTS = ConfirmConfig()
MARGIN = DEFAULTS.margin

TEST_IMAGES = 540
"""Images of the simulated test split, as many as digits leaves for testing; accuracies are multiples of 1 / 540."""

BEST_ACCURACY = 0.97
"""True mean accuracy of the best schedule: near enough to 1 for noise of a point or two to be clipped there."""

COLLAPSED = 0.01  # share of runs that collapse, where any do
LOSS = (0.1, 0.8)  # what a collapsed run loses, drawn uniformly, as a fraction
_HOPELESS = 0.05  # what a hopeless challenger lacks to the rule: settled at the first looks whatever the noise

Collapse = Literal["none", "rule", "challengers", "all"]
Rivals = Literal["alike", "hopeless"]


@dataclass(frozen=True)
class Truth:
    """What is true of one rule and its challengers.

    Attributes:
        regret: Mean accuracy of the best challenger minus the rule's, a fraction, not below 0.
        rule_sd: Sd of the rule's accuracy over seeds before rounding, clipping and collapse; a fraction.
        challenger_sd: The same for every challenger.
        challengers: K.
        rivals: The challengers but the best: as good as it, or hopeless. With a regret within the margin `alike` is
            least favourable, since each may wrongly be called better, and each must be settled; beyond it `hopeless`,
            since whoever is not yet settled keeps the rule from wrongly being called near-optimal.
        collapse: Whose runs collapse now and then: 1 % of them lose 10 to 80 points.
    """

    regret: float
    rule_sd: float
    challenger_sd: float
    challengers: int
    rivals: Rivals = "alike"
    collapse: Collapse = "none"

    def draw(self, rng: np.random.Generator, simulations: int, runs: int) -> tuple[Floats, Floats]:
        """Accuracies of the rule, `(simulations, runs)`, and the challengers, `(simulations, K, runs)`."""
        rule_mean = BEST_ACCURACY - self.regret
        rest = BEST_ACCURACY if self.rivals == "alike" else rule_mean - _HOPELESS
        rule = _accuracies(rng, rule_mean, self.rule_sd, (simulations, runs), self.collapse in ("rule", "all"))
        collapses = self.collapse in ("challengers", "all")
        challengers = [
            _accuracies(rng, mean, self.challenger_sd, (simulations, runs), collapses)
            for mean in (BEST_ACCURACY, *[rest] * (self.challengers - 1))
        ]
        return rule, np.stack(challengers, axis=1)


@dataclass(frozen=True)
class Cell:
    """One truth, in the units of the method: margins.

    Attributes:
        regret: True regret in margins of the default configuration.
        noise: Sd over seeds of the quieter arm, in points.
        rule_noise: The rule's sd as a multiple of `noise`.
        challenger_noise: The challengers' sd as a multiple of `noise`.
        challengers: K.
        rivals: See `Truth`.
        collapse: See `Truth`.
    """

    regret: float
    noise: float
    rule_noise: float
    challenger_noise: float
    challengers: int
    rivals: Rivals
    collapse: Collapse = "none"

    @property
    def truth(self) -> Truth:
        """The same in fractions of accuracy."""
        sds = (self.noise / 100 * self.rule_noise, self.noise / 100 * self.challenger_noise)
        return Truth(self.regret * MARGIN, *sds, self.challengers, self.rivals, self.collapse)

    @property
    def must_decide(self) -> bool:
        """Whether the acceptance asks for a decision here."""
        return (self.regret == 0 or self.regret >= 2) and math.isclose(self.noise / 100, MARGIN)


def wrong(regret: float, near: Bools, not_near: Bools) -> Bools:
    """Which verdicts are wrong at this true regret, in margins.

    `not near-optimal` claims a regret beyond the margin: wrong at one margin and below. `near-optimal` claims a regret
    within it: wrong above one margin. At exactly one margin it is true to the letter, yet the same scores come from a
    regret a hair above, where it is not; so there both count, the strictest reading, and nothing but `undecided` is
    right. Each of the two is bounded by half of alpha, so that both together stay within alpha.
    """
    return not_near & (regret <= 1) | near & (regret >= 1)


def _accuracies(rng: np.random.Generator, mean: float, sd: float, shape: tuple[int, ...], collapses: bool) -> Floats:
    """Accuracies with this true mean, collapsed runs included."""
    lost = np.zeros(shape)
    if collapses:
        lost = np.where(rng.random(shape) < COLLAPSED, rng.uniform(*LOSS, shape), 0.0)
        mean += COLLAPSED * sum(LOSS) / 2
    scores = np.clip(rng.normal(_location(mean, sd), sd, shape) - lost, 0, 1)
    return np.asarray(np.rint(scores * TEST_IMAGES) / TEST_IMAGES)


@lru_cache(maxsize=1024)
def _location(mean: float, sd: float) -> float:
    """The mean of the normal that has this mean after clipping to [0, 1] and rounding to whole images."""
    steps = (np.arange(TEST_IMAGES) + 0.5) / TEST_IMAGES

    def excess(location: float) -> float:
        # The mean of a count is the sum of the chances to exceed each step.
        return math.fsum(ndtr((location - steps) / sd)) / TEST_IMAGES - mean

    return float(brentq(excess, 0.0, 1.0 + 5 * sd, xtol=1e-12))
