"""The cache on disk: many processes, kills, damage, full disks. Threads and files are real."""

# ruff: noqa: ASYNC240 - files are what is tested here, and no other task waits meanwhile

from __future__ import annotations

import asyncio
import fcntl
import gc
import logging
import os
import pickle
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, suppress
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from tests.patience import PATIENCE, until

from llm.cache import DiskCache
from llm.cache.base import CacheUsage
from llm.cache.disk.file import Connection, Place
from llm.cache.disk.rows import seal_of
from llm.cache.disk.schema import DamagedError
from llm.testing import FakeClock
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FILE = "answers-1.sqlite"
MEMORY = Path("/dev/shm")  # noqa: S108 - a new folder in it each time
PRELUDE = """
import asyncio, contextlib, os, random, sys
from hashlib import sha256
from llm.cache import DiskCache
def value_of(key): return sha256(key.encode()).hexdigest().encode() * (1 + hash_of(key) % 40)
def hash_of(key): return sha256(key.encode()).digest()[0]
"""


def value_of(key: str) -> bytes:
    digest = sha256(key.encode())
    return digest.hexdigest().encode() * (1 + digest.digest()[0] % 40)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that is not there yet, in memory where the machine has that: nothing here waits for a disk."""
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as above:
        yield Path(above) / "cache"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def make(folder: Path) -> Callable[..., DiskCache]:
    def of(clock: FakeClock | None = None, *, max_entries: int = 1000, max_bytes: int = 10_000_000) -> DiskCache:
        return DiskCache(folder, max_entries=max_entries, max_bytes=max_bytes, clock=clock)

    return of


@pytest.fixture
def program(folder: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a program that has the cache's folder as its argument; what runs on at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "error", "-c", PRELUDE + code, str(folder)]
        process = subprocess.Popen(  # noqa: S603 - our own code
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": "src"},
            cwd=Path(__file__).parents[3],
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    return out


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("llm-cache")}


async def ended() -> set[str]:
    """Cache threads that are left after a moment."""
    with suppress(TimeoutError):
        await until(lambda: not threads())
    return threads()


async def fill(cache: DiskCache, count: int, *, ttl: float = 60) -> None:
    for n in range(count):
        await cache.put(f"key-{n}", value_of(f"key-{n}"), ttl=ttl, tags=["model:m", f"user:{n % 3}"])


async def right(cache: DiskCache, keys: list[str]) -> int:
    """Count what is there; each is what was put."""
    found = await cache.get_many(keys)
    assert {key: entry.value for key, entry in found.items()} == {key: value_of(key) for key in found}
    return len(found)


def aside(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*damaged*") if not path.name.endswith("-wal"))


# What a user expects


async def test_what_was_put_is_there_after_a_restart(make: Callable[..., DiskCache]) -> None:
    first = make()
    await first.put("a", b"1", ttl=60, tags=["t"])
    await first.close()
    second = make()
    entry = await second.get("a")
    await second.close()
    assert entry is not None
    assert (entry.value, entry.tags) == (b"1", ("t",))
    assert 0 <= entry.age < 30


async def test_closing_ends_the_threads_and_leaves_one_file(make: Callable[..., DiskCache], folder: Path) -> None:
    cache = make()
    await fill(cache, 5)
    await cache.get("key-1")
    assert len(threads()) == 2
    await asyncio.create_task(cache.close())
    assert not threads()
    assert [path.name for path in folder.iterdir()] == [FILE]
    with pytest.raises(RuntimeError, match="closed"):
        await cache.get("key-1")
    with pytest.raises(RuntimeError, match="closed"):
        await cache.put("a", b"", ttl=1)


async def test_closing_from_two_tasks_at_once_waits_for_both(make: Callable[..., DiskCache]) -> None:
    cache = make()
    await cache.put("a", b"1", ttl=60)
    async with asyncio.TaskGroup() as group:
        group.create_task(cache.close())
        group.create_task(cache.close())
    assert not threads()


async def test_an_unused_cache_makes_nothing(make: Callable[..., DiskCache], folder: Path) -> None:
    cache = make()
    assert not await cache.exists("a")
    await cache.close()
    assert not folder.exists()


async def test_a_cache_that_is_dropped_ends_its_threads(make: Callable[..., DiskCache]) -> None:
    cache = make()
    await cache.put("a", b"1", ttl=60)
    await cache.get("a")
    del cache
    gc.collect()
    assert not await ended()


async def test_folder_and_files_are_the_owners_alone(make: Callable[..., DiskCache], folder: Path) -> None:
    cache = make()
    await cache.put("a", b"1", ttl=60)
    modes = {path.name: path.stat().st_mode & 0o777 for path in [folder, *folder.iterdir()]}
    await cache.close()
    assert modes == {"cache": 0o700, FILE: 0o600, f"{FILE}-wal": 0o600, f"{FILE}-shm": 0o600}


async def test_relative_paths_and_the_home_folder_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for path in ("a/b", Path("~/c"), "~/d e?#%20"):
        cache = DiskCache(path)
        await cache.put("a", b"1", ttl=60)
        await cache.close()
    assert all((tmp_path / name / FILE).is_file() for name in ("a/b", "home/c", "home/d e?#%20"))


@pytest.mark.parametrize(("entries", "size"), [(0, 1), (1, 0)])
def test_a_bound_below_one_is_refused_with_the_values(entries: int, size: int) -> None:
    with pytest.raises(ValueError, match=f"max_entries is {entries} and max_bytes {size}; expected 1 or more"):
        DiskCache("x", max_entries=entries, max_bytes=size)


async def test_what_cannot_be_kept_is_the_callers_error_and_harms_nothing(
    make: Callable[..., DiskCache], folder: Path
) -> None:
    cache = make()
    await cache.put("a", b"1", ttl=60)
    half = "\ud800"
    with pytest.raises(ValueError, match="surrogates"):
        await cache.get(half)
    with pytest.raises(TypeError):
        await cache.put("b", b"1", ttl=60, tags=[half])
    with pytest.raises(TypeError):
        await cache.remove(tags=[half])
    assert await cache.exists("a")
    await cache.close()
    assert not aside(folder)


async def test_large_values_are_kept_small(make: Callable[..., DiskCache]) -> None:
    cache = make()
    value = b"many words " * 10_000
    await cache.put("a", value, ttl=60)
    entry = await cache.get("a")
    assert entry is not None
    assert entry.value == value
    assert (await cache.usage()).bytes < 5_000
    await cache.close()


async def test_several_loops_and_threads_use_one_cache(make: Callable[..., DiskCache]) -> None:
    cache = make()

    async def use(name: str) -> None:
        for n in range(20):
            await cache.put(f"{name}-{n}", value_of(f"{name}-{n}"), ttl=60)
            assert await right(cache, [f"{name}-{n}"]) == 1

    with suppress(asyncio.CancelledError):
        await asyncio.to_thread(lambda: asyncio.run(use("other")))
    await use("here")
    assert await right(cache, [f"{name}-{n}" for name in ("here", "other") for n in range(20)]) == 40
    await cache.close()


async def test_a_loop_that_went_away_meanwhile_is_no_trouble(make: Callable[..., DiskCache]) -> None:
    cache = make()

    def ask_and_leave() -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(cache.clear())
        loop.call_soon(loop.stop)
        loop.run_forever()
        task.cancel()
        loop.run_until_complete(asyncio.wait([task]))
        loop.close()

    for _ in range(20):
        await asyncio.to_thread(ask_and_leave)
    await cache.put("a", b"1", ttl=60)
    assert await cache.exists("a")
    await cache.close()


async def test_a_reader_that_goes_away_harms_no_other(make: Callable[..., DiskCache]) -> None:
    cache = make()
    await fill(cache, 10)
    for n in range(20):
        leaver = asyncio.create_task(cache.get("key-1"))
        await SystemClock().sleep(0)
        leaver.cancel()
        assert await right(cache, [f"key-{n % 10}"]) == 1
    await cache.close()


# Time


async def test_a_clock_that_goes_back_gives_no_negative_age_and_no_entry_that_never_ends(
    make: Callable[..., DiskCache],
) -> None:
    cache = make(FakeClock(wall=2_000_000_000))
    await cache.put("a", b"1", ttl=60, tags=["t"])
    await cache.close()
    slightly = make(FakeClock(wall=2_000_000_000 - 30))
    entry = await slightly.get("a")
    assert entry is not None
    assert entry.age == 0
    assert [key async for key, _ in slightly.scan()] == ["a"]
    await slightly.close()
    far = make(FakeClock(wall=1_000_000_000))
    assert await far.get("a") is None
    assert not await far.exists("a")
    assert [key async for key, _ in far.scan()] == []
    assert await far.remove(tags=["t"]) == 0  # it is not there, and yet it goes
    assert await far.usage() == CacheUsage(0, 0)
    await far.close()
    later = make(FakeClock(wall=2_000_000_000))
    assert await later.get("a") is None
    await later.close()


async def test_what_is_over_leaves_with_the_next_put(make: Callable[..., DiskCache], folder: Path) -> None:
    clock = FakeClock()
    cache = make(clock)
    await fill(cache, 10, ttl=5)
    await clock.advance(5)
    await cache.put("new", b"1", ttl=60)
    await cache.close()
    with closing(sqlite3.connect(folder / FILE)) as file:
        assert file.execute("SELECT key FROM entries").fetchall() == [("new",)]
        assert file.execute("SELECT * FROM tagged").fetchall() == []


# Bounds


async def test_uses_are_written_in_batches_and_never_one_by_one(make: Callable[..., DiskCache], folder: Path) -> None:
    cache = make()
    await fill(cache, 10)
    with closing(sqlite3.connect(folder / FILE)) as file:
        version = file.execute("PRAGMA data_version").fetchone()
        for _ in range(100):
            await cache.get("key-1")
        assert file.execute("PRAGMA data_version").fetchone() == version
        for _ in range(200):
            await cache.get_many([f"key-{n}" for n in range(10)])
        while file.execute("PRAGMA data_version").fetchone() == version:
            await SystemClock().sleep(0.005)
    await cache.close()


async def test_uses_are_written_when_they_are_old_and_at_the_end(make: Callable[..., DiskCache], folder: Path) -> None:
    async def order(cache: DiskCache) -> list[str]:
        await cache.close()
        with closing(sqlite3.connect(folder / FILE)) as file:
            return [key for (key,) in file.execute("SELECT key FROM entries ORDER BY used")]

    cache = make()
    await fill(cache, 3)
    assert await order(cache) == ["key-0", "key-1", "key-2"]
    cache = make()
    await cache.get_many(["key-0", "key-1"])
    await cache.get("key-0")
    assert (await order(cache))[0] == "key-2"
    clock = FakeClock(wall=SystemClock().wall())
    cache = make(clock)
    await cache.get("key-2")
    await clock.advance(31)
    await cache.get("key-2")
    with closing(sqlite3.connect(folder / FILE)) as file:
        newest = "SELECT key FROM entries ORDER BY used DESC LIMIT 1"
        while file.execute(newest).fetchone() != ("key-2",):
            await SystemClock().sleep(0.005)
    await cache.close()


async def test_many_leave_at_once_where_a_large_one_comes(make: Callable[..., DiskCache]) -> None:
    cache = make(max_bytes=100_000)
    async with asyncio.TaskGroup() as group:
        for n in range(200):
            group.create_task(cache.put(f"{n}", random.Random(n).randbytes(400), ttl=60))  # noqa: S311 - no secret
    assert await cache.usage() == CacheUsage(200, 80_000)
    await cache.put("large", random.Random(1).randbytes(90_000), ttl=60)  # noqa: S311 - no secret
    assert await cache.exists("large")
    assert await cache.exists("199")
    usage = await cache.usage()
    assert usage == CacheUsage(26, 100_000)
    await cache.close()


async def test_a_bound_that_was_lowered_holds_from_the_next_put_on(make: Callable[..., DiskCache]) -> None:
    cache = make()
    await fill(cache, 20)
    await cache.close()
    cache = make(max_entries=5)
    await cache.put("new", b"1", ttl=60)
    assert (await cache.usage()).entries == 5
    await cache.close()


async def test_clear_gives_the_room_on_the_disk_back(make: Callable[..., DiskCache], folder: Path) -> None:
    cache = make()
    for n in range(100):
        await cache.put(f"{n}", random.Random(n).randbytes(10_000), ttl=60)  # noqa: S311 - no secret
    await cache.clear()
    assert sum(path.stat().st_size for path in folder.iterdir() if not path.name.endswith("-shm")) < 150_000
    assert await cache.usage() == CacheUsage(0, 0)
    await cache.put("a", b"1", ttl=60, tags=["t"])
    assert await cache.remove(tags=["t"]) == 1
    assert await cache.usage() == CacheUsage(0, 0)
    await cache.close()


async def test_a_scan_of_many_goes_page_by_page(make: Callable[..., DiskCache]) -> None:
    cache = make()
    async with asyncio.TaskGroup() as group:
        for n in range(200):
            group.create_task(cache.put(f"{n}", b"", ttl=60, tags=["even"] if n % 2 == 0 else []))
    seen: list[str] = []
    async for key, _ in cache.scan():
        if not seen:
            await cache.put("199", b"again", ttl=60)
        seen.append(key)
    assert sorted(map(int, seen)) == list(range(200))
    assert sorted([int(key) async for key, _ in cache.scan(tags=["even"])]) == list(range(0, 200, 2))
    await cache.close()


# Several processes


HAMMER = """
async def main():
    cache = DiskCache(sys.argv[1], max_entries=100, max_bytes=100_000)
    name, put, busy = os.getpid(), 0, 0
    for n in range(40):
        keys = [f"{name}-{n}-{k}" for k in range(4)] + [f"all-{n}"]
        for key in keys:
            try:
                await cache.put(key, value_of(key), ttl=60, tags=["p"])
                put += 1
            except OSError as error:
                assert "locked" in str(error), error
                busy += 1
        found = await cache.get_many(keys)
        assert all(entry.value == value_of(key) for key, entry in found.items())
        usage = await cache.usage()
        assert usage.entries <= 100 and usage.bytes <= 100_000, usage
    await cache.close()
    print(put, busy, flush=True)
