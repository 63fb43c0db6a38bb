"""Trainings an hour, against what people would otherwise run: `make bench`, ten minutes on two cores.

Prints the tables and writes them.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks import training
from benchmarks.ratios import heading
from benchmarks.work import write_works
from rich.console import Console
from rich.markdown import Markdown


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, help="the file for the tables")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        works = write_works(Path(folder))
        peaks = training.peak_memory(works)
        lines = [*heading("Training, measured", "make bench"), *training.report(training.measure(works), peaks)]
    Console().print(Markdown("\n".join(lines)))
    if options.write:
        options.write.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
