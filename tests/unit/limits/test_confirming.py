"""Queues of several processes on one log: on a clock that the test moves, and a log in memory."""

# ruff: noqa: ANN401 - limits as a configuration states them
from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from llm.core.call import Call, CallState, Charge, LimitReport, Ticket
from llm.core.exceptions import (
    LLMCircuitOpenError,
    LLMConnectionError,
    LLMInvalidRequestError,
    LLMPoolExhaustedError,
    LLMRateLimitError,
)
from llm.core.keys import Key, Slot
from llm.limits.admission import Levels
from llm.limits.breaker import BreakerPolicy
from llm.limits.circuits import Circuits
from llm.limits.concurrency import Concurrency
from llm.limits.confirming import ConfirmedQueue
from llm.limits.ledger import Entry, Gone, Read, Settled, Standing, StoreLostError, Taken, Waiting
from llm.limits.memory import Account
from llm.limits.sharing import Sharing
from llm.testing import FakeClock, FakeProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    from llm.limits.grant import Grant
    from llm.limits.ledger import Ask, Event, Position
    from llm.limits.loss import OnLoss

DELAY = 0.002  # seconds of a message to the store and back


class Log:
    """What the store has of one account."""

    def __init__(self) -> None:
        self.entries: list[tuple[float, str, Event]] = []
        self.line: dict[str, Waiting] = {}


@dataclass
class Store:
    """A store in memory, that takes a while and can be lost."""

    clock: FakeClock
    logs: dict[str, Log] = field(default_factory=dict[str, Log])
    ledgers: list[MemoryLedger] = field(default_factory=list["MemoryLedger"])
    lost: bool = False
    asked: int = 0
    refuses: bool = False
    delay: float = 0.0
    flaky: bool = False

    def log(self, name: str) -> Log:
        return self.logs.setdefault(name, Log())

    def lose(self, *, lost: bool = True) -> None:
        self.lost = lost
        for ledger in self.ledgers:
            ledger.changed(lost)

    def events(self, kind: type[Any]) -> list[Any]:
        return [event for log in self.logs.values() for _, _, event in log.entries if isinstance(event, kind)]


