from __future__ import annotations

import sys
import threading

import pytest

from llm.cache import InMemoryCache
from llm.cache.base import CacheEntry, CacheUsage
from llm.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def cache(clock: FakeClock) -> InMemoryCache:
    return InMemoryCache(max_entries=2, max_bytes=10, clock=clock)


async def test_size_and_entries_count_what_is_still_there() -> None:
    clock = FakeClock()
    cache = InMemoryCache(clock=clock)
    await cache.put("a", b"12345", ttl=10)
    await cache.put("b", b"123", ttl=20)
    assert await cache.usage() == CacheUsage(2, 8)
    await clock.advance(10)
    assert await cache.usage() == CacheUsage(1, 3)


@pytest.mark.parametrize(("entries", "size"), [(0, 1), (1, 0)])
def test_a_bound_below_one_is_refused_with_the_values(entries: int, size: int) -> None:
    with pytest.raises(ValueError, match=f"max_entries is {entries} and max_bytes {size}; expected 1 or more"):
        InMemoryCache(max_entries=entries, max_bytes=size)


async def test_replacing_an_entry_drops_no_other(cache: InMemoryCache) -> None:
    await cache.put("a", b"12345", ttl=60)
    await cache.put("b", b"12345", ttl=60)
    await cache.put("a", b"54321", ttl=60)
    assert await cache.exists("b")
    assert await cache.usage() == CacheUsage(2, 10)


async def test_an_entry_that_is_put_anew_outlives_its_first_end(cache: InMemoryCache, clock: FakeClock) -> None:
    await cache.put("b", b"12345", ttl=60)
    await cache.put("a", b"12345", ttl=10)
    await clock.advance(5)
    await cache.put("a", b"54321", ttl=10)
    await clock.advance(5)
    assert await cache.usage() == CacheUsage(2, 10)
    assert await cache.exists("a")


async def test_no_entry_goes_for_want_of_room_that_one_takes_which_is_over(
    cache: InMemoryCache, clock: FakeClock
) -> None:
    await cache.put("a", b"12345", ttl=60)
    await cache.put("b", b"12345", ttl=10)
    await clock.advance(10)
    await cache.put("c", b"12345", ttl=60)
    assert [key async for key, _ in cache.scan()] == ["a", "c"]


async def test_what_went_before_its_end_takes_no_memory(cache: InMemoryCache) -> None:
    for turn in range(1000):
        await cache.put("a", b"12345", ttl=60)
        await cache.put(str(turn), b"12345", ttl=60)
        await cache.delete(str(turn))
    assert len(cache._ends) < 10  # pyright: ignore[reportPrivateUsage]


async def test_an_empty_cache_is_a_cache() -> None:
    assert bool(InMemoryCache(clock=FakeClock())) is True


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
def test_threads_that_share_one_never_tear_it() -> None:
    cache = InMemoryCache(max_entries=20, max_bytes=200)
    torn: list[Exception] = []

    def work(seed: int) -> None:
        try:
            for turn in range(1500):
                key = str((turn * seed) % 50)
                cache.hold(key, CacheEntry(b"0123456789", 0.0, 0.001 * (turn % 7)))
                cache.peek(str(turn % 50))
                cache.forget(key if turn % 100 else None)
        except Exception as error:  # noqa: BLE001 - whatever a torn list raises
            torn.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (3, 7, 11, 13)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    sys.setswitchinterval(before)
    assert torn == []
    assert cache.held().entries <= 20
    assert cache.held().bytes == 10 * cache.held().entries
