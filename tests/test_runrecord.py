import numpy as np

from search.evaluate import Failed, Scored
from search.runrecord import pack_counts, record, unpack_counts


def test_a_measured_run_is_kept_with_its_memory_and_how_many_trained_beside_it():
    run = Scored(3, 0.5, 1.25, np.ones(2, bool), 4, 0.1, 1000, 2048, 8)
    assert record(run) == {
        "seed": 3,
        "accuracy": 0.5,
        "loss": 1.25,
        "epochs": 4,
        "replicas": 8,
        "peak_bytes": 1000,
        "peak_reserved_bytes": 2048,
        "wall_seconds": 0.1,
    }


def test_what_was_not_measured_is_not_kept():
    assert set(record(Scored(3, 0.5, 1.25, None, 4, 0.1))) == {"seed", "accuracy", "loss", "epochs", "wall_seconds"}
    kept = record(Failed(3, "oom", "too large", 0.1))
    assert kept == {"seed": 3, "reason": "oom", "detail": "too large", "wall_seconds": 0.1}


def test_counts_survive_packing():
    counts = np.random.default_rng(0).integers(0, 2**16, 1000).astype(np.uint16)
    np.testing.assert_array_equal(unpack_counts(pack_counts(counts)), counts)
