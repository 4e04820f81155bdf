"""Who waits for which key, how long, in which order: a manager before a vendor's server, on a virtual clock."""

# ruff: noqa: ANN401 - options as they come
from __future__ import annotations

import asyncio
import re
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from llm import (
    LLMException,
    LLMManager,
    LLMPoolExhaustedError,
    LLMRateLimitError,
    LLMRequest,
    LLMResponse,
    LLMTimeoutError,
    TokenUsage,
)
from llm.testing import FakeClock, Fault, MockUpstream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

MODEL = "gpt-4o-mini"
NETWORK = 0.02
SLACK = 0.1 + 2 * NETWORK
"""Seconds that a call may come later than its limit allows: the guard, and the way there and back."""


def uses_all(request: LLMRequest) -> LLMResponse:
    """An answer that uses what was reserved, so that settling changes nothing."""
    return LLMResponse("", request.messages[-1].text, usage=TokenUsage(1, (request.max_tokens or 1) - 1))


@dataclass
class World:
    """A manager, its upstream, and the calls that were begun."""

    clock: FakeClock
    upstream: MockUpstream
    manager: LLMManager
    tasks: list[asyncio.Task[LLMResponse]] = field(default_factory=list[asyncio.Task[LLMResponse]])

    def ask(self, text: str, *, tokens: int = 10, **options: Any) -> asyncio.Task[LLMResponse]:
        work = self.manager.get_client().chat(text, max_tokens=tokens, **options)
        self.tasks.append(asyncio.get_running_loop().create_task(work))
        return self.tasks[-1]

    async def several(self, name: str, count: int, **options: Any) -> list[asyncio.Task[LLMResponse]]:
        """Begin so many calls, each after the one before is at its place."""
        tasks = [self.ask(f"{name}-{number}", **options) for number in range(count)]
        await self.clock.advance(0.0)
        return tasks

    def order(self) -> list[str]:
        """The texts in the order in which they arrived, refused ones too."""
        return [text_of(record.body) for record in self.upstream.requests]

    def keys(self) -> list[str | None]:
        return [record.key for record in self.upstream.requests]

    def at(self, text: str) -> float:
        """When the text arrived last."""
        return [record.at for record in self.upstream.requests if text_of(record.body) == text][-1]

    def refusals(self) -> int:
        return sum(record.status == 429 for record in self.upstream.requests)

    def saturations(self) -> set[float]:
        status = self.manager.get_status()
        keys = [key["models"] for provider in status["providers"].values() for key in provider["keys"]]
        limits = [*status["limits"].values(), *(limits for models in keys for limits in models.values())]
        return {value for of in limits for value in of.values()}