os.fork(), os.fork()  # four processes
asyncio.run(main())
with contextlib.suppress(ChildProcessError):
    while True: assert os.wait()[1] == 0
"""


async def test_four_processes_share_a_folder_and_its_bounds(
    make: Callable[..., DiskCache], program: Callable[..., subprocess.Popen[str]], folder: Path
) -> None:
    told = [line.split() for line in (await asyncio.to_thread(finish, program(HAMMER))).splitlines()]
    assert len(told) == 4
    assert sum(int(put) for put, _ in told) >= 4 * 150
    cache = make(max_entries=100, max_bytes=100_000)
    keys = [key async for key, _ in cache.scan()]
    assert 20 <= len(keys) <= 100
    assert await right(cache, keys) == len(keys)
    usage = await cache.usage()
    assert usage.entries == len(keys)
    await cache.close()
    assert {path.name for path in folder.iterdir()} == {FILE, "changes"}


async def test_two_caches_on_one_folder_see_each_other_at_once(make: Callable[..., DiskCache]) -> None:
    one, other = make(), make()
    assert await other.get("a") is None
    await one.put("a", b"1", ttl=60, tags=["t"])
    assert await other.exists("a")
    assert await other.remove(tags=["t"]) == 1
    assert await one.get("a") is None
    await one.put("a", b"1", ttl=60)
    await other.clear()
    assert await one.get("a") is None
    await one.put("b", b"1", ttl=60)
    await other.close()
    assert await one.exists("b")
    await one.close()


KILLED = """
async def main():
    cache = DiskCache(sys.argv[1], max_entries=50, max_bytes=50_000)
    async def put(name):
        for n in range(10**6):
            key = f"key-{random.randrange(120)}"
            await cache.put(key, value_of(key), ttl=60, tags=["t"])
            if n == 0: print("putting", flush=True)
            if n % 50 == 49: await cache.clear()
    async with asyncio.TaskGroup() as group:
        for name in range(4): group.create_task(put(name))
