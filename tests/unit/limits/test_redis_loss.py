"""The ledger where its store is lost, does not answer, or comes back without what it held."""

from __future__ import annotations

import asyncio
import math
import os
import random
import signal
import traceback
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

import pytest
from tests.patience import PATIENCE, until

from llm.core.call import Charge
from llm.core.exceptions import LLMConfigurationError
from llm.limits.ledger import (
    BEGINNING,
    Ask,
    Event,
    Gone,
    Position,
    Read,
    Resting,
    Room,
    Settled,
    Standing,
    StoreLostError,
    Taken,
    Waiting,
)
from llm.limits.redis import RedisLedger
from llm.limits.redis.book import Book
from llm.limits.redis.link import Link
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractContextManager
    from subprocess import Popen

    from llm.utils.clock import Timeout

NOTHING = Charge(requests=0)
ONE = Charge(total_tokens=1)
ROOM = Room(*[math.inf] * 6)
CLOCK = SystemClock()


class Server(Protocol):
    url: str
    port: int
    _process: Popen[bytes]

    def command(self, *words: str) -> bytes: ...
    def kill(self) -> None: ...
    def start(self) -> None: ...


class Eager(SystemClock):
    """Its pauses are short, and an answer may take long: a machine that is busy is no store that is lost."""

    patient = True

    async def sleep(self, seconds: float) -> None:
        await super().sleep(min(seconds, 0.01))

    def timeout(self, seconds: float | None) -> Timeout:
        return super().timeout(PATIENCE if self.patient else seconds)


class Watched:
    """A ledger, and what it tells."""

    def __init__(self, url: str) -> None:
        self.clock = Eager()
        self.ledger = RedisLedger(url, clock=self.clock, dice=random.random)
        self.changes: list[bool] = []
        self.heard: list[str] = []
        self.ledger.listen(self.heard.append, self.changes.append)

    async def ask(self, account: str, after: Position = BEGINNING, call: str | None = None) -> Read:
        [read] = await self.ledger.ask([Ask(account, after, ROOM, call or uuid4().hex, ONE)])
        return read

    async def write(self, event: Event) -> None:
        """Return once it is written, and the ledger has been told so: it reads on the same connection."""
        self.ledger.write("a", event)
        while event not in [entry.event for entry in (await self.ledger.read("a", BEGINNING)).entries]:
            await CLOCK.sleep(0.002)

    async def back(self) -> None:
        await until(lambda: self.changes == [True, False])


@pytest.fixture(params=["valkey", "redis6"])
def server(
    request: pytest.FixtureRequest, redis_server: Callable[..., AbstractContextManager[Server]]
) -> Iterator[Server]:
    with redis_server(request.param) as running:
        yield running


@pytest.fixture
def newest(redis_server: Callable[..., AbstractContextManager[Server]]) -> Iterator[Server]:
    with redis_server("valkey") as running:
        yield running


@pytest.fixture
async def make() -> AsyncIterator[Callable[[str], Watched]]:
    made: list[Watched] = []

    def make(url: str) -> Watched:
        made.append(Watched(url))
        return made[-1]

    yield make
    for watched in made:
        await watched.ledger.close()


def pause(server: Server) -> None:
    os.kill(server._process.pid, signal.SIGSTOP)  # pyright: ignore[reportPrivateUsage]


def go_on(server: Server) -> None:
    os.kill(server._process.pid, signal.SIGCONT)  # pyright: ignore[reportPrivateUsage]


async def test_nobody_listens_before_the_server_has_heard_of_it(server: Server) -> None:
    link, began = Link(server.url, Eager()), asyncio.Event()
    pause(server)
    listening = asyncio.create_task(link.listen("signs", began.set, lambda _: None))
    try:
        await CLOCK.sleep(0.1)  # enough for all that this process does by itself
        assert not began.is_set()
        go_on(server)
        async with CLOCK.timeout(PATIENCE):
            await began.wait()
        assert server.command("PUBLISH", "signs", "one") == b":1\r\n"  # to so many who listen
    finally:
        go_on(server)
        listening.cancel()
        await asyncio.wait([listening])


async def test_a_store_that_is_gone_is_told_at_once_and_what_is_written_meanwhile_is_written_when_it_is_back(
    server: Server, make: Callable[[str], Watched]
) -> None:
    one = make(server.url)
    assert (await one.ask("a")).taken
    await one.write(Waiting(ONE, 0))
    await until(lambda: one.heard)
    server.kill()
    one.ledger.write("a", Resting(1.0))
    with pytest.raises(StoreLostError):
        await one.ask("a")
    assert one.ledger.lost
    with pytest.raises(StoreLostError, match="is lost"):
        await one.ledger.read("a", BEGINNING)
    events: list[Event] = [Gone(), Waiting(ONE, 3), Taken("c1", ONE)]
    events.extend(Settled(f"c{number}", ONE) for number in range(1200))
    for event in events:
        one.ledger.write("a", event)
    server.start()
    await one.back()
    assert not one.ledger.lost
    found = [entry.event for entry in (await make(server.url).ledger.read("a", BEGINNING)).entries]
    assert found[0] == Resting(1.0)
    assert isinstance(found[1], Settled)  # the ask that may have been heard is taken back
    assert found[2:] == events
    heard = len(one.heard)
    wake = ("PUBLISH", f"llm:wake:{one.ledger.process}", "{llm:a}:log")
    await until(lambda: server.command(*wake) and len(one.heard) > heard)  # it listens again


