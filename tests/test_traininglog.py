import pytest
from pytorch_lightning.loggers import CSVLogger

from search.errors import ConfigError
from search.traininglog import carry_on, make_logger


def logger_after(folder, epochs, epoch):
    """A logger that goes on after `epoch`, where `epochs` were logged before."""
    first = make_logger("csv", folder, 0)
    for number in epochs:
        first.log_metrics({"loss": 1 / 3, "rate": 0.1 * number}, number)
        first.save()
    after = make_logger("csv", folder, epoch)
    carry_on(after, epoch)
    return after


def test_what_was_logged_up_to_the_checkpoint_stays_as_it_was(tmp_path):
    whole, parted = logger_after(tmp_path / "whole", [1, 2, 3, 4], 4), logger_after(tmp_path / "parted", [1, 2, 3], 2)
    for number in (3, 4):
        parted.log_metrics({"loss": 1 / 3, "rate": 0.1 * number}, number)
        parted.save()
    logs = [(tmp_path / name / "logs" / "csv" / "metrics.csv").read_text() for name in ("whole", "parted")]
    assert logs[0] == logs[1]
    assert isinstance(whole, CSVLogger)


def test_half_a_row_is_left_out(tmp_path):
    logger_after(tmp_path, [1, 2], 2)
    path = tmp_path / "logs" / "csv" / "metrics.csv"
    path.write_text(path.read_text() + "0.3333,0.3")
    carry_on(make_logger("csv", tmp_path, 2), 2)
    assert path.read_text().count("\n") == 3


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "loss,step\nx,1\n", "loss,step\n1,2,3\n", "loss,step\n1,y\n"])
def test_what_is_no_log_is_told_and_left_there(tmp_path, content):
    path = tmp_path / "logs" / "csv" / "metrics.csv"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"metrics.csv is no log of a training; remove it"):
        carry_on(make_logger("csv", tmp_path, 2), 2)
    assert path.read_text() == content


def test_nothing_is_logged_where_nothing_is_asked_for(tmp_path):
    carry_on(make_logger(None, tmp_path, 0), 0)
    carry_on(make_logger("csv", tmp_path, 0), 0)
    assert list(tmp_path.iterdir()) == []