class MemoryLedger:
    """A `Ledger` on a store in memory."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.process = f"p{len(store.ledgers)}"
        self.heard: Callable[[str], None] = print
        self.changed: Callable[[bool], None] = print
        self.closed = 0
        store.ledgers.append(self)

    @property
    def lost(self) -> bool:
        return self.store.lost

    @property
    def processes(self) -> int:
        return len(self.store.ledgers)

    async def _message(self) -> None:
        if not self.store.lost:
            await self.store.clock.sleep(self.store.delay)
        if self.store.lost:
            self.changed(True)  # noqa: FBT003 - the seam's
            raise StoreLostError("lost")
        if self.store.flaky:
            raise StoreLostError("no answer in time")

    async def ask(self, asks: Sequence[Ask]) -> list[Read]:
        self.store.asked += 1
        await self._message()
        fine = not self.store.refuses and all(self._fits(ask) for ask in asks)
        for ask in asks if fine else ():
            self.put(ask.account, Taken(ask.call, ask.charge))
        return [self._read(ask.account, ask.after, taken=fine) for ask in asks]

    def _fits(self, ask: Ask) -> bool:
        log = self.store.log(ask.account)
        since = log.entries[int(ask.after.partition("-")[0]) :]
        counted = [event for _, _, event in since if isinstance(event, Taken)]
        if self.process not in log.line:
            unread = {process for _, process, event in since if log.line.get(process) is event}
            counted += [Taken("", log.line[process].charge) for process in unread]
        return sum(event.charge.total_tokens for event in counted) + ask.charge.total_tokens <= ask.room.total_tokens

    async def read(self, account: str, after: Position) -> Read:
        await self._message()
        return self._read(account, after)

    def _read(self, account: str, after: Position, *, taken: bool = False) -> Read:
        entries, now = self.store.log(account).entries, self.store.clock.now()
        known = int(after.partition("-")[0])
        afresh = known > len(entries)
        start = 0 if afresh else known  # what is known may be thousands of entries, and is read as often
        news = [
            Entry(f"{number}-0", now - at, process, event)
            for number, (at, process, event) in enumerate(entries[start:], start + 1)
        ]
        return Read(taken, news, f"{len(entries)}-0", afresh, wait=1.0 if afresh else 0.0)

    def write(self, account: str, event: Event) -> None:
        self.put(account, event)

    def put(self, account: str, event: Event) -> None:
        log = self.store.log(account)
        log.entries.append((self.store.clock.now(), self.process, event))
        before = next(iter(log.line), None)
        if isinstance(event, Waiting):
            log.line[self.process] = event
        elif isinstance(event, Taken | Gone):
            log.line.pop(self.process, None)
        first = next(iter(log.line), None)
        if first is not None and (isinstance(event, Settled) or first != before):
            next(ledger for ledger in self.store.ledgers if ledger.process == first).heard(account)

    def listen(self, heard: Callable[[str], None], changed: Callable[[bool], None]) -> None:
        self.heard, self.changed = heard, changed

    async def close(self) -> None:
        self.closed += 1


class Process:
    """A queue with its sharing, over keys that are never called."""

    def __init__(self, store: Store, policy: OnLoss = "fail_closed", **options: Any) -> None:
        self.store = store
        self.clock = store.clock
        self.tasks: set[asyncio.Task[Any]] = set()
        self.sharing = Sharing(lambda: MemoryLedger(store), clock=self.clock, spawn=self.spawn, policy=policy)
        self.order: list[str] = []
        self.grants: dict[str, Grant] = {}
        self.calls: dict[str, Call] = {}
        users: dict[str, Account] = {
            name: self.account(name, stated) for name, stated in options.get("users", {}).items()
        }
        self.accounts = [self.account(f"key-{n}", stated) for n, stated in enumerate(options["keys"])]
        self.everything = self.account("global", options.get("everything", {}))
        own = Account()
        own.hold_to((Concurrency("max_size", options.get("max_size", 1000), level="provider"),))
        keys = [Key(f"key-{n}", FakeProvider, clock=self.clock, idle_timeout=300, max_lifetime=3600) for n in range(9)]
        self.queue = ConfirmedQueue(
            "fake",
            [(Slot(n, "m", keys[n]), account) for n, account in enumerate(self.accounts)],
            clock=self.clock,
            book=self.sharing.book,
            levels=Levels((self.everything, own), users.get),
            max_waiting=1000,
            sharing=self.sharing,
            spawn=self.spawn,
            circuits=options.get("circuits"),
        )

    def beside(self) -> ConfirmedQueue:
        """Return another provider's queue of this process, which has no key's limits."""
        key = Key("key-9", FakeProvider, clock=self.clock, idle_timeout=300, max_lifetime=3600)
        return ConfirmedQueue(
            "other",
            [(Slot(0, "m", key), Account())],
            clock=self.clock,
            book=self.sharing.book,
            levels=Levels((self.everything,), lambda _: None),
            max_waiting=1000,
            sharing=self.sharing,
            spawn=self.spawn,
        )

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def account(self, name: str, stated: dict[str, Any]) -> Account:
        account = Account()
        level: Any = name.partition("-")[0] if name.startswith(("key", "global")) else "user"
        account.state(self.clock.now(), stated, level=level, bucket=True)
        self.sharing.share(account, name)
        return account

    def start(self, name: str, tokens: int = 0, **how: Any) -> asyncio.Task[str]:
        task = asyncio.get_running_loop().create_task(self.pay(name, tokens, **how))
        self.tasks.add(task)
        return task

    async def pay(  # noqa: PLR0913 - what a call may ask
        self,
        name: str,
        tokens: int = 0,
        *,
        user: str | None = None,
        priority: int = 0,
        timeout: float | None = None,  # noqa: ASYNC109 - the queue's own
        user_wait: float | None = None,
    ) -> str:
        now = self.clock.now()
        call = self.calls[name] = Call(now, user=user, priority=priority)
        call.user_wait = user_wait
        call.ticketed(now, Ticket(Charge(total_tokens=tokens), "m", user, priority))
        grant = self.grants[name] = await self.queue.pay(call, timeout=timeout)
        self.order.append(name)
        return grant.key

    def end(self, name: str, used: int) -> None:
        now = self.clock.now()
        self.calls[name].sent(now)
        self.calls[name].attempted(now, Charge(total_tokens=used))

    async def close(self) -> None:
        for task in tuple(self.tasks):
            task.cancel()
        await asyncio.wait([asyncio.create_task(self.sharing.close()), *self.tasks])


@pytest.fixture
async def processes() -> AsyncIterator[Callable[..., Process]]:
    """Makes processes on one store; whatever they left is ended."""
    store, made = Store(FakeClock()), list[Process]()

    def make(policy: OnLoss = "fail_closed", **options: Any) -> Process:
        made.append(Process(store, policy, **{"keys": [{"tokens_per_minute": 100}], **options}))
        return made[-1]

    yield make
    for process in made:
        await process.close()


def level(process: Process) -> float:
    """Return what is there of a key's 100 tokens, nothing kept back."""
    return 100.0 * (1.0 - process.accounts[0].limits[0].saturation(process.clock.now()))


