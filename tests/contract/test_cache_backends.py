"""What every cache backend promises; a new backend is one more parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm.cache import CacheBackend, DiskCache, InMemoryCache, RedisCache
from llm.cache.base import CacheUsage
from llm.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.conftest import RedisServer

pytestmark = pytest.mark.usefixtures("patient_cache")

MAX_ENTRIES, MAX_BYTES = 8, 800


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="module")
def servers(redis_server: Callable[..., AbstractContextManager[RedisServer]]) -> Iterator[dict[str, RedisServer]]:
    with redis_server("valkey") as newest, redis_server("redis6") as oldest:
        yield {"valkey": newest, "redis6": oldest}


@pytest.fixture
def of_memory(clock: FakeClock) -> CacheBackend:
    return InMemoryCache(max_entries=MAX_ENTRIES, max_bytes=MAX_BYTES, clock=clock)


@pytest.fixture
def of_disk(clock: FakeClock, tmp_path: Path) -> CacheBackend:
    return DiskCache(tmp_path / "cache", max_entries=MAX_ENTRIES, max_bytes=MAX_BYTES, clock=clock)


@pytest.fixture
def of_valkey(servers: dict[str, RedisServer], clock: FakeClock) -> CacheBackend:
    servers["valkey"].command("FLUSHALL")
    return RedisCache(servers["valkey"].url, max_entries=MAX_ENTRIES, max_bytes=MAX_BYTES, clock=clock)


@pytest.fixture
def of_redis6(servers: dict[str, RedisServer], clock: FakeClock) -> CacheBackend:
    servers["redis6"].command("FLUSHALL")
    return RedisCache(servers["redis6"].url, max_entries=MAX_ENTRIES, max_bytes=MAX_BYTES, clock=clock)


@pytest.fixture(params=["memory", "disk", "valkey", "redis6"])
async def cache(request: pytest.FixtureRequest) -> AsyncIterator[CacheBackend]:
    backend: CacheBackend = request.getfixturevalue(f"of_{request.param}")
    yield backend
    await backend.close()


async def test_it_is_a_cache_backend(cache: CacheBackend) -> None:
    assert isinstance(cache, CacheBackend)


async def test_nothing_is_there_that_was_not_put(cache: CacheBackend) -> None:
    assert await cache.get("a") is None
    assert not await cache.exists("a")
    assert not await cache.delete("a")
    assert await cache.get_many(["a", "b"]) == {}


@pytest.mark.parametrize("value", [b"", b"\x00\xff\n", "Straße ☃".encode(), b"x" * 800])
async def test_the_bytes_come_back_as_they_were_put(cache: CacheBackend, value: bytes) -> None:
    await cache.put("a", value, ttl=60)
    entry = await cache.get("a")
    assert entry is not None
    assert (entry.value, entry.size, entry.ttl) == (value, len(value), 60)
    assert await cache.exists("a")


async def test_an_entry_knows_its_age_and_its_tags(cache: CacheBackend, clock: FakeClock) -> None:
    await cache.put("a", b"1", ttl=60, tags=["model:m", "user:u"])
    await clock.advance(12.5)
    entry = await cache.get("a")
    assert entry is not None
    assert entry.age == pytest.approx(12.5)
    assert entry.tags == ("model:m", "user:u")


async def test_an_entry_ends_with_its_time_to_live_for_every_method(cache: CacheBackend, clock: FakeClock) -> None:
    await cache.put("short", b"1", ttl=10)
    await cache.put("long", b"2", ttl=20)
    await clock.advance(10)
    assert await cache.get("short") is None
    assert not await cache.exists("short")
    assert list(await cache.get_many(["short", "long"])) == ["long"]
    assert not await cache.delete("short")
    assert await cache.exists("long")


async def test_a_second_put_replaces_value_age_and_time_to_live(cache: CacheBackend, clock: FakeClock) -> None:
    await cache.put("a", b"1", ttl=10, tags=["old"])
    await clock.advance(9)
    await cache.put("a", b"2", ttl=10)
    await clock.advance(9)
    entry = await cache.get("a")
    assert entry is not None
    assert (entry.value, entry.tags) == (b"2", ())
    assert entry.age == pytest.approx(9)


@pytest.mark.parametrize("ttl", [0, -1])
async def test_no_time_to_live_removes_what_is_there(cache: CacheBackend, ttl: float) -> None:
    await cache.put("a", b"1", ttl=60)
    await cache.put("a", b"2", ttl=ttl)
    assert await cache.get("a") is None


async def test_deleted_is_gone_and_others_stay(cache: CacheBackend) -> None:
    await cache.put("a", b"1", ttl=60)
    await cache.put("b", b"2", ttl=60)
    assert await cache.delete("a")
    assert not await cache.delete("a")
    assert await cache.get("a") is None
    assert await cache.exists("b")


async def test_get_many_returns_what_is_there(cache: CacheBackend) -> None:
    for key in "abc":
        await cache.put(key, key.encode(), ttl=60)
    found = await cache.get_many(iter(["a", "c", "z"]))
    assert {key: entry.value for key, entry in found.items()} == {"a": b"a", "c": b"c"}


async def test_cleared_is_empty_and_works_on(cache: CacheBackend) -> None:
    await cache.put("a", b"1", ttl=60)
    await cache.clear()
    assert await cache.get("a") is None
    await cache.put("a", b"2", ttl=60)
    assert await cache.exists("a")


async def test_it_holds_no_more_entries_than_its_bound_and_drops_the_least_used(cache: CacheBackend) -> None:
    for n in range(8):
        await cache.put(str(n), b"1", ttl=60)
    await cache.get("0")
    await cache.put("8", b"1", ttl=60)
    assert await cache.exists("0")
    assert not await cache.exists("1")
    assert len(await cache.get_many(map(str, range(9)))) == 8


async def test_it_holds_no_more_bytes_than_its_bound(cache: CacheBackend) -> None:
    for n in range(4):
        await cache.put(str(n), b"x" * 300, ttl=60)
        held = await cache.get_many(map(str, range(4)))
        assert sum(entry.size for entry in held.values()) <= 800
    assert await cache.exists("3")


async def test_what_is_larger_than_the_cache_is_not_kept_nor_is_what_it_replaced(cache: CacheBackend) -> None:
    await cache.put("a", b"1", ttl=60)
    await cache.put("b", b"2", ttl=60)
    await cache.put("a", b"x" * 801, ttl=60)
    assert await cache.get("a") is None
    assert await cache.exists("b")


async def test_a_scan_finds_what_carries_all_tags_and_is_old_enough(cache: CacheBackend, clock: FakeClock) -> None:
    await cache.put("a", b"1", ttl=60, tags=["model:m", "user:u"])
    await clock.advance(10)
    await cache.put("b", b"2", ttl=60, tags=["model:m"])
    await cache.put("short", b"3", ttl=5, tags=["model:m"])
    await clock.advance(5)
    assert {key: entry.value async for key, entry in cache.scan()} == {"a": b"1", "b": b"2"}
    assert [key async for key, _ in cache.scan(tags=["model:m", "user:u"])] == ["a"]
    assert [key async for key, _ in cache.scan(older_than=15)] == ["a"]
    [entry] = [entry async for _, entry in cache.scan(tags=["user:u"])]
    assert (entry.ttl, entry.tags) == (60, ("model:m", "user:u"))
    assert entry.age == pytest.approx(15)
    assert [key async for key, _ in cache.scan(tags=["model:other"])] == []


async def test_a_scan_is_no_use(cache: CacheBackend) -> None:
    for n in range(8):
        await cache.put(str(n), b"1", ttl=60)
    assert len([key async for key, _ in cache.scan()]) == 8
    await cache.put("8", b"1", ttl=60)
    assert not await cache.exists("0")


async def test_a_scan_goes_on_when_what_it_comes_to_is_removed_meanwhile(cache: CacheBackend) -> None:
    for n in range(8):
        await cache.put(str(n), b"1", ttl=60)
    seen: list[str] = []
    async for key, _ in cache.scan():
        seen.append(key)
        await cache.clear()
    assert 1 <= len(seen) == len(set(seen))


async def test_remove_takes_out_what_carries_all_tags_and_is_old_enough(cache: CacheBackend, clock: FakeClock) -> None:
    await cache.put("a", b"1", ttl=60, tags=["model:m", "user:u"])
    await cache.put("b", b"2", ttl=60, tags=["model:m"])
    await clock.advance(10)
    await cache.put("c", b"3", ttl=60, tags=["model:m"])
    assert await cache.remove(tags=["model:m", "user:u"]) == 1
    assert await cache.remove(tags=["model:m"], older_than=10) == 1
    assert [key async for key, _ in cache.scan()] == ["c"]
    assert await cache.remove() == 1
    assert await cache.remove() == 0


async def test_usage_counts_what_is_there(cache: CacheBackend, clock: FakeClock) -> None:
    assert await cache.usage() == CacheUsage(0, 0)
    await cache.put("a", b"12345", ttl=10)
    await cache.put("b", b"123", ttl=20)
    assert (await cache.usage()).entries == 2
    await clock.advance(10)
    usage = await cache.usage()
    assert usage.entries == 1
    assert usage.bytes >= 3


async def test_closing_twice_is_fine(cache: CacheBackend) -> None:
    await cache.close()
    await cache.close()