for _ in sys.stdin:  # a child for each line, to be killed
    if (child := os.fork()) == 0:
        random.seed()
        asyncio.run(main())
    print("child", child, flush=True)
    os.waitpid(child, 0)
    print("dead", flush=True)
"""


async def test_a_process_killed_while_it_writes_harms_nobody(
    make: Callable[..., DiskCache], program: Callable[..., subprocess.Popen[str]], folder: Path
) -> None:
    dice = random.Random(7)  # noqa: S311 - no secret
    keys = [f"key-{n}" for n in range(120)]
    cache = make(max_entries=50, max_bytes=50_000)
    parent = program(KILLED)

    def said(word: str) -> str:
        assert parent.stdout is not None
        while not (line := parent.stdout.readline()).startswith(word):
            assert line
        return line

    for n in range(12):
        assert parent.stdin is not None
        parent.stdin.write("\n")
        parent.stdin.flush()
        child = int((await asyncio.to_thread(said, "child")).split()[1])
        if n % 2:  # else also in the middle of opening the file
            await asyncio.to_thread(said, "putting")
        await SystemClock().sleep(dice.random() * 0.1)
        os.kill(child, signal.SIGKILL)
        await asyncio.to_thread(said, "dead")
        await right(cache, keys)
        key = dice.choice(keys)
        await cache.put(key, value_of(key), ttl=60)
        assert await right(cache, [key]) == 1
        usage = await cache.usage()
        assert usage.entries == len([key async for key, _ in cache.scan()]) <= 50
        if n % 3 == 2:  # so that the next one recovers what the killed one left
            await cache.close()
            cache = make(max_entries=50, max_bytes=50_000)
    await cache.close()
    assert not aside(folder)
    with closing(sqlite3.connect(folder / FILE)) as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_a_forked_child_has_connections_of_its_own(fresh_python: Callable[[str], str], folder: Path) -> None:
    code = f"""
