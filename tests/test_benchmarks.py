from datetime import datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pytest
from benchmarks import imagetrials, lightningtrials, oursworker, plainloop
from benchmarks.ratios import Interval, Spread, markdown, ratios
from benchmarks.runs import Order, training_of
from benchmarks.sideprocess import PeakMemory, SideProcess
from benchmarks.studies import throughput
from benchmarks.training import Turn, Turns
from benchmarks.work import BANDS, Job, Trained, Work, jobs_of_round, write_works

from search.schedule import FilterSchedule
from search.trainingconfig import TrainingConfig

JOBS = [Job("small", FilterSchedule((3, 4, 5)), seed) for seed in (0, 7)]


@pytest.fixture(scope="module")
def works(tmp_path_factory) -> dict[str, Work]:
    brief = TrainingConfig(epochs=1, learning_rate=0.005)
    written = write_works(tmp_path_factory.mktemp("works"))
    return {work.name: Work(work.name, work.path, brief) for work in written}


@pytest.mark.integration
@pytest.mark.parametrize("name", ["8x8", "32x32x3"])
def test_all_sides_train_the_same_networks(works, name):
    plain = [plainloop.train(works[name], [job])[0].accuracy for job in JOBS]
    assert len(set(plain)) > 1
    for others in (
        lightningtrials.train,
        imagetrials.train,
        lambda work, jobs: oursworker.train_pass((work, jobs, True)),
    ):
        trained = others(works[name], JOBS)
        assert [one.job for one in trained] == JOBS
        assert [one.accuracy for one in trained] == pytest.approx(plain, abs=0.005)
        assert all(one.seconds > 0 for one in trained)


@pytest.mark.integration
def test_sides_differ_where_the_order_of_images_does(works, monkeypatch):
    """Else the test above could not fail."""
    plain = [one.accuracy for one in plainloop.train(works["8x8"], JOBS)]
    monkeypatch.setattr("benchmarks.runs._ORDER_STREAM", 5)
    assert [one.accuracy for one in plainloop.train(works["8x8"], JOBS)] != pytest.approx(plain, abs=0.005)


def test_the_order_is_that_of_the_product(works):
    training = training_of(works["8x8"], 3)
    order, rng = Order(len(training), 3), np.random.default_rng((4, 3))
    for _ in range(2):
        assert np.array_equal(training[list(order)], rng.permutation(training))


def test_the_rounds_train_every_schedule_once_under_every_seed():
    jobs = [job for number in range(4) for job in jobs_of_round(number, 4, range(2))]
    named = {(band, text) for band, texts in BANDS.items() for text in texts.split()}
    assert sorted((job.band, str(job.schedule), job.seed) for job in jobs) == sorted(
        (band, text, seed) for band, text in named for seed in range(2)
    )
    assert len(named) == 24


@pytest.mark.integration
def test_a_side_trains_in_a_process_of_its_own_whose_memory_is_measured(works):
    with SideProcess("plainloop") as side, PeakMemory(side.pid) as memory:
        trained, seconds = side.train(works["8x8"], JOBS)
    assert [one.accuracy for one in trained] == [one.accuracy for one in plainloop.train(works["8x8"], JOBS)]
    assert sum(one.seconds for one in trained) < seconds
    assert memory.bytes > 50 * 2**20


def turn(number: int, wall: float, *jobs: tuple[str, float, float]) -> Turn:
    return Turn(number, [Trained(Job(band, JOBS[0].schedule, 0), right, took) for band, right, took in jobs], wall)


def test_a_band_has_its_share_of_the_wall_seconds():
    one = turn(0, 6.0, ("small", 0.5, 1.0), ("large", 0.5, 3.0), ("large", 0.5, 5.0))
    seconds = [one.of(one.jobs(band)).wall_seconds for band in ("small", "large", "all")]
    assert seconds == pytest.approx([2 / 3, 16 / 3, 6])


def test_sides_are_compared_over_the_rounds_both_had(works):
    turns = Turns(works["8x8"])
    turns.by_side["a"] += [turn(0, 4.0, ("small", 0.9, 1.0)), turn(1, 9.0, ("small", 0.8, 1.0))]
    turns.by_side["d"] += [turn(0, 2.0, ("small", 0.91, 1.0)), turn(1, 3.0, ("small", 0.83, 1.0))]
    turns.by_side["c"] += [turn(0, 20.0, ("small", 0.9, 1.0))]
    assert turns.ratios("a", "all") == Spread(2.5, 2.0, 3.0)
    assert turns.ratios("c", "small") == Spread(10.0, 10.0, 10.0)
    assert turns.difference("d").mean == pytest.approx(2.0)
    assert turns.seconds_per_run("d", "small") == Spread(2.5, 2.0, 3.0)


def test_ratios_are_of_pairs_and_told_by_median_and_range():
    assert ratios([2.0, 9.0, 8.0], [1.0, 3.0, 1.0]) == Spread(3.0, 2.0, 8.0)
    assert str(ratios([2.0, 9.0, 8.0], [1.0, 3.0, 1.0])) == "3.00 (2.00 to 8.00)"


def test_an_interval_of_paired_differences_is_students():
    interval = Interval.of([0.91, 0.92, 0.93, 0.94], [0.90, 0.92, 0.92, 0.94])
    assert interval.mean == pytest.approx(0.5)
    assert interval.half == pytest.approx(3.182 * 0.57735 / 2, rel=1e-3)
    assert interval.within(1.5)
    assert not interval.within(1.4)


def test_throughput_is_of_the_time_when_all_workers_work():
    begun = datetime(2026, 1, 1)

    def trial(owner: int, start: float, stop: float) -> SimpleNamespace:
        begin, end = (begun + timedelta(seconds=each) for each in (start, stop))
        return SimpleNamespace(user_attrs={"owner": owner}, datetime_start=begin, datetime_complete=end)

    alone = [trial(1, 0, 1), trial(1, 1, 2), trial(1, 2, 3)]
    assert throughput(alone) == pytest.approx(1.0)
    assert throughput([*alone, trial(2, 1, 2), trial(2, 2, 5)]) == pytest.approx((2 + 1 + 1 / 3) / 2)


def test_tables_are_padded():
    assert list(markdown(("a", "b"), [("1", "long")])) == ["| a | b    |", "| - | ---- |", "| 1 | long |", ""]