async def test_a_log_that_was_lost_is_told_to_all_and_takes_nothing_until_others_could_say_what_they_know(
    server: Server, make: Callable[[str], Watched]
) -> None:
    one, other, newcomer = (make(server.url) for _ in range(3))
    after = (await one.ask("a")).upto
    behind = (await other.ask("a")).upto
    other.ledger.write("a", Waiting(ONE, 0))
    behind = (await other.ledger.read("a", behind)).upto
    server.command("FLUSHALL")
    read = await one.ask("a", after)
    assert (read.taken, read.afresh, list(read.entries)) == (False, True, [])
    assert 0.5 < read.wait <= 1.0
    standing = Standing({"rpm": ((1.0, 2.0),)}, upto=read.upto)
    one.ledger.write("a", standing)
    read = await one.ask("a", read.upto)
    assert (read.taken, read.afresh) == (False, False)
    assert [entry.event for entry in read.entries] == [standing]
    assert (await newcomer.ask("a")).wait > 0
    late = await other.ask("a", behind)
    assert (late.taken, late.afresh) == (False, True)
    assert [entry.event for entry in late.entries] == [standing]
    late = await other.ledger.read("a", late.upto)
    assert [entry.event for entry in late.entries] == [Waiting(ONE, 0)]  # it stands in line anew
    server.command("HSET", "{llm:a}:state", "grace", "1")  # as if that time was over
    assert (await other.ask("a", late.upto)).taken
    assert (await one.ask("a", (await one.ask("a", read.upto)).upto)).taken


async def test_a_log_that_newcomers_began_is_used_at_once(server: Server, make: Callable[[str], Watched]) -> None:
    one, other = make(server.url), make(server.url)
    after = (await one.ask("a")).upto
    server.command("FLUSHALL")
    assert (await other.ask("a")).taken
    read = await one.ask("a", after)
    assert (read.taken, read.afresh, read.wait) == (False, True, 0.0)
    assert len(read.entries) == 1


async def test_a_log_whose_end_is_lost_is_known_for_one(server: Server, make: Callable[[str], Watched]) -> None:
    one = make(server.url)
    await one.ask("a")
    after = (await one.ask("a")).upto
    server.command("XDEL", "{llm:a}:log", after)
    assert (await one.ask("a", after)).afresh
    ahead = f"{int(after.partition('-')[0]) + 1000}-0"
    assert (await one.ask("a", ahead)).afresh


async def test_a_server_that_does_not_answer_is_lost_in_a_second_and_what_it_hears_late_does_not_count(
    newest: Server, make: Callable[[str], Watched]
) -> None:
    one, other = make(newest.url), make(newest.url)
    await one.ask("a", call="before")
    pause(newest)
    one.clock.patient = False
    began = CLOCK.now()
    try:
        with pytest.raises(StoreLostError):
            await one.ask("a", call="late")
        assert 0.9 < CLOCK.now() - began < PATIENCE / 2
    finally:
        go_on(newest)
        one.clock.patient = True
    await one.back()
    events = [entry.event for entry in (await other.ledger.read("a", BEGINNING)).entries]
    assert events[0] == Taken("before", ONE)
    assert newest.command("HGET", "{llm:a}:state", f"void:{one.ledger.process}") == b"$1\r\n2\r\n"
    # Heard too late, or taken back: in no case is it left there.
    assert events[1:] in ([Settled("late", NOTHING)], [Taken("late", ONE), Settled("late", NOTHING)])


async def test_an_ask_that_comes_after_it_was_taken_back_takes_nothing(
    server: Server, make: Callable[[str], Watched]
) -> None:
    one = make(server.url)
    await one.ask("a", call="x")
    server.command("HSET", "{llm:a}:state", f"void:{one.ledger.process}", "2")
    assert not (await one.ask("a", call="y")).taken
    assert (await one.ask("a", call="z")).taken


async def test_a_cancelled_ask_is_taken_back_whenever_that_was(server: Server, make: Callable[[str], Watched]) -> None:
    one = make(server.url)
    after = (await one.ask("a")).upto
    cancelled: set[str] = set()
    for turns in range(12):
        asking = asyncio.create_task(one.ask("a", call=f"c{turns}"))
        for _ in range(turns):
            await CLOCK.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
        if asking.cancelled():
            cancelled.add(f"c{turns}")
    taken, given = set[str](), dict[str, object]()
    async with CLOCK.timeout(PATIENCE):
        while not given or taken & cancelled != set(given):
            await CLOCK.sleep(0.05)
            entries = (await one.ledger.read("a", after)).entries
            taken = {entry.event.call for entry in entries if isinstance(entry.event, Taken)}
            given = {entry.event.call: entry.event.used for entry in entries if isinstance(entry.event, Settled)}
    assert set(given.values()) == {NOTHING}