import sys; sys.path.insert(0, "src")
import asyncio, os, pathlib
from llm.cache import DiskCache
cache = DiskCache({str(folder)!r})
async def use(key):
    await cache.put(key, key.encode(), ttl=60)
    return (await cache.get("parent")).value
asyncio.run(use("parent"))
def inherited(folder="/proc/self/fd"):
    links = [os.path.join(folder, name) for name in (os.listdir(folder) if os.path.isdir(folder) else [])]
    return [found for link in links if os.path.islink(link) and "sqlite" in (found := os.readlink(link))]
if (child := os.fork()) == 0:
    assert not inherited()
    assert asyncio.run(use("child")) == b"parent"
    sys.exit()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert asyncio.run(use("again")) == b"parent"
assert asyncio.run(cache.get("child")).value == b"child"
asyncio.run(cache.close())
print(*[path.name for path in pathlib.Path({str(folder)!r}).iterdir()])
"""
    assert await asyncio.to_thread(fresh_python, code) == f"{FILE}\n"


async def test_leaving_the_interpreter_without_closing_is_quiet_and_loses_nothing(
    program: Callable[..., subprocess.Popen[str]], make: Callable[..., DiskCache], folder: Path
) -> None:
    code = """
cache = DiskCache(sys.argv[1])
async def main():
    await cache.put("a", b"1", ttl=60)
    await cache.get("a")
    unheard = asyncio.create_task(cache.put("b", b"2", ttl=60))
    await asyncio.sleep(0)
