from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Literal

import pytest

from llm.core.types import LLMRequest, LLMResponse, TokenUsage
from llm.testing import FakeClock, MockUpstream

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm.core.protocols import Reply

PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}
Mode = Literal["bucket", "fixed", "sliding"]


async def _ask(
    up: MockUpstream, *, text: str = "abcd", most: int = 1, key: str = "k1", path: str = PATHS["openai"], **more: object
) -> Reply:
    body = {"model": "m", "max_tokens": most, "messages": [{"role": "user", "content": text}], **more}
    headers = {"authorization": f"Bearer {key}"}
    return await up.transport().request("POST", f"http://x{path}", headers=headers, body=json.dumps(body).encode())


async def _statuses(up: MockUpstream, times: int, *, most: int = 1) -> list[int]:
    return [(await _ask(up, most=most)).status for _ in range(times)]


def _answering(output: int) -> Callable[[LLMRequest], LLMResponse]:
    def answer(request: LLMRequest) -> LLMResponse:
        return LLMResponse(content="x", usage=TokenUsage(len(request.messages[0].text) // 4, output))

    return answer


async def test_a_bucket_starts_full_and_refills_continuously() -> None:
    clock = FakeClock()
    up = MockUpstream(limits={"k1": {"requests_per_minute": 6}}, clock=clock)
    assert await _statuses(up, 7) == [200] * 6 + [429]
    await clock.advance(9.9)
    assert await _statuses(up, 1) == [429]
    await clock.advance(0.1)
    assert await _statuses(up, 2) == [200, 429]
    await clock.advance(3600)
    assert await _statuses(up, 7) == [200] * 6 + [429]


async def test_a_fixed_window_gives_a_whole_allowance_at_its_phase_and_then_every_period() -> None:
    clock = FakeClock(start=1000.0)
    up = MockUpstream(limits={"k1": {"requests_per_minute": 2, "mode": "fixed", "phase": 42.5}}, clock=clock)
    assert await _statuses(up, 3) == [200, 200, 429]
    await clock.advance(42.4)
    assert await _statuses(up, 1) == [429]
    await clock.advance(0.1)
    assert await _statuses(up, 3) == [200, 200, 429]
    await clock.advance(59.9)
    assert await _statuses(up, 1) == [429]
    await clock.advance(60.1)
    assert await _statuses(up, 3) == [200, 200, 429]


async def test_in_a_sliding_window_no_period_holds_more_than_the_limit() -> None:
    clock = FakeClock()
    up = MockUpstream(limits={"k1": {"requests_per_minute": 2}}, mode="sliding", clock=clock)
    assert await _statuses(up, 1) == [200]
    await clock.advance(50)
    assert await _statuses(up, 2) == [200, 429]
    await clock.advance(10)
    assert await _statuses(up, 2) == [200, 429]
    await clock.advance(50)
    assert await _statuses(up, 2) == [200, 429]


@pytest.mark.parametrize("mode", ["bucket", "fixed", "sliding"])
async def test_retry_after_is_true_to_the_millisecond(mode: Mode) -> None:
    clock = FakeClock(start=7.0)
    up = MockUpstream(limits={"k1": {"tokens_per_minute": 1000}}, mode=mode, clock=clock, answer=_answering(499))
    await clock.advance(3)
    assert (await _ask(up, most=700)).status == 200
    await clock.advance(0.5)
    refused = await _ask(up, most=900)
    wait = int(refused.headers["retry-after-ms"]) / 1000
    assert refused.status == 429
    assert int(refused.headers["retry-after"]) == -(-int(refused.headers["retry-after-ms"]) // 1000)
    await clock.advance(wait - 0.002)
    assert (await _ask(up, most=900)).status == 429
    await clock.advance(0.002)
    assert (await _ask(up, most=900)).status == 200


@pytest.mark.parametrize("mode", ["bucket", "fixed", "sliding"])
async def test_admission_takes_max_tokens_and_the_end_settles_to_the_usage(mode: Mode) -> None:
    clock = FakeClock()
    up = MockUpstream(
        limits={"k1": {"tokens_per_minute": 1000}}, mode=mode, clock=clock, service=2.0, answer=_answering(99)
    )
    running = asyncio.create_task(_ask(up, most=900))
    await clock.advance(1)
    assert (await _ask(up, most=200)).status == 429
    await clock.advance(1)
    await running
    answered = asyncio.create_task(_ask(up, most=1))
    await clock.advance(2)
    left = int((await answered).headers["x-ratelimit-remaining-tokens"])
    assert left == (1000 - 100 + 2 * 1000 // 60 - 1 if mode == "bucket" else 1000 - 100 - 1)


async def test_openai_charges_the_larger_of_estimate_and_max_tokens() -> None:
    up = MockUpstream(clock=FakeClock())
    await _ask(up, text="x" * 41, most=5)
    await _ask(up, text="x" * 41, most=50)
    charges = [request.charge for request in up.requests]
    assert [charge.total_tokens for charge in charges if charge is not None] == [11, 50]


async def test_anthropic_charges_input_and_output_each_and_rounds_its_headers() -> None:
    clock = FakeClock(wall=1_767_225_600.0)
    limits = {"k1": {"input_tokens_per_minute": 27741, "output_tokens_per_minute": 9847, "requests_per_minute": 50}}
    up = MockUpstream("anthropic", limits=limits, clock=clock, answer=_answering(100))
    first = await _ask(up, text="x" * 4000, most=9000, path=PATHS["anthropic"])
    assert first.status == 200
    shown = {name: value for name, value in first.headers.items() if "ratelimit" in name}
    assert shown["anthropic-ratelimit-input-tokens-limit"] == "27741"
    assert shown["anthropic-ratelimit-input-tokens-remaining"] == "27000"
    assert shown["anthropic-ratelimit-output-tokens-remaining"] == "1000"
    assert shown["anthropic-ratelimit-tokens-limit"] == "9847"
    assert shown["anthropic-ratelimit-requests-remaining"] == "49"
    assert shown["anthropic-ratelimit-output-tokens-reset"] == "2026-01-01T00:00:55Z"
    await clock.advance(0)
    assert (await _ask(up, text="x", most=9000, path=PATHS["anthropic"])).status == 200
    await clock.advance(0)
    refused = await _ask(up, text="x", most=9800, path=PATHS["anthropic"])
    assert refused.status == 429
    assert refused.headers["retry-after"] == "1"
    assert "retry-after-ms" not in refused.headers


async def test_openais_headers_are_as_of_admission() -> None:
    clock = FakeClock()
    limits = {"k1": {"requests_per_minute": 60, "tokens_per_minute": 6000}}
    up = MockUpstream(limits=limits, clock=clock)
    headers = (await _ask(up, most=1000)).headers
    shown = {name: headers[f"x-ratelimit-{name}"] for name in ("limit-requests", "limit-tokens", "remaining-tokens")}
    assert shown == {"limit-requests": "60", "limit-tokens": "6000", "remaining-tokens": "5000"}
    assert (headers["x-ratelimit-reset-requests"], headers["x-ratelimit-reset-tokens"]) == ("1s", "10s")
    assert headers["x-ratelimit-remaining-requests"] == "59"


async def test_keys_of_a_group_draw_on_the_same_limits_and_others_on_none() -> None:
    up = MockUpstream(limits={"org": {"requests_per_minute": 2}}, groups={"k1": "org", "k2": "org"}, clock=FakeClock())
    assert [(await _ask(up, key=key)).status for key in ("k1", "k2", "k1", "k2", "k3")] == [200, 200, 429, 429, 200]


async def test_a_refused_request_takes_nothing_from_any_limit() -> None:
    clock = FakeClock()
    up = MockUpstream(limits={"k1": {"requests_per_minute": 3, "tokens_per_minute": 100}}, clock=clock)
    assert await _statuses(up, 3, most=90) == [200, 429, 429]
    assert [request.charge is None for request in up.requests] == [False, True, True]
    await clock.advance(0)
    assert await _statuses(up, 3, most=40) == [200, 200, 429]


async def test_what_never_fits_says_so_and_names_no_time() -> None:
    up = MockUpstream(limits={"k1": {"tokens_per_minute": 100}}, clock=FakeClock())
    refused = await _ask(up, most=101)
    assert refused.status == 429
    assert "retry-after" not in refused.headers
    assert b"too large" in await refused.read()


async def test_calls_in_flight_are_counted() -> None:
    clock = FakeClock()
    up = MockUpstream(limits={"k1": {"concurrent_requests": 1}}, clock=clock, service=5.0)
    running = asyncio.create_task(_ask(up))
    await clock.advance(1)
    assert (await _ask(up)).status == 429
    await clock.advance(4)
    assert (await running).status == 200
    later = asyncio.create_task(_ask(up))
    await clock.advance(5)
    assert (await later).status == 200


async def test_a_stream_that_is_left_settles_to_what_was_sent() -> None:
    clock = FakeClock(auto=True)
    limits = {"k1": {"tokens_per_minute": 100_000}}
    up = MockUpstream(limits=limits, mode="sliding", clock=clock, service=10.0)
    reply = await _ask(up, text="x" * 800, most=1000, stream=True)
    for _ in range(10):
        await reply.chunk()
    reply.close()
    assert up.requests[0].left
    left = int((await _ask(up, most=1)).headers["x-ratelimit-remaining-tokens"])
    used = 100_000 - 1 - left
    assert 200 < used < 200 + 200 // 4
    assert clock.timers == 0


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"requests_per_fortnight": 1}, "unknown field 'requests_per_fortnight'; expected one of requests_per_second"),
        ({"requests_per_minute": 0}, "expected a number above zero"),
        ({"requests_per_minute": 1, "mode": "leaky"}, "unknown mode 'leaky'; expected one of bucket, fixed, sliding"),
    ],
)
def test_wrong_limits_are_refused_by_name(limits: dict[str, float | str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MockUpstream(limits={"k1": limits}, clock=FakeClock())
