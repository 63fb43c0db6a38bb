"""How Sphinx builds these pages: offline, from Markdown that is also readable as it stands."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import generate  # noqa: E402 # found by the line above

import search  # noqa: E402

generate.write(HERE)

project = "filter-search"
author = "the filter-search project"
version = release = search.__version__
language = "en"
smartquotes_action = "D"  # dashes in docstrings; quotes stay as they are typed
default_role = "code"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "kept_studies"]
myst_heading_anchors = 3

autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
# Types that have no page: those of other libraries, which an offline build cannot reach, and internal ones.
nitpick_ignore_regex = [(r"py:.*", r"(?!search\.(Search|Study|load_\w+)$).*")]

html_theme = "furo"
html_title = "filter-search"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
