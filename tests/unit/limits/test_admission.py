"""Who may send now, with which key, and who waits for what: on a clock that the test moves."""

# ruff: noqa: ANN401 - helpers hand on what a test gives them
from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import pytest

from llm.core.call import Call, CallState, Charge, LimitReport, Ticket
from llm.core.exceptions import (
    LLMAuthenticationError,
    LLMInvalidRequestError,
    LLMPoolExhaustedError,
    LLMRateLimitError,
    LLMServerError,
)
from llm.limits.base import GUARD

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from llm.limits.admission import AdmissionQueue

    Start = Callable[[Coroutine[Any, Any, str]], asyncio.Task[str]]
else:
    Start = Any
Bench = Any  # of this room's conftest.py


def slots_by_key(queue: AdmissionQueue) -> dict[str, Any]:
    return {slot.key.fingerprint: slot for slot in queue.slots}


# --- turns ------------------------------------------------------------------------------------------------------------


async def test_slots_that_can_pay_take_turns(bench: Bench) -> None:
    queue = bench.queue(*(bench.account(requests_per_minute=10) for _ in range(3)))
    assert [await bench.pay(queue, str(i)) for i in range(6)] == ["key-0", "key-1", "key-2"] * 2


async def test_a_slot_that_cannot_pay_is_skipped_and_takes_its_turn_again_when_it_can(bench: Bench) -> None:
    queue = bench.queue(bench.account(requests_per_minute=60), bench.account(requests_per_minute=1))
    assert [await bench.pay(queue, str(i)) for i in range(4)] == ["key-0", "key-1", "key-0", "key-0"]
    await bench.clock.advance(61.0)
    assert {await bench.pay(queue, str(i)) for i in range(4, 6)} == {"key-0", "key-1"}


async def test_when_none_can_pay_the_queue_waits_for_the_earliest_with_one_timer(bench: Bench, start: Start) -> None:
    slow, quick = bench.account(requests_per_minute=1), bench.account(requests_per_minute=2)
    queue = bench.queue(slow, quick)
    for i in range(3):
        await bench.pay(queue, f"first-{i}")
    waiting = [start(bench.pay(queue, str(i))) for i in range(3)]
    await bench.settle()
    assert bench.clock.timers == 1
    await bench.clock.advance(29.9 + GUARD)
    assert not any(task.done() for task in waiting)
    await bench.clock.advance(0.2)
    assert [task.done() for task in waiting] == [True, False, False]
    assert await waiting[0] == "key-1"
    assert bench.clock.fired == 1
    await bench.clock.advance(30.0)
    assert [await task for task in waiting] == ["key-1", "key-1", "key-0"] or all(task.done() for task in waiting)
    assert bench.clock.fired <= 3
    assert bench.clock.timers == 0


async def test_calls_behind_the_first_start_no_timer_even_where_they_alone_could_pay(
    bench: Bench, start: Start
) -> None:
    queue = bench.queue(bench.account(tokens_per_minute=100))
    await bench.pay(queue, "first", tokens=50)
    large = start(bench.pay(queue, "large", tokens=90))
    await bench.settle()
    small = [start(bench.pay(queue, f"small-{i}", tokens=1)) for i in range(10)]
    await bench.settle()
    assert bench.clock.started == 1
    await bench.clock.advance(60.0)
    assert bench.order == ["first", "large", *(f"small-{i}" for i in range(10))]
    assert large.done()
    assert all(task.done() for task in small)


async def test_all_levels_are_paid_together_or_none(bench: Bench, start: Start) -> None:
    everything = bench.account(level="global", tokens_per_minute=1000)
    alice = bench.account(level="user", tokens_per_minute=10)
    key = bench.account(tokens_per_minute=100)
    queue = bench.queue(key, shared=[everything], users={"alice": alice})
    await bench.pay(queue, "paid", tokens=10, user="alice")
    _ = start(bench.pay(queue, "waits", tokens=10, user="alice"))
    await bench.settle()
    shares = [account.limits[0].saturation(bench.clock.now()) for account in (everything, alice, key)]
    assert shares == pytest.approx([0.01, 1.0, 0.1], abs=1e-3)


