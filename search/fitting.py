"""Runs a training under Lightning, quietly and reproducibly, and measures the memory it takes.

Owns what is the same for whatever is trained. Knows nothing of networks, images or recipes.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.environments import LightningEnvironment  # type: ignore[attr-defined] # re-exported
from pytorch_lightning.utilities.warnings import PossibleUserWarning  # type: ignore[attr-defined] # re-exported


@dataclass(frozen=True)
class MemoryMeter:
    """Device memory as it was before a pass; on a GPU, where alone it is measured.

    Attributes:
        device: The GPU.
        allocated: Bytes that tensors held.
        reserved: Bytes that torch's allocator had from the driver.
    """

    device: torch.device
    allocated: int
    reserved: int

    @classmethod
    def start(cls, device: torch.device) -> Self | None:
        """A meter whose peaks begin now; None on the CPU."""
        if device.type != "cuda":
            return None
        torch.cuda.empty_cache()  # else what the pass before left reserved would hide what this one needs
        torch.cuda.reset_peak_memory_stats(device)
        return cls(device, torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device))

    @property
    def peak_allocated(self) -> int:
        """Most bytes in tensors since the start, over those held before."""
        return torch.cuda.max_memory_allocated(self.device) - self.allocated

    @property
    def peak_reserved(self) -> int:
        """Most bytes taken from the driver since the start, over those taken before."""
        return torch.cuda.max_memory_reserved(self.device) - self.reserved


def fit(
    module: pl.LightningModule,
    epochs: int,
    device: torch.device,
    keeper: Checkpoint | None = None,
    logger: Logger | None = None,
    resume: Path | None = None,
) -> None:
    """Train in place under a Trainer that by itself logs, saves and shows nothing.

    Args:
        module: What to train.
        epochs: How many in all.
        device: Where.
        keeper: Called by Lightning, last of all after each epoch.
        logger: What the keeper may log to.
        resume: The checkpoint to go on from; loaded without running code found in it.

    Raises:
        KeyboardInterrupt: Ctrl-C, which Lightning turns into SystemExit (2.6.6, `trainer/call.py`).
    """
    with _quiet(), reproducible_kernels():
        trainer = pl.Trainer(
            accelerator=device.type,
            devices=1 if device.index is None else [device.index],
            max_epochs=epochs,
            logger=logger or False,
            callbacks=keeper,
            enable_checkpointing=keeper is not None,
            enable_progress_bar=False,
            enable_model_summary=False,
            plugins=[LightningEnvironment()],  # or it acts on a Slurm job it happens to run in
        )
        try:
            trainer.fit(module, train_dataloaders=range(1), ckpt_path=resume, weights_only=True)
        except SystemExit as stop:
            if isinstance(stop.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from stop
            raise


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's hardware notes and tips say nothing a study's user can act on."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            warnings.filterwarnings("ignore", category=PossibleUserWarning)  # such as a GPU left alone by device: cpu
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def reproducible_kernels() -> Iterator[None]:
    """Make cuDNN pick the same deterministic kernels every time; the CPU needs nothing."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


def is_out_of_memory(error: BaseException) -> bool:
    """On the CPU torch raises a plain RuntimeError that names its allocator."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(error)
