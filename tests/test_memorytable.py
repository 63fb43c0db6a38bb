import optuna
import pytest
from optuna.trial import TrialState

from search import study
from search.cost import Costs, amount
from search.memorytable import memory_table


class Predicting:
    """A cost model that predicts a mebibyte for each filter of the first stage."""

    def costs(self, schedule):
        return Costs(1, 1, 1, schedule.filters[0] * 2**20)

    def table(self, filters, cost):
        raise NotImplementedError


@pytest.fixture
def storage(plan, tmp_path):
    return study.create(tmp_path, plan.config, ["maximize"], "fingerprint")


def add(of_purpose, schedule, *runs):
    measured = [
        {"seed": seed, "accuracy": 0.9}
        | dict(zip(("replicas", "peak_bytes", "peak_reserved_bytes"), run, strict=False))
        for seed, run in enumerate(runs)
    ]
    attrs = {"schedule": schedule, "runs": measured}
    of_purpose.add_trial(optuna.trial.create_trial(state=TrialState.COMPLETE, value=0.9, user_attrs=attrs))


def test_nothing_measured_is_no_table(storage):
    add(storage.search, "4-4-4", (2,))
    assert memory_table(Predicting(), storage) is None


def test_the_prediction_for_a_pass_is_that_of_a_run_times_its_replicas(storage):
    add(storage.search, "4-4-4", (2, 9 * 2**20, 12 * 2**20))
    add(storage.confirm, "2-4-4", (8, 12 * 2**20, 20 * 2**20), (8, 10 * 2**20, 24 * 2**20))
    table = memory_table(Predicting(), storage)
    assert [(row.schedule, row.replicas, row.predicted) for row in table.rows] == [
        ("4-4-4", 2, amount("memory", 8 * 2**20)),
        ("2-4-4", 8, amount("memory", 16 * 2**20)),
    ]
    assert [(row.allocated, row.reserved, row.ratio) for row in table.rows] == [
        ("9.0 MiB", "12.0 MiB", "1.12"),
        ("12.0 MiB", "24.0 MiB", "0.75"),
    ]
    assert (table.measurements, table.least, table.most) == (2, "0.75", "1.12")


def test_of_many_measurements_a_dozen_are_shown_and_all_are_told(storage):
    for filters in range(1, 41):
        add(storage.search, f"{filters}-4-4", (1, filters * 2**19 if filters == 2 else filters * 2**20, 2**30))
    table = memory_table(Predicting(), storage)
    assert len(table.rows) == 12
    assert (table.rows[0].schedule, table.rows[-1].schedule) == ("1-4-4", "40-4-4")
    assert (table.measurements, table.least, table.most) == (40, "0.50", "1.00")
