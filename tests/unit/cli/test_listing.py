"""Rows of many answers: in batches, the newest first, and never all held at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm.cache import InMemoryCache
from llm.cli.kept import Store
from llm.cli.listing import Listing, newest
from llm.cli.shell import Shell
from llm.core.config.sections import CacheConfig
from llm.core.selection import Selection
from llm.testing import FakeClock

if TYPE_CHECKING:
    import pytest

SHELL = Shell(config=None, json=False, quiet=False)


async def filled(number: int) -> Store:
    """A store in which every other entry is older than the one before it."""
    clock = FakeClock()
    backend = InMemoryCache(clock=clock)
    for each in range(number):
        await backend.put(f"{each:064x}", b"x", ttl=9999)
        await clock.advance(1.0)
    for each in range(0, number, 2):  # the younger stand before the older now
        await backend.put(f"{each:064x}", b"x", ttl=9999)
    return Store(CacheConfig(), backend)


async def test_the_newest_are_kept_of_all_in_whatever_order_they_come() -> None:
    store = await filled(10)
    rows, found = await newest(store, Selection(), 7, Listing(SHELL, content=False))
    assert found == 10
    assert [row["age"] for row in rows] == [0, 0, 0, 0, 0, 1, 3]
    assert [int(row["key"], 16) for row in rows[-2:]] == [9, 7]


async def test_a_long_list_is_shown_in_parts(capsys: pytest.CaptureFixture[str]) -> None:
    store, listing = await filled(1001), Listing(SHELL, content=False)
    shown: list[int] = []
    async for kept in store.scan(Selection()):
        listing.add(listing.read(kept))
        shown.append(len(capsys.readouterr().out.splitlines()))
    listing.end(of=listing.number)
    assert [lines for lines in shown if lines] == [500, 500]
    assert len(capsys.readouterr().out.splitlines()) == 1
