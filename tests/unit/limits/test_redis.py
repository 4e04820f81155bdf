"""The ledger on real servers, the newest and the oldest that is supported."""

from __future__ import annotations

import asyncio
import math
import random
from functools import partial
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

import pytest
from tests.patience import PATIENCE, until

from llm.core.call import Charge
from llm.limits.ledger import (
    BEGINNING,
    Ask,
    Entry,
    Gone,
    Position,
    Read,
    Resting,
    Room,
    Running,
    Settled,
    Standing,
    StoreLostError,
    Taken,
    Waiting,
)
from llm.limits.redis import RedisLedger
from llm.limits.redis.book import key_of
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractContextManager

    from llm.utils.clock import Timeout, Timer

NOTHING = Charge(requests=0)
ONE = Charge(total_tokens=1)


class Server(Protocol):
    url: str

    def command(self, *words: str) -> bytes: ...


class Patient(SystemClock):
    """An answer may take long, and the next sign of life, which finds what was missed, comes later than a test ends."""

    def timeout(self, seconds: float | None) -> Timeout:
        del seconds
        return super().timeout(PATIENCE)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        return super().call_later(seconds * 100, callback)


class Hasty(Patient):
    """Its timers are due a hundred times sooner."""

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        return SystemClock.call_later(self, seconds / 100, callback)


@pytest.fixture(scope="module", params=["valkey", "redis6"])
def server(
    request: pytest.FixtureRequest, redis_server: Callable[..., AbstractContextManager[Server]]
) -> Iterator[Server]:
    with redis_server(request.param) as running:
        yield running


@pytest.fixture(scope="module")
def cluster(redis_server: Callable[..., AbstractContextManager[Server]]) -> Iterator[Server]:
    with redis_server("valkey", cluster=True) as running:
        yield running


@pytest.fixture
def account() -> str:
    return uuid4().hex


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., RedisLedger]]:
    """Makes a ledger as another process would have it."""
    made: list[RedisLedger] = []

    def make(server: Server, clock: SystemClock | None = None) -> RedisLedger:
        made.append(RedisLedger(server.url, clock=clock or Patient(), dice=random.random))
        return made[-1]

    yield make
    for ledger in made:
        await ledger.close()


class Copy:
    """A process' copy of an account that has `capacity` of tokens, once and for all."""

    def __init__(
        self, ledger: RedisLedger, account: str, capacity: float = math.inf, running: float = math.inf
    ) -> None:
        self.ledger, self.account, self.capacity, self.most = ledger, account, capacity, running
        self.after: Position = BEGINNING
        self.taken: dict[str, int] = {}
        self.running: set[str] = set()
        self.entries: list[Entry] = []

    def room(self) -> Room:
        tokens = self.capacity - sum(self.taken.values())
        return Room(math.inf, math.inf, tokens, math.inf, math.inf, self.most - len(self.running))

    def know(self, read: Read) -> None:
        self.after = read.upto
        self.entries.extend(read.entries)
        for entry in read.entries:
            match entry.event:
                case Taken(call, charge):
                    self.taken[call] = charge.total_tokens
                    self.running.add(call)
                case Settled(call, used) if call in self.taken:
                    self.taken[call] = used.total_tokens
                    self.running.discard(call)
                case _:
                    pass

    def asking(self, tokens: int = 1, call: str | None = None) -> Ask:
        return Ask(self.account, self.after, self.room(), call or uuid4().hex, Charge(total_tokens=tokens))

    async def ask(self, tokens: int = 1, call: str | None = None) -> Read:
        [read] = await self.ledger.ask([self.asking(tokens, call)])
        self.know(read)
        return read

    async def read(self) -> Read:
        read = await self.ledger.read(self.account, self.after)
        self.know(read)
        return read

    @property
    def events(self) -> list[object]:
        return [entry.event for entry in self.entries]


async def written(ledger: RedisLedger) -> None:
    """Return when all that was given to the ledger is written."""
    await ledger.read(uuid4().hex, BEGINNING)


