from __future__ import annotations

import traceback

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.core.exceptions import LLMConnectionError
from llm.providers.dialect import Headers
from llm.providers.direct.heads import Heads
from llm.providers.direct.place import place_of
from llm.utils.redact import Secret

PLACE = place_of("http://vendor.test/v1", trust_env=False)
KEY = Secret("sk-test-0123456789abcdef")


def leaks(error: BaseException) -> bool:
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    return KEY.reveal() in "".join(shown.format())


def lines(head: bytes) -> list[bytes]:
    assert head.endswith(b"\r\n\r\n")
    return head[:-4].split(b"\r\n")


def test_a_head_has_the_callers_fields_and_ours() -> None:
    headers = Headers(
        {"Content-Type": "application/json", "accept": "text/plain"}, "authorization", KEY, prefix="Bearer "
    )
    assert lines(Heads().head("POST", PLACE, headers, b"12345")) == [
        b"POST /v1 HTTP/1.1",
        b"host: vendor.test",
        b"user-agent: llm-manifold",
        b"accept: text/plain",
        b"accept-encoding: gzip, deflate",
        b"content-type: application/json",
        b"authorization: Bearer sk-test-0123456789abcdef",
        b"content-length: 5",
    ]


@pytest.mark.parametrize(
    ("method", "body", "length"), [("GET", None, None), ("POST", None, b"0"), ("POST", b"", b"0"), ("GET", b"a", b"1")]
)
def test_the_length_is_stated_where_there_is_a_body_or_should_be(
    method: str, body: bytes | None, length: bytes | None
) -> None:
    stated = [line for line in lines(Heads().head(method, PLACE, {}, body)) if line.startswith(b"content-length")]
    assert stated == ([] if length is None else [b"content-length: " + length])


@settings(deadline=None)
@given(st.sampled_from(["\r", "\n", "\r\n", "\x00", "\x7f", "\x1b", "\x85", "\u2028"]), st.booleans(), st.booleans())
def test_no_field_can_add_another(end: str, in_name: bool, known: bool) -> None:
    text = f"a{end}x-injected: yes"
    fields = {text: "b"} if in_name else {"x-a": text}
    headers = Headers(fields, "authorization", KEY, prefix="Bearer ") if known else fields
    with pytest.raises(LLMConnectionError, match="header") as caught:
        Heads().head("POST", PLACE, headers, b"")
    assert not caught.value.sent
    assert not caught.value.retryable
    assert not leaks(caught.value)


@pytest.mark.parametrize("name", ["content-length", "Transfer-Encoding", "connection", "Host", "", "a b", "a:b"])
def test_the_framing_is_ours_alone(name: str) -> None:
    with pytest.raises(LLMConnectionError):
        Heads().head("POST", PLACE, {name: "5"}, b"")


def test_a_method_that_is_none_is_refused() -> None:
    headers = Headers({}, "authorization", KEY, prefix="Bearer ")
    with pytest.raises(LLMConnectionError, match="the method") as caught:
        Heads().head("POST / HTTP/1.1\r\nx: y\r\n\r\nGET", PLACE, headers, b"")
    assert not leaks(caught.value)


def test_a_head_is_written_once_where_its_fields_never_change() -> None:
    heads = Heads()
    fixed = Headers({"a": "b"}, "x-api-key", KEY)
    first = heads.head("POST", PLACE, fixed, b"1")
    assert heads.head("POST", PLACE, fixed, b"1") == first
    assert b"GET" in heads.head("GET", PLACE, fixed, None)
    other = place_of("http://other.test/", trust_env=False)
    assert b"other.test" in heads.head("POST", other, fixed, b"1")
    plain = {"a": "b"}
    heads.head("POST", PLACE, plain, b"1")
    plain["a"] = "c"
    assert b"a: c" in heads.head("POST", PLACE, plain, b"1")


def test_many_sets_of_fields_do_not_fill_the_memory_nor_get_mixed_up() -> None:
    heads = Heads()
    for number in range(1000):
        assert b"n: %d\r\n" % number in heads.head("POST", PLACE, Headers({"n": str(number)}, "k", None), b"")
    assert len(heads._known) <= 256  # pyright: ignore[reportPrivateUsage]  # nothing public tells


def test_credentials_for_the_proxy_go_with_plain_requests_only(monkeypatch: pytest.MonkeyPatch) -> None:
    place_of.cache_clear()
    monkeypatch.setenv("http_proxy", "http://ann:pass@proxy.test")
    monkeypatch.setenv("https_proxy", "http://ann:pass@proxy.test")
    plain, secure = (place_of(f"{scheme}://vendor.test/", trust_env=True) for scheme in ("http", "https"))
    place_of.cache_clear()
    assert b"proxy-authorization: Basic YW5uOnBhc3M=\r\n" in Heads().head("POST", plain, {}, b"")
    assert b"proxy-authorization" not in Heads().head("POST", secure, {}, b"")