async def test_an_ask_whose_answer_is_on_its_way_is_taken_back_when_it_is_cancelled(
    server: Server, make: Callable[[str], Watched]
) -> None:
    one = make(server.url)
    after = (await one.ask("a")).upto
    pause(server)
    asking = asyncio.create_task(one.ask("a", call="x"))
    for _ in range(10):
        await CLOCK.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()
    go_on(server)
    read = await one.ledger.read("a", after)
    assert [entry.event for entry in read.entries] == [Taken("x", ONE), Settled("x", NOTHING)]
    assert one.changes == []


async def test_nothing_is_left_where_it_is_closed_while_the_store_is_lost_or_does_not_answer(
    newest: Server, make: Callable[[str], Watched]
) -> None:
    lost, waiting, never = (make(newest.url) for _ in range(3))
    await waiting.ask("a")
    await waiting.write(Waiting(ONE, 0))
    await until(lambda: waiting.heard)
    pause(newest)
    for each in (lost, waiting, never):
        each.clock.patient = False
    asking = asyncio.create_task(waiting.ask("a"))
    await CLOCK.sleep(0.01)
    began = CLOCK.now()
    await waiting.ledger.close()
    with pytest.raises(StoreLostError):
        await asking
    await never.ledger.close()
    newest.kill()
    with pytest.raises(StoreLostError):
        await lost.ask("a")
    lost.ledger.write("a", Waiting(ONE, 0))
    await lost.ledger.close()
    assert CLOCK.now() - began < PATIENCE / 2
    assert lost.changes == [True]
    assert never.changes == []


async def test_closing_can_be_cancelled_and_leaves_nothing(newest: Server, make: Callable[[str], Watched]) -> None:
    one = make(newest.url)
    await one.ask("a")
    pause(newest)
    one.clock.patient = False
    asking, cancelled = (asyncio.create_task(one.ask("a")) for _ in range(2))
    await CLOCK.sleep(0.01)
    cancelled.cancel()
    closing = asyncio.create_task(one.ledger.close())
    await CLOCK.sleep(0.01)
    closing.cancel()
    await asyncio.wait([closing, asking, cancelled])
    assert isinstance(asking.exception(), StoreLostError)


async def test_a_server_that_refuses_is_a_lost_store_and_the_address_is_never_shown(
    server: Server, make: Callable[[str], Watched], caplog: pytest.LogCaptureFixture
) -> None:
    server.command("CONFIG", "SET", "requirepass", "somebody-else")
    url = f"redis://anna:p%40ss-w0rd@127.0.0.1:{server.port}/0"
    one = make(url)
    with pytest.raises(StoreLostError, match="AuthenticationError") as raised:
        await one.ask("a")
    told = "".join([caplog.text, repr(one.ledger), *traceback.format_exception(raised.value)])
    for secret in (url, "p%40ss-w0rd", "p@ss-w0rd", "anna"):
        assert secret not in told


async def test_a_server_that_cannot_write_is_lost_until_it_can(server: Server, make: Callable[[str], Watched]) -> None:
    one = make(server.url)
    await one.ask("a")
    server.command("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(StoreLostError, match=r"(?i)read only replica"):
        await one.ask("a")
    server.command("REPLICAOF", "NO", "ONE")
    await one.back()
    assert (await one.ask("b")).taken


@pytest.mark.parametrize("url", ["", "http://x", "redis://a:b@c:port/0", "redis://h:1/0?socket_timeout=often"])
def test_an_address_that_is_none_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(LLMConfigurationError, match=r"^limits.url: not the address of a Redis") as raised:
        RedisLedger(url, clock=CLOCK, dice=random.random)
    assert not url or url not in "".join(traceback.format_exception(raised.value))
    assert raised.value.__context__ is None


def test_the_package_is_loaded_when_it_is_used_and_without_it_the_way_to_get_it_is_told(
    fresh_python: Callable[[str], str],
) -> None:
    code = """
import sys
from llm.limits.redis import RedisLedger
from llm.utils.clock import SystemClock
assert "redis" not in sys.modules
sys.modules["redis"] = None
try:
    RedisLedger("redis://localhost", clock=SystemClock(), dice=lambda: 0.5)
except Exception as error:
    print(type(error).__name__, error, error.__cause__)
"""
    told = fresh_python(code)
    assert told.startswith("LLMConfigurationError limits.store: redis needs redis, which is not installed; type: pip")


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
def test_of_too_many_events_the_oldest_are_forgotten() -> None:
    book = Book("a", "me", print)
    for number in range(100_002):
        book.put(Settled(str(number), ONE))
    assert book.queued == 100_000
    assert b'["S","me","2",0,0,1,0.0,1]' in book.writing()[1]
    book.unsent()
    assert book.queued == 100_000