def evaluations(server: Server) -> int:
    told = server.command("INFO", "commandstats").decode()
    return sum(int(line.split("calls=")[1].split(",")[0]) for line in told.split() if line.startswith("cmdstat_eval"))


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
async def test_processes_that_know_little_never_take_more_than_there_is(
    server: Server, account: str, make: Callable[..., RedisLedger]
) -> None:
    copies = [Copy(make(server), account, capacity=300) for _ in range(8)]

    async def take_all(copy: Copy) -> None:
        while copy.room().total_tokens >= 7:
            await copy.ask(7)

    async with asyncio.TaskGroup() as tasks:
        for copy in copies:
            tasks.create_task(take_all(copy))
    late = Copy(make(server), account)
    await late.read()
    assert sum(late.taken.values()) == 294
    assert {entry.process for entry in late.entries} == {copy.ledger.process for copy in copies}
    for copy in copies:
        await copy.read()
        assert [entry.at for entry in copy.entries] == [entry.at for entry in late.entries]
        assert copy.events == late.events
    assert late.ledger.processes == 9


async def test_each_amount_is_counted_since_the_copy_was_read(
    server: Server, account: str, make: Callable[..., RedisLedger]
) -> None:
    one, other = Copy(make(server), account), Copy(make(server), account)
    await one.read()
    await other.ledger.ask([Ask(account, BEGINNING, other.room(), "x", Charge(10, 20, 30, 0.5, 2))])
    mine, enough = Charge(1, 2, 3, 0.25, 1), (11, 22, 33, 0.75, 3, 2)
    for at in range(6):
        room = Room(*(amount if at != unit else amount * 0.99 for unit, amount in enumerate(enough)))
        [read] = await one.ledger.ask([Ask(account, one.after, room, f"no{at}", mine)])
        assert not read.taken
        assert [entry.event for entry in read.entries] == [Taken("x", Charge(10, 20, 30, 0.5, 2))]
    [read] = await one.ledger.ask([Ask(account, one.after, Room(*enough), "yes", mine)])
    assert read.taken
    assert read.entries[-1].event == Taken("yes", mine)
    assert read.entries[-1].at == read.upto


async def test_a_place_that_was_given_back_since_counts_only_once_and_only_for_who_took_it_since(
    server: Server, account: str, make: Callable[..., RedisLedger]
) -> None:
    one, other = Copy(make(server), account, running=2), Copy(make(server), account)
    await other.ask(call="before")
    await one.read()
    for event in (Settled("before", ONE), Settled("unknown", ONE)):
        other.ledger.write(account, event)
    for call in ("a", "b"):
        assert (await other.ask(call=call)).taken
        other.ledger.write(account, Settled(call, ONE))
        other.ledger.write(account, Settled(call, ONE))
    assert (await other.ask(call="c")).taken
    [read] = await one.ledger.ask([one.asking()])
    assert not read.taken  # one place is free, but the copy does not know it
    one.know(read)
    assert (await one.ask()).taken


async def test_a_rest_and_a_standing_of_others_must_be_known_before_anything_is_taken(
    server: Server, account: str, make: Callable[..., RedisLedger]
) -> None:
    one, other = Copy(make(server), account), Copy(make(server), account)
    await one.ask()
    other.ledger.write(account, Resting(2.5))
    await written(other.ledger)
    assert not (await one.ask()).taken
    assert one.events[-1] == Resting(2.5)
    assert (await one.ask()).taken
    one.ledger.write(account, Resting(1.0))
    assert (await one.ask()).taken  # its own it knows


async def test_who_stands_in_line_is_counted_before_those_who_come(
    server: Server, account: str, make: Callable[..., RedisLedger]
) -> None:
    one, other = Copy(make(server), account, capacity=10), Copy(make(server), account, capacity=10)
    await one.read()
    other.ledger.write(account, Waiting(Charge(total_tokens=3), 0))
    other.ledger.write(account, Waiting(Charge(total_tokens=8), 0))
    await written(other.ledger)
    assert not (await one.ledger.ask([one.asking(3)]))[0].taken
    assert (await one.ledger.ask([one.asking(2)]))[0].taken
    one.ledger.write(account, Waiting(Charge(total_tokens=3), 0))  # who stands in line knows who is before
    assert (await one.ledger.ask([one.asking(3)]))[0].taken
    assert not (await one.ledger.ask([one.asking(3)]))[0].taken  # having taken, it stands there no more
    other.ledger.write(account, Gone())
    await written(other.ledger)
    assert (await one.ledger.ask([one.asking(3)]))[0].taken


