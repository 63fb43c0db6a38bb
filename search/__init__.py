"""How many filters should each stage of a CNN get, and is doubling them near-optimal?

filter-search answers by experiment. The file names tell a candidate's life: `schedule`, `rules` and `space` say what
may be tried, `networks` and `pricing` what it is and costs, `training` scores it, `study` and `confirm` decide
what is trained, `verdict` what follows from it, `report` and `export` what people take away.
"""

__version__ = "0.1.0"
