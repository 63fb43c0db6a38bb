"""Who may ask the dashboard for what."""

import pytest
from asking import ask

from search.dashboard.guard import Guard, host_name, is_loopback, own_hosts

NOTE = "/api/studies/1/note"


def inner(environ, start):
    start("200 OK", [("Content-Type", "text/html"), ("Access-Control-Allow-Origin", "*")])
    return [b"inside"]


def guarded(host="127.0.0.1", token=None, edits=False):
    return Guard(inner, own_hosts(host, ["bench"]), token, edits=edits, file_names={"1a": "report.html"}.get)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/api/studies/1", NOTE, "/api/trials/3/tell"])
def test_only_reading_passes(method, path):
    status, headers, body = ask(guarded(), path, method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")
    assert b"read only" in body
    assert ask(guarded(), path)[0] == ask(guarded(), path, "HEAD")[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "192.168.0.7", ""])
def test_a_foreign_host_is_refused(host):
    status, _, body = ask(guarded(), host=host)
    assert status == 403
    assert b"host name" in body


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1:9000", "[::1]:8080", "bench"])
def test_the_machines_own_names_pass(host):
    assert ask(guarded(), host=host)[0] == 200


def test_addresses_serve_where_others_may_come():
    assert ask(guarded("0.0.0.0"), host="192.168.0.7:8080")[0] == 200
    assert ask(guarded("0.0.0.0"), host="evil.example")[0] == 403


@pytest.mark.parametrize("header", ["a b", "me@evil.example", "x/y", "[::1", "a\\b"])
def test_what_is_no_host_has_no_name(header):
    assert host_name(header) == ""


def test_elsewhere_a_token_is_needed():
    app = guarded("0.0.0.0", "s3cret")
    for query, cookie in (("", ""), ("token=wrong", ""), ("", "filter_search_token=wrong"), ("token=%C3%A9", "")):
        status, _, body = ask(app, query=query, cookie=cookie)
        assert status == 403
        assert b"token" in body
    status, headers, body = ask(app, "/dashboard", query="token=s3cret&a=%22%3E")
    assert status == 200
    assert headers["Set-Cookie"] == "filter_search_token=s3cret; Path=/; HttpOnly; SameSite=Strict"
    assert b"s3cret" not in body
    assert b'url=/dashboard?a=%22%3E"' in body
    assert ask(app, cookie="other=1; filter_search_token=s3cret")[2] == b"inside"


def test_answers_carry_safe_headers():
    page, file = ask(guarded(), "/dashboard/studies/1")[1], ask(guarded(), "/artifacts/1/1a")[1]
    for headers in (page, file, ask(guarded(), host="evil.example")[1]):
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "Access-Control-Allow-Origin" not in headers
    assert "default-src 'self'" in page["Content-Security-Policy"]
    assert "sandbox" not in page["Content-Security-Policy"]
    assert "Content-Disposition" not in page
    assert file["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
    assert file["Content-Disposition"] == "attachment; filename*=UTF-8''report.html"


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("PUT", NOTE, {}, 200),
        ("PUT", "/api/studies/1/12/note", {"origin": "http://127.0.0.1:8080", "sec_fetch_site": "same-origin"}, 200),
        ("PUT", NOTE, {"origin": "http://evil.example"}, 403),
        ("PUT", NOTE, {"sec_fetch_site": "cross-site"}, 403),
        ("PUT", NOTE, {"sec_fetch_site": "same-site"}, 403),
        ("POST", NOTE, {}, 403),
        ("DELETE", "/api/studies/1", {}, 403),
        ("POST", "/api/trials/3/tell", {}, 403),
        ("POST", "/api/trials/3/user-attrs", {}, 403),
        ("POST", "/api/artifacts/1", {}, 403),
        ("PUT", "/api/studies/1/preference_feedback_component", {}, 403),
    ],
)
def test_with_edits_notes_can_be_written_from_here_and_nothing_else(method, path, headers, status):
    assert ask(guarded(edits=True), path, method, body=b"{}", **headers)[0] == status


def test_a_note_has_a_largest_size():
    assert ask(guarded(edits=True), NOTE, "PUT", body=b"x" * 1_000_001)[0] == 403


@pytest.mark.parametrize(
    ("host", "is_it"), [("127.0.0.5", True), ("::1", True), ("localhost", True), ("0.0.0.0", False)]
)
def test_loopback_is_told_from_the_rest(host, is_it):
    assert is_loopback(host) is is_it
