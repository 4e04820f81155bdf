"""Headers of one request alone, beside those of a key."""

from __future__ import annotations

from llm.providers.dialect import Headers, Passing
from llm.providers.direct.heads import Heads
from llm.providers.direct.place import place_of
from llm.utils.redact import Secret

KEY = "sk-test-passing-0123456789"
COMMON = Headers({"X-Team": "blue", "Traceparent": "fixed"}, "Authorization", Secret(KEY), prefix="Bearer ")
OWN = {"traceparent": "own"}


def test_a_requests_own_headers_go_before_those_of_all() -> None:
    headers = Passing(COMMON, OWN)
    assert dict(headers) == {"X-Team": "blue", "Authorization": f"Bearer {KEY}", "traceparent": "own"}
    assert len(headers) == 3


def test_it_shows_names_only() -> None:
    assert repr(Passing(COMMON, OWN)) == "Passing(X-Team, Authorization, traceparent)"


def test_the_head_of_one_request_is_not_anothers() -> None:
    heads, place = Heads(), place_of("http://127.0.0.1/v1", trust_env=False)
    head = heads.head("POST", place, Passing(COMMON, OWN), b"{}")
    assert b"traceparent: own\r\n" in head
    assert b"fixed" not in head
    other = heads.head("POST", place, Passing(COMMON, {"traceparent": "other"}), b"{}")
    assert b"traceparent: other\r\n" in other
    assert b"traceparent: fixed\r\n" in heads.head("POST", place, COMMON, b"{}")
