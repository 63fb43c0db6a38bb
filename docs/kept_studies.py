"""Sphinx extension: the studies kept in the repository, as pages beside the documentation.

The pages of `docs/` link to `studies/**/README.md` as files, which is what reads well in the repository. A build turns
those READMEs into plain pages at the same places below the output, with the files they link to.
"""

import re
import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from markdown_it import MarkdownIt
from sphinx import addnodes

ROOT = Path(__file__).parents[1]
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>
:root {{ color-scheme: light dark }}
body {{ font: 1rem/1.5 sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }}
table {{ border-collapse: collapse; display: block; overflow-x: auto }}
td, th {{ border: 1px solid #8886; padding: .25rem .5rem }}
img {{ max-width: 100% }}
</style><p><a href="{index}">filter-search</a></p>
{body}
"""


def link(app: Any, doctree: nodes.document) -> None:  # noqa: ANN401 # Sphinx calls it so
    """Lead links to kept READMEs to the pages made of them, before MyST takes them for missing documents."""
    name = app.env.docname
    for node in list(doctree.findall(addnodes.pending_xref)):
        target = Path(app.srcdir, name).parent.joinpath(str(node["reftarget"])).resolve().with_suffix(".md")
        if target.is_relative_to(ROOT / "studies") and target.is_file():
            place = target.relative_to(ROOT).with_suffix(".html").as_posix()
            uri = "../" * name.count("/") + place
            node.replace_self(nodes.reference("", "", *node.children, refuri=uri, internal=True))


def write(app: Any, exception: Exception | None) -> None:  # noqa: ANN401 # Sphinx calls it so
    """Write the READMEs as HTML, and copy what they link to."""
    if exception or app.builder.format != "html":
        return
    markdown = MarkdownIt("commonmark").enable("table")
    for readme in sorted((ROOT / "studies").rglob("README.md")):
        place = readme.relative_to(ROOT)
        page = Path(app.outdir, place).with_suffix(".html")
        page.parent.mkdir(parents=True, exist_ok=True)
        text = readme.read_text(encoding="utf-8")
        title = text.partition("\n")[0].lstrip("# ")
        body = re.sub(r'href="([^":]+)\.md"', r'href="\1.html"', markdown.render(text))
        index = "../" * len(place.parent.parts) + "index.html"
        page.write_text(_PAGE.format(title=title, index=index, body=body), encoding="utf-8")
        for linked in re.findall(r'(?:href|src)="([^":#]+)"', markdown.render(text)):
            file = readme.parent / linked
            if file.is_file() and file.suffix != ".md":
                copy = page.parent / linked
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)


def setup(app: Any) -> dict[str, bool]:  # noqa: ANN401 # Sphinx calls it so
    """Connect to the build."""
    app.connect("doctree-read", link)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
