"""What a cache does with answers over their time: RFC 5861's stale-while-revalidate and stale-if-error, whole calls."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel, field_validator

from llm import (
    CachePolicy,
    LLMAuthenticationError,
    LLMConnectionError,
    LLMInvalidRequestError,
    LLMManager,
    LLMRateLimitError,
    LLMResponse,
)
from llm.core.exceptions import LLMOverloadedError
from llm.testing import FakeClock, Fault, MockUpstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from llm import LLMClient, LLMRequest
    from llm.core.protocols import CallNext
    from llm.core.stream import LLMResult

MODEL = "gpt-4o-mini"
KINDS = pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
HOUR_OF_ERRORS: dict[str, Any] = {"ttl": 60, "stale_if_error": 3600}
WHILE_RENEWED: dict[str, Any] = {"ttl": 60, "stale_while_revalidate": 30}


class Bench:
    """A manager with a cache in front of a mock whose answers are numbered; all of it on one clock."""

    def __init__(self) -> None:
        self.clock = FakeClock(auto=True)
        self.service = 1.0
        self.faults: list[Fault] = []
        self.said: Sequence[str] = ()
        self.managers: list[LLMManager] = []

    async def open(self, cache: dict[str, Any], **sections: Any) -> LLMClient:  # noqa: ANN401 - sections as they come
        self.upstream = MockUpstream(
            "openai", faults=self.faults, clock=self.clock, service=self.service, answer=self.answer
        )
        await self.upstream.__aenter__()
        section = {"base_url": "http://upstream.test/v1", "api_keys": ["k1"], "models": [MODEL]}
        config = {
            "providers": {"openai": section, "spare": {"type": "openai", **section, "api_keys": ["k2"]}},
            "retry": {"max_attempts": 2},
            "cache": {"backend": "memory", **cache},
            **sections,
        }
        manager = await LLMManager.open(config, transport=self.upstream.transport(), clock=self.clock)
        self.managers.append(manager)
        return manager.get_client("openai", user="alice")

    def answer(self, _: LLMRequest) -> str:
        number = self.sent
        return self.said[number - 1] if number <= len(self.said) else f"answer {number}"

    @property
    def sent(self) -> int:
        return len(self.upstream.requests)

    @property
    def status(self) -> dict[str, Any]:
        return self.managers[-1].get_status()

    async def close(self) -> None:
        for manager in self.managers:
            await manager.close()
            await self.upstream.__aexit__(None, None, None)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.close()


async def ask(client: LLMClient, *, stream: bool = False, **options: Any) -> LLMResponse:  # noqa: ANN401 - a call's
    if not stream:
        return await client.complete("What is it?", **options)
    async with client.stream_complete("What is it?", **options) as chunks:
        text = "".join([str(chunk) async for chunk in chunks])
        response = await chunks.response()
    assert response.content == text
    return response


# --- while it is asked for again


@KINDS
async def test_within_the_time_an_answer_over_its_time_is_given_at_once_and_renewed_once(
    bench: Bench, *, stream: bool
) -> None:
    client = await bench.open(WHILE_RENEWED)
    await ask(client, stream=stream)
    await bench.clock.advance(70)
    before = bench.clock.now()
    given = [await ask(client, stream=stream) for _ in range(3)]
    assert bench.clock.now() == before  # nobody waited
    assert {(answer.content, answer.cached, answer.stale) for answer in given} == {("answer 1", True, True)}
    await bench.clock.advance(2)
    assert bench.sent == 2
    after = await ask(client, stream=stream)
    assert (after.content, after.cached, after.stale) == ("answer 2", True, False)
    assert bench.status["cache"]["stale"] == 3


async def test_a_renewal_is_a_call_of_its_own_in_the_counts_and_in_its_users_budget(bench: Bench) -> None:
    client = await bench.open(WHILE_RENEWED, limits={"users": {"alice": {"requests_per_day": 2}}})
    first = await ask(client)
    await bench.clock.advance(70)
    assert (await ask(client)).stale
    await bench.clock.advance(2)
    with pytest.raises(LLMRateLimitError, match="requests_per_day of the user"):
        await client.complete("And what else?")
    metrics, user = bench.status["metrics"], bench.status["users"]["alice"]
    assert (metrics["total_requests"], metrics["successful_requests"], user["requests"]) == (4, 3, 4)
    assert metrics["cost"] == pytest.approx(2 * (first.cost or 0.0)) != 0.0
    assert (metrics["cache"]["hits"], bench.sent) == (1, 2)


async def test_a_renewal_is_repeated_like_any_call(bench: Bench) -> None:
    bench.faults = [Fault("unavailable", at=2)]
    client = await bench.open(WHILE_RENEWED)
    await ask(client)
    await bench.clock.advance(70)
    await ask(client)
    await bench.clock.advance(10)
    assert bench.sent == 3
    assert (await ask(client)).content == "answer 3"


async def test_a_renewal_that_fails_leaves_the_answer_and_is_tried_with_the_next_call(bench: Bench) -> None:
    bench.faults = [Fault("unavailable", at=2, times=2)]
    client = await bench.open(WHILE_RENEWED)
    await ask(client)
    await bench.clock.advance(62)
    await ask(client)
    await bench.clock.advance(5)
    assert bench.sent == 3
    assert (await ask(client)).stale
    await bench.clock.advance(5)
    assert (await ask(client)).content == "answer 4"


async def test_a_renewal_has_as_long_as_the_call_had(bench: Bench) -> None:
    client = await bench.open(WHILE_RENEWED)
    await ask(client)
    await bench.clock.advance(70)
    assert (await ask(client, timeout=0.5)).stale
    await bench.clock.advance(2)
    assert bench.status["metrics"]["errors"] == {"LLMTimeoutError": 1}
    assert (await ask(client)).stale


async def test_a_renewal_ends_with_the_manager(bench: Bench) -> None:
    bench.faults = [Fault("stalled", at=2)]
    client = await bench.open(WHILE_RENEWED)
    await ask(client)
    await bench.clock.advance(70)
    await ask(client)
    await bench.clock.advance(2)
    await bench.managers[-1].close(drain=1.0)
    assert bench.status["pool"]["calls"] == 0
    assert [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_beyond_that_time_it_is_asked_for(bench: Bench) -> None:
    client = await bench.open(WHILE_RENEWED)
    await ask(client)
    await bench.clock.advance(100)
    answer = await ask(client)
    assert (answer.content, answer.cached) == ("answer 2", False)


async def test_a_call_says_for_itself_how_long_after_its_time_an_answer_will_do(bench: Bench) -> None:
    client = await bench.open(WHILE_RENEWED)
    await ask(client, cache=CachePolicy(stale_while_revalidate=1000))
    await bench.clock.advance(1000)
    assert (await ask(client, cache=CachePolicy(stale_while_revalidate=2000))).stale
    await bench.clock.advance(70)
    assert not (await ask(client, cache=CachePolicy(stale_while_revalidate=5))).cached


async def test_what_was_kept_for_a_shorter_time_is_over_it_for_everyone(bench: Bench) -> None:
    client = await bench.open(WHILE_RENEWED)
    await ask(client, cache=CachePolicy(ttl=5))
    await bench.clock.advance(6)
    assert (await ask(client)).stale


async def test_who_waits_for_a_look_up_is_not_given_what_is_too_old_for_itself(bench: Bench) -> None:
    client = await bench.open(WHILE_RENEWED)
    await ask(client)
    await bench.clock.advance(70)
    async with asyncio.TaskGroup() as group:
        patient = group.create_task(ask(client, stream=True))
        strict = group.create_task(ask(client, stream=True, cache=CachePolicy(stale_while_revalidate=0)))
    assert (patient.result().stale, strict.result().cached) == (True, False)


async def test_the_decision_log_says_that_it_was_given(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    bench.faults = [Fault("unavailable", at=2, times=2)]
    client = await bench.open(HOUR_OF_ERRORS)
    await ask(client)
    await bench.clock.advance(100)
    await ask(client)
    log = bench.status["calls"][-1]["log"]
    told = [entry["detail"] for entry in log if entry["event"] == "stale"]
    assert [text.split()[-2:] for text in told] == [["after", "LLMOverloadedError"]]


# --- where asking fails


FAILURES: dict[str, tuple[dict[str, Any], list[Fault], dict[str, Any]]] = {
    "overload": ({}, [Fault("unavailable", at=2, times=9)], {}),
    "a server's error": ({}, [Fault("server_error", at=2, times=9)], {}),
    "a connection": ({}, [Fault("reset_before", at=2, times=9)], {}),
    "a limit": ({"retry": {"retry_after_max": 1}}, [Fault("rate_limit", at=2, retry_after=60)], {}),
    "the call's time": ({}, [Fault("stalled", at=2, after_chunks=0)], {"timeout": 5.0}),
    "time in the queue": ({"limits": {"global": {"requests_per_hour": 1}}}, [], {"timeout": 5.0}),
}


@KINDS
@pytest.mark.parametrize("kind", FAILURES)
async def test_where_the_provider_fails_what_is_over_its_time_is_given(
    bench: Bench, kind: str, *, stream: bool
) -> None:
    sections, bench.faults, options = FAILURES[kind]
    client = await bench.open(HOUR_OF_ERRORS, **sections)
    await ask(client, stream=stream)
    await bench.clock.advance(100)
    answer = await ask(client, stream=stream, **options)
    assert (answer.content, answer.cached, answer.stale, answer.cost) == ("answer 1", True, True, 0.0)
    metrics = bench.status["metrics"]
    assert (metrics["successful_requests"], metrics["failed_requests"]) == (2, 0)
    assert bench.status["cache"]["stale"] == 1


async def test_an_open_circuit_gives_it_too(bench: Bench) -> None:
    bench.faults = [Fault("unavailable", at=2, times=9)]
    client = await bench.open(HOUR_OF_ERRORS, circuit_breaker={"min_calls": 2, "window": 600})
    await ask(client)
    await bench.clock.advance(100)
    assert (await ask(client)).stale
    sent = bench.sent
    assert (await ask(client)).stale
    assert bench.sent == sent


@pytest.mark.parametrize(("fault", "kind"), [("invalid", LLMInvalidRequestError), ("auth", LLMAuthenticationError)])
async def test_a_bad_request_and_a_refused_key_are_told_all_the_same(
    bench: Bench, fault: str, kind: type[Exception]
) -> None:
    bench.faults = [Fault(fault, at=2)]
    client = await bench.open(HOUR_OF_ERRORS)
    await ask(client)
    await bench.clock.advance(100)
    with pytest.raises(kind):
        await ask(client)


async def test_it_is_given_after_retries_and_other_targets_and_not_before(bench: Bench) -> None:
    bench.faults = [Fault("unavailable", key="k1", at=2, times=9)]
    client = await bench.open(HOUR_OF_ERRORS, **{"global": {"fallback": ["openai", "spare"]}})
    await ask(client)
    await bench.clock.advance(100)
    answer = await ask(client)
    assert (answer.provider, answer.stale) == ("spare", False)
    assert bench.sent == 4


async def test_without_single_flight_it_is_given_too(bench: Bench) -> None:
    bench.faults = [Fault("unavailable", at=2, times=9)]
    client = await bench.open({**HOUR_OF_ERRORS, "single_flight": False})
    await ask(client)
    await bench.clock.advance(100)
    assert (await ask(client)).stale


@pytest.mark.parametrize("refresh", [False, True])
async def test_beyond_its_time_and_for_a_refresh_the_failure_is_told(bench: Bench, *, refresh: bool) -> None:
    bench.faults = [Fault("unavailable", at=2, times=9)]
    client = await bench.open(HOUR_OF_ERRORS)
    await ask(client)
    await bench.clock.advance(100 if refresh else 4000)
    with pytest.raises(LLMOverloadedError):
        await ask(client, cache=CachePolicy(refresh=refresh))


@KINDS
async def test_who_waits_for_an_identical_call_that_fails_is_given_it_too(bench: Bench, *, stream: bool) -> None:
    bench.faults = [Fault("unavailable", at=2, times=2)]
    client = await bench.open(HOUR_OF_ERRORS)
    await ask(client, stream=stream)
    await bench.clock.advance(100)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(client, stream=stream)) for _ in range(5)]
        strict = group.create_task(failure(client, stream=stream))
    assert {task.result().stale for task in tasks} == {True}
    assert strict.result() == "LLMOverloadedError"
    assert bench.sent == 3


async def failure(client: LLMClient, *, stream: bool) -> str:
    with pytest.raises(LLMOverloadedError) as caught:
        await ask(client, stream=stream, cache=CachePolicy(stale_if_error=0))
    return type(caught.value).__name__


async def test_a_leader_whose_time_is_over_is_given_it_and_hands_over_at_once(bench: Bench) -> None:
    bench.service = 10.0
    client = await bench.open(HOUR_OF_ERRORS)
    await ask(client)
    await bench.clock.advance(100)
    async with asyncio.TaskGroup() as group:
        leader = group.create_task(held(client))
        follower = group.create_task(ask(client, stream=True))
    assert leader.result().stale
    assert follower.result().content == "answer 3"


async def held(client: LLMClient) -> LLMResponse:
    async with client.stream_complete("What is it?", timeout=5) as stream:
        response = await stream.response()
        await FakeClock().sleep(0)
        return response


class Sum(BaseModel):
    total: int


class Large(BaseModel):  # of the same form, and with a condition that is not in it
    model_config = {"title": "Sum"}
    total: int

    @field_validator("total")
    @classmethod
    def is_large(cls, value: int) -> int:
        if value < 10:
            raise ValueError("too little")
        return value


@KINDS
async def test_with_a_response_model_it_is_given_with_its_instance(bench: Bench, *, stream: bool) -> None:
    bench.said = ['{"total": 3}']
    bench.faults = [Fault("unavailable", at=2, times=9)]
    client = await bench.open(HOUR_OF_ERRORS)
    await ask(client, response_model=Sum)
    await bench.clock.advance(100)
    answer = await ask(client, stream=stream, response_model=Sum)
    assert (answer.parsed, answer.stale) == (Sum(total=3), True)


@KINDS
async def test_what_has_no_instance_does_not_stand_in(bench: Bench, *, stream: bool) -> None:
    bench.said = ['{"total": 3}']
    bench.faults = [Fault("unavailable", at=2, times=9)]
    client = await bench.open(HOUR_OF_ERRORS)
    await ask(client, response_model=Sum)
    await bench.clock.advance(100)
    with pytest.raises(LLMOverloadedError):
        await ask(client, stream=stream, response_model=Large)


async def test_a_question_whose_renewal_never_began_is_renewed_with_the_next_call(bench: Bench) -> None:
    client = await bench.open(WHILE_RENEWED)
    await ask(client)
    await bench.clock.advance(70)
    waiting = bench.managers[-1].get_client("openai", middleware=["rate_limit", Late(bench.clock), "cache"])
    task = asyncio.create_task(ask(waiting))
    await bench.clock.sleep(1)
    task.cancel()
    await asyncio.wait([task])
    assert bench.sent == 1
    assert (await ask(client)).stale
    await bench.clock.advance(2)
    assert (await ask(client)).content == "answer 2"


class Late:
    """A layer that is slow to hand on what it was given."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock

    async def __call__(self, request: LLMRequest, call_next: CallNext) -> LLMResult:
        result = await call_next(request)
        await self.clock.sleep(5)
        return result


async def test_a_call_that_the_manager_ends_is_told_so(bench: Bench) -> None:
    bench.faults = [Fault("stalled", at=2)]
    client = await bench.open(HOUR_OF_ERRORS)
    await ask(client)
    await bench.clock.advance(100)
    task = asyncio.create_task(ask(client))
    await bench.clock.advance(1)
    await bench.managers[-1].close(drain=1.0)
    with pytest.raises(LLMConnectionError, match="closed before"):
        await task


def test_a_time_below_zero_is_refused_by_name() -> None:
    with pytest.raises(LLMInvalidRequestError, match=r"CachePolicy\.stale_while_revalidate is -1; expected seconds"):
        CachePolicy(stale_while_revalidate=-1)
    with pytest.raises(LLMInvalidRequestError, match=r"CachePolicy\.stale_if_error is a str; expected seconds"):
        CachePolicy(stale_if_error="long")  # type: ignore[arg-type]  # what must be refused