async def test_a_call_without_a_model_gets_one_that_can_pay_now_by_turns(bench: Bench) -> None:
    a, b = bench.account(requests_per_minute=2), bench.account(requests_per_minute=1)
    queue = bench.queue(("a", a), ("b", b))
    chosen: list[str] = []
    for i in range(3):
        chosen.append(queue.choose_model())
        await bench.pay(queue, str(i), model=chosen[-1])
    assert chosen == ["a", "b", "a"]
    assert {queue.choose_model() for _ in range(2)} == {"a", "b"}  # none can pay: over all
    assert bench.queue(("only", a)).choose_model() == "only"
    mixed = bench.queue(("gpt", a), ("text-embedding-3-small", a))
    assert {mixed.choose_model() for _ in range(4)} == {"gpt"}
    assert {mixed.choose_model(vectors=True) for _ in range(4)} == {"text-embedding-3-small"}
    assert bench.queue(("text-embedding-3-small", a)).choose_model() == "text-embedding-3-small"
    box = bench.queue(("smollm2-135m", a), ("all-minilm-l6-v2", a))
    assert [box.choose_model(vectors=vectors) for vectors in (True, False) * 2] == [
        "all-minilm-l6-v2", "smollm2-135m",
    ] * 2  # fmt: skip


async def test_where_slots_take_any_model_a_call_must_name_one(bench: Bench) -> None:
    queue = bench.queue(("*", bench.account()), ("*", bench.account()))
    with pytest.raises(LLMInvalidRequestError, match="model="):
        queue.choose_model()
    assert [await bench.pay(queue, str(i), model=f"any-{i}") for i in range(4)] == ["key-0", "key-1"] * 2


# --- order ------------------------------------------------------------------------------------------------------------


async def test_higher_priority_goes_first_and_within_one_who_came_first(bench: Bench, start: Start) -> None:
    queue = bench.queue(bench.account(requests_per_minute=1, algorithm="sliding_window"))
    await bench.pay(queue, "first")
    for name, priority in [("a", 0), ("b", 5), ("c", 0), ("d", 5), ("e", -1)]:
        _ = start(bench.pay(queue, name, priority=priority))
        await bench.settle()
    await bench.clock.advance(6 * 60.1)
    assert bench.order == ["first", "b", "d", "a", "c", "e"]


async def test_a_refused_call_goes_back_to_the_head_of_its_priority(bench: Bench, start: Start) -> None:
    account = bench.account(requests_per_minute=1, algorithm="sliding_window")
    queue = bench.queue(account)
    await bench.pay(queue, "refused")
    for name, priority in [("later", 0), ("urgent", 1)]:
        _ = start(bench.pay(queue, name, priority=priority))
        await bench.settle()
    bench.end("refused")
    _ = start(bench.pay_again(queue, "refused"))
    await bench.clock.advance(4 * 60.1)
    assert bench.order == ["refused", "urgent", "refused", "later"]


async def test_a_call_that_becomes_urgent_while_it_waits_goes_first_from_then_on(bench: Bench, start: Start) -> None:
    queue = bench.queue(bench.account(requests_per_minute=1, algorithm="sliding_window"))
    await bench.pay(queue, "first")
    for name in ["a", "b", "c"]:
        _ = start(bench.pay(queue, name))
        await bench.settle()
    bench.calls["c"].urge(3)
    bench.calls["b"].urge(-1)
    await bench.clock.advance(4 * 60.1)
    assert bench.order == ["first", "c", "a", "b"]
    assert queue.waiting == 0


async def test_a_users_limit_holds_up_nobody_else(bench: Bench, start: Start) -> None:
    users = {"alice": bench.account(level="user", requests_per_minute=1, bucket=False)}
    queue = bench.queue(bench.account(requests_per_minute=100), users=users)
    await bench.pay(queue, "alice-1", user="alice")
    held = start(bench.pay(queue, "alice-2", user="alice"))
    await bench.settle()
    await bench.pay(queue, "bob", user="bob")
    await bench.pay(queue, "nobody")
    assert not held.done()
    await bench.clock.advance(60.2)
    assert held.done()


