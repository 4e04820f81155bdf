from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
from tests.patience import PATIENCE, until

from llm.cache import CacheBackend, InMemoryCache, RedisCache
from llm.cache.base import CacheUsage, Invalidating, Peeking
from llm.cache.levels import TwoLevels
from llm.testing import FakeClock
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
    from contextlib import AbstractContextManager

    from tests.conftest import RedisServer

    from llm.cache.base import CacheEntry

CLOCK = SystemClock()


@pytest.fixture(scope="module")
def running(redis_server: Callable[..., AbstractContextManager[RedisServer]]) -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


class Process:
    """What one process has: memory over Redis."""

    def __init__(self, url: str) -> None:
        self.near = InMemoryCache(max_entries=100, max_bytes=10_000)
        self.far = RedisCache(url, max_entries=100, max_bytes=10_000)
        self.cache = TwoLevels(self.near, self.far)

    async def begin(self) -> None:
        await self.cache.exists("-")
        await until(self.far.in_touch)


@pytest.fixture
async def start(running: RedisServer) -> AsyncIterator[Callable[..., Process]]:
    running.command("FLUSHALL")
    async with AsyncExitStack() as stack:

        def begin(url: str = running.url) -> Process:
            process = Process(url)
            stack.push_async_callback(process.cache.close)
            return process

        yield begin


@pytest.fixture
async def two(start: Callable[..., Process]) -> tuple[Process, Process]:
    one, other = start(), start()
    await one.begin()
    await other.begin()
    return one, other


def value(entry: CacheEntry | None) -> bytes | None:
    return None if entry is None else entry.value


async def test_it_is_a_backend_that_can_be_peeked_at(two: tuple[Process, Process]) -> None:
    assert isinstance(two[0].cache, CacheBackend)
    assert isinstance(two[0].cache, Peeking)
    assert isinstance(two[0].far, Invalidating)


async def test_what_was_put_or_found_is_answered_from_memory_with_its_age_and_tags(
    two: tuple[Process, Process],
) -> None:
    one, other = two
    await one.cache.put("a", b"1", ttl=60, tags=["t"])
    assert value(one.cache.peek("a")) == b"1"
    assert other.cache.peek("a") is None
    await CLOCK.sleep(0.05)
    found = await other.cache.get("a")
    near = other.cache.peek("a")
    assert found is not None
    assert near is not None
    assert (near.value, near.tags, near.ttl) == (b"1", ("t",), 60)
    assert 0.04 < found.age <= near.age < 5
    assert value(await other.cache.get("a")) == b"1"
    assert await other.cache.exists("a")
    await one.cache.put("b", b"2", ttl=60)
    assert {key: entry.value for key, entry in (await other.cache.get_many("abc")).items()} == {"a": b"1", "b": b"2"}
    assert value(other.cache.peek("b")) == b"2"
    assert list(await other.cache.get_many("ab")) == ["a", "b"]


async def test_what_one_removes_all_forget(two: tuple[Process, Process]) -> None:
    one, other = two
    for key in "abc":
        await one.cache.put(key, b"1", ttl=60, tags=[f"user:{key}"])
    await other.cache.get_many("abc")
    assert await one.cache.delete("a")
    assert one.cache.peek("a") is None
    await until(lambda: other.cache.peek("a") is None)
    assert value(other.cache.peek("b")) == b"1"
    assert await one.cache.remove(tags=["user:b"]) == 1
    assert one.cache.peek("b") is None
    await until(lambda: other.cache.peek("b") is None)
    assert value(await other.cache.get("c")) == b"1"
    await one.cache.clear()
    await until(lambda: other.cache.peek("c") is None)
    assert await other.cache.get("c") is None
    assert await other.cache.usage() == CacheUsage(0, 0)


async def test_what_one_replaces_all_read_anew(two: tuple[Process, Process]) -> None:
    one, other = two
    await one.cache.put("a", b"1", ttl=60)
    await other.cache.get("a")
    await one.cache.put("a", b"2", ttl=60)
    assert value(one.cache.peek("a")) == b"2"
    await until(lambda: other.cache.peek("a") is None)
    assert value(await other.cache.get("a")) == b"2"
    await other.cache.put("a", b"3", ttl=0)
    assert other.cache.peek("a") is None
    assert [key async for key, _ in one.cache.scan()] == []


async def test_when_the_connection_breaks_memory_is_emptied_and_is_used_again_later(
    redis_server: Callable[..., AbstractContextManager[RedisServer]],
    start: Callable[..., Process],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "llm.cache")
    with redis_server() as server:
        one = start(server.url)
        await one.begin()
        await one.cache.put("a", b"1", ttl=60)
        assert value(one.cache.peek("a")) == b"1"
        server.kill()
        await until(lambda: not one.far.in_touch())
        assert one.near.peek("a") is None
        with pytest.raises(ConnectionError):
            await one.cache.put("a", b"1", ttl=60)
        server.start()
        await until(one.far.in_touch)
        assert one.cache.peek("a") is None
    assert [record.getMessage()[:40] for record in caplog.records] == ["the connection that tells what other pro"]


async def test_a_connection_that_only_listens_and_was_cut_is_noticed(
    two: tuple[Process, Process], running: RedisServer
) -> None:
    one, other = two
    await one.cache.put("a", b"1", ttl=60)
    found = re.findall(rb"id=(\d+)[^\n]* sub=1 ", running.command("CLIENT", "LIST", "TYPE", "pubsub"))
    assert len(found) == 2
    for client in found:
        running.command("CLIENT", "KILL", "ID", client.decode())
    await until(lambda: not one.far.in_touch() and not other.far.in_touch())
    assert one.near.peek("a") is None
    await until(lambda: one.far.in_touch() and other.far.in_touch())


