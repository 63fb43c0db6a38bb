import signal
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch.nn import functional

from search import replicatraining, training
from search.augment import Augmentation
from search.data import ImageData
from search.dataconfig import DataConfig
from search.device import choose_device
from search.errors import ConfigError
from search.evaluate import Failed, Fidelity, Scored
from search.networkconfig import NetworkConfig
from search.networks import build
from search.schedule import FilterSchedule
from search.sources import load
from search.splits import Splits
from search.training import _ORDER_STREAM, TrainingEvaluator
from search.trainingconfig import TrainingConfig

pytestmark = pytest.mark.integration
SCHEDULE = FilterSchedule((3, 4, 5))
CONFIG = DataConfig()


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Networks this small only wait for further threads, all the more on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data():
    return load(CONFIG)


@pytest.fixture(scope="module")
def splits(data):
    return Splits(data, CONFIG)


def make(data, splits, device="cpu", **recipe):
    return TrainingEvaluator(NetworkConfig(), TrainingConfig(**recipe), data, splits, torch.device(device))


@pytest.fixture(scope="module")
def evaluate(data, splits):
    return make(data, splits)


def records(runs):
    return [(run.seed, run.accuracy, run.loss, run.correct.tobytes()) for run in runs]


def test_a_network_learns_the_digits(evaluate):
    (run,) = evaluate(FilterSchedule((8, 16, 31)), [0], Fidelity(10), "test")
    assert run.accuracy > 0.95


def test_equal_seeds_give_equal_runs_whatever_the_global_seed(evaluate):
    np.random.seed(1)  # noqa: NPY002 # the legacy seed is what must not matter
    torch.manual_seed(1)
    first = records(evaluate(SCHEDULE, [5, 6], Fidelity(2), "validation"))
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(2)
    assert records(evaluate(SCHEDULE, [5, 6], Fidelity(2), "validation")) == first
    assert records(evaluate(SCHEDULE, [5, 7], Fidelity(2), "validation"))[1] != first[1]


def test_global_generators_are_not_moved(evaluate):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    evaluate(SCHEDULE, [5, 6], Fidelity(1), "validation")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


