"""Makes a study's words and pictures, writes them as JSON and ends: `python -m search.dashboard.painter FOLDER`.

A process of its own: what they need (torch, the surrogate, two plotting libraries) takes seconds to load and much
memory, none of which the server should hold, and works at low priority, since a search may be running.
"""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from search import configfile
from search.annotations import annotations
from search.database import guarded
from search.errors import FilterSearchError
from search.exact import exact_findings
from search.findings import conclude
from search.plan import make_plan
from search.study import load


def main() -> None:
    """Make them for the study folder given as the only argument."""
    os.nice(10)
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    try:
        config = configfile.read(folder / "config.yaml")
        plan, storage = make_plan(config), load(folder, config.name)
        with guarded(folder):
            findings = exact_findings(plan) if plan.exhaustive else conclude(plan, storage)
            made = annotations(storage, findings)
    except FilterSearchError as error:
        sys.exit(str(error))
    json.dump(asdict(made), sys.stdout)


if __name__ == "__main__":
    main()