async def test_one_wrong_number_does_not_keep_large_calls_out_for_ever(bench: Bench) -> None:
    told_low, other = bench.account(tokens_per_minute=1000), bench.account(tokens_per_minute=30)
    queue = bench.queue(told_low, other)
    low = LimitReport("total_tokens", 10.0, 8.0, 12.0)
    told_low.learn(0.0, [(limit, limit.take(0.0, 2.0)) for limit in told_low.limits], [low])
    large = Ticket(Charge(0, 0, 50), "m")
    with pytest.raises(LLMRateLimitError, match="tokens_per_minute of the key is 30: it can never fit"):
        queue.check(large)
    await bench.clock.advance(61.0)
    queue.check(large)
    with pytest.raises(LLMRateLimitError, match="it can never fit"):
        queue.check(Ticket(Charge(0, 0, 1001), "m"))
    paying = asyncio.ensure_future(bench.pay(queue, "large", tokens=50))  # noqa: TID251 - ended below
    await bench.clock.advance(61.0)
    assert await paying == "key-0"


# --- leaving ----------------------------------------------------------------------------------------------------------


async def test_a_cancelled_waiter_leaves_nothing(bench: Bench, start: Start) -> None:
    queue = bench.queue(bench.account(requests_per_minute=1))
    await bench.pay(queue, "first")
    waiting = [start(bench.pay(queue, str(i))) for i in range(3)]
    await bench.settle()
    for task in waiting:
        task.cancel()
    await bench.settle()
    assert queue.waiting == 0
    assert bench.clock.timers == 0
    assert not queue._lanes  # pyright: ignore[reportPrivateUsage]
    assert not bench.book.sleepers
    assert all(bench.calls[str(i)].state is CallState.TICKETED for i in range(3))


async def test_one_who_is_cancelled_as_it_is_granted_gives_the_grant_on(bench: Bench, start: Start) -> None:
    queue = bench.queue(bench.account(concurrent_requests=1))
    await bench.pay(queue, "first")
    second, third = start(bench.pay(queue, "second")), start(bench.pay(queue, "third"))
    await bench.settle()
    bench.end("first")
    second.cancel()
    await bench.settle()
    bench.calls["second"].ended(bench.clock.now())
    await bench.settle()
    assert await third == "key-0"


async def test_who_is_cancelled_and_did_not_run_since_is_passed_over_by_whoever_gives_back(
    bench: Bench, start: Start
) -> None:
    queue = bench.queue(bench.account(concurrent_requests=1))
    await bench.pay(queue, "first")
    second, third = start(bench.pay(queue, "second")), start(bench.pay(queue, "third"))
    await bench.settle()
    second.cancel()  # as a task group does, before those whose calls run come to end them
    bench.end("first")
    await bench.settle()
    assert second.cancelled()
    assert await third == "key-0"
    assert queue.waiting == 0
    assert bench.calls["second"].state is CallState.TICKETED


@pytest.mark.parametrize("what", ["keys change", "the queue closes"])
async def test_who_is_cancelled_and_did_not_run_since_is_told_nothing_more(
    bench: Bench, start: Start, what: str
) -> None:
    queue = bench.queue(bench.account(concurrent_requests=1))
    await bench.pay(queue, "first")
    leaver, other = start(bench.pay(queue, "leaver")), start(bench.pay(queue, "other"))
    await bench.settle()
    leaver.cancel()
    if what == "keys change":
        queue.slots[0].key.refuse(LLMServerError("gone"))
        queue.keys_changed()
    else:
        queue.close(LLMServerError("gone"))
    await bench.settle()
    assert leaver.cancelled()
    with pytest.raises(LLMServerError, match="gone"):
        await other
    assert queue.waiting == 0


