"""Asks a WSGI application without a network."""

import io
from wsgiref.util import setup_testing_defaults


def ask(app, path="/", method="GET", query="", body=b"", **headers):
    """Status, headers and body of one request."""
    environ = {"PATH_INFO": path, "REQUEST_METHOD": method, "QUERY_STRING": query, "HTTP_HOST": "127.0.0.1:8080"}
    environ |= {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    environ |= {"CONTENT_LENGTH": str(len(body)), "CONTENT_TYPE": "application/json"}
    setup_testing_defaults(environ)
    environ["wsgi.input"] = io.BytesIO(body)
    answer = {}

    def start(status, headers, exc_info=None):
        answer.update(status=status, headers=dict(headers))
        return lambda _: None

    content = b"".join(app(environ, start))
    return int(answer["status"][:3]), answer["headers"], content
