"""Many keys: who can pay is found without asking all, and nobody is passed over who can."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.core.call import Charge, LimitReport, Ticket
from llm.core.exceptions import LLMAuthenticationError, LLMRateLimitError
from llm.core.keys import Key, Slot
from llm.limits.base import Binding, binding
from llm.limits.ladder import Ladder
from llm.limits.memory import Account
from llm.limits.moments import amount_of
from llm.limits.rehearsal import Planned, Rehearsal
from llm.testing import FakeClock, FakeProvider

if TYPE_CHECKING:
    from llm.limits.base import Holds

MANY = 40
LATE = 0.11  # seconds
Bench = Any
Start = Any


def bound(account: Account, charge: Charge, now: float) -> Binding:
    found = binding(account.limits, charge, now)
    rest = account.cooling_until - now
    return Binding(rest) if rest > found.seconds else found


def tokens(amount: int) -> Charge:
    return Charge(amount, 0, amount)


def slots_of(accounts: list[Account]) -> list[tuple[Slot, Account]]:
    clock = FakeClock()
    keys = [Key(f"key-{i}", FakeProvider, clock=clock, idle_timeout=300, max_lifetime=3600) for i in range(MANY)]
    return [(Slot(i, "m", keys[i]), account) for i, account in enumerate(accounts)]


def account_of(limits: dict[str, float], *, bucket: bool) -> Account:
    account = Account()
    account.state(0.0, limits, level="key", bucket=bucket)
    return account


LIMITS = st.fixed_dictionaries(
    {"tokens_per_minute": st.sampled_from([300.0, 1000.0, 1010.0, 5000.0, 40_000.0])},
    optional={
        "requests_per_minute": st.sampled_from([1.0, 5.0, 60.0]),
        "concurrent_requests": st.sampled_from([1.0, 3.0]),
        "input_tokens_per_minute": st.sampled_from([200.0, 4000.0]),
    },
)
STEP = st.tuples(st.floats(0.0, 20.0), st.integers(1, 6000), st.floats(0.0, 1.2), st.booleans())


@given(
    limits=st.lists(LIMITS, min_size=1, max_size=24),
    steps=st.lists(STEP, min_size=1, max_size=40),
    bucket=st.booleans(),
)
def test_who_is_found_can_pay_and_where_nobody_is_none_could_pay_a_little_more(
    limits: list[dict[str, float]], steps: list[tuple[float, int, float, bool]], bucket: bool
) -> None:
    accounts = [account_of(stated, bucket=bucket) for stated in limits]
    entries = slots_of(accounts)
    of_slot = dict(entries)
    ladder = Ladder("m", entries, bound)
    now = 0.0
    held: list[Holds] = []
    for seconds, amount, used, rests in steps:
        now += seconds
        charge = tokens(amount)
        ladder.fit(sum(account.version for account in accounts))
        step = ladder.step(charge, "m")
        if step is None:
            continue
        slot, binds, look = ladder.find(charge, step, now, model="m", kept=set())
        waits = [bound(account, charge, now) for account in accounts]
        size = ladder.size(charge, step)
        fitting = [account for slot, account in entries if slot.index in size.fits]
        assert slot is not None
        assert binds == bound(of_slot[slot], charge, now)
        if binds.seconds > 0.0:
            largest = ladder.largest(step)
            assert all(bound(account, largest, now).seconds > 0.0 for account in fitting)
            if len(fitting) <= 8:
                assert all(
                    wait.seconds > 0.0 for wait, account in zip(waits, accounts, strict=True) if account in fitting
                )
            assert look > 0.0
            timed = [account for account in fitting if bound(account, charge, now).timed]
            able = [wait.seconds for account in timed if (wait := bound(account, largest, now)).timed]
            assert look <= min(able, default=look) + LATE
            continue
        account = of_slot[slot]
        held.append([(limit, limit.take(now, getattr(charge, limit.unit))) for limit in account.limits])
        ladder.took(slot, account)
        if rests:
            account.cool(now, 5.0)
        if len(held) > 3:
            holds = held.pop(0)
            for limit, hold in holds:
                limit.settle(now, hold, amount_of(hold, limit.place) * used if limit.unit != "requests" else 1.0)
            ladder.given_back([limit for limit, _ in holds])


async def test_many_keys_take_turns(bench: Bench) -> None:
    queue = bench.queue(*(bench.account(tokens_per_minute=1000) for _ in range(MANY)))
    granted = [await bench.pay(queue, str(i), tokens=100) for i in range(2 * MANY)]
    assert granted == [f"key-{i}" for i in range(MANY)] * 2


async def test_a_key_that_has_room_is_found_among_many_that_have_none(bench: Bench) -> None:
    queue = bench.queue(*(bench.account(tokens_per_minute=5000 if i == 33 else 100) for i in range(MANY)))
    for i in range(MANY):
        await bench.pay(queue, str(i), tokens=100)
    assert [await bench.pay(queue, f"more {i}", tokens=90) for i in range(3)] == ["key-33"] * 3


async def test_a_request_that_only_the_largest_takes_waits_for_it_and_holds_up_nobody(
    bench: Bench, start: Start
) -> None:
    queue = bench.queue(*(bench.account(tokens_per_minute=6000 if i == 7 else 600) for i in range(MANY)))
    await bench.pay(queue, "first", tokens=6000)
    large = start(bench.pay(queue, "large", tokens=3000))
    await bench.settle()
    assert await bench.pay(queue, "small", tokens=600) != "key-7"
    assert not large.done()
    await bench.clock.advance(30.5)
    assert await large == "key-7"


async def test_the_first_key_to_regain_enough_is_taken_the_moment_it_does(bench: Bench, start: Start) -> None:
    queue = bench.queue(*(bench.account(tokens_per_minute=600 + i) for i in range(MANY)))
    for i in range(MANY):
        await bench.pay(queue, str(i), tokens=600)
    task = start(bench.pay(queue, "a", tokens=300))
    await bench.clock.advance(24.5)
    assert not task.done()
    await bench.clock.advance(0.2)
    assert await task == "key-39"  # has 39 left, and regains most


async def test_what_an_answer_gives_back_is_taken_at_once(bench: Bench, start: Start) -> None:
    queue = bench.queue(*(bench.account(tokens_per_minute=1000, concurrent_requests=1) for _ in range(MANY)))
    for i in range(MANY):
        await bench.pay(queue, str(i), tokens=1000)
    task = start(bench.pay(queue, "a", tokens=800))
    await bench.settle()
    assert not task.done()
    bench.end("17", used=50)
    assert await task == "key-17"


async def test_what_another_queue_gives_back_to_shared_accounts_is_seen(bench: Bench) -> None:
    accounts = [bench.account(tokens_per_minute=1000) for _ in range(MANY)]
    queue, other = bench.queue(*accounts), bench.queue(*accounts)
    for i in range(MANY):
        await bench.pay(other, str(i), tokens=1000)
        await bench.clock.advance(0.0)
    assert queue.explain(Ticket(tokens(900), "m")).wait_seconds > 1.0
    bench.end("5", used=0)
    assert await bench.pay(queue, "a", tokens=900) == "key-5"


async def test_a_key_that_leaves_is_passed_over_and_found_again_when_it_is_back(bench: Bench) -> None:
    queue = bench.queue(*(bench.account() for _ in range(MANY)))
    keys = [slot.key for slot in queue.slots]
    for key in keys[:-2]:
        key.refuse(LLMAuthenticationError("no"))
    assert await bench.pay(queue, "before it is told", tokens=1) == "key-38"
    queue.keys_changed()
    assert [await bench.pay(queue, str(i)) for i in range(3)] == ["key-39", "key-38", "key-39"]
    keys[0].restore()
    queue.keys_changed()
    assert {await bench.pay(queue, f"again {i}") for i in range(3)} == {"key-0", "key-38", "key-39"}


async def test_when_all_leave_the_reason_is_told(bench: Bench, start: Start) -> None:
    queue = bench.queue(*(bench.account(requests_per_minute=1) for _ in range(MANY)))
    for i in range(MANY):
        await bench.pay(queue, str(i))
    task = start(bench.pay(queue, "a"))
    await bench.settle()
    for slot in queue.slots:
        slot.key.refuse(LLMAuthenticationError("no such key"))
    queue.keys_changed()
    with pytest.raises(LLMAuthenticationError, match="no such key"):
        await task


async def test_limits_that_change_are_held_to(bench: Bench) -> None:
    accounts = [bench.account(tokens_per_minute=1000) for _ in range(MANY)]
    queue = bench.queue(*accounts)
    await bench.pay(queue, "a", tokens=1000)
    accounts[20].state(bench.clock.now(), {"tokens_per_minute": 9000.0}, level="key", bucket=True)
    assert await bench.pay(queue, "b", tokens=8000) == "key-20"
    for account in accounts:
        account.state(bench.clock.now(), {"tokens_per_minute": 500.0}, level="key", bucket=True)
    with pytest.raises(LLMRateLimitError, match="tokens_per_minute"):
        queue.check(Ticket(tokens(8000), "m"))


async def test_what_one_key_learns_places_that_one_alone_anew(bench: Bench, counting: Any) -> None:  # noqa: ANN401 - a fixture
    accounts = [bench.account(tokens_per_minute=1000) for _ in range(MANY)]
    queue = bench.queue(*accounts)
    await bench.pay(queue, "a", tokens=10)
    version = accounts[5].version
    with counting() as learned:
        queue.learn(queue.slots[5], [], lambda: [LimitReport("total_tokens", 900, 800, 6.0)], closely=True)
        await bench.pay(queue, "b", tokens=10)
    assert accounts[5].version > version
    with counting() as anew:
        queue.keys_changed()
        await bench.pay(queue, "c", tokens=10)
    assert learned.count < anew.count / 2


async def test_a_day_that_is_used_up_on_some_keys_refuses_nothing_that_others_take(bench: Bench, start: Start) -> None:
    queue = bench.queue(*(bench.account(requests_per_minute=2, tokens_per_day=100) for _ in range(MANY)))
    for i in range(MANY // 2):
        await bench.pay(queue, f"all {i}", tokens=100)
    for i in range(MANY):
        await bench.pay(queue, f"half {i}", tokens=10)
    queue.check(Ticket(tokens(50), "m"))
    task = start(bench.pay(queue, "waits", tokens=50))
    await bench.settle()
    assert not task.done()
    await bench.clock.advance(61.0)
    assert int((await task).removeprefix("key-")) >= MANY // 2


async def test_keys_for_any_model_are_found(bench: Bench) -> None:
    queue = bench.queue(*(("*", bench.account(requests_per_minute=1)) for _ in range(MANY)))
    queue.slots[1].key.refuse(LLMAuthenticationError("not that one"), model="x")
    granted = [await bench.pay(queue, f"{model} {i}", model=model) for i, model in enumerate("xyx")]
    assert granted == ["key-0", "key-1", "key-2"]


async def test_when_all_keys_for_any_model_refuse_one_who_waits_for_that_is_told(bench: Bench, start: Start) -> None:
    queue = bench.queue(*(("*", bench.account(tokens_per_minute=600)) for _ in range(MANY)))
    for i in range(MANY):
        await bench.pay(queue, str(i), tokens=600, model="y")
    task = start(bench.pay(queue, "a", tokens=100, model="x"))
    await bench.settle()
    for slot in queue.slots:
        slot.key.refuse(LLMAuthenticationError("not that one"), model="x")
    queue.keys_changed()
    await bench.settle()
    assert task.done()
    with pytest.raises(LLMAuthenticationError, match="not that one"):
        await task


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
async def test_the_few_keys_for_any_model_that_serve_one_are_waited_for(bench: Bench, start: Start) -> None:
    queue = bench.queue(*(("*", bench.account(tokens_per_minute=600)) for _ in range(MANY)))
    for i in range(MANY):
        await bench.pay(queue, str(i), tokens=600, model="y")
    for slot in queue.slots[:-2]:
        slot.key.refuse(LLMAuthenticationError("not that one"), model="x")
    queue.keys_changed()
    task = start(bench.pay(queue, "a", tokens=100, model="x"))
    await bench.clock.advance(10.3)
    assert task.done()
    assert await task in {"key-38", "key-39"}


async def test_keys_of_one_account_take_turns_on_it(bench: Bench) -> None:
    shared = bench.account(requests_per_minute=100)
    queue = bench.queue(*(shared if i % 2 else bench.account() for i in range(MANY)))
    granted = [int((await bench.pay(queue, str(i))).removeprefix("key-")) for i in range(63)]  # three for each account
    assert [key for key in granted if key % 2] == [1, 3, 5]


def test_a_rehearsal_of_many_keys_takes_as_long_as_they_need(bench: Bench) -> None:
    queue = bench.queue(*(bench.account(requests_per_minute=1) for _ in range(MANY)))
    rehearsal = Rehearsal([queue], 0.0, workers=MANY)
    planned = Planned("fake", "m", tokens(10), tokens(10), 1.0)
    for _ in range(3 * MANY):
        assert rehearsal.why_never(planned) is None
        rehearsal.send(planned)
    assert 120.0 <= rehearsal.finish() <= 122.5


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
async def test_who_waits_long_is_looked_after_while_others_come_and_go(bench: Bench, start: Start) -> None:
    queue = bench.queue(*(bench.account(tokens_per_minute=6000) for _ in range(MANY)), max_waiting=10_000)
    for i in range(MANY):
        await bench.pay(queue, f"full {i}", tokens=6000)
    begun: list[Any] = [start(bench.pay(queue, f"w {i}", tokens=50 + 37 * (i % 40))) for i in range(400)]
    for _ in range(400):
        await bench.clock.advance(0.7)
    assert all(task.done() for task in begun)
    assert bench.clock.timers == 0


async def test_a_key_that_somebody_waits_for_is_kept_from_who_comes_later(bench: Bench, start: Start) -> None:
    queue = bench.queue(*(bench.account(tokens_per_minute=6000 if i == 7 else 600) for i in range(MANY)))
    for i in range(MANY):
        await bench.pay(queue, str(i), tokens=600)
    await bench.pay(queue, "rest", tokens=5400)
    large = start(bench.pay(queue, "large", tokens=4000))
    await bench.clock.advance(20.0)
    small = start(bench.pay(queue, "small", tokens=500))
    await bench.clock.advance(15.0)
    assert [large.done(), small.done()] == [False, False]  # the smaller would fit what key-7 has by now
    await bench.clock.advance(5.2)
    assert await large == "key-7"
    assert not small.done()
    await bench.clock.advance(15.0)
    assert small.done()


async def test_what_another_queue_takes_of_shared_accounts_is_seen(bench: Bench) -> None:
    accounts = [bench.account(tokens_per_minute=1000) for _ in range(MANY)]
    queue, other = bench.queue(*accounts), bench.queue(*accounts)
    assert await bench.pay(queue, "a", tokens=10) == "key-0"
    taken = {await bench.pay(other, str(i), tokens=900) for i in range(MANY - 1)}
    assert "key-0" not in taken
    assert await bench.pay(queue, "b", tokens=800) == "key-0"


def full_ladder(count: int, **limits: float) -> tuple[Ladder, list[tuple[Slot, Account]]]:
    entries = slots_of([account_of(limits, bucket=True) for _ in range(count)])
    for _, account in entries:
        for limit in account.limits:
            limit.take(0.0, limit.capacity)
    ladder = Ladder("m", entries, bound)
    ladder.fit(1)
    return ladder, entries


def look(ladder: Ladder, now: float, amount: int = 100) -> Slot | None:
    step = ladder.step(tokens(amount), "m")
    assert step is not None
    return ladder.find(tokens(amount), step, now, model="m", kept=())[0]


def test_keys_that_left_and_that_nobody_told_of_are_passed_over() -> None:
    ladder, entries = full_ladder(12, tokens_per_minute=600.0)
    for slot, _ in entries[:-1]:
        slot.key.refuse(LLMAuthenticationError("no"))
    assert look(ladder, 30.0) is entries[-1][0]
    ladder, entries = full_ladder(3, tokens_per_minute=600.0)
    for slot, _ in entries:
        slot.key.refuse(LLMAuthenticationError("no"))
    assert look(ladder, 0.0) is None
    ladder.forget()
    ladder.fit(1)
    ladder.took(*entries[0])
    assert ladder.step(tokens(100), "m") is None


def test_who_can_never_send_is_nobodys_key() -> None:
    ladder, _ = full_ladder(3, requests_per_minute=0.5)
    assert ladder.step(tokens(100), "m") is None


def test_who_waits_for_long_is_told_of_the_nearest_however_much_moved() -> None:
    ladder, entries = full_ladder(12, tokens_per_minute=600.0)
    for turn in range(500):
        for _, account in entries:
            ladder.given_back(account.limits)
        ladder.given_back(())
        assert look(ladder, turn / 1000) is not None
    assert look(ladder, 10.5) is not None


def test_a_few_accounts_whose_limits_change_are_placed_anew_and_the_others_stay() -> None:
    ladder, entries = full_ladder(12, tokens_per_minute=600.0)
    assert look(ladder, 0.0) is not None
    entries[3][1].state(0.0, {"tokens_per_minute": 500.0}, level="key", bucket=True)
    entries[4][1].cool(0.0, 1.0)
    ladder.fit(2)
    step = ladder.step(tokens(550), "m")
    assert step is not None
    assert 3 not in ladder.size(tokens(550), step).fits
    assert len(ladder.size(tokens(550), step).fits) == 11


def test_the_nearest_is_found_among_those_that_were_drawn_on_unseen() -> None:
    entries = slots_of([account_of({"tokens_per_minute": 600.0}, bucket=True) for _ in range(12)])
    ladder = Ladder("m", entries, bound)
    ladder.fit(1)
    assert look(ladder, 0.0) is entries[0][0]
    for slot, account in entries:
        account.limits[0].take(0.0, 500.0 if slot is entries[-1][0] else 600.0)
    assert look(ladder, 0.0, 150) is entries[-1][0]


def test_who_regains_fast_is_looked_at_although_slow_ones_are_nearer() -> None:
    slow, fast = {"tokens_per_minute": 600.0}, {"tokens_per_minute": 6000.0}
    entries = slots_of([account_of(slow, bucket=True) for _ in range(30)])
    entries = slots_of([*(account for _, account in entries), *(account_of(fast, bucket=True) for _ in range(10))])
    for place, (_, account) in enumerate(entries):
        left = 374.0 if place < 3 else 400.0 if place < 30 else 300.0
        account.limits[0].take(0.0, account.limits[0].capacity - left)
    ladder = Ladder("m", entries, bound)
    ladder.fit(1)
    now, charge = 0.0, tokens(500)
    step = ladder.step(charge, "m")
    assert step is not None
    while True:
        slot, binds, after = ladder.find(charge, step, now, model="m", kept=())
        if binds.seconds <= 0.0:
            break
        now += after
    assert slot in [slot for slot, _ in entries[30:]]
    assert now < 2.5  # the faster regain 200 in two seconds, the others 100 in ten


def test_of_those_that_are_equally_near_it_is_always_the_same() -> None:
    found: set[int] = set()
    for _ in range(20):
        ladder, entries = full_ladder(12, tokens_per_minute=600.0)
        look(ladder, 0.0)
        for _, account in entries:
            ladder.given_back(account.limits)
        slot = look(ladder, 1.0)
        assert slot is not None
        found.add(slot.index)
    assert found == {0}
