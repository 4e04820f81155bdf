"""Who a request comes from: known, unknown and expired keys, several headers, and a gateway without keys."""

from __future__ import annotations

import hashlib
import traceback

import pytest

from llm.core.config import GatewayConfig
from llm.core.exceptions import LLMAuthenticationError
from llm.gateway.auth import Keyring
from llm.providers.endpoints.caller import ANYONE, Caller
from llm.testing import FakeClock

KEY = "mk-of-alice"
OTHER = "mk-of-bob"
LAST_OF_2026 = 1_798_761_599.0  # the last second of 2026-12-31, UTC


def hash_of(key: str) -> str:
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def keyring(*, clock: FakeClock | None = None, **alice: object) -> Keyring:
    entries = {"alice": {"key_hash": hash_of(KEY), **alice}, "bob": {"key_hash": hash_of(OTHER)}}
    return Keyring(GatewayConfig.model_validate({"api_keys": entries}), clock or FakeClock())


def bearer(key: str) -> tuple[bytes, bytes]:
    return b"authorization", f"Bearer {key}".encode()


def x_api_key(key: str) -> tuple[bytes, bytes]:
    return b"x-api-key", key.encode()


@pytest.mark.parametrize("header", [bearer(KEY), x_api_key(KEY), (b"authorization", f"bEARER  {KEY} ".encode())])
def test_a_key_is_found_in_either_header(header: tuple[bytes, bytes]) -> None:
    found = keyring(user="acme", models=["gpt-4o-mini"]).caller([(b"host", b"gateway"), header])
    assert found == Caller("alice", "acme", ("gpt-4o-mini",))


def test_a_key_without_a_user_counts_for_one_of_its_own_name() -> None:
    assert keyring().caller([bearer(KEY)]) == Caller("alice", "alice", ("*",))


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ([], "has no key"),
        ([(b"authorization", b"Bearer "), x_api_key("")], "has no key"),
        ([(b"x-api-key", b"\xff\x00")], "does not know the key"),
        ([bearer(hash_of(KEY))], "does not know the key"),
        ([bearer(KEY.upper())], "does not know the key"),
        ([(b"authorization", b"Basic YTpi")], "no `Bearer KEY`"),
        ([(b"authorization", b"Basic YTpi"), x_api_key(KEY)], "no `Bearer KEY`"),
        ([bearer(KEY), x_api_key(OTHER)], "different keys"),
        ([x_api_key(KEY), x_api_key("unknown")], "different keys"),
    ],
)
def test_what_is_not_exactly_one_known_key_is_refused_with_the_header_to_send(
    headers: list[tuple[bytes, bytes]], why: str
) -> None:
    with pytest.raises(LLMAuthenticationError, match=why) as raised:
        keyring().caller(headers)
    assert "`Authorization: Bearer KEY` or `x-api-key: KEY`" in str(raised.value)
    assert not raised.value.retryable


def test_two_headers_with_the_same_key_are_one_key() -> None:
    assert keyring().caller([bearer(KEY), x_api_key(KEY)]).name == "alice"


async def test_a_key_works_through_its_last_day_and_no_longer() -> None:
    clock = FakeClock(wall=LAST_OF_2026)
    keys = keyring(clock=clock, expires="2026-12-31")
    assert keys.caller([bearer(KEY)]).name == "alice"
    await clock.advance(1)
    with pytest.raises(LLMAuthenticationError, match="has expired"):
        keys.caller([bearer(KEY)])
    assert keys.caller([bearer(OTHER)]).name == "bob"


def test_a_key_may_be_valid_until_the_last_day_of_all() -> None:
    assert keyring(expires="9999-12-31").caller([bearer(KEY)]).name == "alice"


def test_no_key_is_seen_in_what_is_raised_nor_in_the_keyring() -> None:
    keys = keyring(expires="2000-01-01")
    with pytest.raises(LLMAuthenticationError) as raised:
        keys.caller([bearer(KEY)])
    shown = traceback.TracebackException.from_exception(raised.value, capture_locals=True)
    own = [line for frame in shown.stack if "llm/gateway" in frame.filename for line in (frame.locals or {}).values()]
    assert own
    assert KEY not in "".join((*own, str(raised.value), repr(keys)))


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"host", b"127.0.0.1:8000")],
        [(b"host", b"LocalHost")],
        [(b"host", b"[::1]:8000"), (b"origin", b"http://[::1]:8000")],
        [(b"host", b"127.0.0.1"), (b"origin", b"https://app.example.org")],
        [(b"host", b"127.0.0.1"), bearer("anything")],
    ],
)
def test_a_gateway_without_keys_answers_anyone_on_this_machine(headers: list[tuple[bytes, bytes]]) -> None:
    config = GatewayConfig.model_validate({"cors_origins": ["https://app.example.org"]})
    assert Keyring(config, FakeClock()).caller(headers) is ANYONE


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ([(b"host", b"rebound.example.org:8000")], "answers only to 127.0.0.1"),
        ([(b"host", b"127.0.0.1.example.org")], "answers only to 127.0.0.1"),
        ([(b"host", b"")], "answers only to 127.0.0.1"),
        ([(b"host", b"127.0.0.1"), (b"origin", b"https://evil.example.org")], "no web page of another origin"),
        ([(b"host", b"127.0.0.1"), (b"origin", b"null")], "no web page of another origin"),
        ([(b"host", b"127.0.0.1:8000"), (b"origin", b"http://127.0.0.1:9000")], "no web page of another origin"),
        ([(b"origin", b"http://")], "no web page of another origin"),
    ],
)
def test_a_gateway_without_keys_answers_no_page_of_another_site(headers: list[tuple[bytes, bytes]], why: str) -> None:
    with pytest.raises(LLMAuthenticationError, match=why):
        Keyring(GatewayConfig(), FakeClock()).caller(headers)


def test_a_gateway_that_others_reach_answers_nobody_once_its_last_key_is_gone() -> None:
    config = GatewayConfig.model_validate({"host": "192.0.2.1"})
    with pytest.raises(LLMAuthenticationError, match="answers nobody"):
        Keyring(config, FakeClock()).caller([(b"host", b"127.0.0.1")])


def test_a_key_of_no_models_is_told_so() -> None:
    with pytest.raises(LLMAuthenticationError, match="may not use the model 'gpt-4o-mini'; it may use none"):
        Caller("prometheus", "prometheus", ()).check_model("gpt-4o-mini")
