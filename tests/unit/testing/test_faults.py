from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Literal

import pytest

from llm.core.exceptions import LLMConnectionError
from llm.testing import FakeClock, Fault, MockUpstream
from llm.testing.faults import DAMAGES, REFUSALS

if TYPE_CHECKING:
    from llm.core.protocols import Reply

Dialect = Literal["openai", "anthropic"]
PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}
CLOSING = {"openai": b"[DONE]", "anthropic": b"message_stop"}
TEXT = "a text long enough for many chunks"


async def _ask(up: MockUpstream, dialect: Dialect, *, stream: bool = False, key: str = "k1") -> Reply:
    body = {"model": "m", "max_tokens": 100, "stream": stream, "messages": [{"role": "user", "content": TEXT}]}
    headers = {"Authorization": f"Bearer {key}"} if dialect == "openai" else {"X-Api-Key": key}
    url = "http://anywhere" + PATHS[dialect]
    return await up.transport().request("POST", url, headers=headers, body=json.dumps(body).encode())


def _mock(dialect: Dialect, *faults: Fault) -> MockUpstream:
    return MockUpstream(dialect, faults=faults, clock=FakeClock(auto=True))


@pytest.mark.parametrize(
    ("kind", "openai", "anthropic"),
    [
        ("rate_limit", (429, "rate_limit_exceeded"), (429, "rate_limit_error")),
        ("quota", (429, "insufficient_quota"), (402, "billing_error")),
        ("server_error", (500, None), (500, "api_error")),
        ("unavailable", (503, None), (503, "api_error")),
        ("overloaded", (529, "overloaded"), (529, "overloaded_error")),
        ("auth", (401, "invalid_api_key"), (401, "authentication_error")),
        ("forbidden", (403, "model_not_found"), (403, "permission_error")),
        ("invalid", (400, "invalid_value"), (400, "invalid_request_error")),
        ("context_length", (400, "context_length_exceeded"), (400, "invalid_request_error")),
    ],
)
async def test_a_refusal_is_told_in_the_vendors_words(
    kind: str, openai: tuple[int, str | None], anthropic: tuple[int, str]
) -> None:
    reply = await _ask(_mock("openai", Fault(kind, at=1)), "openai")
    assert (reply.status, json.loads(await reply.read())["error"]["code"]) == openai
    reply = await _ask(_mock("anthropic", Fault(kind, at=1)), "anthropic")
    body = json.loads(await reply.read())
    assert (reply.status, body["error"]["type"], body["type"]) == (*anthropic, "error")


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
async def test_a_refusal_that_is_no_envelope(dialect: Dialect) -> None:
    up = _mock(dialect, Fault("bad_gateway", at=1), Fault("redirect", at=2))
    page, redirect = await _ask(up, dialect), await _ask(up, dialect)
    assert (page.status, page.headers["Content-Type"]) == (502, "text/html")
    assert (redirect.status, redirect.headers["Location"]) == (307, "/elsewhere")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
async def test_resets_are_what_a_transport_would_raise(dialect: Dialect, *, stream: bool) -> None:
    up = _mock(dialect, Fault("reset_before", at=1), Fault("reset_after", at=2))
    with pytest.raises(LLMConnectionError) as caught:
        await _ask(up, dialect, stream=stream)
    assert caught.value.sent
    reply = await _ask(up, dialect, stream=stream)
    assert reply.status == 200
    with pytest.raises(LLMConnectionError) as caught:
        await reply.read()
    assert caught.value.sent
    assert [request.status for request in up.requests] == [0, 200]


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
async def test_a_truncated_answer_breaks_off_and_a_polite_one_just_ends(dialect: Dialect) -> None:
    up = _mock(dialect, Fault("truncated", at=1, times=2), Fault("polite_cut", at=3, times=2))
    for stream in (False, True):
        reply = await _ask(up, dialect, stream=stream)
        assert await reply.chunk()
        with pytest.raises(LLMConnectionError):
            await reply.chunk()
    whole = await (await _ask(up, dialect)).read()
    with pytest.raises(json.JSONDecodeError):
        json.loads(whole)
    events = await (await _ask(up, dialect, stream=True)).read()
    assert b"a text l" in events
    assert CLOSING[dialect] not in events