async def test_two_processes_take_no_more_than_one_would_and_all_is_given_back(
    processes: Callable[..., Process],
) -> None:
    one, two = processes(), processes()
    tasks = [process.start(f"{n}", 30) for n in range(2) for process in (one, two)]
    await one.clock.advance(0.1)
    assert sum(task.done() for task in tasks) == 3
    done = next(process for process in (one, two) if len(process.order) == 2)
    done.end(done.order[0], 0)
    await one.clock.advance(0.1)
    assert all(task.done() for task in tasks)
    for process in (one, two):
        for name in process.order:
            if process.calls[name].state is CallState.PAID:
                process.calls[name].ended(process.clock.now())
    await one.pay("look", 1)
    assert one.accounts[0].limits[0].free(one.clock.now()) == pytest.approx(99.0, abs=1.0)
    assert {event.used.total_tokens for event in one.store.events(Settled)} == {0}


async def test_a_burst_is_asked_for_at_once_and_no_more_of_it_than_there_is_room_for(
    processes: Callable[..., Process],
) -> None:
    one = processes()
    await one.pay("first", 0)
    one.store.delay = DELAY
    tasks = [one.start(str(n), 10) for n in range(100)]
    await one.clock.advance(0.0)
    assert one.store.asked == 11
    await one.clock.advance(DELAY)
    assert sum(task.done() for task in tasks) == 10
    assert one.calls["50"].state is CallState.QUEUED
    assert one.calls["5"].waited is False


async def test_who_stood_first_goes_first_whichever_process_asks(processes: Callable[..., Process]) -> None:
    one, two = processes(), processes()
    await one.pay("all", 100)
    large = one.start("large", 60)
    await one.clock.advance(1.0)
    small = two.start("small", 10)
    await one.clock.advance(30.0)
    assert not small.done()
    assert [event.charge.total_tokens for event in one.store.events(Waiting)] == [60, 10]
    await one.clock.advance(10.0)
    assert large.done()
    await one.clock.advance(6.5)
    assert small.done()
    assert not any(log.line for log in one.store.logs.values())


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
async def test_the_log_that_says_no_leaves_everybody_where_he_stood(processes: Callable[..., Process]) -> None:
    one = processes()
    await one.pay("first", 100)
    tasks = [one.start(str(n), 10) for n in range(3)]
    await one.clock.advance(1.0)
    one.store.refuses = True
    await one.clock.advance(30.0)
    assert not any(task.done() for task in tasks)
    asked = one.store.asked
    assert asked > 3
    one.store.refuses = False
    await one.clock.advance(1.0)
    assert [name for name in one.order if name != "first"] == ["0", "1", "2"]
    assert [one.calls[str(n)].state for n in range(3)] == [CallState.PAID] * 3