async def test_one_who_leaves_late_takes_nobody_with_him(bench: Bench, start: Start) -> None:
    queue = bench.queue(bench.account(concurrent_requests=1))
    await bench.pay(queue, "first")
    keeper, leaver = start(bench.pay(queue, "keeper")), start(bench.pay(queue, "leaver"))
    await bench.settle()
    later = start(bench.pay(queue, "later"))  # comes in the turn of the loop in which the other leaves
    leaver.cancel()
    bench.end("first")  # lets the keeper go, and with him the lane
    await bench.settle()
    assert await keeper == "key-0"
    bench.end("keeper")
    await bench.settle()
    assert later.done()
    assert await later == "key-0"


async def test_the_same_call_may_wait_again_after_it_gave_up(bench: Bench, start: Start) -> None:
    queue = bench.queue(bench.account(requests_per_minute=1, algorithm="sliding_window"))
    await bench.pay(queue, "first")
    for name in "abcdef":
        _ = start(bench.pay(queue, name))
    await bench.settle()
    gave_up = start(bench.pay(queue, "x", timeout=0.5))
    await bench.clock.advance(1.0)
    assert isinstance(gave_up.exception(), LLMPoolExhaustedError)
    task = start(bench.pay_again(queue, "x"))
    await bench.clock.advance(8 * 60.1)
    assert await task == "key-0"


class CountingLimit:
    """Lets one through for each `free`; counts how often it is asked."""

    name, level, unit, place, capacity, refuses, timed = "counted", "key", "requests", 4, 1.0, False, False

    def __init__(self) -> None:
        self.free, self.asked = 0, 0

    def wait(self, now: float, amount: float) -> float:
        del now, amount
        self.asked += 1
        return 0.0 if self.free else 1.0

    def take(self, now: float, amount: float) -> Any:
        from llm.limits.base import Hold  # noqa: PLC0415

        self.free -= 1
        return Hold(now, amount)

    def settle(self, now: float, hold: Any, used: float) -> None:
        del now, hold, used
        self.free += 1

    def saturation(self, now: float) -> float:
        del now
        return 0.0


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
async def test_ten_times_as_many_waiters_ask_the_limits_as_often_each(bench: Bench, start: Start) -> None:
    async def asked_per_waiter(many: int) -> float:
        limit = CountingLimit()
        account = bench.account()
        account.hold_to((limit,))
        queue = bench.queue(account, max_waiting=many)
        limit.free = 4
        names = [f"{many}-{i}" for i in range(many)]
        for name in names:
            _ = start(bench.pay(queue, name))
        await bench.settle()
        for name in names:
            bench.end(name)
            await asyncio.sleep(0)  # noqa: TID251 - lets the next one take its place
        assert queue.waiting == 0
        assert bench.order[-many:] == names
        return limit.asked / many

    few, all_of_them = await asked_per_waiter(200), await asked_per_waiter(2_000)
    assert all_of_them == pytest.approx(few, rel=0.05)
    assert few < 5
    assert bench.clock.started == 0


# --- cooling ----------------------------------------------------------------------------------------------------------


async def test_a_cooling_account_is_not_used_and_the_others_are_at_once(bench: Bench) -> None:
    shared = bench.account(requests_per_minute=100)
    queue = bench.queue(shared, shared, bench.account(requests_per_minute=100))
    assert queue.cool(slots_by_key(queue)["key-0"], 20.0) == 20.0
    assert [await bench.pay(queue, str(i)) for i in range(3)] == ["key-2"] * 3
    assert queue.cooling(slots_by_key(queue)["key-1"]) == 20.0
    assert queue.rest("m") == 0.0
    await bench.clock.advance(20.0)
    queue.succeeded(slots_by_key(queue)["key-0"])  # else one would go first
    assert {await bench.pay(queue, str(i)) for i in range(3, 6)} == {"key-0", "key-1", "key-2"}