async def test_a_call_takes_of_all_accounts_or_of_none(
    server: Server, account: str, make: Callable[..., RedisLedger]
) -> None:
    ledger = make(server)
    free, full = Copy(ledger, account), Copy(ledger, account + "/full", capacity=0)
    asks = [free.asking(call="c"), full.asking(call="c")]
    reads = await ledger.ask(asks)
    assert [(read.taken, list(read.entries)) for read in reads] == [(False, []), (False, [])]
    assert (await ledger.read(account, reads[0].upto)).entries[0].event == Settled("c", NOTHING)
    full.capacity = 1
    assert [read.taken for read in await ledger.ask([free.asking(), full.asking()])] == [True, True]


async def test_a_decision_is_one_round_trip(server: Server, account: str, make: Callable[..., RedisLedger]) -> None:
    copy = Copy(make(server), account)
    await copy.ask()
    server.command("CONFIG", "RESETSTAT")
    for _ in range(10):
        assert (await copy.ask()).taken
    assert evaluations(server) == 10
    told = server.command("INFO", "commandstats").decode()
    inside = {
        "info",
        "hmget",
        "xadd",
        "xrange",
        "time",
        "evalsha",
        "config|resetstat",
    }
    assert {line.partition(":")[0] for line in told.split() if ":" in line} <= {
        f"cmdstat_{name}" for name in (*inside, "config")
    }


async def test_a_server_that_has_forgotten_the_script_is_told_it_again(
    server: Server, account: str, make: Callable[..., RedisLedger]
) -> None:
    ledger = make(server)
    copies = [Copy(ledger, account + name) for name in "ab"]
    for _ in range(2):
        server.command("SCRIPT", "FLUSH")
        assert all(read.taken for read in await ledger.ask([copy.asking() for copy in copies]))
    server.command("SCRIPT", "FLUSH")
    assert (await copies[0].ask()).taken


async def test_who_takes_stands_in_line_no_more_though_it_was_written_meanwhile(
    server: Server, make: Callable[..., RedisLedger], account: str
) -> None:
    one = Copy(make(server), account)
    await one.read()
    asked = asyncio.create_task(one.ask())
    await SystemClock().sleep(0)
    await SystemClock().sleep(0)  # it is under way
    one.ledger.write(account, Waiting(ONE, 0))
    assert (await asked).taken
    await written(one.ledger)
    await one.read()
    assert one.events[-2:] == [Waiting(ONE, 0), Gone()]
    assert server.command("EXISTS", f"{key_of(account)}:line") == b":0\r\n"


async def test_what_is_given_back_wakes_the_first_in_line_and_nobody_else(
    server: Server, account: str, make: Callable[..., RedisLedger]
) -> None:
    heard: list[str] = []

    def tell(name: str, account: str) -> None:
        heard.append(f"{name} {account}")

    copies = {name: Copy(make(server), account) for name in ("taker", "late", "first", "urgent")}
    for name, copy in copies.items():
        copy.ledger.listen(partial(tell, name), lambda _: None)
    for call in "abc":
        await copies["taker"].ask(call=call)
    for name in ("first", "late"):
        await copies[name].read()
        copies[name].ledger.write(account, Waiting(ONE, 0))
        await written(copies[name].ledger)
    await until(lambda: len(heard) == 2)  # each looks once when it begins to listen
    copies["first"].ledger.write(account, Waiting(Charge(total_tokens=2), 0))  # keeps its place
    await written(copies["first"].ledger)
    heard.clear()
    copies["taker"].ledger.write(account, Settled("a", NOTHING))
    await until(lambda: heard)
    assert heard == [f"first {account}"]
    assert (await copies["first"].ask()).taken
    await until(lambda: len(heard) == 2)
    assert heard[1] == f"late {account}"  # the next may find room as well
    await copies["urgent"].read()
    copies["urgent"].ledger.write(account, Waiting(ONE, 5))
    await until(lambda: len(heard) == 3)
    await written(copies["urgent"].ledger)
    copies["late"].ledger.write(account, Waiting(ONE, 1))
    await written(copies["late"].ledger)
    heard.clear()
    copies["taker"].ledger.write(account, Settled("b", NOTHING))
    await until(lambda: heard)
    copies["urgent"].ledger.write(account, Gone())
    await until(lambda: len(heard) == 2)
    assert heard == [f"urgent {account}", f"late {account}"]