async def test_a_direct_call_that_the_log_refuses_stands_in_the_queue(processes: Callable[..., Process]) -> None:
    one, two = processes(), processes()
    await two.pay("before", 0)
    await one.pay("all", 90)
    late = two.start("late", 50)  # whose copy does not know of it yet
    await one.clock.advance(0.01)
    assert two.calls["late"].state is CallState.QUEUED
    await one.clock.advance(60.0)
    assert late.done()


async def test_a_call_that_left_while_it_was_asked_for_holds_nothing(processes: Callable[..., Process]) -> None:
    one = processes(max_size=1)
    await one.pay("first", 0)
    one.end("first", 0)
    one.store.delay = DELAY
    task = one.start("left", 60)
    await one.clock.advance(0.0)
    assert one.store.asked == 2
    task.cancel()
    await one.clock.advance(DELAY)
    one.store.delay = 0.0
    assert task.cancelled()
    assert one.calls["left"].state is CallState.TICKETED
    assert [event.used.requests for event in one.store.events(Settled)][-1] == 0
    await one.pay("next", 100)


async def test_a_waiter_that_left_while_it_was_asked_for_holds_nothing(processes: Callable[..., Process]) -> None:
    one = processes()
    await one.pay("first", 100)
    one.store.delay = 1.0
    task = one.start("left", 60)
    await one.clock.advance(36.6)  # 36 seconds, and the guard of a crowd
    assert one.store.asked == 2
    task.cancel()
    await one.clock.advance(1.0)
    assert one.calls["left"].state is CallState.TICKETED
    assert one.queue.waiting == 0
    assert one.store.events(Settled)


@pytest.mark.parametrize("lost", [False, True])
async def test_the_last_waiter_that_left_stands_in_no_line_any_more(
    processes: Callable[..., Process], *, lost: bool
) -> None:
    one, two = processes(keys=[{"concurrent_requests": 1}]), processes(keys=[{"concurrent_requests": 1}])
    await one.pay("first")
    waits = two.start("left")
    await one.clock.advance(0.1)
    assert one.store.log("key-0").line
    if lost:
        one.store.lose()
    waits.cancel()
    await one.clock.advance(0.1)
    if lost:
        one.store.lose(lost=False)
    await one.clock.advance(0.1)
    assert not one.store.log("key-0").line
    one.end("first", 0)
    await one.pay("next", timeout=1.0)


@pytest.mark.parametrize("freed", ["first", "second"])
async def test_a_place_at_any_key_lets_a_waiter_go_which_then_stands_in_no_line(
    processes: Callable[..., Process], freed: str
) -> None:
    keys = [{"concurrent_requests": 1}, {"concurrent_requests": 1}]
    one, two = processes(keys=keys), processes(keys=keys)
    await one.pay("first")
    await one.pay("second")
    waits = two.start("waits")
    await one.clock.advance(0.1)
    one.end(freed, 0)
    await one.clock.advance(0.1)
    assert waits.done()
    assert not [name for name, log in one.store.logs.items() if log.line]


async def test_a_call_that_the_log_refused_and_that_waits_elsewhere_now_leaves_the_line_it_stood_in(
    processes: Callable[..., Process],
) -> None:
    options = {"keys": [{"concurrent_requests": 1}], "everything": {"tokens_per_minute": 100}}
    one, two = processes(**options), processes(**options)
    await one.pay("first", 10)
    tasks = [two.start(name, 30) for name in ("waits", "also")]
    await one.clock.advance(0.1)
    assert list(one.store.log("key-0").line) == ["p1"]
    one.end("first", 0)
    one.store.delay = 0.1
    await one.clock.advance(0.15)  # it asks
    one.store.ledgers[0].put("global", Taken("other", Charge(total_tokens=90)))
    await one.clock.advance(0.5)
    assert [name for name, log in one.store.logs.items() if log.line] == ["global"]
    assert not any(task.done() for task in tasks)


