"""`python -m search`: the same as the command `filter-search`."""

from search.cli import main

if __name__ == "__main__":
    main()
