"""Training against what people would otherwise run, and whole studies: `make bench`.

Needs ten minutes on two cores and a machine that does nothing else. Prints tables as they come, and writes them.
"""

import argparse
import tempfile
from collections.abc import Iterable
from pathlib import Path

from benchmarks import studies, training
from benchmarks.ratios import heading
from benchmarks.work import write_works
from rich.console import Console
from rich.markdown import Markdown


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, required=True, help="the file for the tables")
    path = parser.parse_args().write
    with tempfile.TemporaryDirectory() as folder:
        works = write_works(Path(folder))
        peaks = training.peak_memory(works)
        measured = training.measure(works)
    written = _print(heading("Training, measured", "make bench")) + _print(training.report(measured, peaks))
    table = studies.run(studies.TABLE, studies.worker_counts()[-1])
    *fewer, most = studies.worker_counts()
    digits = [*(studies.run(studies.SEARCH, workers) for workers in fewer), studies.run(studies.DIGITS, most)]
    seconds = measured[0].seconds_per_run("b", "middle").median / works[0].recipe.epochs
    written += _print(studies.report(digits, table, seconds))
    path.write_text(written)


def _print(lines: Iterable[str]) -> str:
    text = "".join(f"{line}\n" for line in lines)
    Console().print(Markdown(text))
    return text


if __name__ == "__main__":
    main()
