"""Lines at the ends of files, whole or not at all. Files, threads and limits of the system are real."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import threading
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.patience import until

from llm.batch.appending import Appender, Tail
from llm.batch.claim import Claim, claim
from llm.testing import FakeClock
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

ROOT = Path(__file__).parents[3]


@pytest.fixture
def claimed(tmp_path: Path) -> Iterator[Claim]:
    claimed = claim(tmp_path / "out.jsonl")
    yield claimed
    claimed.close()


@asynccontextmanager
async def running(appender: Appender) -> AsyncGenerator[None]:
    thread = threading.Thread(target=appender.run, daemon=True)
    thread.start()
    yield
    appender.end()
    await asyncio.to_thread(thread.join)


def content(claimed: Claim) -> bytes:
    return Path(claimed.path).read_bytes()


async def test_a_line_is_in_the_file_when_add_returns(claimed: Claim) -> None:
    appender, tail = Appender(SystemClock()), Tail(claimed)
    async with running(appender):
        await appender.add(tail, b"one\n")
        assert content(claimed) == b"one\n"
        await appender.add(tail, b"two\n")
        assert content(claimed) == b"one\ntwo\n"


async def test_lines_that_wait_together_go_out_in_few_writes_and_in_order(claimed: Claim) -> None:
    appender, tail = Appender(SystemClock()), Counting(claimed)
    lines = [b"%d\n" % n for n in range(3000)]
    async with asyncio.TaskGroup() as group:
        for line in lines:
            group.create_task(appender.add(tail, line))
        await SystemClock().sleep(0)
        thread = threading.Thread(target=appender.run)
        thread.start()
    appender.end()
    await asyncio.to_thread(thread.join)
    assert content(claimed) == b"".join(lines)
    assert tail.writes == 3


class Counting(Tail):
    writes = 0

    def add(self, lines: Sequence[bytes]) -> int:
        self.writes += 1
        return super().add(lines)


async def test_what_was_added_is_synced_a_moment_later_once_and_at_the_end(claimed: Claim) -> None:
    synced: list[bytes] = []
    tail = Tail(claimed, sync=lambda _: synced.append(content(claimed)))
    clock = FakeClock()
    appender = Appender(clock, sync_after=0.05)
    async with running(appender):
        await appender.add(tail, b"one\n")
        await appender.add(tail, b"two\n")
        assert synced == []
        await clock.advance(0.05)
        await until(lambda: synced)
        assert synced == [b"one\ntwo\n"]
        await clock.advance(0.1)
        await SystemClock().sleep(0.1)
        assert len(synced) == 1  # nothing was added
        await appender.add(tail, b"three\n")
    assert synced == [b"one\ntwo\n", b"one\ntwo\nthree\n"]


async def test_a_cancelled_caller_leaves_a_whole_line_and_no_other_caller_notices(claimed: Claim) -> None:
    appender, tail = Appender(SystemClock()), Tail(claimed)
    first = asyncio.create_task(appender.add(tail, b"first\n"))
    second = asyncio.create_task(appender.add(tail, b"second\n"))
    await SystemClock().sleep(0)
    first.cancel()
    async with running(appender):
        await second
    assert first.cancelled()
    assert content(claimed) == b"first\nsecond\n"


async def test_nothing_is_taken_after_the_end(claimed: Claim) -> None:
    appender, tail = Appender(SystemClock()), Tail(claimed)
    async with running(appender):
        pass
    with pytest.raises(RuntimeError, match="journal is closed"):
        await appender.add(tail, b"late\n")


async def test_a_failed_sync_fails_what_comes_after_it(claimed: Claim) -> None:
    failed = threading.Event()

    def fail(_: int) -> None:
        failed.set()
        raise OSError(errno.EIO, "the disk is gone")

    appender, tail = Appender(SystemClock(), sync_after=0.01), Tail(claimed, sync=fail)
    async with running(appender):
        await appender.add(tail, b"one\n")
        await until(failed.is_set)
        with pytest.raises(OSError, match=r"out.jsonl: the disk is gone") as caught:
            await appender.add(tail, b"two\n")
    assert caught.value.errno == errno.EIO
    assert content(claimed) == b"one\n"


async def test_a_closed_loop_does_not_stop_the_thread(claimed: Claim) -> None:
    appender, tail = Appender(SystemClock()), Tail(claimed)

    def add_and_leave() -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(appender.add(tail, b"left\n"))
        loop.run_until_complete(SystemClock().sleep(0))
        task.cancel()
        loop.run_until_complete(asyncio.wait([task]))
        loop.close()

    await asyncio.to_thread(add_and_leave)
    async with running(appender):
        await appender.add(tail, b"on\n")
    assert content(claimed) == b"left\non\n"


FULL = """
import asyncio, resource, sys, threading
from llm.batch.appending import Appender, Tail
from llm.batch.claim import claim
from llm.utils.clock import SystemClock
async def main():
    claimed = claim(sys.argv[1])
    appender, tail = Appender(SystemClock()), Tail(claimed)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_050, resource.RLIM_INFINITY))
    lines = [b"%03d%s\\n" % (n, b"x" * 96) for n in range(200)]
    tasks = [asyncio.create_task(appender.add(tail, line)) for line in lines]
    await SystemClock().sleep(0)
    thread = threading.Thread(target=appender.run)
    thread.start()
    await asyncio.wait(tasks)
    errors = {str(error) for task in tasks if (error := task.exception())}
    assert sum(task.exception() is None for task in tasks) == 100
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    try:
        await appender.add(tail, b"x")
    except OSError as error:
        errors.add(str(error))
    appender.end()
    thread.join()
    with open(claimed.path, "rb") as file:
        assert file.read() == b"".join(lines[:100])
    print(*errors)
asyncio.run(main())
"""


def test_where_the_disk_is_full_lines_are_whole_or_absent_and_every_caller_hears_of_it(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-W", "error", "-c", FULL, out],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "src"},
    )
    assert done.stderr == ""
    [said] = done.stdout.splitlines()
    assert said.startswith(f"[Errno {errno.EFBIG}] {out}: File too large")


def test_more_than_one_write_takes_goes_whole(claimed: Claim) -> None:
    def a_little(descriptor: int, parts: Sequence[bytes | memoryview]) -> int:
        return os.write(descriptor, b"".join(parts)[:7])

    lines = [b"a" * 100 + b"\n", b"b\n", b"c\n", *[b"dddddd\n"] * 2000]
    assert Tail(claimed, write=a_little).add(lines[:50]) == 50
    assert Tail(claimed).add(lines[50:]) == len(lines) - 50
    assert content(claimed) == b"".join(lines)


def test_what_cannot_be_written_leaves_nothing_of_itself(claimed: Claim) -> None:
    def fails_halfway(descriptor: int, parts: Sequence[bytes | memoryview]) -> int:
        if claimed.size > 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.write(descriptor, b"".join(parts)[:6])

    tail = Tail(claimed, write=fails_halfway)
    assert tail.add([b"four\n", b"five\n", b"six\n"]) == 2
    assert content(claimed) == b"four\nfive\n"
    assert tail.failure is not None
    assert tail.add([b"seven\n"]) == 0
    assert content(claimed) == b"four\nfive\n"
