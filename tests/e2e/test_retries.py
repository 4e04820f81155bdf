"""What is repeated, how often, after how long and until when: as the server sees it, over real sockets."""

# ruff: noqa: ANN401 - helpers hand on what a test gives them
from __future__ import annotations

import asyncio
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pytest
from tests.patience import PATIENCE

from llm import (
    LLMConnectionError,
    LLMException,
    LLMManager,
    LLMRateLimitError,
    LLMStreamInterruptedError,
    LLMTimeoutError,
)
from llm.testing import FakeClock, Fault, MockUpstream
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llm import LLMClient

CLOCK = SystemClock()
QUICK = {"initial_delay": 0.001}


def config(upstream: MockUpstream, *, dialect: str = "openai", **sections: Any) -> dict[str, Any]:
    provider = {"base_url": upstream.base_url, "api_keys": ["sk-1"], "models": ["m"]}
    return {"providers": {dialect: provider}, "retry": QUICK, **sections}


async def unary(client: LLMClient, **options: Any) -> str:
    return str(await client.chat("hello", **options))


async def stream(client: LLMClient, **options: Any) -> str:
    return str(await client.stream_complete("hello", **options).response())


CALLS = pytest.mark.parametrize("call", [unary, stream])
DIALECTS = pytest.mark.parametrize("dialect", ["openai", "anthropic"])


@CALLS
@DIALECTS
@pytest.mark.parametrize("kind", ["server_error", "overloaded", "reset_before"])
async def test_upstream_sees_exactly_the_configured_number_of_attempts(call: Any, dialect: Any, kind: str) -> None:
    async with MockUpstream(dialect, faults=[Fault(kind, rate=1.0)]) as upstream:
        retry = {**QUICK, "max_attempts": 3}
        async with LLMManager.open(config(upstream, dialect=dialect, retry=retry)) as manager:
            with pytest.raises(LLMException) as caught:
                await call(manager.get_client())
        assert (len(upstream.requests), caught.value.attempts) == (3, 3)


@DIALECTS
async def test_the_vendors_own_client_retries_nothing_by_itself(dialect: Any) -> None:
    async with MockUpstream(dialect, faults=[Fault("server_error", rate=1.0)]) as upstream:
        sections = config(upstream, dialect=dialect, retry={**QUICK, "max_attempts": 2})
        sections["providers"][dialect]["transport"] = "sdk"
        async with LLMManager.open(sections) as manager:
            with pytest.raises(LLMException):
                await unary(manager.get_client())
        assert len(upstream.requests) == 2


@CALLS
async def test_429s_are_requeued_within_a_bound_of_their_own(call: Any) -> None:
    refusal = Fault("rate_limit", rate=1.0, headers={"retry-after-ms": "2"})
    async with MockUpstream(faults=[refusal]) as upstream:
        async with LLMManager.open(config(upstream, retry={**QUICK, "max_attempts": 1})) as manager:
            with pytest.raises(LLMRateLimitError):
                await call(manager.get_client())
        assert len(upstream.requests) == 10


# Headers, and the seconds that are waited then.
RETRY_AFTER: dict[str, tuple[Callable[[float], Mapping[str, str]], float]] = {
    "whole seconds": (lambda _: {"retry-after": "1"}, 1.0),
    "decimal seconds": (lambda _: {"retry-after": "1.1"}, 1.1),  # not rounded up
    "retry-after-ms": (lambda _: {"retry-after-ms": "150", "retry-after": "5"}, 0.15),
    "an HTTP date": (lambda now: {"retry-after": formatdate(now + 2.0, usegmt=True)}, 2.0),
}


@pytest.mark.parametrize("kind", ["rate_limit", "unavailable"])
@pytest.mark.parametrize("form", RETRY_AFTER)
async def test_retry_after_is_honoured_in_every_form_on_429_and_503(form: str, kind: str) -> None:
    headers, seconds = RETRY_AFTER[form]
    clock = FakeClock()
    upstream = MockUpstream(faults=[Fault(kind, at=1, headers=headers(clock.wall()))], clock=clock)
    async with LLMManager.open(config(upstream), transport=upstream.transport(), clock=clock) as manager:
        asking = asyncio.create_task(unary(manager.get_client()))
        await clock.advance(seconds - 0.01)
        assert len(upstream.requests) == 1
        await clock.advance(0.02)
        assert len(upstream.requests) == 2
        assert await asking == "hello"


