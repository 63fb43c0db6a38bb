"""Where a training's curve goes: a Lightning logger by its name, one log however often it is resumed."""

import csv
import inspect
from pathlib import Path

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger

from search.errors import ConfigError, StorageError
from search.imports import import_function


def make_logger(name: str | None, where: Path, epoch: int) -> Logger | None:
    """A Lightning logger that writes below a folder, where it writes at all; it has written nothing yet.

    One log holds a training however often it is resumed, so there are no numbered versions.

    Args:
        name: `csv`, `tensorboard`, or a Lightning logger as `package.module:Class`; None for none.
        where: The folder.
        epoch: After which the training goes on; 0 from its beginning.

    Raises:
        ConfigError: There is none of this name, or it cannot be made.
    """
    if name is None:
        return None
    try:
        if name == "csv":
            return CSVLogger(where, name="logs", version="csv")
        if name == "tensorboard":
            return TensorBoardLogger(where, name="logs", version="tensorboard", purge_step=epoch + 1)
        make = import_function(name, "--logger")
        takes_folder = "save_dir" in inspect.signature(make).parameters
        logger = make(**({"save_dir": str(where)} if takes_folder else {}))
    except ConfigError:
        raise
    except Exception as error:  # a logger's own packages may be missing, its service unreachable
        msg = f"--logger {name} could not be made ({type(error).__name__}: {error}); mend that, or log with csv"
        raise ConfigError(msg) from error
    if not isinstance(logger, Logger):
        msg = f"--logger {name} made a {type(logger).__name__}; give csv, tensorboard or a Lightning logger"
        raise ConfigError(msg)
    return logger


def carry_on(logger: Logger | None, epoch: int) -> None:
    """Begin a CSV log with the epochs that an earlier launch logged, up to the one the training goes on after.

    Lightning's logger would delete them all. Those after the epoch are trained, and logged, once more.

    Raises:
        ConfigError: What is there is no such log.
        StorageError: It cannot be read or written.
    """
    path = Path(logger.log_dir) / "metrics.csv" if type(logger) is CSVLogger else None
    if logger is None or path is None or not path.exists():
        return
    try:
        with path.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if all(row.values())]  # a kill may leave half a row
        kept = [{name: float(value) for name, value in row.items()} for row in rows if int(row["step"]) <= epoch]
        path.unlink()
        for row in kept:
            logger.log_metrics(row, int(row.pop("step")))
        logger.save()
    except (ValueError, KeyError, TypeError, csv.Error):
        msg = f"{path} is no log of a training; remove it, or train without --logger"
        raise ConfigError(msg) from None
    except OSError as error:
        msg = f"{path} cannot be used ({error.strerror}); make it writable, or train without --logger"
        raise StorageError(msg) from None
