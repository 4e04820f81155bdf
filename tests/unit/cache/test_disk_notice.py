"""Processes that share a folder hear of what others remove or replace, and use no memory while they cannot."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llm.cache import DiskCache, InMemoryCache
from llm.cache.base import Invalidating
from llm.cache.levels import TwoLevels
from llm.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

KEY, OTHER = "0" * 64, "1" * 64


class Two:
    """One that keeps in memory what it reads, and another on the same folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "store"
        self.clock = FakeClock()
        self.disk = DiskCache(self.folder, clock=self.clock)
        self.near = InMemoryCache(clock=self.clock)
        self.one = TwoLevels(self.near, self.disk)
        self.other = DiskCache(self.folder, clock=self.clock)

    async def get(self) -> bytes | None:
        found = await self.one.get(KEY)
        return None if found is None else found.value


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Two]:
    two = Two(tmp_path)
    await two.other.put(KEY, b"old", ttl=60)
    assert await two.get() == b"old"
    assert two.one.peek(KEY) is not None  # from memory from now on
    yield two
    await two.one.close()
    await two.other.close()


CHANGES: dict[str, tuple[Callable[[DiskCache], Awaitable[object]], bytes | None]] = {
    "delete": (lambda other: other.delete(KEY), None),
    "remove": (lambda other: other.remove(tags=()), None),
    "clear": (lambda other: other.clear(), None),
    "put": (lambda other: other.put(KEY, b"new", ttl=60), b"new"),
    "put of nothing": (lambda other: other.put(KEY, b"", ttl=0), None),
}


@pytest.mark.parametrize(("change", "left"), CHANGES.values(), ids=CHANGES)
async def test_what_another_process_changed_is_no_more_given_from_memory(
    two: Two, change: Callable[[DiskCache], Awaitable[object]], left: bytes | None
) -> None:
    await change(two.other)
    assert two.one.peek(KEY) is None
    assert await two.get() == left
    assert (two.one.peek(KEY) is None) == (left is None)


async def test_what_another_process_adds_or_does_not_find_leaves_the_memory_as_it_is(two: Two) -> None:
    await two.other.put(OTHER, b"more", ttl=60)
    assert not await two.other.delete("2" * 64)
    assert await two.other.remove(tags=["none"]) == 0
    assert two.one.peek(KEY) is not None


async def test_what_was_read_before_a_change_is_not_kept_after_it(two: Two) -> None:
    heard: list[str | None] = []
    two.disk.listen(heard.append)
    await two.other.delete(KEY)
    assert [two.disk.in_touch(), two.disk.in_touch()] == [False, True]
    assert heard == [None]


@pytest.mark.parametrize("harm", ["truncated", "removed"])
async def test_a_file_that_is_harmed_is_no_reason_to_give_old_answers(two: Two, harm: str) -> None:
    if harm == "truncated":
        (two.folder / "changes").write_bytes(b"")
    else:
        shutil.rmtree(two.folder)
        await two.clock.advance(1.0)
    assert two.one.peek(KEY) is None
    assert two.near.peek(KEY) is None


async def test_a_file_that_cannot_be_opened_leaves_the_memory_unused(tmp_path: Path) -> None:
    two = Two(tmp_path)
    await two.other.put(KEY, b"old", ttl=60)
    (two.folder / "changes").symlink_to(tmp_path / "elsewhere")  # which somebody planted
    for _ in range(2):
        assert await two.get() == b"old"
        assert two.one.peek(KEY) is None
    assert not (tmp_path / "elsewhere").exists()
    (two.folder / "changes").unlink()
    await two.clock.advance(1.0)
    assert await two.get() == b"old"
    assert two.one.peek(KEY) is not None
    await two.one.close()
    await two.other.close()


async def test_what_was_put_before_it_could_hear_is_not_given_after_others_removed_it(tmp_path: Path) -> None:
    two = Two(tmp_path)
    await two.one.put(KEY, b"old", ttl=60)  # the first of all, as where a call refreshes
    await two.other.delete(KEY)
    assert await two.one.get(OTHER) is None  # it hears from here on
    assert await two.get() is None
    await two.one.close()
    await two.other.close()


async def test_many_who_ask_first_and_at_once_open_one_file(tmp_path: Path) -> None:
    two = Two(tmp_path)
    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(two.one.get(KEY))
    assert _opened(two.folder) == 1
    await two.one.close()
    await two.other.close()
    assert _opened(two.folder) == 0


def _opened(folder: Path) -> int:
    return sum(link.resolve() == (folder / "changes").resolve() for link in Path("/proc/self/fd").iterdir())


async def test_it_says_that_it_tells(two: Two) -> None:
    assert isinstance(two.disk, Invalidating)