async def test_with_all_keys_cooling_a_call_waits_for_the_earliest_and_no_longer(bench: Bench, start: Start) -> None:
    queue = bench.queue(bench.account(), bench.account())
    slots = slots_by_key(queue)
    queue.cool(slots["key-0"], 30.0)
    queue.cool(slots["key-1"], 10.0)
    assert queue.rest("m") == 10.0
    task = start(bench.pay(queue, "a"))
    await bench.clock.advance(9.999)
    assert not task.done()
    await bench.clock.advance(0.001)
    assert await task == "key-1"
    assert bench.clock.fired == 1


async def test_with_a_deadline_before_all_keys_are_back_it_fails_at_once_and_says_so(bench: Bench) -> None:
    queue = bench.queue(bench.account(), bench.account())
    for slot in queue.slots:
        queue.cool(slot, 30.0)
    with pytest.raises(
        LLMRateLimitError, match=r"pause that the provider asked for.*30\.0 seconds.*deadline"
    ) as caught:
        await bench.pay(queue, "a", deadline=29.0)
    assert caught.value.retry_after == 30.0
    assert not caught.value.retryable
    assert bench.clock.now() == 0.0
    assert queue.waiting == 0


async def test_a_busy_key_may_be_free_any_moment_so_a_cooling_one_refuses_nothing(bench: Bench, start: Start) -> None:
    queue = bench.queue(bench.account(concurrent_requests=1), bench.account())
    await bench.pay(queue, "first")
    queue.cool(slots_by_key(queue)["key-1"], 100.0)
    task = start(bench.pay(queue, "a", deadline=50.0))
    await bench.clock.advance(5.0)
    bench.end("first")
    await bench.settle()
    assert await task == "key-0"


async def test_while_one_key_is_busy_the_other_is_taken_the_moment_it_can_pay(bench: Bench, start: Start) -> None:
    queue = bench.queue(bench.account(concurrent_requests=1), bench.account(), bench.account(concurrent_requests=1))
    assert [await bench.pay(queue, str(i)) for i in range(3)] == ["key-0", "key-1", "key-2"]
    queue.cool(slots_by_key(queue)["key-1"], 100.0)
    task = start(bench.pay(queue, "a"))
    await bench.clock.advance(100.0)
    assert await task == "key-1"


async def test_success_ends_the_row_of_refusals(bench: Bench) -> None:
    queue = bench.queue(bench.account())
    (slot,) = queue.slots
    assert queue.cool(slot, None) == 1.0
    await bench.clock.advance(1.0)
    assert queue.cool(slot, None) == 2.0
    await bench.clock.advance(2.0)
    queue.succeeded(slot)
    assert queue.cool(slot, None) == 1.0


# --- refusing ---------------------------------------------------------------------------------------------------------


async def test_what_can_never_fit_is_refused_at_once_and_names_limit_and_scope(bench: Bench) -> None:
    alice = bench.account(level="user", tokens_per_minute=50)
    keys = [bench.account(tokens_per_minute=100), bench.account(tokens_per_minute=200)]
    queue = bench.queue(*keys, users={"alice": alice})
    with pytest.raises(LLMRateLimitError, match="tokens_per_minute of the key is 200: it can never fit") as caught:
        queue.check(Ticket(Charge(0, 0, 300), "m"))
    assert (caught.value.scope, caught.value.limit, caught.value.retryable) == ("key", "tokens_per_minute", False)
    with pytest.raises(LLMRateLimitError, match="tokens_per_minute of the user is 50") as caught:
        queue.check(Ticket(Charge(0, 0, 60), "m", "alice"))
    assert caught.value.scope == "user"
    queue.check(Ticket(Charge(0, 0, 150), "m"))  # one key can


async def test_only_the_key_that_ever_can_is_waited_for(bench: Bench, start: Start) -> None:
    queue = bench.queue(bench.account(tokens_per_minute=100), bench.account(tokens_per_minute=200))
    assert await bench.pay(queue, "a", tokens=150) == "key-1"
    task = start(bench.pay(queue, "b", tokens=150))
    await bench.clock.advance(60.0)
    assert await task == "key-1"


