"""The command in this process: its exit code, standard output and standard error."""

import signal
import sys

import pytest

from search.cli import main


def run_command(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["filter-search", *map(str, arguments)])
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err
