"""The queue asks the breakers as it sends: who is refused, who is let try, and what is said of it."""

# ruff: noqa: ANN401 - the room's bench
from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from llm.core.call import Call, Charge, Ticket
from llm.core.exceptions import LLMCircuitOpenError, LLMRateLimitError, LLMServerError
from llm.limits.breaker import BreakerPolicy
from llm.limits.circuits import Circuits

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from llm.limits.admission import AdmissionQueue

    Start = Callable[[Coroutine[Any, Any, str]], asyncio.Task[str]]
else:
    Start = Any
Bench = Any  # of this room's conftest.py

POLICY = BreakerPolicy(min_calls=4, open_for=15.0, half_open_calls=2)
DOWN = LLMServerError("down")


def circuits(policy: BreakerPolicy = POLICY) -> Circuits:
    return Circuits("fake", policy)


async def broken(bench: Bench, *models: str, account: Any = None) -> AdmissionQueue:
    """A queue over keys of these models whose breaker for `m` has just opened."""
    keys = [(model, account or bench.account()) for model in models or ("m",)]
    queue: AdmissionQueue = bench.queue(*keys, circuits=circuits())
    for i in range(4):
        await bench.pay(queue, f"down-{i}")
        bench.end(f"down-{i}", error=DOWN)
    return queue


async def refused(bench: Bench, queue: AdmissionQueue, name: str = "refused") -> LLMCircuitOpenError:
    with pytest.raises(LLMCircuitOpenError) as caught:
        await bench.pay(queue, name)
    return caught.value


async def test_an_open_breaker_refuses_at_once_and_says_who_how_often_and_until_when(bench: Bench) -> None:
    queue = await broken(bench)
    await bench.clock.advance(5.0)
    error = await refused(bench, queue)
    assert (error.provider, error.model, error.retry_after, error.retryable) == ("fake", "m", 10.0, False)
    assert str(error).startswith(
        "100% of 4 attempts with 'm' of 'fake' failed within 30 seconds; no more are made for 10.0 seconds "
        "(circuit_breaker). Wait so long, name another model or provider, or configure a fallback"
    )
    assert [(entry.event, entry.detail) for entry in bench.calls["refused"].log][-1] == (
        "circuit_open",
        "4 of 4 attempts had failed; refused for 10 seconds",
    )
    assert queue.waiting == 0


async def test_its_message_tells_of_slow_attempts_and_of_a_second_opening(bench: Bench) -> None:
    policy = BreakerPolicy(min_calls=1, slow_call=2.0, open_for=1.0)
    queue = bench.queue(bench.account(), circuits=circuits(policy))
    await bench.pay(queue, "slow")
    await bench.clock.advance(3.0)
    bench.end("slow")
    assert "failed or took more than 2 seconds within 30 seconds;" in str(await refused(bench, queue))
    await bench.clock.advance(1.0)
    await bench.pay(queue, "probe")
    bench.end("probe", error=DOWN)
    assert "30 seconds, and so did an attempt since to see whether it serves again;" in str(await refused(bench, queue))


async def test_each_model_has_a_breaker_of_its_own(bench: Bench) -> None:
    queue = await broken(bench, "m", "other")
    await refused(bench, queue)
    assert await bench.pay(queue, "fine", model="other") == "key-1"


@pytest.mark.parametrize("before", [0, 3])
async def test_opening_wakes_all_who_wait_for_that_model_and_nobody_else(
    bench: Bench, start: Start, before: int
) -> None:
    alice = bench.account(level="user", requests_per_minute=1)
    key, other = bench.account(requests_per_minute=4), bench.account(concurrent_requests=1)
    queue = bench.queue(("m", key), ("other", other), users={"alice": alice}, circuits=circuits())
    for i in range(4):
        await bench.pay(queue, f"down-{i}", user="alice" if i == 0 else None)
    await bench.pay(queue, "fine", model="other")
    waiting = [start(bench.pay(queue, f"m-{i}")) for i in range(before)]
    aside = start(bench.pay(queue, "aside", user="alice"))
    elsewhere = start(bench.pay(queue, "elsewhere", model="other"))
    await bench.settle()
    assert queue.waiting == before + 2
    for i in range(4):
        bench.end(f"down-{i}", error=DOWN)
    await bench.settle()
    for task in (*waiting, aside):
        assert isinstance(task.exception(), LLMCircuitOpenError)
    assert (elsewhere.done(), queue.waiting) == (False, 1)
    bench.end("fine")
    await bench.settle()
    assert elsewhere.result() == "key-1"