asyncio.run(main())
"""
    assert await asyncio.to_thread(finish, program(code)) == ""
    assert [path.name for path in folder.iterdir()] == [FILE]
    cache = make()
    assert len(await cache.get_many("ab")) == 2
    await cache.close()


# Trouble around the file: an exception, soon; and all is well when it is over


async def test_a_locked_file_raises_soon_and_works_when_it_is_free(
    make: Callable[..., DiskCache], folder: Path
) -> None:
    cache = make()
    await cache.put("a", b"1", ttl=60)
    with closing(sqlite3.connect(folder / FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        entry = await cache.get("a")  # readers do not wait
        began = SystemClock().now()
        with pytest.raises(OSError, match="locked"):
            await cache.put("b", b"1", ttl=60)
        assert 0.2 < SystemClock().now() - began < PATIENCE  # it would be locked for ever
        other.execute("ROLLBACK")
    assert entry is not None
    await cache.put("b", b"1", ttl=60)
    await cache.close()


async def test_a_folder_that_another_keeps_locked_raises_soon(make: Callable[..., DiskCache], folder: Path) -> None:
    folder.mkdir()
    cache = make()
    held = await asyncio.to_thread(os.open, folder, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(OSError, match="for too long"):
        await cache.get("a")
    os.close(held)
    assert await cache.get("a") is None
    await cache.close()


@pytest.mark.parametrize("inside", [False, True])
async def test_something_else_in_the_place_raises_and_works_when_it_is_gone(
    make: Callable[..., DiskCache], folder: Path, *, inside: bool
) -> None:
    cache = make()
    if inside:
        (folder / FILE).mkdir(parents=True)
    else:
        folder.write_text("a file in the place of the folder", encoding="utf-8")
    for _ in range(2):
        with pytest.raises(OSError):  # noqa: PT011 - one of several
            await cache.get("a")
        with pytest.raises(OSError):  # noqa: PT011 - one of several
            await cache.put("a", b"1", ttl=60)
    if inside:
        (folder / FILE).rmdir()
    else:
        folder.unlink()
    await cache.put("a", b"1", ttl=60)
    assert await cache.exists("a")
    await cache.close()


NO_PERMISSION = """
import pathlib
folder = pathlib.Path(sys.argv[1])
cache = DiskCache(folder)
async def main():
    await cache.put("a", b"1", ttl=60)
    await cache.close()
    if os.getuid() == 0: os.seteuid(65534)
    else: folder.chmod(0o500)
    for again in (DiskCache(folder), DiskCache(folder / "below")):
        for work in (again.get("a"), again.put("b", b"1", ttl=60)):
            try:
                await work
                raise SystemExit("no error")
            except OSError as error:
                print(type(error).__name__)
    if os.getuid() == 0: os.seteuid(0)
    else: folder.chmod(0o700)
    for cure in (again, DiskCache(folder)):
        await cure.put("b", b"1", ttl=60)
        assert await cure.exists("b")
        await cure.close()