@pytest.mark.parametrize("fused", [True, False])
def test_a_seed_gives_the_same_run_alone_and_among_others(evaluate, monkeypatch, fused):
    if not fused:
        monkeypatch.setattr(training, "fuse", lambda networks: None)
    together = evaluate(SCHEDULE, [3, 4, 9], Fidelity(1), "test", keep_weights=True)
    for run in together:
        (alone,) = evaluate(SCHEDULE, [run.seed], Fidelity(1), "test", keep_weights=True)
        assert run.loss == pytest.approx(alone.loss, rel=1e-2)
        assert run.accuracy == pytest.approx(alone.accuracy, abs=0.01)
        for name, tensor in alone.weights.items():
            torch.testing.assert_close(run.weights[name], tensor, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_score_is_that_of_the_returned_weights_on_the_split_asked_for(evaluate, data, splits, split):
    for run in evaluate(SCHEDULE, [3, 4], Fidelity(1), split, keep_weights=True):
        drawn = splits.train_validation(run.seed)
        indices = splits.test if split == "test" else drawn.validation
        network = build(NetworkConfig(), SCHEDULE, 1, 10)
        network.load_state_dict(run.weights)
        mean, deviation = (moment[:, None, None] for moment in data.normalisation(drawn.training))
        images = torch.from_numpy((data.images[indices] - mean) / deviation)
        labels = torch.from_numpy(data.labels[indices])
        with torch.no_grad():
            logits = network.eval()(images)
        assert np.array_equal(run.correct, (logits.argmax(1) == labels).numpy())
        assert run.accuracy == run.correct.mean()
        assert run.loss == pytest.approx(float(functional.cross_entropy(logits, labels)), rel=1e-4)
        assert (run.epochs, run.replicas, run.peak_bytes, run.peak_reserved_bytes) == (1, 2, None, None)


def test_every_epoch_is_reported_and_does_not_disturb_the_run(evaluate):
    seen = []
    runs = evaluate(SCHEDULE, [1, 2], Fidelity(3), "validation", lambda *epoch: bool(seen.append(epoch)))
    assert [epoch for epoch, _ in seen] == [1, 2, 3]
    assert seen[-1][1] == pytest.approx(np.mean([run.accuracy for run in runs]))
    assert records(runs) == records(evaluate(SCHEDULE, [1, 2], Fidelity(3), "validation"))


def test_true_from_on_epoch_stops(evaluate):
    runs = evaluate(SCHEDULE, [1], Fidelity(5), "validation", lambda epoch, _: epoch == 2)
    assert [run.epochs for run in runs] == [2]


def poison(monkeypatch, doomed):
    """Build the networks of some seeds with a weight that is not finite."""
    initialise = TrainingEvaluator._initialise

    def poisoned(self, schedule, seed):
        network = initialise(self, schedule, seed)
        if seed in doomed:
            network.stage1.block1.conv.weight.data[0] = torch.nan
        return network

    monkeypatch.setattr(TrainingEvaluator, "_initialise", poisoned)


def test_a_replica_that_diverges_fails_alone(evaluate, monkeypatch):
    seen = []
    healthy = records(evaluate(SCHEDULE, [1, 2, 3], Fidelity(2), "test"))
    poison(monkeypatch, {2})
    runs = evaluate(SCHEDULE, [1, 2, 3], Fidelity(2), "test", lambda *epoch: bool(seen.append(epoch)))
    assert isinstance(runs[1], Failed)
    assert (runs[1].seed, runs[1].reason) == (2, "diverged")
    assert runs[1].detail == "training loss not finite in epoch 1 of 2"
    assert records([runs[0], runs[2]]) == [healthy[0], healthy[2]]
    assert all(np.isfinite(accuracy) for _, accuracy in seen)


def test_training_stops_when_every_replica_has_diverged(evaluate, monkeypatch):
    poison(monkeypatch, {1, 2})
    seen = []
    runs = evaluate(SCHEDULE, [1, 2], Fidelity(50), "validation", lambda *epoch: bool(seen.append(epoch)))
    assert [run.reason for run in runs] == ["diverged", "diverged"]
    assert seen == []


def test_weights_ruined_by_the_last_step_are_a_divergence_too(evaluate, monkeypatch):
    def ruin(module):
        module.network.network.head.weight.data[:10] = torch.inf
        return False

    monkeypatch.setattr(
        replicatraining.ReplicaTraining, "_after_epoch", property(lambda self: ruin, lambda *_: None), False
    )
    runs = evaluate(SCHEDULE, [1, 2], Fidelity(1), "validation")
    assert isinstance(runs[0], Failed)
    assert runs[0].detail.startswith("loss ")
    assert isinstance(runs[1], Scored)


def test_a_candidate_beyond_memory_fails_every_seed(evaluate):
    huge = FilterSchedule((8, 2**50))  # 2^58 bytes: more than any address space, so nothing is really taken
    runs = evaluate(huge, [1, 2], Fidelity(1), "validation")
    assert [(run.seed, run.reason) for run in runs] == [(1, "oom"), (2, "oom")]
    assert runs[0].detail.startswith(f"{huge}: ")
    assert "\n" not in runs[0].detail


def test_seeds_that_do_not_fit_in_memory_together_train_in_smaller_passes(evaluate, monkeypatch):
    build, passes = evaluate._build, []

    def cramped(schedule, seeds):
        passes.append(list(seeds))
        if len(seeds) > 1:
            raise torch.OutOfMemoryError
        return build(schedule, seeds)

    monkeypatch.setattr(evaluate, "_build", cramped)
    runs = evaluate(SCHEDULE, [1, 2, 3], Fidelity(1), "validation")
    assert passes == [[1, 2, 3], [1], [2, 3], [2], [3]]
    assert [run.seed for run in runs] == [1, 2, 3]
    assert all(isinstance(run, Scored) for run in runs)
    assert [run.replicas for run in runs] == [1, 1, 1]


class Turns:
    """Notes who has the GPU."""

    def __init__(self):
        self.had = "nobody"

    @contextmanager
    def _had(self, who):
        self.had = who
        yield
        self.had = "nobody"

    def beside_others(self):
        return self._had("all")

    def alone(self):
        return self._had("this")


@pytest.mark.parametrize("suffices_alone", [True, False])
def test_a_lack_of_memory_counts_where_no_neighbour_holds_any(evaluate, monkeypatch, suffices_alone):
    build, passes, evaluate.gpu = evaluate._build, [], Turns()

    def cramped(schedule, seeds):
        passes.append((evaluate.gpu.had, list(seeds)))
        if evaluate.gpu.had != "this" or not suffices_alone:
            raise torch.OutOfMemoryError
        return build(schedule, seeds)

    monkeypatch.setattr(evaluate, "_build", cramped)
    runs = evaluate(SCHEDULE, [1, 2], Fidelity(1), "validation")
    assert passes == [("all", [1, 2]), ("all", [1]), ("this", [1]), ("all", [2]), ("this", [2])]
    assert [isinstance(run, Scored) for run in runs] == [suffices_alone] * 2


def test_other_errors_are_not_taken_for_a_lack_of_memory(evaluate):
    def fail(*_):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        evaluate(SCHEDULE, [1], Fidelity(1), "validation", fail)


def test_interrupt_reaches_the_caller_as_itself(evaluate):
    handler = signal.default_int_handler
    before = signal.signal(signal.SIGINT, handler)  # a shell's background job ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            evaluate(SCHEDULE, [1], Fidelity(3), "validation", lambda *_: signal.raise_signal(signal.SIGINT))
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_exit_asked_for_by_the_caller_stays_an_exit(evaluate):
    def leave(*_):
        raise SystemExit(7)

    with pytest.raises(SystemExit, match="7"):
        evaluate(SCHEDULE, [1], Fidelity(3), "validation", leave)


def test_sigterm_goes_to_the_studys_handler_and_the_run_ends_well(evaluate):
    received = []
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        (run,) = evaluate(SCHEDULE, [1], Fidelity(3), "validation", lambda *_: signal.raise_signal(signal.SIGTERM))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == [signal.SIGTERM] * 3
    assert run.epochs == 3


def test_nothing_is_shown_or_written(data, splits, tmp_path, monkeypatch, capfd, caplog, recwarn):
    monkeypatch.chdir(tmp_path)
    make(data, splits)(SCHEDULE, [1], Fidelity(1), "validation")
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    assert list(recwarn) == []
    assert list(tmp_path.iterdir()) == []


def test_fewer_images_than_a_batch_make_one_batch(data, splits):
    (run,) = make(data, splits, batch_size=4096)(SCHEDULE, [1], Fidelity(1), "validation")
    assert isinstance(run, Scored)


def test_the_recipe_is_read(data, splits, evaluate):
    usual = records(evaluate(SCHEDULE, [1], Fidelity(1), "validation"))
    augments = ({"flip": True}, {"crop": 1}, {"randaugment": 1}, {"mixup": 0.2}, {"cutmix": 1.0})
    others = ({"batch_size": 32}, {"learning_rate": 0.01}, {"weight_decay": 10.0})
    for recipe in (*others, *({"augment": each} for each in augments)):
        assert records(make(data, splits, **recipe)(SCHEDULE, [1], Fidelity(1), "validation")) != usual


AUGMENTED = {"augment": {"flip": True, "crop": 1, "randaugment": 1, "mixup": 0.2, "cutmix": 1.0}}


def test_augmented_runs_repeat_and_move_no_global_generator(data, splits):
    evaluate = make(data, splits, **AUGMENTED)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = records(evaluate(SCHEDULE, [5, 6], Fidelity(2), "validation"))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert records(evaluate(SCHEDULE, [5, 6], Fidelity(2), "validation")) == first


def test_an_augmented_seed_gives_the_same_run_alone_and_among_others(data, splits):
    evaluate = make(data, splits, **AUGMENTED)
    for run in evaluate(SCHEDULE, [3, 4], Fidelity(1), "test", keep_weights=True):
        (alone,) = evaluate(SCHEDULE, [run.seed], Fidelity(1), "test", keep_weights=True)
        for name, tensor in alone.weights.items():
            torch.testing.assert_close(run.weights[name], tensor, rtol=2e-2, atol=2e-2)


def test_what_is_scored_is_not_augmented(data, splits, monkeypatch):
    sizes = []
    vary = Augmentation.vary
    monkeypatch.setattr(Augmentation, "vary", lambda self, images: sizes.append(len(images)) or vary(self, images))
    make(data, splits, augment={"flip": True})(SCHEDULE, [1], Fidelity(2), "test", lambda *_: False)
    training = len(splits.train_validation(1).training)
    assert sizes == [64] * (2 * (training // 64))


def test_augmentation_the_images_do_not_allow_is_refused_at_once(data, splits):
    with pytest.raises(ConfigError, match=r"training.augment.crop is 5, but images of digits are 8x8"):
        make(data, splits, augment={"crop": 5})


def test_balanced_accuracy_is_what_runs_and_epochs_report(splits, data):
    few = np.concatenate([np.flatnonzero(data.labels == label)[: 20 if label % 2 else None] for label in range(10)])
    unequal = ImageData(data.images[few], data.labels[few], 10, "unequal digits")
    own, seen = Splits(unequal, CONFIG), []
    balanced = make(unequal, own, score="balanced_accuracy")
    (run,) = balanced(SCHEDULE, [1], Fidelity(2), "test")
    labels = unequal.labels[own.test]
    shares = [run.correct[labels == label].mean() for label in range(10)]
    assert run.accuracy == pytest.approx(np.mean(shares))
    assert abs(run.accuracy - run.correct.mean()) > 0.02
    (plain,) = make(unequal, own)(SCHEDULE, [1], Fidelity(2), "test")
    assert (plain.accuracy, plain.correct.tobytes()) == (run.correct.mean(), run.correct.tobytes())
    (validated,) = balanced(SCHEDULE, [1], Fidelity(2), "validation", lambda *epoch: bool(seen.append(epoch)))
    assert seen[-1][1] == pytest.approx(validated.accuracy)


def test_images_on_the_cpu_are_not_copied(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (200, 1, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="c")
    data = ImageData(mapped, np.arange(200) % 4, 4, "mapped")
    evaluate = make(data, Splits(data, CONFIG))
    assert evaluate._images.data_ptr() == mapped.ctypes.data


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"compute.device is cuda, but torch sees no CUDA device; set it to cpu"):
        choose_device("cuda")


_RESIDUAL = """
import numpy as np, torch
from search.data import ImageData
from search.dataconfig import DataConfig
from search.evaluate import Fidelity
from search.networkconfig import NetworkConfig
from search.schedule import FilterSchedule
from search.splits import Splits
from search.training import TrainingEvaluator
from search.trainingconfig import TrainingConfig
torch.set_num_threads(1)
images = np.random.default_rng(0).integers(0, 256, (60, 3, 64, 64), dtype=np.uint8)
data = ImageData(images, np.arange(60) % 2, 2, "noise")
recipe, splits = TrainingConfig(batch_size=16), Splits(data, DataConfig())
evaluate = TrainingEvaluator(NetworkConfig(family="residual"), recipe, data, splits, torch.device("cpu"))
for seeds in ([1], [1, 2]):
    assert len(evaluate(FilterSchedule((8, 16, 32)), seeds, Fidelity(1), "test")) == len(seeds)
"""


def test_residual_networks_of_few_filters_train_on_large_images():
    """In a process of its own, which a kernel that writes beyond its memory would end by a signal."""
    ended = subprocess.run([sys.executable, "-c", _RESIDUAL], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_runs_repeat_and_memory_is_measured(data, splits):
    evaluate = make(data, splits, choose_device("cuda"))
    first = evaluate(SCHEDULE, [1, 2], Fidelity(2), "test", keep_weights=True)
    assert records(first) == records(evaluate(SCHEDULE, [1, 2], Fidelity(2), "test"))
    assert 0 < first[0].peak_bytes <= first[0].peak_reserved_bytes
    assert all(tensor.device.type == "cpu" for tensor in first[0].weights.values())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_cuda_graph_changes_nothing_but_rounding(data, splits, monkeypatch, precision):
    captured = make(data, splits, "cuda", precision=precision)(SCHEDULE, [3, 4], Fidelity(1), "test")
    monkeypatch.setattr(replicatraining, "CapturedPasses", lambda passes, device: passes)
    eager = make(data, splits, "cuda", precision=precision)(SCHEDULE, [3, 4], Fidelity(1), "test")
    for one, other in zip(captured, eager, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-2)


def test_bfloat16_learns_the_digits_and_is_scored_in_float32(data, splits):
    runs = make(data, splits, precision="bfloat16")(FilterSchedule((8, 8, 8)), [0, 1], Fidelity(4), "validation")
    usual = make(data, splits)(FilterSchedule((8, 8, 8)), [0, 1], Fidelity(4), "validation")
    for half, full in zip(runs, usual, strict=True):
        assert half.loss != full.loss
        assert half.accuracy == pytest.approx(full.accuracy, abs=0.05)


def test_an_epoch_in_one_step_of_lightning_trains_as_a_loop_written_by_hand(data, splits, evaluate):
    recipe, seed = TrainingConfig(), 5
    (run,) = evaluate(SCHEDULE, [seed], Fidelity(2), "validation", keep_weights=True)
    network = evaluate._initialise(SCHEDULE, seed)
    training = splits.train_validation(seed).training
    mean, deviation = (moment[:, None, None] for moment in data.normalisation(training))
    images = torch.from_numpy((data.images.astype(np.float32) - mean) / deviation)
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    steps = len(training) // recipe.batch_size
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, total_steps=2 * steps)
    order = np.random.default_rng((_ORDER_STREAM, seed))
    for _ in range(2):
        shuffled = order.permutation(training)
        for batch in np.split(shuffled[: steps * recipe.batch_size], steps):
            loss = functional.cross_entropy(network(images[batch]), torch.from_numpy(data.labels[batch]))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rate.step()
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(run.weights[name], tensor, rtol=1e-2, atol=1e-2)