async def test_a_queue_that_leaves_a_line_leaves_it_to_the_others_of_its_process(
    processes: Callable[..., Process],
) -> None:
    options: dict[str, Any] = {"keys": [{}], "everything": {"concurrent_requests": 1}}
    one, two = processes(**options), processes(**options)
    await one.pay("first")
    leaves = two.start("left")
    await one.clock.advance(0.1)
    two.queue = two.beside()
    waits = two.start("waits")
    await one.clock.advance(0.1)
    await one.clock.advance(0.1)
    assert list(one.store.log("global").line) == ["p1"]
    leaves.cancel()
    await one.clock.advance(0.1)
    assert list(one.store.log("global").line) == ["p1"]
    one.end("first", 0)
    await one.clock.advance(0.1)
    assert waits.done()


async def test_waiting_ends_after_its_time(processes: Callable[..., Process]) -> None:
    one = processes()
    await one.pay("first", 100)
    task = one.start("late", 60, timeout=5.0)
    await one.clock.advance(5.0)
    with pytest.raises(LLMPoolExhaustedError, match=r"acquire_timeout.*tokens_per_minute"):
        await task


async def test_a_call_without_a_ticket_cannot_be_paid(processes: Callable[..., Process]) -> None:
    one = processes()
    with pytest.raises(LLMInvalidRequestError):
        await one.queue.pay(Call(0.0))


async def test_a_users_limit_that_others_use_up_refuses_who_may_not_wait_for_it(
    processes: Callable[..., Process],
) -> None:
    one, two = (processes(users={"ann": {"tokens_per_minute": 20}}) for _ in range(2))
    assert await one.pay("first", 20, user="ann", user_wait=0.0) == "key-0"
    for process in (one, two):
        with pytest.raises(LLMRateLimitError, match="tokens_per_minute of the user") as raised:
            await process.pay("second", 10, user="ann", user_wait=5.0)
        assert raised.value.scope == "user"
        assert raised.value.retry_after == pytest.approx(30.0, abs=1.5)
    tasks = [two.start(str(n), 10, user="ann", user_wait=40.0) for n in range(3)]
    await one.clock.advance(50.0)
    assert [task.exception() is None for task in tasks] == [True, False, False]


async def test_limits_of_everything_and_of_users_are_shared_and_one_user_holds_up_nobody_else(
    processes: Callable[..., Process],
) -> None:
    options = {"everything": {"tokens_per_minute": 90}, "users": {"ann": {"tokens_per_minute": 20}, "bob": {}}}
    one, two = processes(**options), processes(**options)
    await one.pay("ann-1", 20, user="ann")
    again, other = two.start("ann-2", 20, user="ann"), two.start("bob", 20, user="bob")
    await one.clock.advance(0.5)
    assert (again.done(), other.done()) == (False, True)
    much = two.start("bob-2", 60, user="bob")
    await one.clock.advance(1.0)
    assert not much.done()  # 90 of everything
    assert {"ann", "global"} <= {name for name, log in one.store.logs.items() if log.line}
    await one.clock.advance(70.0)
    assert again.done()
    assert much.done()