async def test_what_no_remaining_key_can_ever_pay_does_not_wait_for_ever(bench: Bench, start: Start) -> None:
    queue = bench.queue(bench.account(tokens_per_minute=100), bench.account(tokens_per_minute=200))
    await bench.pay(queue, "a", tokens=150)
    task = start(bench.pay(queue, "b", tokens=150))
    await bench.settle()
    slots_by_key(queue)["key-1"].key.refuse(LLMAuthenticationError("revoked"))
    queue.keys_changed()
    await bench.settle()
    with pytest.raises(LLMAuthenticationError, match="that is large enough: revoked"):
        await task
    with pytest.raises(LLMAuthenticationError, match="that is large enough: revoked"):
        await bench.pay(queue, "c", tokens=150)
    with pytest.raises(LLMAuthenticationError, match="that is large enough: revoked"):
        queue.check(Ticket(Charge(0, 0, 150), "m"))
    with pytest.raises(LLMRateLimitError, match="can never fit"):  # no key ever could
        queue.check(Ticket(Charge(0, 0, 250), "m"))


@pytest.mark.parametrize(("limits", "paid"), [({"requests_per_day": 1}, {}), ({"cost_per_day": 1.0}, {"cost": 0.9})])
async def test_daily_and_dollar_limits_refuse_and_say_when_there_is_room(
    bench: Bench, limits: dict[str, float], paid: dict[str, float]
) -> None:
    queue = bench.queue(bench.account(bucket=False, **limits))
    await bench.pay(queue, "first", **paid)
    await bench.clock.advance(1000.0)
    ticket = Ticket(Charge(cost=paid.get("cost", 0.0)), "m")
    with pytest.raises(LLMRateLimitError, match="is used up") as at_the_ticket:
        queue.check(ticket)
    with pytest.raises(LLMRateLimitError, match="is used up") as at_the_queue:
        await bench.pay(queue, "second", **paid)
    for caught in (at_the_ticket, at_the_queue):
        assert caught.value.retry_after == pytest.approx(86400 - 1000 + GUARD)
        assert caught.value.limit == next(iter(limits))
        assert not caught.value.retryable


async def test_a_used_up_day_of_one_key_refuses_nothing_while_another_is_only_busy(bench: Bench, start: Start) -> None:
    queue = bench.queue(bench.account(requests_per_day=1, bucket=False), bench.account(concurrent_requests=1))
    assert [await bench.pay(queue, str(i)) for i in range(2)] == ["key-0", "key-1"]
    queue.check(Ticket(Charge(), "m"))
    task = start(bench.pay(queue, "waits"))
    await bench.settle()
    bench.end("1")
    await bench.settle()
    assert await task == "key-1"


async def test_those_who_wait_are_refused_when_others_use_the_day_up(bench: Bench, start: Start) -> None:
    account = bench.account(requests_per_day=2, requests_per_minute=1, algorithm="sliding_window")
    queue = bench.queue(account)
    await bench.pay(queue, "first")
    waiting = [start(bench.pay(queue, str(i))) for i in range(3)]
    await bench.clock.advance(60.2)
    assert await waiting[0] == "key-0"
    for task in waiting[1:]:
        with pytest.raises(LLMRateLimitError, match="requests_per_day"):
            await task
    assert queue.waiting == 0


async def test_a_full_queue_refuses(bench: Bench, start: Start) -> None:
    queue = bench.queue(bench.account(requests_per_minute=1), max_waiting=2)
    await bench.pay(queue, "first")
    waiting = [start(bench.pay(queue, str(i))) for i in range(2)]
    await bench.settle()
    with pytest.raises(LLMPoolExhaustedError, match=r"2 calls wait.*pool\.max_waiting"):
        await bench.pay(queue, "third")
    waiting[0].cancel()
    await bench.settle()
    _ = start(bench.pay(queue, "fourth"))
    await bench.settle()
    assert queue.waiting == 2