async def test_half_open_lets_exactly_so_many_through_however_many_come(bench: Bench) -> None:
    queue = await broken(bench)
    await bench.clock.advance(15.0)
    tasks = await asyncio.gather(  # noqa: TID251 - failures are what is looked at
        *(bench.pay(queue, f"probe-{i}") for i in range(20)), return_exceptions=True
    )
    assert [task for task in tasks if task == "key-0"] == ["key-0"] * 2
    assert {task.retry_after for task in tasks if isinstance(task, LLMCircuitOpenError)} == {1.0}
    bench.end("probe-0")
    await refused(bench, queue)
    bench.end("probe-1")
    assert await bench.pay(queue, "closed") == "key-0"


async def test_who_waits_for_a_limit_in_half_open_is_refused_as_the_last_place_is_taken(
    bench: Bench, start: Start
) -> None:
    key = bench.account(concurrent_requests=4)
    queue = await broken(bench, account=key)
    await bench.clock.advance(15.0)
    (limit,) = key.limits
    holds = [limit.take(15.0, 1) for _ in range(4)]  # somebody else's calls with the same key
    waiting = [start(bench.pay(queue, f"m-{i}")) for i in range(5)]
    await bench.settle()
    assert queue.waiting == 5
    for hold in holds[:3]:
        queue.settle([(limit, hold)], Charge(requests=0))
    await bench.settle()
    assert [task.exception() is None for task in waiting] == [True, True, False, False, False]
    assert queue.waiting == 0


async def test_so_is_who_stands_aside_for_a_limit_of_its_user(bench: Bench, start: Start) -> None:
    alice, key = bench.account(level="user", requests_per_minute=1), bench.account(concurrent_requests=4)
    queue = bench.queue(key, users={"alice": alice}, circuits=circuits())
    for i in range(4):
        await bench.pay(queue, f"down-{i}", user=None if i else "alice")
    for i in range(4):
        bench.end(f"down-{i}", error=DOWN)
    await bench.clock.advance(15.0)
    aside = start(bench.pay(queue, "aside", user="alice"))
    others = [start(bench.pay(queue, f"probe-{i}")) for i in range(2)]
    await bench.settle()
    assert [task.result() for task in others] == ["key-0"] * 2
    assert (type(aside.exception()), queue.waiting) == (LLMCircuitOpenError, 0)


@pytest.mark.parametrize("says_nothing", [LLMRateLimitError("429"), asyncio.CancelledError()])
async def test_a_probe_that_says_nothing_or_never_left_gives_its_place_back(
    bench: Bench, says_nothing: BaseException
) -> None:
    queue = await broken(bench)
    await bench.clock.advance(15.0)
    for name in ("one", "two"):
        await bench.pay(queue, name)
    bench.end("one", error=says_nothing)
    assert await bench.pay(queue, "three") == "key-0"
    bench.calls["two"].ended(bench.clock.now())  # paid, never sent
    assert await bench.pay(queue, "four") == "key-0"
    await refused(bench, queue)


async def test_a_call_that_was_granted_while_it_was_cancelled_gives_its_place_back(bench: Bench, start: Start) -> None:
    key = bench.account(concurrent_requests=4)
    queue = await broken(bench, account=key)
    await bench.clock.advance(15.0)
    (limit,) = key.limits
    holds = [limit.take(15.0, 1) for _ in range(4)]
    tasks = [start(bench.pay(queue, f"leaves-{i}")) for i in range(2)]
    await bench.settle()
    queue.settle([(limit, hold) for hold in holds], Charge(requests=0))
    for task in tasks:
        task.cancel()
    await bench.settle()
    for name in ("leaves-0", "leaves-1"):
        bench.calls[name].ended(bench.clock.now())
    assert [await bench.pay(queue, name) for name in ("one", "two")] == ["key-0"] * 2
    await refused(bench, queue)