async def test_a_rest_and_what_was_learned_is_known_everywhere(processes: Callable[..., Process]) -> None:
    one, two = processes(), processes()
    await one.pay("first", 10)
    assert one.grants["first"].refused(3.0) == 3.0
    late = two.start("late", 10)
    await one.clock.advance(2.0)
    assert not late.done()
    await one.clock.advance(1.1)
    assert late.done()
    report = LimitReport("total_tokens", 100, 20)
    one.calls["first"].sent(one.clock.now())
    one.grants["first"].learn(lambda: [report])
    await one.clock.advance(0.1)
    assert level(one) == pytest.approx(16, abs=2)
    [told] = one.store.events(Standing)
    assert told.taken["tokens_per_minute"][0][1] == pytest.approx(84, abs=2)
    await two.pay("knows", 1)
    assert level(two) == pytest.approx(15, abs=2)


async def test_what_is_told_while_others_entries_are_unread_is_learned_after_them(
    processes: Callable[..., Process],
) -> None:
    one, two = processes(), processes()
    await one.pay("mine", 10)
    await two.pay("theirs", 40)
    await one.clock.advance(1.0)
    one.calls["mine"].sent(one.clock.now())
    one.grants["mine"].learn(lambda: [LimitReport("total_tokens", 100, 49)])
    await one.clock.advance(0.1)
    assert one.accounts[0].limits[0].free(one.clock.now()) == pytest.approx(51, abs=2)
    one.grants["mine"].learn(lambda: [LimitReport("total_tokens", 100, 49)])  # too soon to be worth it
    assert not one.store.events(Standing)


async def test_a_refused_request_takes_nothing_for_the_others_either(processes: Callable[..., Process]) -> None:
    one = processes()
    await one.pay("refused", 10)
    one.calls["refused"].sent(one.clock.now())
    one.grants["refused"].learn(lambda: [LimitReport("total_tokens", 100, 5, refused=True)], closely=True)
    one.calls["refused"].attempted(one.clock.now(), Charge(total_tokens=10))
    [settled] = one.store.events(Settled)
    assert settled.used == Charge(requests=0)


async def test_what_a_refusal_tells_one_process_no_other_finds_out_by_a_refusal(
    processes: Callable[..., Process],
) -> None:
    one, two = processes(), processes()
    await two.pay("before", 1)
    await one.pay("refused", 10)
    one.calls["refused"].sent(one.clock.now())
    one.grants["refused"].learn(lambda: [LimitReport("total_tokens", 100, 9, refused=True)], closely=True)
    one.calls["refused"].attempted(one.clock.now(), Charge(total_tokens=10))
    await one.clock.advance(0.1)
    await two.pay("after", 1)
    assert level(one) == pytest.approx(9, abs=1)
    assert level(two) == pytest.approx(8, abs=1)
    assert [told.for_all for told in one.store.events(Standing)] == [True]  # for a store that keeps others aside


async def test_a_refusal_of_a_key_that_is_this_process_s_own_is_told_nobody(processes: Callable[..., Process]) -> None:
    one = processes(everything={"tokens_per_minute": 500})
    one.sharing.forget(one.accounts[0])
    await one.pay("refused", 10)
    one.calls["refused"].sent(one.clock.now())
    one.grants["refused"].learn(lambda: [LimitReport("total_tokens", 100, 5, refused=True)], closely=True)
    one.calls["refused"].attempted(one.clock.now(), Charge(total_tokens=10))
    await one.clock.advance(0.1)
    assert level(one) == pytest.approx(5, abs=1)
    assert not one.store.events(Standing)


async def test_what_a_broken_breaker_meets_is_refused_and_given_back(processes: Callable[..., Process]) -> None:
    circuits = Circuits("fake", BreakerPolicy(failure_rate=0.5, min_calls=1, window=60.0, open_for=30.0))
    one = processes(circuits=circuits)
    await one.pay("first", 10)
    one.store.delay = DELAY
    task = one.start("second", 10)
    await one.clock.advance(0.0)
    one.calls["first"].sent(one.clock.now())
    one.grants["first"].told(LLMConnectionError("gone", sent=True))
    one.calls["first"].attempted(one.clock.now())
    await one.clock.advance(DELAY)
    with pytest.raises(LLMCircuitOpenError):
        await task
    with pytest.raises(LLMCircuitOpenError):
        await one.pay("third", 10)
    assert len(one.store.events(Settled)) == 2