def text_of(body: Mapping[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


def on_the_server(told: Mapping[str, Any]) -> dict[str, Any]:
    stated = dict(told)
    sliding = stated.pop("algorithm", None) == "sliding_window"
    return {**stated, "mode": "sliding"} if sliding else stated


@asynccontextmanager
async def world(
    keys: Mapping[str, Mapping[str, Any]],
    *,
    provider: Mapping[str, Any] | None = None,
    server: Mapping[str, Any] | None = None,
    **sections: Any,
) -> AsyncGenerator[World]:
    """A manager over these keys and their limits, in front of a server with the same limits."""
    clock = FakeClock()
    limits = {key: on_the_server(told) for key, told in keys.items()}
    options: dict[str, Any] = {"limits": limits, "network": (NETWORK, NETWORK), "answer": uses_all, **(server or {})}
    upstream = MockUpstream("openai", clock=clock, **options)
    told = [dict(limits) for limits in keys.values()]
    section = {"api_keys": list(keys), "models": [MODEL], "rate_limits": told, **(provider or {})}
    configured = {"providers": {"openai": section}, **sections}
    async with LLMManager.open(configured, transport=upstream.transport(), clock=clock) as manager:
        made = World(clock, upstream, manager)
        try:
            yield made
        finally:
            for task in made.tasks:
                task.cancel()
            if made.tasks:
                await asyncio.wait(made.tasks)
    await clock.advance(30.0)  # the server ends what the test left
    assert clock.timers == 0


# --- all keys cool down ----------------------------------------------------------------------------------------------

RESTS = {"sk-one": 20.0, "sk-two": 7.0, "sk-three": 12.0}
COOLING = [Fault("rate_limit", key=key, retry_after=seconds) for key, seconds in RESTS.items()]
NO_LIMITS: dict[str, dict[str, Any]] = {key: {} for key in RESTS}


async def test_with_all_keys_cooling_a_call_waits_for_the_earliest_and_no_longer() -> None:
    async with world(NO_LIMITS, server={"faults": COOLING}) as w:
        task = w.ask("a")
        await w.clock.advance(30.0)
        assert (await task).attempts == 4
        assert [record.status for record in w.upstream.requests] == [429, 429, 429, 200]
        first, second, third, last = w.upstream.requests
        assert {first.key, second.key, third.key} == set(RESTS)
        assert third.at - first.at <= 6 * NETWORK
        assert last.key == "sk-two"
        told = next(record for record in (first, second, third) if record.key == "sk-two")
        assert 7.0 <= last.at - told.at <= 7.0 + SLACK


async def test_with_a_deadline_before_the_earliest_a_call_fails_at_once_and_says_so() -> None:
    async with world(NO_LIMITS, server={"faults": COOLING}) as w:
        first = w.ask("first", timeout=5.0)
        await w.clock.advance(1.0)
        assert first.done()
        second = w.ask("second", timeout=5.0)
        await w.clock.advance(0.0)
        assert second.done()  # it makes no request
        assert w.order() == ["first"] * 3
        for task, rest in ((first, 7.0), (second, 6.0)):
            with pytest.raises(LLMRateLimitError, match="deadline") as caught:
                await task
            assert caught.value.retry_after == pytest.approx(rest, abs=SLACK)
            assert caught.value.scope == "key"
        third = w.ask("third", timeout=7.0)
        await w.clock.advance(7.0)
        assert third.done()
        assert (await third).content == "third"


async def test_a_wait_that_a_limit_asks_for_beyond_the_deadline_fails_at_once_with_the_time_it_takes() -> None:
    async with world({"sk-one": {"tokens_per_minute": 1000}}) as w:
        await w.several("first", 1, tokens=1000)
        late, in_time = w.ask("late", tokens=500, timeout=29.0), w.ask("in time", tokens=500, timeout=31.0)
        await w.clock.advance(0.0)
        assert late.done()
        with pytest.raises(LLMRateLimitError, match="tokens_per_minute") as caught:
            await late
        assert caught.value.retry_after == pytest.approx(30.0, abs=SLACK)
        await w.clock.advance(31.0)
        assert (await in_time).content == "in time"
        assert w.refusals() == 0


IN_FOUR_SECONDS = datetime.fromtimestamp(FakeClock().wall() + 4, UTC)
FORMS: dict[str, tuple[dict[str, Any], float]] = {
    "whole seconds": ({"retry_after": "3"}, 3.0),
    "decimal seconds": ({"retry_after": "2.5"}, 2.5),
    "HTTP date": (
        {"retry_after": format_datetime(datetime.fromtimestamp(FakeClock().wall() + 4, UTC), usegmt=True)},
        4.0,
    ),
    "milliseconds": ({"headers": {"retry-after-ms": "1500"}}, 1.5),
}


@pytest.mark.parametrize("kind", ["rate_limit", "unavailable"])
@pytest.mark.parametrize("form", FORMS)
async def test_retry_after_is_honoured_in_every_form_to_the_second(kind: str, form: str) -> None:
    options, seconds = FORMS[form]
    async with world({"sk-one": {}}, server={"faults": [Fault(kind, **options)]}) as w:
        task = w.ask("a")
        await w.clock.advance(seconds + 1.0)
        assert (await task).content == "a"
        refused, answered = w.upstream.requests
        assert seconds - NETWORK <= answered.at - refused.at <= seconds + SLACK


# --- a refusal -------------------------------------------------------------------------------------------------------


async def test_a_429_cools_only_its_key_and_the_others_are_used_at_once() -> None:
    fault = Fault("rate_limit", key="sk-one", retry_after=30)
    async with world({"sk-one": {}, "sk-two": {}, "sk-three": {}}, server={"faults": [fault]}) as w:
        tasks = await w.several("a", 1)
        await w.clock.advance(1.0)
        tasks += await w.several("b", 9)
        await w.clock.advance(1.0)
        assert all(task.done() for task in tasks)
        assert w.refusals() == 1
        assert Counter(w.keys()) == {"sk-one": 1, "sk-two": 5, "sk-three": 5}
        await w.clock.advance(29.0)
        await w.several("c", 3)
        await w.clock.advance(1.0)
        assert Counter(w.keys()) == {"sk-one": 2, "sk-two": 6, "sk-three": 6}


async def test_a_429_cools_the_quota_group_of_its_key() -> None:
    fault = Fault("rate_limit", key="sk-one", retry_after=30)
    groups = {"quota_groups": ["org-a", "org-a", "org-b"]}
    async with world({"sk-one": {}, "sk-two": {}, "sk-three": {}}, provider=groups, server={"faults": [fault]}) as w:
        tasks = await w.several("a", 10)
        await w.clock.advance(1.0)
        assert all(task.done() for task in tasks)
        before = Counter(w.keys())
        tasks = await w.several("b", 10)
        await w.clock.advance(1.0)
        assert all(task.done() for task in tasks)
        assert Counter(w.keys()) - before == {"sk-three": 10}


async def test_a_refused_call_goes_first_of_its_priority_and_its_refusals_are_no_attempts() -> None:
    faults = [Fault("rate_limit", at=2, times=3, retry_after=5)]
    one_at_a_time = {"sk-one": {"concurrent_requests": 1}}
    async with world(one_at_a_time, server={"faults": faults, "service": 1.0}, retry={"max_attempts": 1}) as w:
        tasks = [w.ask(text) for text in "abcd"]
        await w.clock.advance(3.0)
        assert w.order() == ["a", "b"]
        tasks.append(w.ask("urgent", priority=1))
        await w.clock.advance(4.0)
        assert w.order() == ["a", "b", "urgent"]  # refused as well
        await w.clock.advance(60.0)
        assert w.order() == ["a", "b", "urgent", "urgent", "urgent", "b", "c", "d"]
        assert [(await task).attempts for task in tasks] == [1, 2, 1, 1, 3]


async def test_the_tenth_429_in_a_row_ends_the_call() -> None:
    async with world({"sk-one": {}}, server={"faults": [Fault("rate_limit", rate=1.0, retry_after=1)]}) as w:
        task = w.ask("a")
        await w.clock.advance(60.0)
        with pytest.raises(LLMRateLimitError) as caught:
            await task
        assert caught.value.attempts == len(w.upstream.requests) == 10


# --- jobs are fitted to keys -----------------------------------------------------------------------------------------

FITTED: dict[str, dict[str, Any]] = {
    "sk-big": {"tokens_per_minute": 10_000},
    "sk-small-1": {"tokens_per_minute": 1_000},
    "sk-small-2": {"tokens_per_minute": 1_000},
}


async def drain(w: World) -> None:
    """Empty the big key."""
    await w.several("drain", 1, tokens=10_000)
    await w.clock.advance(1.0)
    assert w.keys() == ["sk-big"]


async def test_a_request_that_only_the_big_key_can_pay_waits_for_it_and_holds_up_nobody() -> None:
    async with world(FITTED) as w:
        await drain(w)
        big = w.ask("big", tokens=5_000)
        await w.clock.advance(0.0)
        small = await w.several("small", 20, tokens=100)
        await w.clock.advance(1.0)
        assert not big.done()
        assert [task.done() for task in small] == [True] * 20
        assert {record.key for record in w.upstream.requests[1:]} == {"sk-small-1", "sk-small-2"}
        await w.clock.advance(31.0)
        assert (await big).content == "big"
        assert w.keys()[-1] == "sk-big"
        assert w.refusals() == 0


async def test_a_big_request_is_not_starved_by_small_ones_on_the_big_key() -> None:
    async with world(FITTED) as w:
        await drain(w)
        big = w.ask("big", tokens=5_000)
        await w.clock.advance(0.0)
        small = [w.ask(f"small-{number}", tokens=100) for number in range(200)]
        await w.clock.advance(29.0 + SLACK + 1.0)
        assert big.done()
        assert w.at("big") == pytest.approx(30.0 + NETWORK, abs=0.3)
        await w.clock.advance(180.0)
        assert all(task.done() for task in small)
        assert w.refusals() == 0


async def test_small_requests_that_keep_coming_do_not_starve_a_big_one_on_the_only_key() -> None:
    async with world({"sk-one": {"tokens_per_minute": 1_000}}) as w:
        await w.several("first", 1, tokens=1_000)
        big = w.ask("big", tokens=900)
        for second in range(60):
            await w.several(f"small-{second}", 1, tokens=20)
            await w.clock.advance(1.0)
        assert big.done()
        assert w.at("big") <= 54.0 + SLACK + NETWORK


async def test_when_the_first_who_waits_gives_up_the_next_goes_at_once_if_it_can_pay() -> None:
    async with world({"sk-one": {"tokens_per_minute": 1_000}}) as w:
        await w.several("first", 1, tokens=900)
        await w.clock.advance(1.0)
        large = w.ask("large", tokens=1_000)
        small = w.ask("small", tokens=10)
        await w.clock.advance(1.0)
        assert not small.done()
        large.cancel()
        await w.clock.advance(0.1)
        assert small.done()


# --- what can never fit ----------------------------------------------------------------------------------------------

TOO_LARGE: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "key": ({"tokens_per_minute": 1000}, {}, "tokens_per_minute", "1000"),
    "user": ({}, {"users": {"alice": {"tokens_per_minute": 500}}}, "tokens_per_minute", "500"),
    "global": ({}, {"global": {"tokens_per_hour": 700}}, "tokens_per_hour", "700"),
}


@pytest.mark.parametrize("scope", TOO_LARGE)
async def test_a_request_that_can_never_fit_is_refused_at_once_and_told_which_limit_it_exceeds(scope: str) -> None:
    key, limits, name, number = TOO_LARGE[scope]
    async with world({"sk-one": key}, limits=limits) as w:
        task = w.ask("a", tokens=2000, user="alice")
        await w.clock.advance(0.0)
        assert task.done()
        assert w.order() == []
        with pytest.raises(LLMRateLimitError) as caught:
            await task
        assert caught.value.scope == scope
        assert not caught.value.retryable
        said = str(caught.value)
        assert name in said
        assert re.search(rf"\b{number}\b", said)
        assert "2000" in said
        with pytest.raises(LLMRateLimitError):
            w.manager.explain(LLMRequest("a", max_tokens=2000, user="alice"))


async def test_what_exceeds_every_key_is_told_the_limit_of_the_largest() -> None:
    async with world(FITTED) as w:
        task = w.ask("a", tokens=20_000)
        await w.clock.advance(0.0)
        with pytest.raises(LLMRateLimitError, match="10000"):
            await task


# --- order -----------------------------------------------------------------------------------------------------------

ONE_BY_ONE = {"sk-one": {"concurrent_requests": 1}}
USERS: dict[str, dict[str, Any]] = {
    "without limits for users": {},
    "with limits for users": {"users": {"default": {"requests_per_minute": 10_000}}},
}


@pytest.mark.parametrize("limits", USERS)
@pytest.mark.parametrize("shape", [ONE_BY_ONE, {"sk-one": {"requests_per_minute": 60, "algorithm": "sliding_window"}}])
async def test_a_user_with_500_queued_calls_does_not_hold_up_one_with_5(
    limits: str, shape: dict[str, dict[str, Any]]
) -> None:
    server: dict[str, Any] = {"service": 1.0 if shape is ONE_BY_ONE else 0.0, "limits": {}}
    async with world(shape, server=server, limits=USERS[limits]) as w:
        await w.several("first", 60 if shape is not ONE_BY_ONE else 1)
        await w.several("many", 500, user="many")
        few = await w.several("few", 5, user="few")
        await w.clock.advance(62.0)
        assert all(task.done() for task in few)
        order = [text for text in w.order() if not text.startswith("first")]
        places = [place for place, text in enumerate(order) if text.startswith("few")]
        assert places[-1] <= 12  # after at most one call of the other user for each of its own, and what had begun
        assert all(1 <= later - place <= 3 for place, later in pairwise(places))
        for name in ("many", "few"):
            numbers = [int(text.split("-")[1]) for text in order if text.startswith(name)]
            assert numbers == sorted(numbers)


async def test_users_take_turns_however_many_calls_each_has() -> None:
    async with world(ONE_BY_ONE, server={"service": 1.0}) as w:
        await w.several("first", 1)
        for user, count in (("a", 40), ("b", 20), ("c", 10)):
            await w.several(user, count, user=user)
        await w.clock.advance(33.0 * (1 + 2 * NETWORK))
        served = Counter(text.split("-")[0] for text in w.order()[1:31])
        assert set(served) == {"a", "b", "c"}
        assert max(served.values()) - min(served.values()) <= 2


async def test_equal_calls_of_one_user_leave_in_the_order_they_came() -> None:
    async with world({"sk-one": {"requests_per_minute": 30}, "sk-two": {"requests_per_minute": 60}}) as w:
        tasks = await w.several("a", 200)
        await w.clock.advance(90.0)
        assert all(task.done() for task in tasks)
        assert w.order() == [f"a-{number}" for number in range(200)]
        assert w.refusals() == 0


async def test_a_higher_priority_overtakes_all_that_wait_and_within_one_the_order_is_arrival() -> None:
    async with world(ONE_BY_ONE, server={"service": 1.0}) as w:
        await w.several("first", 1)
        for name, priority in (("low", -1), ("plain", 0), ("high", 5), ("higher", 9), ("high-later", 5)):
            await w.several(name, 3, priority=priority, user=name)
        await w.clock.advance(30.0)
        order = [text.rsplit("-", 1) for text in w.order()[1:]]
        assert [name for name, _ in order[:3]] == ["higher"] * 3
        assert {name for name, _ in order[3:9]} == {"high", "high-later"}
        assert [name for name, _ in order[9:]] == ["plain"] * 3 + ["low"] * 3


async def test_a_user_blocked_by_an_own_limit_blocks_nobody() -> None:
    limits = {"users": {"alice": {"requests_per_minute": 2}}}
    async with world({"sk-one": {"requests_per_minute": 1000}}, limits=limits) as w:
        held = await w.several("alice", 50, user="alice", priority=9)
        others = [*await w.several("bob", 50, user="bob"), *await w.several("nobody", 50)]
        await w.clock.advance(1.0)
        assert all(task.done() for task in others)
        assert [task.done() for task in held] == [True, True] + [False] * 48
        await w.clock.advance(60.0)
        assert sum(task.done() for task in held) == 4


# --- whose limits ----------------------------------------------------------------------------------------------------

TEN = {"requests_per_minute": 10}


def of_keys(*keys: str, limit: Mapping[str, Any] = TEN, **provider: Any) -> dict[str, Any]:
    """Slots of these keys, each with the limit."""
    return {"api_keys": list(keys), "rate_limits": [dict(limit)], **provider}


@pytest.mark.parametrize(
    ("provider", "at_once"),
    [
        (of_keys("sk-one", "sk-two", "sk-three", "sk-one"), 30),
        (of_keys("sk-one", models=[MODEL, MODEL, MODEL]), 10),
        (of_keys("sk-one", "sk-two", "sk-three", quota_groups=["org-a", "org-a", "org-b"]), 20),
        (of_keys("sk-one", "sk-two", "sk-three", "sk-four", quota_groups=["org"]), 10),
    ],
    ids=["client 4 is key 1 again", "one key, three slots", "quota groups", "one group"],
)
async def test_slots_of_one_account_never_double_its_limit(provider: dict[str, Any], at_once: int) -> None:
    keys = dict.fromkeys(provider["api_keys"], TEN)
    groups = (
        dict(zip(provider["api_keys"], provider["quota_groups"] * 4, strict=False))
        if "quota_groups" in provider
        else {}
    )
    server = {"groups": groups, "limits": dict.fromkeys(groups.values(), TEN) or keys}
    async with world(keys, provider=provider, server=server) as w:
        tasks = await w.several("a", 60)
        await w.clock.advance(5.0)
        assert sum(task.done() for task in tasks) == at_once
        await w.clock.advance(301.0)
        assert all(task.done() for task in tasks)
        assert w.refusals() == 0


async def test_model_families_have_limits_of_their_own() -> None:
    provider = of_keys(
        "sk-one", models=[MODEL, "gpt-4o", "gpt-4.1"], model_families={"mini": [MODEL], "large": ["gpt-4o", "gpt-4.1"]}
    )
    async with world({"sk-one": {}}, provider=provider) as w:
        for model in (MODEL, "gpt-4o", "gpt-4.1"):
            await w.several(model, 20, model=model)
        await w.clock.advance(1.0)
        sent = Counter(str(record.body["model"]) for record in w.upstream.requests)
        assert sent[MODEL] == 10
        assert sent["gpt-4o"] + sent["gpt-4.1"] == 10


async def test_a_refusal_of_one_family_cools_no_other() -> None:
    provider = of_keys(
        "sk-one", models=[MODEL, "gpt-4o"], limit={}, model_families={"mini": [MODEL], "large": ["gpt-4o"]}
    )
    async with world({"sk-one": {}}, provider=provider, server={"faults": [Fault("rate_limit", retry_after=100)]}) as w:
        cooled = w.ask("a", model="gpt-4o")
        await w.clock.advance(1.0)
        others = await w.several("b", 5, model=MODEL)
        await w.clock.advance(1.0)
        assert all(task.done() for task in others)
        assert not cooled.done()


@pytest.mark.parametrize(
    ("keys", "pool", "most"),
    [
        ({"sk-one": {"concurrent_requests": 3}, "sk-two": {"concurrent_requests": 4}}, {}, 7),
        ({"sk-one": {}, "sk-two": {}}, {"max_size": 5}, 5),
        ({"sk-one": {"concurrent_requests": 3}, "sk-two": {}}, {"max_size": 6}, 6),
    ],
    ids=["concurrent_requests", "max_size", "both"],
)
async def test_calls_in_flight_reach_their_bound_and_never_exceed_it(
    keys: dict[str, dict[str, Any]], pool: dict[str, Any], most: int
) -> None:
    async with world(keys, server={"service": 1.0}, pool=pool) as w:
        tasks = await w.several("a", 50)
        await w.clock.advance(20.0)
        assert all(task.done() for task in tasks)
        assert w.upstream.most_active == most
        assert w.refusals() == 0
        assert w.clock.now() - w.upstream.requests[-1].at > 20.0 - (50 // most + 1) * (1.0 + 2 * NETWORK)


async def test_a_full_queue_and_a_wait_beyond_acquire_timeout_are_told_as_an_exhausted_pool() -> None:
    async with world(ONE_BY_ONE, server={"service": 9.0}, pool={"max_waiting": 2, "acquire_timeout": 5}) as w:
        tasks = await w.several("a", 4)
        assert [task.done() for task in tasks] == [False, False, False, True]
        await w.clock.advance(5.1)
        assert [task.done() for task in tasks] == [False, True, True, True]
        for task in tasks[1:]:
            with pytest.raises(LLMPoolExhaustedError):
                await task


async def test_a_call_that_the_calls_before_it_keep_waiting_ends_at_its_deadline() -> None:
    async with world({"sk-one": {"requests_per_minute": 60, "algorithm": "sliding_window"}}) as w:
        await w.several("first", 60)
        before = await w.several("before", 60)
        late = w.ask("late", timeout=65.0)
        await w.clock.advance(64.9)
        assert not late.done()
        assert all(task.done() for task in before)
        await w.clock.advance(0.2)
        with pytest.raises(LLMTimeoutError) as caught:
            await late
        assert caught.value.phase == "pool"


# --- a reload while many wait ----------------------------------------------------------------------------------------

SLIDING = {"algorithm": "sliding_window"}


def most_in_a_minute(times: Sequence[float]) -> int:
    return max((sum(start <= at < start + 60.0 for at in times) for start in times), default=0)


async def reload(w: World, per_minute: Mapping[str, int]) -> None:
    """Have these keys, and let each send so many requests in a minute."""
    limits = [{"requests_per_minute": number, **SLIDING} for number in per_minute.values()]
    section = {"api_keys": list(per_minute), "models": [MODEL], "rate_limits": limits}
    await w.manager.reload({"providers": {"openai": section}})
    await w.clock.advance(0.0)


RELOADS: dict[str, tuple[dict[str, int], float]] = {  # and seconds until all are answered
    "limits up": ({"sk-one": 80, "sk-two": 80}, 125.0),
    "limits down": ({"sk-one": 10, "sk-two": 30}, 400.0),
    "a key removed": ({"sk-two": 60}, 300.0),
    "a key added": ({"sk-one": 20, "sk-two": 20, "sk-three": 200}, 2.0),
    "all keys replaced": ({"sk-four": 100}, 125.0),
}


@pytest.mark.parametrize("change", RELOADS)
async def test_a_reload_while_200_wait_loses_nothing_and_the_new_limits_hold(change: str) -> None:
    per_minute, seconds = RELOADS[change]
    twenty = {"requests_per_minute": 20, **SLIDING}
    async with world({"sk-one": twenty, "sk-two": twenty}, server={"limits": {}}) as w:
        tasks = await w.several("a", 240)
        await w.clock.advance(5.0)
        assert sum(task.done() for task in tasks) == 40
        await reload(w, per_minute)
        changed = w.clock.now()
        await w.clock.advance(seconds)
        assert sum(not task.done() for task in tasks) == 0
        assert [(await task).content for task in tasks] == [f"a-{number}" for number in range(240)]
        assert sorted(w.order()) == sorted(f"a-{number}" for number in range(240))
        later = [record for record in w.upstream.requests if record.at > changed]
        assert {record.key for record in later} <= set(per_minute)
        for key, most in per_minute.items():
            assert most_in_a_minute([record.at for record in later if record.key == key]) <= most
        await w.clock.advance(61.0)
        assert w.saturations() == {0.0}


async def test_a_reload_keeps_the_level_of_a_key_that_stays() -> None:
    async with world({"sk-one": {"requests_per_minute": 20, **SLIDING}}, server={"limits": {}}) as w:
        await w.several("a", 20)
        await w.clock.advance(10.0)
        await reload(w, {"sk-one": 40})
        more = await w.several("b", 60)
        await w.clock.advance(1.0)
        assert sum(task.done() for task in more) <= 20
        await w.clock.advance(150.0)
        assert all(task.done() for task in more)
        assert most_in_a_minute([record.at for record in w.upstream.requests]) <= 40


async def test_a_reload_that_leaves_no_key_for_a_model_ends_its_waiters_and_says_so() -> None:
    async with world({"sk-one": {"requests_per_minute": 1}}) as w:
        tasks = await w.several("a", 3)
        section = {"api_keys": ["sk-one"], "models": ["gpt-4o"]}
        await w.manager.reload({"providers": {"openai": section}})
        await w.clock.advance(1.0)
        assert all(task.done() for task in tasks)
        assert (await tasks[0]).content == "a-0"
        for task in tasks[1:]:
            with pytest.raises(LLMException, match="gpt-4o"):
                await task


# --- explain ---------------------------------------------------------------------------------------------------------

LEVELS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "key": ({"tokens_per_minute": 1000}, {}, "tokens_per_minute"),
    "key, window": ({"tokens_per_minute": 1000, **SLIDING}, {}, "tokens_per_minute"),
    "key, requests": ({"requests_per_minute": 1}, {}, "requests_per_minute"),
    "user": ({}, {"users": {"alice": {"tokens_per_minute": 1000}}}, "tokens_per_minute"),
    "user, bucket": (
        {},
        {"users": {"alice": {"output_tokens_per_minute": 1000, "algorithm": "token_bucket"}}},
        "output_tokens_per_minute",
    ),
    "global": ({}, {"global": {"requests_per_minute": 1}}, "requests_per_minute"),
    "global, hour": ({}, {"global": {"tokens_per_hour": 1000}}, "tokens_per_hour"),
}


@pytest.mark.parametrize("case", LEVELS)
async def test_explain_says_what_then_happens(case: str) -> None:
    key, limits, name = LEVELS[case]
    async with world({"sk-one": key}, limits=limits) as w:
        request = LLMRequest("second", max_tokens=600, user="alice")
        before = w.manager.explain(request)
        assert (before.admitted, before.wait_seconds, before.limit) == (True, 0.0, None)
        await w.several("first", 1, tokens=1000, user="alice")
        await w.clock.advance(3.0)
        told = w.manager.explain(request)
        assert (told.admitted, told.level, told.limit) == (False, case.split(",", maxsplit=1)[0], name)
        assert told.saturation > 0.9
        assert told.key is not None
        assert told.as_of == w.clock.now()
        asked = w.clock.now()
        task = w.ask("second", tokens=600, user="alice")
        await w.clock.advance(4000.0 if "hour" in case else 61.0)
        assert task.done()
        assert w.at("second") - NETWORK - asked == pytest.approx(told.wait_seconds, abs=0.01)
        assert w.manager.explain(request).as_of == w.clock.now()


async def test_explain_of_what_is_admitted_names_the_key_that_takes_it() -> None:
    async with world({"sk-one": {"requests_per_minute": 5}, "sk-two": {"requests_per_minute": 5}}) as w:
        keys: list[str | None] = []
        for number in range(10):
            told = w.manager.explain(LLMRequest(f"a-{number}", max_tokens=5))
            assert told.admitted
            task = w.ask(f"a-{number}", tokens=5)
            await w.clock.advance(0.1)
            keys.append(told.key)
            assert (await task).key == told.key
        assert len(set(keys)) == 2


async def test_explain_of_cooling_keys_tells_the_earliest() -> None:
    async with world(NO_LIMITS, server={"faults": COOLING}) as w:
        first = w.ask("first")
        await w.clock.advance(1.0)
        told = w.manager.explain(LLMRequest("second", max_tokens=5))
        assert not told.admitted
        assert told.wait_seconds == pytest.approx(6.0, abs=0.2)
        await w.clock.advance(30.0)
        assert first.done()


async def test_explain_of_a_pool_that_is_full_names_the_providers_limit() -> None:
    async with world({"sk-one": {}}, server={"service": 5.0}, pool={"max_size": 1}) as w:
        await w.several("a", 1)
        told = w.manager.explain(LLMRequest("b", max_tokens=5))
        assert (told.admitted, told.level, told.limit) == (False, "provider", "max_size")


async def test_explain_takes_nothing_and_counts_those_who_wait_already() -> None:
    async with world({"sk-one": {"requests_per_minute": 6}}) as w:
        for _ in range(50):
            assert w.manager.explain(LLMRequest("a", max_tokens=5)).admitted
        await w.several("a", 9)
        told = w.manager.explain(LLMRequest("last", max_tokens=5))
        assert not told.admitted
        last = w.ask("last", tokens=5)
        asked = w.clock.now()
        await w.clock.advance(60.0)
        assert last.done()
        measured = w.at("last") - NETWORK - asked
        assert measured == pytest.approx(40.0, abs=0.5)
        assert told.wait_seconds == pytest.approx(measured, abs=0.5)
