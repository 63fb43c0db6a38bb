"""The dashboard's page as we serve it: Optuna's own, with a style of ours laid over it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

# Pictures are higher than the 450 pixels the page gives them. Tables in notes come without any space between their
# columns. On a phone the page cuts off what does not fit beside the rest, squeezes pictures of two columns until their
# titles lie on each other, and leaves a third of the screen to a trial beside the list of all.
_STYLE = """
[id^="user-defined-plot"] { height: 600px !important; }
main { min-width: 0; overflow-x: auto; }
.MuiCardContent-root td, .MuiCardContent-root th { padding-right: 1.2em; text-align: left; }
.MuiCardContent-root [style*="text-align: right"] { text-align: right !important; }
@media (max-width: 800px) {
  main [class*="MuiGrid-grid-xs"] { flex-basis: 100% !important; max-width: 100% !important; width: 100%; }
  .MuiCardContent-root:has(> [id^="user-defined-plot"]) { overflow-x: auto; }
  [id^="user-defined-plot"] { min-width: 620px; }
  main div:has(> div > ul.MuiList-root) { flex-direction: column; }
  main div:has(> ul.MuiList-root) { flex: none; height: 30vh; width: 100%; }
  main div:has(> ul.MuiList-root) ~ div { min-height: 0; width: 100%; }
}
"""
_HIDDEN = """
[aria-label="delete study"], [aria-label="rename study"], [aria-label="delete artifact"],
.MuiCard-root:has(input[type="file"]):not(:has(.MuiCard-root)),
button:has([data-testid="AddBoxIcon"]) { display: none !important; }
"""
_NOT_EDITED = 'button:has([data-testid="EditIcon"]) { display: none !important; }\n'


class Page:
    """A WSGI application over Optuna's.

    Args:
        inner: Optuna's application.
        edits: Whether notes can be written; controls for what would be refused are not shown.
    """

    def __init__(self, inner: "WSGIApplication", *, edits: bool) -> None:
        self._inner = inner
        style = _STYLE + _HIDDEN + ("" if edits else _NOT_EDITED)
        self._head = f"<style>{style}</style></head>".encode()

    def __call__(self, environ: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
        """Answer one request."""
        if not environ["PATH_INFO"].startswith("/dashboard"):
            return self._inner(environ, start)
        began: list[Any] = []
        environ.pop("HTTP_IF_MODIFIED_SINCE", None)  # the answer is not the file it asks about

        def keep(*answer: Any) -> Any:  # noqa: ANN401 (as WSGI has it)
            began[:] = answer
            return lambda _: None

        answered = self._inner(environ, keep)
        try:
            body = b"".join(answered).replace(b"</head>", self._head)
        finally:
            if hasattr(answered, "close"):  # a file; a refusal is a list
                answered.close()
        status, headers = began[:2]
        kept = [(name, value) for name, value in headers if name.lower() not in ("content-length", "last-modified")]
        start(status, [*kept, ("Content-Length", str(len(body))), ("Cache-Control", "no-store")])
        return [body]