async def test_a_queue_that_was_replaced_keeps_nobody_who_was_being_asked_for(
    processes: Callable[..., Process],
) -> None:
    one = processes()
    await one.pay("first", 100)
    one.store.delay = 1.0
    task, behind = one.start("asked", 50), one.start("behind", 50)
    await one.clock.advance(30.2)
    one.store.refuses = True
    one.queue.close(RuntimeError("replaced"))
    await one.clock.advance(1.0)
    for waiting in (task, behind):
        with pytest.raises(RuntimeError, match="replaced"):
            await waiting


# --- when the store is lost -------------------------------------------------------------------------------------------


async def test_fail_closed_sends_nothing_until_the_store_is_back(
    processes: Callable[..., Process], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "llm.limits")
    one = processes()
    await one.pay("first", 10)
    one.store.lose()
    one.store.lose()
    task, again = one.start("waits", 10), one.start("too", 10)
    await one.clock.advance(20.0)
    assert not task.done()
    assert one.sharing.status() == {
        "state": "lost", "on_store_loss": "fail_closed", "processes": 1, "losses": 1, "calls_without": 0,
    }  # fmt: skip
    one.store.lose(lost=False)
    await one.clock.advance(0.1)
    assert task.done()
    assert again.done()
    assert one.sharing.status()["state"] == "connected"
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_fail_closed_gives_up_after_half_a_minute_and_says_why(processes: Callable[..., Process]) -> None:
    one = processes()
    await one.pay("first", 100)
    before = one.start("before", 50)
    await one.clock.advance(1.0)
    one.store.lose()
    after = one.start("after", 1)
    new = one.start("new", 1, timeout=10.0)
    await one.clock.advance(10.0)
    with pytest.raises(LLMConnectionError, match=r"limits\.store"):
        await new
    await one.clock.advance(20.0)
    for task in (before, after):
        with pytest.raises(LLMConnectionError, match=r"limits\.on_store_loss") as caught:
            await task
        assert caught.value.sent is False


async def test_a_process_that_starts_while_the_store_is_lost_waits_to_read_it(
    processes: Callable[..., Process],
) -> None:
    one, two = processes(), processes()
    await one.pay("first", 90)
    one.store.lost = True
    task = two.start("waits", 50)
    await one.clock.advance(0.1)
    two.store.lose()
    await one.clock.advance(1.0)
    assert not task.done()
    one.store.lose(lost=False)
    await one.clock.advance(1.0)
    assert not task.done()  # it knows of the first now
    await one.clock.advance(30.0)
    assert task.done()


async def test_an_ask_that_is_lost_is_asked_again(processes: Callable[..., Process]) -> None:
    one = processes()
    await one.pay("first", 10)
    one.store.delay = DELAY
    task = one.start("second", 10)
    await one.clock.advance(0.0)
    one.store.flaky = True
    await one.clock.advance(DELAY)
    assert not task.done()
    one.store.flaky = False
    await one.clock.advance(0.1)
    assert task.done()


async def test_fail_open_goes_on_by_what_is_known_and_tells_it_later(processes: Callable[..., Process]) -> None:
    one, two = processes("fail_open"), processes("fail_open")
    await one.pay("first", 10)
    one.store.lose()
    await one.pay("alone", 60)
    await two.pay("new", 60)  # which has read nothing
    assert one.sharing.status()["calls_without"] == two.sharing.status()["calls_without"] == 1
    waits = one.start("waits", 60)
    await one.clock.advance(1.0)
    assert not waits.done()
    one.store.lose(lost=False)
    await one.clock.advance(0.1)
    assert one.accounts[0].limits[0].free(one.clock.now()) < -25