async def test_who_stands_in_line_first_hears_of_what_was_written_while_it_came(
    server: Server, account: str, make: Callable[..., RedisLedger]
) -> None:
    heard: list[str] = []
    one, other = Copy(make(server), account), Copy(make(server), account)
    one.ledger.listen(heard.append, lambda _: None)
    await other.ask(call="x")
    await one.read()
    one.ledger.write(account, Waiting(ONE, 0))
    await until(lambda: heard)
    one.ledger.write(account, Gone())
    await one.read()
    heard.clear()
    other.ledger.write(account, Settled("x", NOTHING))
    await written(other.ledger)
    one.ledger.write(account, Waiting(ONE, 0))
    await written(one.ledger)
    assert heard == [account]


async def test_a_subscription_that_broke_is_made_again_and_nothing_is_missed(
    server: Server, account: str, make: Callable[..., RedisLedger]
) -> None:
    heard: list[str] = []
    one = Copy(make(server), account)
    one.ledger.listen(heard.append, lambda _: None)
    await one.read()
    one.ledger.write(account, Waiting(ONE, 0))
    await until(lambda: heard)
    server.command("CLIENT", "KILL", "TYPE", "pubsub")
    await until(lambda: len(heard) == 2)
    server.command("PUBLISH", f"llm:wake:{one.ledger.process}", "of something unknown")
    server.command("PUBLISH", f"llm:wake:{one.ledger.process}", f"{key_of(account)}:log")
    await until(lambda: len(heard) == 3)
    assert set(heard) == {account}


async def test_a_process_that_is_not_heard_of_gives_back_its_calls_and_its_place_in_line(
    server: Server, account: str, make: Callable[..., RedisLedger]
) -> None:
    heard: list[str] = []
    one, killed = Copy(make(server), account, running=1), Copy(make(server), account)
    one.ledger.listen(heard.append, lambda _: None)
    await killed.ask(call="x")
    killed.ledger.write(account, Waiting(ONE, 1))
    await written(killed.ledger)
    one.ledger.write(account, Waiting(ONE, 0))
    await until(lambda: heard)
    await one.read()
    heard.clear()
    assert one.ledger.processes == 2
    server.command("ZADD", f"{key_of(account)}:alive", "1", killed.ledger.process)
    server.command("HDEL", f"{key_of(account)}:state", "swept")
    await one.read()
    gone = one.entries[-1]
    assert (gone.process, gone.event) == (killed.ledger.process, Gone(dead=True))
    assert one.ledger.processes == 1
    await until(lambda: heard)  # being first now
    # It was not dead, after all: it stands in line anew, and all must know what it runs.
    killed.ledger.write(account, Resting(0.5))
    read = await killed.read()
    assert read.afresh
    standing = Standing({}, (Running("x", killed.ledger.process, ONE),), killed.after)
    killed.ledger.write(account, standing)
    assert not (await killed.read()).afresh
    await one.read()
    assert one.events[-3:] == [Resting(0.5), Waiting(ONE, 1), standing]
    killed.ledger.write(account, standing)
    await written(killed.ledger)
    assert not (await one.read()).entries  # once is enough


async def test_a_process_says_that_it_lives_as_long_as_it_holds_something(
    server: Server, account: str, make: Callable[..., RedisLedger]
) -> None:
    copy = Copy(make(server, Hasty()), account)
    await copy.ask(call="x")
    alive = (f"{key_of(account)}:alive", copy.ledger.process)
    server.command("ZADD", alive[0], "9999999999999", alive[1])
    server.command("HDEL", f"{key_of(account)}:state", f"seen:{alive[1]}")
    await until(lambda: b"9999999999999" not in server.command("ZSCORE", *alive))
    copy.ledger.write(account, Settled("x", ONE))
    await written(copy.ledger)
    for _ in range(20):  # what is on its way comes to its end; who goes on saying so does each time
        server.command("CONFIG", "RESETSTAT")
        await SystemClock().sleep(0.15)
        if not evaluations(server):
            return
    raise AssertionError("it goes on saying that it lives")