@pytest.mark.parametrize("after", [0, 3, 1000])
@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
async def test_a_stream_is_cut_after_so_many_chunks_and_always_before_its_closing_event(
    dialect: Dialect, after: int
) -> None:
    up = _mock(dialect, Fault("polite_cut", at=1, after_chunks=after))
    events = await (await _ask(up, dialect, stream=True)).read()
    texts = [TEXT[start : start + 8].encode() in events for start in range(0, len(TEXT), 8)]
    assert texts.count(True) == min(after, len(texts))
    assert CLOSING[dialect] not in events


async def test_a_stalled_stream_stays_open_until_it_is_left() -> None:
    clock = FakeClock()
    up = MockUpstream(faults=[Fault("stalled", at=1)], clock=clock)
    reply = await _ask(up, "openai", stream=True)
    assert await reply.chunk()
    assert not reply.waiting()
    reading = asyncio.create_task(reply.chunk())
    await clock.advance(3600)
    assert not reading.done()
    reply.close()
    with pytest.raises(LLMConnectionError):
        await reading
    assert (up.requests[0].left, up.active) == (True, 0)


async def test_a_slow_answer_comes_late() -> None:
    clock = FakeClock(auto=True)
    up = MockUpstream(faults=[Fault("slow", at=1, seconds=30)], clock=clock)
    reply = await _ask(up, "openai")
    assert (reply.status, clock.now()) == (200, 30.0)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
@pytest.mark.parametrize("kind", ["garbage", "empty", "wrong_type", "error_in_200", "error_event", "html"])
async def test_a_spoilt_body_comes_under_200_and_ends_in_an_orderly_way(
    kind: str, dialect: Dialect, *, stream: bool
) -> None:
    up = _mock(dialect, Fault(kind, at=1))
    reply = await _ask(up, dialect, stream=stream)
    body = await reply.read()
    assert reply.status == 200
    assert CLOSING[dialect] not in body
    assert (b"verloaded" in body) == (kind in {"error_in_200", "error_event"})
    assert (body == b"") == (kind == "empty")
    assert (b"<html>" in body) == (kind == "html")


async def test_faults_meet_the_requests_they_name() -> None:
    up = _mock(
        "openai",
        Fault("server_error", at=2),
        Fault("overloaded", every=4),
        Fault("auth", at=2, times=2, key="k2"),
    )
    seen = [(await _ask(up, "openai", key=key)).status for key in ("k1", "k1", "k2", "k1", "k2", "k2", "k2", "k1")]
    assert seen == [200, 500, 200, 529, 401, 401, 200, 529]
    assert [request.fault for request in up.requests][1] == "server_error"


async def test_a_rate_is_repeatable_by_its_seed() -> None:
    def statuses(seed: int) -> MockUpstream:
        return MockUpstream(faults=[Fault("server_error", rate=0.5, times=10)], seed=seed, clock=FakeClock())

    runs = [[(await _ask(up, "openai")).status for _ in range(40)] for up in map(statuses, (1, 1, 2))]
    assert runs[0] == runs[1] != runs[2]
    assert runs[0].count(500) == 10


async def test_a_refusal_may_say_how_long_and_in_other_words() -> None:
    up = _mock(
        "openai",
        Fault("unavailable", at=1, retry_after=1.5, message="no, {key}", headers={"Retry-After-Ms": "1500"}),
        Fault("rate_limit", at=2, retry_after="Fri, 31 Dec 1999 23:59:59 GMT"),
    )
    first, second = await _ask(up, "openai", key="sk-1"), await _ask(up, "openai")
    assert (first.headers["retry-after"], first.headers["retry-after-ms"]) == ("1.5", "1500")
    assert b"no, sk-1" in await first.read()
    assert second.headers["retry-after"] == "Fri, 31 Dec 1999 23:59:59 GMT"


async def test_a_refusal_costs_no_capacity_and_a_spoilt_answer_does() -> None:
    up = MockUpstream(
        limits={"k1": {"requests_per_minute": 2}},
        faults=[Fault("server_error", at=1), Fault("garbage", at=2)],
        clock=FakeClock(),
    )
    assert [(await _ask(up, "openai")).status for _ in range(4)] == [500, 200, 200, 429]


def test_a_wrong_fault_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"unknown kind 'meteor'; expected one of rate_limit, quota, .*html"):
        Fault("meteor", at=1)
    with pytest.raises(ValueError, match="give one of them"):
        Fault("auth", at=1, every=2)
    with pytest.raises(ValueError, match="at is 0; expected 1 or more"):
        Fault("auth", at=0)


def test_every_kind_says_what_it_is() -> None:
    assert not REFUSALS.keys() & DAMAGES.keys()
    assert all({**REFUSALS, **DAMAGES}.values())
