"""Accuracy and costs become a trial's value; accuracy is what counts, costs are what it is paid with."""

import math
from dataclasses import dataclass

from search.config import SearchConfig
from search.cost import Budget, Costs


@dataclass(frozen=True)
class Objective:
    """What a trial is worth.

    Attributes:
        search: Which objective, and the weights of `weighted`.
        reference: Costs at which the weighted objective equals accuracy: those of the first judged rule under the
            first budget. Another reference shifts all scores alike.
    """

    search: SearchConfig
    reference: Costs

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each value."""
        match self.search.objective:
            case "constrained":
                return ("accuracy",)
            case "weighted":
                return ("weighted accuracy",)
            case "pareto":
                return ("accuracy", "params", "memory")

    @property
    def directions(self) -> tuple[str, ...]:
        """`maximize` or `minimize` for each value."""
        return ("maximize", "minimize", "minimize")[: len(self.names)]

    def values(self, accuracy: float, costs: Costs) -> tuple[float, ...]:
        """A trial's value or values, in the order of `names`."""
        match self.search.objective:
            case "constrained":
                return (accuracy,)
            case "weighted":
                return (self.weighted(accuracy, costs),)
            case "pareto":
                return (accuracy, float(costs["params"]), float(costs["memory"]))

    def weighted(self, accuracy: float, costs: Costs) -> float:
        """Accuracy minus, for parameters and for memory, the weight times log2 of cost over reference.

        A weight is the accuracy one pays for halving that cost.
        """
        return (
            accuracy
            - self.search.params_weight * math.log2(costs["params"] / self.reference["params"])
            - self.search.memory_weight * math.log2(costs["memory"] / self.reference["memory"])
        )


def excess(costs: Costs, budget: Budget) -> float:
    """How far costs exceed a budget as a share of its limit; 0 or less is feasible."""
    return costs[budget.cost] / budget.limit - 1