def plant(server: Server, account: str, *events: str, version: str = "1") -> None:
    for event in events:
        server.command("XADD", f"{key_of(account)}:log", "*", version, event)


async def test_entries_that_are_none_of_ours_are_skipped_and_told_once(
    server: Server, account: str, make: Callable[..., RedisLedger], caplog: pytest.LogCaptureFixture
) -> None:
    copy = Copy(make(server), account, capacity=10)
    await copy.ask(call="x")
    plant(server, account, "", "{", "null", "[]", '["T"]', '["T",1,2]', "[" * 900, "cos\nsystem\n(S'id'\ntR.")
    plant(
        server, account, '["T","p","c",1,1,"9",0,1]', '["T","p","c",1,1,true,0,1]', '["X","p"]', '["N","p",[],{},"0-0"]'
    )
    plant(server, account, '["T","p","c",1,1,9,0,1]', version="2")
    server.command("XADD", f"{key_of(account)}:log", "*", "foreign", "field", "1", "other")
    read = await copy.ask(9)
    assert not read.taken  # a process that said to know something is to be looked at first
    read = await copy.ask(9)
    assert read.taken
    assert [type(event) for event in copy.events] == [Taken, Taken]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def age(server: Server, account: str, ledger: RedisLedger, *calls: object) -> tuple[str, int]:
    """Plant a log that began ten minutes ago; returns its key and that time."""
    key, began = key_of(account), int(SystemClock().wall() * 1000) - 600_000
    server.command("XADD", f"{key}:log", f"{began}-0", "0", "")
    server.command("HSET", f"{key}:state", "born", f"{began}-0")
    add = "for i = 4, #ARGV do redis.call('XADD', KEYS[1], ARGV[1] .. i - 3, '1', ARGV[2] .. ARGV[i] .. ARGV[3]) end"
    before, behind = f'["T","{ledger.process}","', '",0,0,1,0.0,1]'
    server.command("EVAL", add, "1", f"{key}:log", f"{began}-", before, behind, *map(str, calls))
    return key, began


async def test_who_comes_late_is_told_a_standing_and_who_stands_in_line_in_place_of_what_is_old(
    server: Server, account: str, make: Callable[..., RedisLedger]
) -> None:
    teller, other = make(server), make(server)
    key, began = age(server, account, teller, "a", "b")
    one, slow = Copy(teller, account), Copy(other, account)
    slow.after = f"{began}-1"
    assert not (await slow.ask(call="slow")).afresh
    slow.after = f"{began}-1"
    other.write(account, Waiting(ONE, 0))
    await written(other)
    read = await one.ask(call="c")
    assert not read.wants_standing  # the other was asked
    server.command("HSET", f"{key}:state", "wanted", "1")
    read = await one.ask(call="d")
    assert read.wants_standing
    standing = Standing({"rpm": ((1.5, 4.0),)}, (Running("c", teller.process, ONE),), one.after)
    teller.write(account, standing)
    assert not (await one.ask(call="e")).wants_standing
    assert (await one.read()).entries == []  # it is told to who comes late, and to nobody else
    newcomer = Copy(make(server), account, capacity=10)
    for late in (slow, newcomer):
        late.entries.clear()
        read = await late.ask()
        assert (read.taken, read.afresh, read.upto) == (False, False, one.after)
        assert late.events == [standing, Waiting(ONE, 0), Taken("e", ONE)]
        assert late.entries[0].process == teller.process
        assert late.entries[0].age < 5
    assert (await newcomer.ask()).taken
    assert f"{began}-".encode() not in server.command("XRANGE", f"{key}:log", "-", "+")
    assert server.command("HGET", f"{key}:state", "trimmed") != b"$-1\r\n"
    older = standing._replace(upto=f"{began}-2")
    teller.write(account, older)  # and one that knows less changes nothing
    teller.write(account, standing._replace(upto="9999999999999-0"))
    await written(teller)
    known = [entry.event for entry in (await make(server).read(account, BEGINNING)).entries]
    assert known[0] == standing
    server.command("HSET", f"{key}:state", "standing", "of another hand")
    damaged = (await make(server).read(account, BEGINNING)).entries
    assert [entry.event for entry in damaged] == known[1:]


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
async def test_much_is_read_in_pages_and_nothing_is_taken_before_its_end(
    server: Server, account: str, make: Callable[..., RedisLedger]
) -> None:
    copy = Copy(make(server), account)
    age(server, account, copy.ledger, *range(2500))
    reads = [await copy.ask(call="mine") for _ in range(3)]
    assert [(read.taken, len(read.entries)) for read in reads] == [(False, 1000), (False, 1000), (True, 501)]
    assert len((await copy.ledger.read(account, BEGINNING)).entries) == 2501