async def test_share_goes_on_with_this_process_s_part(processes: Callable[..., Process]) -> None:
    one, two = processes("share"), processes("share")
    await one.pay("first", 0)
    await two.pay("first", 0)
    one.store.lose()
    tasks = [process.start(f"{n}", 10) for n in range(9) for process in (one, two)]
    await one.clock.advance(0.0)
    assert [len(one.order), len(two.order)] == [6, 6]
    assert sum(task.done() for task in tasks) == 10
    one.store.lose(lost=False)
    await one.clock.advance(60.0)
    assert sum(task.done() for task in tasks) == 18


async def test_a_policy_that_changes_while_the_store_is_lost_holds_at_once(processes: Callable[..., Process]) -> None:
    one, two = processes(), processes("share")
    await one.pay("first")
    await two.pay("first")
    one.sharing.hold_to("share")
    one.sharing.hold_to("fail_open")
    one.store.lose()
    one.sharing.hold_to("share")
    tasks = [one.start(f"{n}", 10) for n in range(9)]
    await one.clock.advance(0.0)
    assert sum(task.done() for task in tasks) == 5


async def test_a_store_that_comes_back_empty_is_told_what_is_known_and_given_time(
    processes: Callable[..., Process],
) -> None:
    one = processes()
    await one.pay("first", 90)
    one.store.lose()
    one.store.logs.clear()
    one.store.lose(lost=False)
    task = one.start("waits", 5)
    await one.clock.advance(0.9)
    assert not task.done()
    [told] = one.store.events(Standing)
    assert told.taken["tokens_per_minute"][0][1] == pytest.approx(90, abs=1)
    await one.clock.advance(0.3)
    assert task.done()


async def test_a_store_that_is_lost_again_as_it_comes_back_is_waited_for(processes: Callable[..., Process]) -> None:
    one = processes()
    await one.pay("first", 10)
    one.store.lose()
    one.store.lose(lost=False)
    one.store.lost = True
    await one.clock.advance(0.1)
    assert one.sharing.loss.lost
    one.store.lose(lost=False)
    await one.clock.advance(0.1)
    assert not one.sharing.loss.lost


async def test_a_wake_that_was_lost_is_made_up_for(processes: Callable[..., Process]) -> None:
    one, two = processes(), processes()
    await one.pay("first", 100)
    late = two.start("late", 50)
    await one.clock.advance(0.1)
    two.store.ledgers[1].heard = lambda _: None
    one.end("first", 0)
    await one.clock.advance(0.4)
    assert late.done()


async def test_what_is_closed_writes_nothing_more(processes: Callable[..., Process]) -> None:
    one = processes()
    await one.pay("first", 100)
    assert one.sharing.status()["state"] == "connected"
    waits = one.start("waits", 50)
    await one.clock.advance(0.1)
    waits.cancel()
    await one.clock.advance(0.1)
    await one.sharing.close()
    await one.sharing.close()
    assert one.store.ledgers[0].closed == 1
    one.end("first", 0)
    assert not one.store.events(Settled)
    assert one.sharing.status()["state"] == "unused"


async def test_an_account_that_is_forgotten_is_shared_no_more(processes: Callable[..., Process]) -> None:
    one = processes()
    await one.pay("first", 10)
    one.sharing.forget(one.accounts[0])
    one.sharing.forget(one.accounts[0])
    assert one.sharing.replica(one.accounts[0]) is None
    assert one.sharing.knows(one.accounts)


async def test_a_forked_child_goes_on_as_a_process_of_its_own(processes: Callable[..., Process]) -> None:
    one = processes(keys=[{"concurrent_requests": 1}])
    await one.pay("parent", 10)
    one.sharing.pid = -1  # as the child sees it
    late = one.start("child", 10)
    await one.clock.advance(0.1)
    assert len(one.store.ledgers) == 2
    assert not late.done()
    one.store.ledgers[0].write("key-0", Settled("p0-1", Charge(total_tokens=10)))
    await one.clock.advance(0.5)
    assert late.done()
