import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from search import activity
from search.data import ImageData
from search.dataconfig import DataConfig
from search.evaluate import Fidelity, Scored
from search.networkconfig import NetworkConfig
from search.networks.plain import PlainNetwork
from search.schedule import FilterSchedule
from search.splits import Splits
from search.training import TrainingEvaluator
from search.trainingconfig import TrainingConfig

SCHEDULE = FilterSchedule((3, 5))


def planted(variances, seed=0):
    """A covariance with these eigenvalues along random directions."""
    size = len(variances)
    directions, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))
    return directions * variances @ directions.T


@pytest.mark.parametrize(
    ("variances", "number"),
    [((1, 1, 1, 1), 4), ((3, 3, 0, 0, 0), 2), ((5, 0, 0), 1), ((2, 1, 1), 16 / 6), ((0, 0), 0)],
)
def test_planted_variances_give_their_effective_number(variances, number):
    assert activity.effective_number(planted(variances)) == pytest.approx(number)


@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=8).filter(lambda values: max(values) > 1e-3),
    st.floats(1e-3, 1e3),
    st.integers(0, 99),
)
def test_scale_and_directions_do_not_matter_and_filters_bound_it(variances, scale, seed):
    number = activity.effective_number(np.diag(variances))
    assert activity.effective_number(scale * planted(variances, seed)) == pytest.approx(number)
    assert 1 - 1e-9 <= number <= len(variances) + 1e-9


def test_a_copied_filter_adds_nothing():
    samples = np.random.default_rng(0).standard_normal((500, 3))
    copied = np.cov(np.column_stack([samples, samples]), rowvar=False)
    assert activity.effective_number(copied) == pytest.approx(activity.effective_number(np.cov(samples, rowvar=False)))


def test_covariances_are_those_of_each_stage_over_images_and_positions():
    network = PlainNetwork(SCHEDULE.filters, 2, 4, (1, 1))
    images = torch.randn(300, 2, 6, 6, generator=torch.Generator().manual_seed(0))  # more than a batch
    found = activity.stage_covariances(network, images)
    network.eval()
    with torch.no_grad():
        first = network.stage1(images)
        second = network.stage2(network.pool1(first))
    for covariance, outputs in zip(found, (first, second), strict=True):
        samples = outputs.permute(0, 2, 3, 1).flatten(0, 2).double().numpy()
        assert covariance == pytest.approx(np.cov(samples, rowvar=False, bias=True), abs=1e-6)
    assert not network.stage1._forward_hooks


@pytest.mark.integration
def test_a_run_is_measured_with_its_own_weights_and_images():
    rng = np.random.default_rng(0)
    data = ImageData(rng.integers(0, 256, (60, 1, 6, 6)).astype(np.uint8), np.arange(60) % 3, 3, "random")
    splits = Splits(data, DataConfig())
    evaluate = TrainingEvaluator(NetworkConfig(), TrainingConfig(), data, splits, torch.device("cpu"))
    (run,) = evaluate(SCHEDULE, [7], Fidelity(2), "validation", keep_weights=True)
    split = splits.train_validation(7)
    state = torch.get_rng_state()
    numbers = activity.of_run(NetworkConfig(), SCHEDULE, run, data, split)
    assert torch.equal(torch.get_rng_state(), state)
    network = PlainNetwork(SCHEDULE.filters, 1, 3, (1, 1)).eval()
    network.load_state_dict(run.weights)
    training = data.images[split.training]
    images = torch.from_numpy((data.images[split.validation] - training.mean()) / training.std()).float()
    right = network(images).argmax(1).numpy() == data.labels[split.validation]
    assert right.mean() == pytest.approx(run.accuracy)
    expected = [activity.effective_number(each) for each in activity.stage_covariances(network, images)]
    assert numbers == pytest.approx(expected, rel=1e-4)


def test_a_run_without_weights_is_refused():
    run = Scored(3, 0.5, 1.0, np.ones(2, bool), 1, 0.1)
    data = ImageData(np.zeros((4, 1, 6, 6), np.uint8), np.arange(4) % 2, 2, "grey")
    with pytest.raises(ValueError, match="3-5 with seed 3 kept no weights; evaluate it with keep_weights=True"):
        activity.of_run(NetworkConfig(), SCHEDULE, run, data, None)
