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

from search.annotations import annotations
from search.database import guarded
from search.errors import FilterSearchError
from search.exact import exact_findings
from search.findings import conclude
from search.plan import make_plan
from search.trust import PERMISSION, kept_config, without_fetching
from search.wellformed import load_kept


def main() -> None:
    """Make them for the study folder given as the first argument, which may be followed by the permission."""
    os.nice(10)
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    try:
        allow_code = PERMISSION in sys.argv[2:]
        config = kept_config(folder, allow_code=allow_code)
        storage = load_kept(folder, config)
        plan = make_plan(config if allow_code else without_fetching(config))
        with guarded(folder):
            findings = exact_findings(plan) if plan.exhaustive else conclude(plan, storage)
            made = annotations(storage, findings)
    except FilterSearchError as error:
        sys.exit(str(error))
    json.dump(asdict(made), sys.stdout)


if __name__ == "__main__":
    main()
