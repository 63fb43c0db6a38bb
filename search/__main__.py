"""`python -m search`: the same as the command `filter-search`."""

from search.cli import main

main()
