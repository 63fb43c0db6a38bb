"""The form in which runs are kept in the storage."""

import base64
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.evaluate import Failed, Run, Scored

_MOST_IMAGES = 2**26


def record(run: Run) -> dict[str, Any]:
    """A run as it is kept in the storage."""
    match run:
        case Scored():
            kept: dict[str, Any] = {"seed": run.seed, "accuracy": run.accuracy, "loss": run.loss, "epochs": run.epochs}
            measured = ((key, getattr(run, key)) for key in ("replicas", "peak_bytes", "peak_reserved_bytes"))
            kept |= {key: value for key, value in measured if value is not None}
        case Failed():
            kept = {"seed": run.seed, "reason": run.reason, "detail": run.detail}
    return kept | {"wall_seconds": round(run.wall_seconds, 6)}


def pack_counts(counts: NDArray[np.uint16]) -> str:
    """Per-image counts as text: zlib over 16-bit little-endian, base 64."""
    return base64.b64encode(zlib.compress(counts.astype("<u2").tobytes(), 9)).decode()


def unpack_counts(text: str) -> NDArray[np.uint16]:
    """The counts that `pack_counts` wrote.

    Raises:
        ValueError: It wrote no such text, or of more images than `_MOST_IMAGES`: some kilobytes may unpack to
            gigabytes.
        zlib.error: Likewise.
    """
    unpacker = zlib.decompressobj()
    content = unpacker.decompress(base64.b64decode(text, validate=True), 2 * _MOST_IMAGES)
    if unpacker.unconsumed_tail or not unpacker.eof:
        msg = f"counts are cut short, or of more than {_MOST_IMAGES:,} images"
        raise ValueError(msg)
    return np.frombuffer(content, dtype="<u2").astype(np.uint16)
