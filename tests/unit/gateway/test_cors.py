"""Which web pages may call."""

from __future__ import annotations

import pytest

from llm.gateway.cors import Origins

APP = b"https://app.example.org"
ORIGINS = Origins(["https://App.example.org:443", "http://localhost:3000"])
ASKS = (b"access-control-request-method", b"POST")


def test_promise_40_cors_answers_only_the_origins_named_exactly() -> None:
    assert dict(ORIGINS.headers([(b"origin", APP)]))[b"access-control-allow-origin"] == APP
    for other in (
        b"https://app.example.org.evil.org",
        b"https://evil-app.example.org",
        b"http://app.example.org",
        b"https://app.example.org:8443",
        b"https://app.example.org/",
        b"http://localhost",
        b"null",
        b"*",
        b"",
    ):
        assert ORIGINS.headers([(b"origin", other)]) == [(b"vary", b"Origin")]
        status, headers = ORIGINS.preflight([(b"origin", other), ASKS]) or (0, [])
        assert (status, [name for name, _ in headers]) == (403, [b"vary", b"content-length"])


def test_an_answer_varies_by_origin_and_never_allows_cookies() -> None:
    allowed = ORIGINS.headers([(b"accept", b"*/*"), (b"origin", APP)])
    assert (b"vary", b"Origin") in allowed
    assert not any(b"credentials" in name or value == b"*" for name, value in allowed)
    assert b"retry-after" in dict(allowed)[b"access-control-expose-headers"].split(b", ")
    assert ORIGINS.headers([]) == [(b"vary", b"Origin")]
    assert ORIGINS.headers([(b"origin", APP), (b"origin", APP)]) == [(b"vary", b"Origin")]


def test_without_origins_no_answer_has_a_header_more() -> None:
    closed = Origins(())
    assert closed.headers([(b"origin", APP)]) == ()
    assert closed.preflight([(b"origin", APP), ASKS]) == (403, [(b"content-length", b"0")])


def test_a_browser_that_asks_for_leave_may_send_the_headers_that_it_names() -> None:
    names = b"authorization,content-type, x-stainless-lang"
    asked = [(b"origin", APP), ASKS, (b"access-control-request-headers", names)]
    status, headers = ORIGINS.preflight(asked) or (0, [])
    found = dict(headers)
    assert status == 204
    assert found[b"access-control-allow-origin"] == APP
    assert found[b"access-control-allow-methods"] == b"GET, POST"
    assert found[b"access-control-allow-headers"] == names
    assert found[b"vary"] == b"Origin, Access-Control-Request-Headers"


@pytest.mark.parametrize("names", [b"", b"a b", b"a\r\nx: y", b"*, {}", b",a"])
def test_what_are_no_names_of_headers_is_not_said_back(names: bytes) -> None:
    asked = [(b"origin", APP), ASKS, (b"access-control-request-headers", names)]
    status, headers = ORIGINS.preflight(asked) or (0, [])
    assert status == 204
    assert b"access-control-allow-headers" not in dict(headers)


def test_another_options_request_is_no_question_for_leave() -> None:
    assert ORIGINS.preflight([(b"origin", APP)]) is None