async def test_all_that_is_kept_ends_by_itself(server: Server, account: str, make: Callable[..., RedisLedger]) -> None:
    copy = Copy(make(server), account)
    await copy.ask()
    copy.ledger.write(account, Waiting(ONE, 0))
    await written(copy.ledger)
    for name in ("log", "alive", "line", "state"):
        assert int(server.command("TTL", f"{key_of(account)}:{name}")[1:]) > 2 * 24 * 3600


async def test_what_was_asked_twice_is_taken_once(
    server: Server, account: str, make: Callable[..., RedisLedger]
) -> None:
    copy = Copy(make(server), account)
    await copy.read()
    ask = copy.asking(call="x")
    reads = [(await copy.ledger.ask([ask]))[0] for _ in range(2)]
    assert [read.taken for read in reads] == [True, True]
    assert reads[0].upto == reads[1].upto


async def test_any_name_of_an_account_is_one(server: Server, make: Callable[..., RedisLedger]) -> None:
    names = ["a b", "a{b}", "ä", "x" * 500, "", "\ud800", "a\r\nb"]
    keys = [key_of(name) for name in names]
    assert len({*keys}) == len(names)
    assert all(key.startswith("{llm:#") and len(key) < 60 for key in keys)
    copy = Copy(make(server), names[1])
    assert (await copy.ask()).taken


async def test_closing_writes_what_is_to_be_written_and_gives_all_back(
    server: Server, account: str, make: Callable[..., RedisLedger]
) -> None:
    one, other = Copy(make(server), account), Copy(make(server), account)
    await one.ask(call="x")
    one.ledger.write(account, Waiting(ONE, 0))
    one.ledger.write(account, Settled("x", ONE))
    await one.ledger.close()
    await one.ledger.close()
    one.ledger.write(account, Resting(1))
    await other.read()
    assert other.events[1:] == [Waiting(ONE, 0), Settled("x", ONE), Gone(dead=True)]
    assert other.ledger.processes == 1
    with pytest.raises(StoreLostError, match="closed"):
        await one.ask()


async def test_a_cluster_is_found_by_itself_and_does_the_same(
    cluster: Server, account: str, make: Callable[..., RedisLedger]
) -> None:
    heard: list[str] = []
    ledger, other = make(cluster), make(cluster)
    copies = [Copy(ledger, f"{account}{number}", running=1) for number in range(6)]
    for _ in range(2):
        reads = await ledger.ask([copy.asking(call="c") for copy in copies])
        assert all(read.taken for read in reads)
        cluster.command("SCRIPT", "FLUSH")
    name = copies[0].account
    other.listen(heard.append, lambda _: None)
    await other.read(name, BEGINNING)
    other.write(name, Waiting(ONE, 0))
    await until(lambda: heard)
    ledger.write(name, Settled("c", ONE))
    await until(lambda: len(heard) == 2)
    assert other.processes == 2


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
async def test_a_cluster_that_is_full_is_lost_and_comes_back(
    cluster: Server, account: str, make: Callable[..., RedisLedger]
) -> None:
    changes: list[bool] = []
    ledger = make(cluster)
    ledger.listen(lambda _: None, changes.append)
    copies = [Copy(ledger, account + name) for name in "ab"]
    await ledger.ask([copy.asking() for copy in copies])
    cluster.command("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(StoreLostError, match="maxmemory"):
        await ledger.ask([copy.asking() for copy in copies])
    cluster.command("CONFIG", "SET", "maxmemory", "0")
    await until(lambda: changes == [True, False])
    assert all(read.taken for read in await ledger.ask([copy.asking() for copy in copies]))