async def test_explain_says_that_the_breaker_refuses_and_for_how_long(bench: Bench) -> None:
    queue = await broken(bench)
    await bench.clock.advance(5.0)
    view = queue.explain(Ticket(Charge(), "m"))
    assert (view.admitted, view.wait_seconds, view.level, view.limit) == (False, 10.0, "provider", "circuit_breaker")
    await bench.clock.advance(10.0)
    assert queue.explain(Ticket(Charge(), "m")).admitted


async def test_a_call_without_a_model_gets_one_whose_breaker_is_closed(bench: Bench) -> None:
    queue = await broken(bench, "m", "other")
    assert {queue.choose_model() for _ in range(4)} == {"other"}
    for i in range(4):
        await bench.pay(queue, f"other-{i}", model="other")
        bench.end(f"other-{i}", error=DOWN)
    assert {queue.choose_model() for _ in range(4)} == {"m", "other"}  # all refuse: by turns


async def test_who_waits_in_the_queue_that_takes_anothers_place_is_refused_too(bench: Bench, start: Start) -> None:
    shared = circuits()
    key = bench.account(concurrent_requests=4)
    old, new = bench.queue(key, circuits=shared), bench.queue(key, circuits=shared)
    for i in range(4):
        await bench.pay(old, f"down-{i}")
    waiting = start(bench.pay(new, "waits"))
    await bench.settle()
    for i in range(4):
        bench.end(f"down-{i}", error=DOWN)
    await bench.settle()
    assert isinstance(waiting.exception(), LLMCircuitOpenError)


async def test_opening_and_closing_are_logged(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "llm.breaker")
    queue = await broken(bench)
    await bench.clock.advance(15.0)
    await bench.pay(queue, "fails")
    bench.end("fails", error=DOWN)
    await bench.clock.advance(15.0)
    for name in ("one", "two"):
        await bench.pay(queue, name)
        bench.end(name)
    then = ": the circuit is open, and no more are made for 15 seconds"
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", f"fake/m: 4 of 4 attempts failed{then}"),
        ("WARNING", f"fake/m: 4 of 4 attempts failed, and so did an attempt since{then}"),
        ("INFO", "fake/m serves again: the circuit is closed"),
    ]


def test_breakers_of_models_that_nobody_calls_any_more_are_forgotten() -> None:
    many = circuits(BreakerPolicy(min_calls=1))
    call = Call(0.0)
    for i in range(1000):
        many.passed(call, f"m-{i}", 0.0)
    permit = many.passed(call, "m-7", 0.0).permit(0.0)
    permit.good = False
    permit.end(0.0)
    many.passed(call, "another", 1.0)
    assert set(many.snapshot((), 1.0)) == {"m-7", "another"}
    assert many.wait("m-7", 1.0) == 14.0


def test_the_status_has_the_models_of_the_configuration_also_before_they_are_called() -> None:
    shown = circuits().snapshot(["a"], 0.0)
    assert shown == {"a": {"state": "closed", "failure_rate": 0.0, "attempts": 0, "retry_after": 0.0}}


async def test_who_leaves_the_queue_as_the_breaker_opens_is_cancelled_and_not_refused(
    bench: Bench, start: Start
) -> None:
    queue = bench.queue(bench.account(requests_per_minute=1), circuits=circuits(BreakerPolicy(min_calls=1)))
    await bench.pay(queue, "down")
    leaving, staying = start(bench.pay(queue, "leaves")), start(bench.pay(queue, "stays"))
    await bench.settle()
    leaving.cancel()
    bench.end("down", error=DOWN)
    await bench.settle()
    assert (leaving.cancelled(), type(staying.exception()), queue.waiting) == (True, LLMCircuitOpenError, 0)
