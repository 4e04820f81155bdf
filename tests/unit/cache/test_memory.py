from __future__ import annotations

import pytest

from llm.cache import InMemoryCache
from llm.cache.base import CacheUsage
from llm.testing import FakeClock


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


async def test_replacing_an_entry_drops_no_other() -> None:
    cache = InMemoryCache(max_entries=2, max_bytes=10, clock=FakeClock())
    await cache.put("a", b"12345", ttl=60)
    await cache.put("b", b"12345", ttl=60)
    await cache.put("a", b"54321", ttl=60)
    assert await cache.exists("b")
    assert await cache.usage() == CacheUsage(2, 10)


async def test_an_empty_cache_is_a_cache() -> None:
    assert bool(InMemoryCache(clock=FakeClock())) is True
