import signal

import pytest

from search import errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.FilterSearchError("x"), 1),
        (errors.ConfigError("x"), 3),
        (errors.DataError("x"), 4),
        (errors.StorageError("x"), 5),
        (errors.NoTrialError("x"), 6),
        (errors.InterruptedStudyError("x", signal.SIGINT), 130),
        (errors.InterruptedStudyError("x", signal.SIGTERM), 143),
    ],
)
def test_every_error_carries_its_exit_code_and_message(error, code):
    assert error.exit_code == code
    assert str(error) == "x"
    assert isinstance(error, errors.FilterSearchError)


def test_the_tree_in_the_docstring_is_the_tree():
    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}
    drawn = {word for word in errors.__doc__.split() if word.endswith("Error")}
    assert drawn == classes