async def test_acquire_timeout_ends_waiting_and_says_what_for(bench: Bench, start: Start) -> None:
    queue = bench.queue(bench.account(requests_per_minute=1))
    await bench.pay(queue, "first")
    task = start(bench.pay(queue, "second", timeout=5.0))
    await bench.clock.advance(5.0)
    with pytest.raises(
        LLMPoolExhaustedError, match=r"5 seconds \(pool.acquire_timeout\).*requests_per_minute of the key"
    ):
        await task
    assert queue.waiting == 0
    assert bench.clock.timers == 0


async def test_acquire_timeout_in_the_moment_of_the_grant_is_still_that_and_the_grant_goes_back(
    bench: Bench, start: Start
) -> None:
    queue = bench.queue(bench.account(concurrent_requests=1))
    await bench.pay(queue, "first")
    task = start(bench.pay(queue, "second", timeout=5.0))
    await bench.settle()
    bench.clock.call_later(5.0, lambda: bench.end("first"))
    await bench.clock.advance(5.0)
    with pytest.raises(LLMPoolExhaustedError):
        await task
    if bench.calls["second"].state is CallState.PAID:
        bench.calls["second"].ended(bench.clock.now())
    assert await bench.pay(queue, "third") == "key-0"


async def test_an_unknown_model_is_refused_with_those_there_are(bench: Bench) -> None:
    queue = bench.queue(("a", bench.account()), ("b", bench.account()))
    with pytest.raises(LLMInvalidRequestError, match="there are: a, b"):
        queue.check(Ticket(Charge(), "c"))
    with pytest.raises(LLMInvalidRequestError, match="there are: a, b"):
        await bench.pay(queue, "x", model="c")
    assert not queue.usable("c")
    assert queue.rest("c") == math.inf


async def test_a_refused_key_fails_those_who_wait_only_when_none_is_left_and_with_its_reason(
    bench: Bench, start: Start
) -> None:
    queue = bench.queue(bench.account(requests_per_minute=1), bench.account(requests_per_minute=1))
    for i in range(2):
        await bench.pay(queue, f"first-{i}")
    waiting = [start(bench.pay(queue, str(i))) for i in range(3)]
    await bench.settle()
    slots = slots_by_key(queue)
    slots["key-0"].key.refuse(LLMAuthenticationError("it was revoked", status=401, key="key-0"))
    queue.keys_changed()
    await bench.settle()
    assert not any(task.done() for task in waiting)
    slots["key-1"].key.refuse(LLMAuthenticationError("it was revoked", status=401, key="key-1"))
    queue.keys_changed()
    await bench.settle()
    for task in waiting:
        with pytest.raises(LLMAuthenticationError, match=r"no key of 'fake' is left for 'm': it was revoked") as caught:
            await task
        assert not caught.value.retryable
    with pytest.raises(LLMAuthenticationError):
        await bench.pay(queue, "late")
    assert queue.waiting == 0
    assert bench.clock.timers == 0


async def test_closing_ends_all_waiting_each_with_an_error_of_its_own(bench: Bench, start: Start) -> None:
    queue = bench.queue(bench.account(requests_per_minute=1))
    await bench.pay(queue, "first")
    waiting = [start(bench.pay(queue, str(i))) for i in range(3)]
    await bench.settle()
    queue.close(LLMPoolExhaustedError("closed"))
    await bench.settle()
    errors = [task.exception() for task in waiting]
    assert len({id(error) for error in errors}) == 3
    assert all(isinstance(error, LLMPoolExhaustedError) for error in errors)
    assert queue.waiting == 0
    assert bench.clock.timers == 0


async def test_a_call_without_a_ticket_cannot_be_paid(bench: Bench) -> None:
    with pytest.raises(LLMInvalidRequestError, match="ticket"):
        await bench.queue(bench.account()).pay(Call(0.0))


# --- settling ---------------------------------------------------------------------------------------------------------


