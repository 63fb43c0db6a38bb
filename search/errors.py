"""The exception tree; each leaf carries the exit code the command ends with.

    FilterSearchError                 1
    ├── ConfigError                   3   missing or unreadable file, bad content, contradicting resume
    ├── DataError                     4   data that cannot be read or do not suffice
    ├── StorageError                  5   unwritable folder, corrupt or unreachable study
    ├── NoTrialError                  6   no trial could be completed
    └── InterruptedStudyError       130   stopped by a signal after a clean drain (143 for SIGTERM)

A message says what came, what is allowed and what to do, in this order.
"""


class FilterSearchError(Exception):
    """Root of every error this package raises on purpose."""

    exit_code = 1


class ConfigError(FilterSearchError):
    """The configuration, or the study it is to continue, cannot be used as it stands."""

    exit_code = 3


class DataError(FilterSearchError):
    """The data cannot be read or do not suffice for the study."""

    exit_code = 4


class StorageError(FilterSearchError):
    """The study folder or its storage cannot be read or written."""

    exit_code = 5


class NoTrialError(FilterSearchError):
    """Not one trial of the study could be completed."""

    exit_code = 6


class InterruptedStudyError(FilterSearchError):
    """The study was stopped by a signal; everything finished is kept and `--resume` goes on.

    Args:
        message: What was stopped and how to go on.
        signal_number: The signal received; the exit code is 128 plus it.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