asyncio.run(main())
"""


async def test_a_folder_without_permission_raises_and_works_when_it_has_it(
    program: Callable[..., subprocess.Popen[str]], folder: Path
) -> None:
    told = await asyncio.to_thread(finish, program(NO_PERMISSION))
    assert len(told.split()) == 4
    assert not aside(folder)


FULL = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
def room(size): resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
async def main():
    cache = DiskCache(sys.argv[1])
    await cache.put("first", value_of("first"), ttl=60)
    room(300_000)
    failed = 0
    for n in range(100):
        try: await cache.put(f"{n}", random.Random(n).randbytes(20_000), ttl=60)
        except OSError: failed += 1
        entry = await cache.get("first")
        assert entry is not None and entry.value == value_of("first")
    assert 10 < failed < 100, failed
    room(resource.RLIM_INFINITY)
    await cache.put("last", value_of("last"), ttl=60)
    assert (await cache.get("last")).value == value_of("last")
    for n in range(100):
        entry = await cache.get(f"{n}")
        assert entry is None or entry.value == random.Random(n).randbytes(20_000)
    await cache.close()
    fresh = DiskCache(sys.argv[1] + "-new")
    room(1000)
    for work in (fresh.get("a"), fresh.put("a", b"1", ttl=60)):
        try:
            await work
            raise SystemExit("no error")
        except OSError: pass
    room(resource.RLIM_INFINITY)
    await fresh.put("a", b"1", ttl=60)
    assert await fresh.exists("a")
    await fresh.close()
asyncio.run(main())
"""


async def test_a_full_disk_raises_harms_nothing_and_works_when_there_is_room(
    program: Callable[..., subprocess.Popen[str]], folder: Path
) -> None:
    await asyncio.to_thread(finish, program(FULL))
    assert not aside(folder)


async def test_what_fails_beside_the_file_leaves_the_file_as_it_is(
    make: Callable[..., DiskCache], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = make()
    await cache.put("kept", b"1", ttl=60)
    await cache.put("replaced", b"1", ttl=60)
    (folder / "changes").unlink(missing_ok=True)
    (folder / "changes").mkdir()  # so that nobody can be told; too many open files would do that too
    for value in (b"2", b"3"):
        with pytest.raises(OSError, match="changes"):
            await cache.put("replaced", value, ttl=60)
    found = await cache.get_many(["kept", "replaced"])
    await cache.close()
    assert {key: entry.value for key, entry in found.items()} == {"kept": b"1", "replaced": b"3"}
    assert not caplog.records


async def test_a_folder_that_is_removed_under_it_is_made_anew(make: Callable[..., DiskCache], folder: Path) -> None:
    cache = make()
    await cache.put("a", b"1", ttl=60)
    await cache.get("a")
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert await cache.get("a") is None
    await cache.put("a", b"2", ttl=60)
    assert await cache.exists("a")
    await cache.close()
    assert [path.name for path in folder.iterdir()] == [FILE]


# Damage


def text(file: Path) -> None:
    file.write_text("This is no database, but a letter to my aunt. " * 300, encoding="utf-8")


def nothing_but_a_head(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:60])


def half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def noise(file: Path) -> None:
    file.write_bytes(random.Random(3).randbytes(50_000))  # noqa: S311 - no secret


def another_database(file: Path) -> None:
    file.unlink()
    with closing(sqlite3.connect(file)) as other:
        other.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, key TEXT)")


def another_version(file: Path) -> None:
    with closing(sqlite3.connect(file)) as other:
        other.execute("PRAGMA user_version = 99")


def a_trigger_of_somebody_else(file: Path) -> None:
    with closing(sqlite3.connect(file)) as other:
        other.execute("CREATE TRIGGER mine AFTER INSERT ON entries BEGIN DELETE FROM entries; END")