@CALLS
async def test_the_deadline_bounds_all_retries_together(call: Any) -> None:
    async with MockUpstream(faults=[Fault("server_error", rate=1.0)]) as upstream:
        retry = {"initial_delay": 0.1, "max_delay": 0.1, "max_attempts": 1000}
        async with LLMManager.open(config(upstream, retry=retry)) as manager:
            start = CLOCK.now()
            with pytest.raises(LLMTimeoutError) as caught:
                await call(manager.get_client(), timeout=1.0)
            assert 1.0 <= CLOCK.now() - start < PATIENCE  # all attempts would take a minute and more
            assert caught.value.attempts > 1
            assert len(upstream.requests) in {caught.value.attempts, caught.value.attempts - 1}  # the last may be cut


async def test_a_wait_that_ends_after_the_deadline_is_not_begun() -> None:
    clock = FakeClock()  # which nobody moves: a wait would not end
    faults = [Fault("unavailable", rate=1.0, retry_after=30)]
    async with MockUpstream(faults=faults) as upstream, LLMManager.open(config(upstream), clock=clock) as manager:
        async with CLOCK.timeout(PATIENCE):
            with pytest.raises(LLMException) as caught:
                await unary(manager.get_client(), timeout=20.0)
        assert (caught.value.status, caught.value.retry_after, len(upstream.requests)) == (503, 30.0, 1)


@CALLS
@pytest.mark.parametrize(
    ("kind", "attempts"),
    [("server_error", 1), ("reset_before", 1), ("truncated", 1), ("unavailable", 2), ("rate_limit", 2)],
)
async def test_without_after_send_only_what_certainly_did_nothing_is_sent_again(
    call: Any, kind: str, attempts: int
) -> None:
    faults = [Fault(kind, at=1, headers={"retry-after-ms": "1"}, after_chunks=0)]
    async with MockUpstream(faults=faults) as upstream:
        async with LLMManager.open(config(upstream, retry={**QUICK, "after_send": False})) as manager:
            if attempts == 1:
                with pytest.raises(LLMException):
                    await call(manager.get_client())
            else:
                assert await call(manager.get_client()) == "hello"
        assert len(upstream.requests) == attempts


@pytest.mark.parametrize("after_send", [True, False])
async def test_what_was_never_sent_is_tried_again_whatever_after_send_says(after_send: bool) -> None:
    async with MockUpstream() as upstream:
        sections = config(upstream, retry={**QUICK, "max_attempts": 3, "after_send": after_send})
    async with LLMManager.open(sections) as manager:  # nobody listens there any more
        with pytest.raises(LLMConnectionError) as caught:
            await unary(manager.get_client())
        assert (caught.value.attempts, caught.value.sent) == (3, False)


async def test_a_stream_is_not_repeated_once_the_caller_has_a_chunk() -> None:
    faults = [Fault("truncated", at=1, after_chunks=2)]
    async with MockUpstream(faults=faults) as upstream, LLMManager.open(config(upstream)) as manager:
        answer = manager.get_client().stream_complete("a text of a good many chunks")
        first = str(await anext(answer))
        with pytest.raises(LLMStreamInterruptedError) as caught:
            await answer.response()
        assert caught.value.partial.startswith(first)
        assert (len(upstream.requests), caught.value.sent) == (1, True)


async def test_in_an_outage_retries_stay_within_the_budget() -> None:
    clock = FakeClock()  # stands still, so that no more than the floor comes back
    upstream = MockUpstream(faults=[Fault("server_error", rate=1.0)], clock=clock)
    sections = config(upstream, retry={"initial_delay": 0.0, "budget": 0.5})
    async with LLMManager.open(sections, transport=upstream.transport(), clock=clock) as manager:
        errors: list[str] = []
        for _ in range(150):
            with pytest.raises(LLMException) as caught:
                await unary(manager.get_client())
            errors.append(str(caught.value))
        shown = manager.get_status()["providers"]["openai"]["retry_budget"]
    assert len(upstream.requests) == 150 + 100
    assert sum("not sent again, since about 100 retries" in error for error in errors) == 150 - 33
    assert (shown["retries"], shown["refused"]) == (100.0, 150 - 33)