async def test_what_was_not_used_comes_back_and_lets_the_next_one_go(bench: Bench, start: Start) -> None:
    queue = bench.queue(bench.account(tokens_per_minute=100))
    await bench.pay(queue, "first", tokens=100)
    task = start(bench.pay(queue, "second", tokens=80))
    await bench.settle()
    assert not task.done()
    bench.end("first", used=10)
    await bench.settle()
    assert await task == "key-0"
    assert bench.clock.now() == 0.0


async def test_what_ends_at_another_provider_wakes_those_who_wait_for_the_same_account_here(
    bench: Bench, start: Start
) -> None:
    everything = bench.account(level="global", concurrent_requests=1)
    here, there = (bench.queue(bench.account(), shared=[everything]) for _ in range(2))
    await bench.pay(there, "there")
    task = start(bench.pay(here, "here"))
    await bench.settle()
    assert not task.done()
    bench.end("there")
    await bench.settle()
    assert await task == "key-0"


async def test_a_loop_that_is_gone_wakes_nobody_and_harms_nobody(bench: Bench) -> None:
    everything = bench.account(level="global", concurrent_requests=1)
    here, there = (bench.queue(bench.account(), shared=[everything]) for _ in range(2))
    await bench.pay(here, "here")

    def other_loop() -> None:
        async def wait_and_be_dropped() -> None:
            task = asyncio.get_running_loop().create_task(bench.pay(there, "there"))
            await asyncio.sleep(0)  # noqa: TID251 - until it waits
            assert there.waiting == 1
            bench.book.sleepers.add(there._look_again_soon)  # pyright: ignore[reportPrivateUsage]
            task.cancel()

        asyncio.run(wait_and_be_dropped())

    await asyncio.to_thread(other_loop)
    bench.book.sleepers.add(there._look_again_soon)  # pyright: ignore[reportPrivateUsage]
    bench.end("here")
    assert await bench.pay(here, "next") == "key-0"


async def test_who_stands_behind_a_large_call_of_its_user_goes_once_that_gives_up(bench: Bench, start: Start) -> None:
    alice = bench.account(level="user", tokens_per_minute=100, bucket=False)
    queue = bench.queue(bench.account(), users={"alice": alice})
    await bench.pay(queue, "before", tokens=60, user="alice")
    large = start(bench.pay(queue, "large", tokens=90, user="alice"))
    await bench.settle()
    small = start(bench.pay(queue, "small", tokens=10, user="alice"))
    await bench.settle()
    assert not small.done()
    large.cancel()
    await bench.clock.advance(0.1)
    assert small.done()


# --- explaining -------------------------------------------------------------------------------------------------------


async def test_explain_takes_nothing_and_names_what_binds(bench: Bench, start: Start) -> None:
    alice = bench.account(level="user", requests_per_minute=1, bucket=False)
    queue = bench.queue(bench.account(tokens_per_minute=100), users={"alice": alice})
    ticket = Ticket(Charge(0, 0, 60), "m", "alice")
    for _ in range(3):
        assert queue.explain(ticket).admitted
    await bench.pay(queue, "a", tokens=60, user="alice")
    told = queue.explain(ticket)
    assert (told.admitted, told.level, told.limit, told.key) == (False, "user", "requests_per_minute", "key-0")
    assert told.wait_seconds == pytest.approx(60 + GUARD)
    assert told.saturation == 1.0
    told = queue.explain(Ticket(Charge(0, 0, 60), "m"))
    assert (told.level, told.limit) == ("key", "tokens_per_minute")
    assert told.saturation == pytest.approx(0.6)
    assert queue.saturation(queue.slots[0]) == {"tokens_per_minute": 0.6}
    _ = start(bench.pay(queue, "b", tokens=60))
    await bench.settle()
    assert not queue.explain(Ticket(Charge(0, 0, 1), "m")).admitted  # somebody waits


async def test_explain_with_no_key_left(bench: Bench) -> None:
    queue = bench.queue(bench.account())
    queue.slots[0].key.refuse(LLMServerError("x"))
    told = queue.explain(Ticket(Charge(), "m"))
    assert (told.admitted, told.key, told.wait_seconds) == (False, None, math.inf)