DAMAGE = [text, nothing_but_a_head, half, noise, another_database, another_version, a_trigger_of_somebody_else]


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_damaged_or_foreign_file_is_set_aside_and_said_once(
    make: Callable[..., DiskCache], folder: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    cache = make()
    await fill(cache, 60)
    await cache.close()
    damage(folder / FILE)
    before = (folder / FILE).read_bytes()
    cache = make()
    keys = [f"key-{n}" for n in range(60)]
    with caplog.at_level(logging.WARNING, "llm.cache"):
        for key in keys:
            await right(cache, [key])
        await fill(cache, 60)
        assert await right(cache, keys) == 60
    await cache.close()
    [kept] = aside(folder)
    [record] = caplog.records
    assert kept.name in record.getMessage()
    if damage not in (half, nothing_but_a_head):
        assert kept.read_bytes() == before


async def test_an_empty_file_is_begun(make: Callable[..., DiskCache], folder: Path) -> None:
    folder.mkdir()
    (folder / FILE).touch()
    cache = make()
    await cache.put("a", b"1", ttl=60)
    await cache.close()
    assert not aside(folder)


async def test_little_of_what_was_set_aside_is_kept(make: Callable[..., DiskCache], folder: Path) -> None:
    for n in range(5):
        clock = FakeClock(wall=1_800_000_000 + n)
        cache = make(clock)
        await cache.put("a", b"1", ttl=60)
        await cache.close()
        text(folder / FILE)
    cache = make()
    assert await cache.get("a") is None
    await cache.close()
    assert len(aside(folder)) == 2


async def test_a_file_damaged_under_two_caches_is_set_aside_once(make: Callable[..., DiskCache], folder: Path) -> None:
    one, other = make(), make()
    await fill(one, 60)
    await right(other, ["key-1"])
    with (folder / FILE).open("r+b") as file:
        file.write(bytes(60_000))
    (folder / f"{FILE}-wal").write_bytes(b"")
    for _ in range(3):
        for cache in (one, other):
            with suppress(OSError):
                await fill(cache, 20)
                await right(cache, [f"key-{n}" for n in range(60)])
    await fill(one, 20)
    assert await right(other, [f"key-{n}" for n in range(20)]) == 20
    await one.close()
    await other.close()
    assert len(aside(folder)) <= 2


def test_what_another_process_has_set_aside_already_stays(folder: Path) -> None:
    place = Place(str(folder), SystemClock())
    one, other = Connection(place), Connection(place)
    tried: list[bool] = []

    def work(connection: sqlite3.Connection) -> list[object]:
        tried.append(True)
        if len(tried) == 1:  # finds the damage, and so does another one, which is quicker
            with pytest.raises(OSError, match="twice"):
                other.run(damaged)
            raise DamagedError
        return connection.execute("SELECT * FROM entries").fetchall()

    def damaged(_: sqlite3.Connection) -> None:
        raise DamagedError("twice")

    assert one.run(work) == []
    one.close()
    other.close()
    assert len(aside(folder)) == 1


def test_text_that_is_none_is_damage(folder: Path) -> None:
    connection = Connection(Place(str(folder), SystemClock()))
    found = iter([b"us\xe2d", b"used"])  # a column's name, as SQLite gives it to Python
    assert connection.run(lambda _: next(found).decode()) == "used"
    connection.close()
    assert len(aside(folder)) == 1


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
@pytest.mark.parametrize("part", ["", "-wal"])
async def test_flipped_bytes_never_give_a_wrong_answer_nor_end_the_cache(
    make: Callable[..., DiskCache], folder: Path, part: str
) -> None:
    keys = [f"key-{n}" for n in range(60)]
    cache = make()
    await fill(cache, 60)
    if not part:
        await cache.close()
    whole = {name: await asyncio.to_thread((folder / name).read_bytes) for name in (FILE, f"{FILE}{part}")}
    await cache.close()
    dice = random.Random(11)  # noqa: S311 - no secret
    survived = 0
    for n in range(50):  # with 200 places in all
        for path in folder.iterdir():
            path.unlink()
        damaged = bytearray(whole[FILE + part])
        for _ in range(1 if n < 40 else 16):
            at = dice.randrange(100) if n < 20 and not part else dice.randrange(len(damaged))
            damaged[at] ^= dice.randrange(1, 256)
        for name, content in {**whole, FILE + part: bytes(damaged)}.items():
            (folder / name).write_bytes(content)
        cache = make()
        with suppress(OSError):
            survived += await right(cache, keys)
        with suppress(OSError):
            await cache.put("key-0", value_of("key-0"), ttl=60, tags=["model:m"])
        with suppress(OSError):
            found = [(key, entry.value) async for key, entry in cache.scan(tags=["model:m"])]
            assert all(value == value_of(key) for key, value in found)
        await cache.put("key-1", value_of("key-1"), ttl=60)
        assert await right(cache, keys) >= 1
        await cache.close()
    assert survived > 500


async def test_a_damaged_row_is_a_miss_and_is_removed(make: Callable[..., DiskCache], folder: Path) -> None:
    cache = make()
    changes = [
        ("value", b"\0another answer"),
        ("put_at", 1.5e9),
        ("ttl", 1e9),
        ("key", "key-0"),
        ("tags", '["user:7"]'),
        ("sum", b"12345678"),
        ("id", 77),
        ("ttl", "for ever"),
        ("value", 7),
    ]
    await fill(cache, len(changes))
    with closing(sqlite3.connect(folder / FILE, isolation_level=None)) as file:
        for n, (column, value) in enumerate(changes):
            file.execute(f"UPDATE entries SET {column} = ? WHERE key = ?", (value, f"key-{n}"))  # noqa: S608 - ours
        keys = [f"key-{n}" for n in range(len(changes))]
        assert await cache.get_many(keys) == {}
        assert [key async for key, _ in cache.scan()] == []
        for key in keys:
            assert await cache.get(key) is None
        for _ in range(200):
            if not file.execute("SELECT 1 FROM entries").fetchall():
                break
            await SystemClock().sleep(0.01)
        assert file.execute("SELECT key FROM entries").fetchall() == []
    await cache.close()


@pytest.mark.parametrize("sealed", [False, True])
async def test_a_planted_pickle_is_a_miss_removed_and_never_run(
    make: Callable[..., DiskCache], folder: Path, *, sealed: bool
) -> None:
    cache = make()
    await fill(cache, 1)
    planted = f"cos\nmkdir\n(V{folder / 'owned'}\ntR.".encode()
    with closing(sqlite3.connect(folder / FILE, isolation_level=None)) as file:
        [(key, put_at, ttl, tags)] = file.execute("SELECT key, put_at, ttl, tags FROM entries").fetchall()
        seal = seal_of(key.encode(), put_at, ttl, tags.encode(), planted) if sealed else b"12345678"
        file.execute("UPDATE entries SET value = ?, sum = ?", (planted, seal))
        assert await cache.get("key-0") is None
        assert [key async for key, _ in cache.scan()] == []
        for _ in range(200):
            if not file.execute("SELECT 1 FROM entries").fetchall():
                break
            await SystemClock().sleep(0.01)
        assert file.execute("SELECT 1 FROM entries").fetchall() == []
    await cache.close()
    assert not (folder / "owned").exists()
    pickle.loads(planted)  # noqa: S301 - would have run
    assert (folder / "owned").exists()


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM totals",
        "UPDATE entries SET used = 9223372036854775807",
        "UPDATE entries SET used = x'00'",
    ],
)
async def test_numbers_that_are_none_set_the_file_aside(
    make: Callable[..., DiskCache], folder: Path, damage: str
) -> None:
    cache = make()
    await cache.put("a", b"1", ttl=60)
    with closing(sqlite3.connect(folder / FILE, isolation_level=None)) as file:
        file.execute(damage)
    await cache.put("b", b"2", ttl=60)
    assert await cache.get("a") is None
    assert await cache.exists("b")
    assert await cache.usage() == CacheUsage(1, 1)
    await cache.close()
    assert len(aside(folder)) == 1


async def test_totals_that_are_wrong_are_put_right_or_set_the_file_aside(
    make: Callable[..., DiskCache], folder: Path
) -> None:
    cache = make()
    await cache.put("a", b"1", ttl=60)
    await cache.close()
    with closing(sqlite3.connect(folder / FILE, isolation_level=None)) as file:
        file.execute("UPDATE totals SET entries = 5000")
    cache = make()
    await cache.put("b", b"2", ttl=60)
    assert await cache.usage() == CacheUsage(2, 2)
    with closing(sqlite3.connect(folder / FILE, isolation_level=None)) as file:
        file.execute("UPDATE totals SET entries = 5000")
    await cache.put("c", b"3", ttl=60)
    assert await cache.usage() == CacheUsage(1, 1)
    await cache.close()
    assert len(aside(folder)) == 1