class Held(InMemoryCache):
    """A far level of this process alone, whose changes and answers a test holds back."""

    def __init__(self) -> None:
        super().__init__()
        self.begin = asyncio.Event()
        self.begin.set()
        self.go = asyncio.Event()
        self.go.set()
        self.broken = False

    async def delete(self, key: str) -> bool:
        await self.begin.wait()
        return await super().delete(key)

    async def remove(self, *, tags: Iterable[str] = (), older_than: float = 0.0) -> int:
        await self.begin.wait()
        return await super().remove(tags=tags, older_than=older_than)

    async def clear(self) -> None:
        await self.begin.wait()
        await super().clear()

    async def get_many(self, keys: Iterable[str]) -> dict[str, CacheEntry]:
        found = await super().get_many(keys)
        await self.go.wait()
        return found

    async def put(self, key: str, value: bytes, *, ttl: float, tags: Iterable[str] = ()) -> None:
        if self.broken:
            raise ConnectionError("gone")
        await self.begin.wait()
        await super().put(key, value, ttl=ttl, tags=tags)
        await self.go.wait()


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def levels(held: Held) -> TwoLevels:
    return TwoLevels(InMemoryCache(), held)


async def test_a_far_level_that_nobody_shares_needs_no_word_of_others(levels: TwoLevels, held: Held) -> None:
    await held.put("a", b"1", ttl=60)
    assert levels.peek("a") is None
    assert value(await levels.get("a")) == b"1"
    assert value(levels.peek("a")) == b"1"
    assert await levels.get("b") is None


def change(levels: TwoLevels, how: str) -> asyncio.Task[object]:
    changes: dict[str, Callable[[], Coroutine[object, object, object]]] = {
        "put": lambda: levels.put("a", b"new", ttl=60),
        "delete": lambda: levels.delete("a"),
        "remove": levels.remove,
        "clear": levels.clear,
    }
    return asyncio.create_task(changes[how]())


@pytest.mark.parametrize("how", ["put", "delete", "remove", "clear"])
async def test_what_changed_while_it_was_read_is_not_kept_near(levels: TwoLevels, held: Held, how: str) -> None:
    await held.put("a", b"old", ttl=60)
    held.go.clear()
    reading = asyncio.create_task(levels.get("a"))
    await CLOCK.sleep(0)
    changing = change(levels, how)
    await CLOCK.sleep(0)
    held.go.set()
    assert value(await reading) == b"old"
    await changing
    assert value(levels.peek("a")) == (b"new" if how == "put" else None)


@pytest.mark.parametrize("how", ["put", "delete", "remove", "clear"])
async def test_what_was_read_while_it_changed_does_not_stay_near(levels: TwoLevels, held: Held, how: str) -> None:
    await held.put("a", b"old", ttl=60)
    held.begin.clear()
    changing = change(levels, how)
    await CLOCK.sleep(0)
    assert value(await levels.get("a")) == b"old"
    held.begin.set()
    await changing
    assert levels.peek("a") is None
    assert value(await levels.get("a")) == (b"new" if how == "put" else None)


class Shared(Held):
    """A far level that hears others when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.hears = False
        self.listeners: list[Callable[[str | None], None]] = []

    def listen(self, forget: Callable[[str | None], None]) -> None:
        self.listeners.append(forget)

    def in_touch(self) -> bool:
        return self.hears


async def test_while_others_are_not_heard_memory_is_not_used() -> None:
    far = Shared()
    levels = TwoLevels(InMemoryCache(), far)
    await levels.put("a", b"1", ttl=60)
    assert levels.peek("a") is None
    await far.put("a", b"2", ttl=60)
    assert value(await levels.get("a")) == b"2"
    far.hears = True
    [forget] = far.listeners
    forget(None)
    assert value(await levels.get("a")) == b"2"
    assert value(levels.peek("a")) == b"2"


async def test_writes_of_other_keys_keep_nothing_out_of_memory(levels: TwoLevels, held: Held) -> None:
    held.go.clear()
    async with asyncio.TaskGroup() as tasks:
        for key in "abc":
            tasks.create_task(levels.put(key, b"1", ttl=60))
        await CLOCK.sleep(0)
        held.go.set()
    assert [value(levels.peek(key)) for key in "abc"] == [b"1", b"1", b"1"]


async def test_what_could_not_be_put_far_is_not_near_either(levels: TwoLevels, held: Held) -> None:
    await levels.put("a", b"1", ttl=60)
    held.broken = True
    with pytest.raises(ConnectionError):
        await levels.put("a", b"2", ttl=60)
    assert levels.peek("a") is None


async def test_memory_holds_an_entry_no_longer_than_its_time() -> None:
    clock = FakeClock()
    far = InMemoryCache(clock=clock)
    levels = TwoLevels(InMemoryCache(clock=clock), far)
    await far.put("a", b"1", ttl=60)
    await clock.advance(50)
    assert value(await levels.get("a")) == b"1"
    await clock.advance(9)
    assert value(levels.peek("a")) == b"1"
    await clock.advance(1)
    assert levels.peek("a") is None


async def test_a_server_that_is_silent_does_not_stop_the_near_level_from_ending(
    two: tuple[Process, Process], running: RedisServer
) -> None:
    one, _ = two
    found = re.search(rb"process_id:(\d+)", running.command("INFO", "server"))
    assert found is not None
    os.kill(int(found[1]), signal.SIGSTOP)
    try:
        async with CLOCK.timeout(PATIENCE / 2):
            await one.cache.close()
    finally:
        os.kill(int(found[1]), signal.SIGCONT)
