from __future__ import annotations

import asyncio
import os
import pickle
import re
import signal
import socket
import threading
import traceback
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from tests.patience import PATIENCE, until

from llm.cache import RedisCache
from llm.cache.base import CacheUsage
from llm.core.exceptions import LLMConfigurationError
from llm.testing import FakeClock
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
    from contextlib import AbstractContextManager

    from tests.conftest import RedisServer

    from llm.utils.clock import Clock

    OwnTime = Callable[[], AbstractContextManager[None]]

CLOCK = SystemClock()
AT = "{llm:cache:0}"


@pytest.fixture(scope="module")
def running(redis_server: Callable[..., AbstractContextManager[RedisServer]]) -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def server(running: RedisServer) -> RedisServer:
    running.command("FLUSHALL")
    return running


def make(url: str, *, max_entries: int = 100, max_bytes: int = 10_000, clock: Clock | None = None) -> RedisCache:
    return RedisCache(url, max_entries=max_entries, max_bytes=max_bytes, clock=clock)


@pytest.fixture
async def cache(server: RedisServer) -> AsyncIterator[RedisCache]:
    async with closing(make(server.url)) as cache:
        yield cache


@asynccontextmanager
async def closing(cache: RedisCache) -> AsyncGenerator[RedisCache]:
    try:
        yield cache
    finally:
        await cache.close()


def number(server: RedisServer, pattern: str, *command: str) -> int:
    found = re.search(pattern.encode(), server.command(*command))
    assert found is not None
    return int(found[1])


def integer(server: RedisServer, *command: str) -> int:
    return number(server, r":(-?\d+)", *command)


# Time


async def test_ages_and_ends_are_by_the_servers_time_and_redis_removes_by_itself(
    cache: RedisCache, server: RedisServer
) -> None:
    await cache.put("a", b"1", ttl=60)
    assert 50_000 < integer(server, "PTTL", f"{AT}:v:a") <= 60_000
    young = await cache.get("a")
    await CLOCK.sleep(0.03)
    older = await cache.get("a")
    assert young is not None
    assert older is not None
    assert 0 <= young.age <= older.age - 0.03 < 10
    await cache.put("b", b"1", ttl=0.03)
    await CLOCK.sleep(0.04)
    assert await cache.get("b") is None
    assert integer(server, "EXISTS", f"{AT}:v:b") == 0


async def test_an_endless_time_to_live_is_a_long_one(cache: RedisCache) -> None:
    await cache.put("a", b"1", ttl=float("inf"))
    assert await cache.exists("a")


# What stands in the server


class _Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return pytest.fail, ("a pickle was opened",)


@pytest.mark.parametrize("known", [True, False])
async def test_a_planted_pickle_is_a_miss_and_removed(cache: RedisCache, server: RedisServer, *, known: bool) -> None:
    if known:
        await cache.put("a", b"1", ttl=60)
    server.command("SET", f"{AT}:v:a", pickle.dumps(_Bomb(), protocol=0).decode())
    assert [key async for key, _ in cache.scan()] == []
    assert await cache.get("a") is None
    assert integer(server, "EXISTS", f"{AT}:v:a") == 0
    assert await cache.usage() == CacheUsage(0, 0)


async def test_a_planted_value_in_a_batch_is_a_miss_and_removed(cache: RedisCache, server: RedisServer) -> None:
    for key in "abc":
        await cache.put(key, b"1", ttl=60)
    server.command("SET", f"{AT}:v:a", "text")
    server.command("DEL", f"{AT}:v:b")
    server.command("LPUSH", f"{AT}:v:b", "of another kind")
    assert list(await cache.get_many("abc")) == ["c"]
    assert await cache.usage() == CacheUsage(1, 1)


async def test_what_ended_or_was_removed_leaves_nothing_behind(server: RedisServer) -> None:
    clock = FakeClock()
    async with closing(make(server.url, clock=clock)) as cache:
        for key in "abcd":
            await cache.put(key, b"12", ttl=60, tags=["model:m", f"user:{key}"])
        assert integer(server, "ZCARD", f"{AT}:tags") == 12
        await cache.delete("a")
        await cache.remove(tags=["user:b"])
        await cache.put("c", b"3", ttl=0)
        assert integer(server, "ZCARD", f"{AT}:tags") == 3
        await clock.advance(60)
        await cache.put("e", b"4", ttl=60)
        assert integer(server, "ZCARD", f"{AT}:tags") == 1
        assert await cache.usage() == CacheUsage(1, 1)
        await clock.advance(60)
        assert await cache.usage() == CacheUsage(0, 0)
        await cache.exists("a")
        keys = server.command("KEYS", "*")
        assert keys == f"*1\r\n${len(AT) + 6}\r\n{AT}:bytes\r\n".encode()  # which holds a zero


async def test_tags_that_look_like_others_are_told_apart(cache: RedisCache) -> None:
    await cache.put("k", b"1", ttl=60, tags=["a"])
    await cache.put("l", b"1", ttl=60, tags=["a\0k"])
    await cache.put("m", b"1", ttl=60, tags=["ab", ""])
    assert [key async for key, _ in cache.scan(tags=["a"])] == ["k"]
    assert [key async for key, _ in cache.scan(tags=[""])] == ["m"]
    assert await cache.remove(tags=["a"]) == 1
    assert sorted([key async for key, _ in cache.scan()]) == ["l", "m"]


@pytest.mark.parametrize("goes_on", [False, True])
@pytest.mark.parametrize("part", ["used", "ends", "about", "tags", "bytes"])
async def test_when_redis_evicts_a_part_of_the_index_nothing_escapes_a_removal(
    cache: RedisCache, server: RedisServer, part: str, *, goes_on: bool
) -> None:
    await cache.put("a", b"1", ttl=60, tags=["user:u"])
    server.command("DEL", f"{AT}:{part}")
    if goes_on:
        await cache.put("c", b"1", ttl=60)
    await cache.remove(tags=["user:u"])
    assert await cache.get("a") is None
    await cache.put("b", b"2", ttl=60, tags=["user:u"])
    assert await cache.remove(tags=["user:u"]) == 1
    assert (await cache.usage()).entries == goes_on


async def test_what_redis_evicted_is_not_there(cache: RedisCache, server: RedisServer) -> None:
    await cache.put("a", b"1", ttl=60)
    server.command("DEL", f"{AT}:v:a")
    assert not await cache.exists("a")
    assert not await cache.delete("a")
    await cache.put("a", b"2", ttl=60)
    server.command("DEL", f"{AT}:v:a")
    assert await cache.get("a") is None
    assert await cache.usage() == CacheUsage(0, 0)


async def test_a_flushed_server_is_an_empty_cache(cache: RedisCache, server: RedisServer) -> None:
    await cache.put("a", b"1", ttl=60)
    server.command("FLUSHALL")
    server.command("SCRIPT", "FLUSH")
    assert await cache.get("a") is None
    await cache.put("a", b"2", ttl=60)
    assert await cache.exists("a")


async def test_many_entries_are_scanned_and_removed_page_by_page(server: RedisServer) -> None:
    async with closing(make(server.url, max_entries=2000)) as cache:
        for first in range(0, 620, 62):  # all at once are too many for a busy machine
            async with asyncio.TaskGroup() as tasks:
                for n in range(first, first + 62):
                    tasks.create_task(cache.put(str(n), b"1", ttl=60))
    async with closing(make(server.url)) as cache:
        assert len({key async for key, _ in cache.scan()}) == 620
        assert await cache.remove() == 620
        assert await cache.usage() == CacheUsage(0, 0)


async def test_each_method_is_one_round_trip(cache: RedisCache, server: RedisServer) -> None:
    def asked() -> int:
        return number(server, r"cmdstat_evalsha:calls=(\d+)", "INFO", "commandstats")

    async def everything() -> None:
        await cache.put("a", b"1", ttl=60, tags=["t"])
        await cache.get("a")
        await cache.get_many("abc")
        await cache.exists("a")
        await cache.delete("a")
        await cache.remove(tags=["t"])
        await cache.usage()

    await everything()
    before = asked()
    await everything()
    assert asked() - before == 7


async def test_many_calls_at_once_share_few_connections(cache: RedisCache, server: RedisServer) -> None:
    await cache.put("a", b"1", ttl=60)
    async with asyncio.TaskGroup() as tasks:
        found = [tasks.create_task(cache.get("a")) for _ in range(100)]
    assert all(task.result() is not None for task in found)
    assert number(server, r"connected_clients:(\d+)", "INFO", "clients") <= 18


async def test_calls_that_are_cancelled_leave_the_others_their_own_answers(cache: RedisCache) -> None:
    for n in range(10):
        await cache.put(str(n), str(n).encode(), ttl=60)
    for turn in range(20):
        asked = [asyncio.create_task(cache.get(str(n))) for n in range(10)]
        for _ in range(turn):
            await CLOCK.sleep(0)
        for task in asked[::2]:
            task.cancel()
        for n, task in enumerate(asked):
            with suppress(asyncio.CancelledError):
                entry = await task
                assert entry is not None
                assert entry.value == str(n).encode()


# Failures


async def test_counting_what_is_left_takes_what_is_over_in_steps_that_hold_nobody_up(server: RedisServer) -> None:
    clock = FakeClock()
    async with closing(make(server.url, max_entries=2000, clock=clock)) as cache:
        for hundred in range(12):
            async with asyncio.TaskGroup() as tasks:
                for number in range(100):
                    tasks.create_task(cache.put(f"{hundred}:{number}", b"1", ttl=60))
        await clock.advance(61)
        await cache.put("left", b"1", ttl=60)
        server.command("CONFIG", "RESETSTAT")
        assert await cache.usage() == CacheUsage(1, 1)
        assert b"cmdstat_evalsha:calls=3," in server.command("INFO", "commandstats")  # 500 at once


@pytest.fixture
def own(redis_server: Callable[..., AbstractContextManager[RedisServer]]) -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@contextmanager
def soon() -> Generator[None]:
    """Hold that what is done here has not waited for an answer, of which there is none."""
    begun = CLOCK.now()
    yield
    assert CLOCK.now() - begun < PATIENCE / 2


async def test_a_server_that_is_gone_fails_at_once_and_is_used_again_when_it_is_back(own: RedisServer) -> None:
    clock = FakeClock()
    async with closing(make(own.url, clock=clock)) as cache:
        await cache.put("a", b"1", ttl=60)
        own.kill()
        with soon(), pytest.raises(ConnectionError, match=r"Redis at 127\.0\.0\.1:\d+ failed") as caught:
            await cache.get("a")
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)
        own.start()
        with soon(), pytest.raises(ConnectionError, match="left alone"):
            await cache.get("a")
        await clock.advance(1)
        assert await cache.get("a") is None
        await cache.put("a", b"1", ttl=60)
        own.kill()
        own.start()
        await CLOCK.sleep(0.02)
        assert await cache.get("a") is None  # connections that broke meanwhile are no failure


async def test_while_it_fails_one_of_many_tries(own: RedisServer) -> None:
    clock = FakeClock()
    async with closing(make(own.url, clock=clock)) as cache:
        own.kill()
        with pytest.raises(ConnectionError):
            await cache.get("a")
        await clock.advance(1)
        with soon():
            asked = [asyncio.create_task(cache.get("a")) for _ in range(50)]
            await asyncio.wait(asked)
        said = [str(task.exception()) for task in asked]
        assert sum("left alone" in text for text in said) == 49


async def test_a_server_that_stops_answering_stops_no_call(own: RedisServer, in_its_own_time: OwnTime) -> None:
    clock = FakeClock()
    pid = number(own, r"process_id:(\d+)", "INFO", "server")
    async with closing(make(own.url, clock=clock)) as cache:
        await cache.put("a", b"1", ttl=60)
        os.kill(pid, signal.SIGSTOP)
        try:
            with in_its_own_time(), soon(), pytest.raises(ConnectionError, match="no answer in time"):
                await cache.get("a")
            with soon(), pytest.raises(ConnectionError, match="left alone"):
                await cache.get_many("ab")
        finally:
            os.kill(pid, signal.SIGCONT)
        await clock.advance(1)
        assert await cache.exists("a")


async def test_behind_a_server_that_stops_answering_nobody_waits_for_his_turn(
    own: RedisServer, in_its_own_time: OwnTime
) -> None:
    pid = number(own, r"process_id:(\d+)", "INFO", "server")
    async with closing(make(own.url)) as cache:
        assert not await cache.exists("a")
        os.kill(pid, signal.SIGSTOP)
        try:
            with in_its_own_time(), soon():
                asked = [asyncio.create_task(cache.get("a")) for _ in range(100)]
                await asyncio.wait(asked)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert all(isinstance(task.exception(), ConnectionError) for task in asked)


async def test_a_server_that_is_slow_makes_nobody_wait_long_for_his_turn(in_its_own_time: OwnTime) -> None:
    """It answers each command after 0.3 seconds; 16 of 64 have a place at once."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while data := await reader.read(10_000):
                if b"EVALSHA" in data:
                    await CLOCK.sleep(0.3)
                writer.write(b"$17\r\ncluster_enabled:0\r\n" if b"INFO" in data else b":0\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        address = "redis://{}:{}".format(*server.sockets[0].getsockname())
        async with closing(make(address)) as cache:
            with in_its_own_time(), soon():
                asked = [asyncio.create_task(cache.exists("a")) for _ in range(64)]
                await asyncio.wait(asked)
    said = [str(task.exception()) for task in asked]
    assert sum("too slow for all" in text for text in said) >= 16


async def test_a_row_of_the_index_that_is_foreign_stops_nothing(cache: RedisCache, server: RedisServer) -> None:
    for row in ("no json", "7", "[1,2]", "[[],2,[]]", "[1.5,2,[]]"):
        await cache.put("a", b"1", ttl=60, tags=["t"])
        server.command("HSET", f"{AT}:about", "a", row)
        assert [key async for key, _ in cache.scan(tags=["t"])] == []
        await cache.put("a", b"2", ttl=60, tags=["t"])
        assert await cache.get("a") is not None
        assert await cache.remove(tags=["t"]) == 1


async def test_a_count_of_bytes_that_is_wrong_stops_nothing(cache: RedisCache, server: RedisServer) -> None:
    await cache.put("a", b"1", ttl=60)
    server.command("SET", f"{AT}:bytes", "1000000")
    await cache.put("b", b"1", ttl=60)
    assert await cache.exists("b")
    assert await cache.usage() == CacheUsage(1, 1)


async def test_something_else_that_takes_the_connection_and_says_nothing_stops_no_call(
    in_its_own_time: OwnTime,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with closing(make(f"redis://127.0.0.1:{silent.getsockname()[1]}")) as cache:
            with in_its_own_time(), soon(), pytest.raises(ConnectionError, match="no answer in time"):
                await cache.get("a")


async def test_a_server_out_of_memory_refuses_what_is_new_and_gives_what_it_has(own: RedisServer) -> None:
    async with closing(make(own.url)) as cache:
        await cache.put("a", b"1", ttl=60)
        own.command("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(RuntimeError, match="OutOfMemoryError"):
            await cache.put("b", b"1", ttl=60)
        assert await cache.get("a") is not None
        assert await cache.delete("a")


async def test_a_read_only_replica_refuses_what_is_new_and_gives_what_it_has(own: RedisServer) -> None:
    async with closing(make(own.url)) as cache:
        await cache.put("a", b"1", ttl=60)
        own.command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(RuntimeError, match="ReadOnlyError"):
            await cache.put("b", b"1", ttl=60)
        assert await cache.get("a") is not None


async def test_the_password_is_used_and_shown_nowhere(own: RedisServer) -> None:
    own.command("CONFIG", "SET", "requirepass", "correct-horse")
    url = own.url.replace("://", "://:correct-horse@")
    async with closing(make(url)) as cache:
        await cache.put("a", b"1", ttl=60)
        assert repr(cache) == f"RedisCache(Redis at 127.0.0.1:{own.port})"
    wrong = own.url.replace("://", "://default:battery-staple@")
    for address in (wrong, f"{own.url}?password=battery-staple"):
        async with closing(make(address)) as cache:
            with pytest.raises(ConnectionError, match="AuthenticationError") as caught:
                await cache.get("a")
            shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
            ours = [frame.locals for frame in shown.stack if frame.filename != __file__]
            assert len(ours) > 2
            assert "battery" not in str(caught.value) + repr(ours) + repr(cache) + repr(vars(cache))
            assert caught.value.__context__ is None


async def test_an_error_that_repeats_the_password_is_shown_without_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def answer() -> None:
            connection, _ = proxy.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"-ERR unknown command 'AUTH', with args beginning with: 'battery staple'\r\n" * 2)

        thread = threading.Thread(target=answer)
        thread.start()
        address = f"redis://:battery%20staple@127.0.0.1:{proxy.getsockname()[1]}"
        async with closing(make(address)) as cache:
            with pytest.raises((ConnectionError, RuntimeError)) as caught:
                await cache.get("a")
        thread.join()
    assert "beginning with" in str(caught.value)
    assert "battery" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "http://h", "redis://:battery@h:port/0", "redis://:battery@h/0?db=x"])
def test_what_is_no_address_is_an_error_that_names_the_field_and_keeps_the_secret(url: str) -> None:
    with pytest.raises(LLMConfigurationError, match=r"cache\.url.+redis://") as caught:
        make(url)
    assert "battery" not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_unix_socket_is_an_address_too() -> None:
    assert repr(make("unix:///run/redis.sock")) == "RedisCache(Redis at /run/redis.sock)"


@pytest.mark.parametrize(("max_entries", "max_bytes"), [(0, 1), (1, 0)])
def test_a_bound_below_one_is_an_error(max_entries: int, max_bytes: int) -> None:
    with pytest.raises(ValueError, match="expected 1 or more"):
        make("redis://h", max_entries=max_entries, max_bytes=max_bytes)


def test_without_the_package_the_error_says_what_to_type(fresh_python: Callable[[str], str]) -> None:
    told = fresh_python("""
import sys
from llm.cache import RedisCache
assert "redis" not in sys.modules
sys.modules["redis"] = None
try:
    RedisCache("redis://h", max_entries=1, max_bytes=1)
except Exception as error:
    print(type(error).__name__, error)
""")
    assert "LLMConfigurationError" in told
    assert "pip install 'llm-manifold[redis]'" in told


# Loops and processes


def test_each_loop_has_connections_of_its_own_and_ends_them(server: RedisServer) -> None:
    cache = make(server.url)

    async def use() -> None:
        await cache.put("a", b"1", ttl=60)
        cache.listen(lambda _: None)
        assert await cache.get("a") is not None

    for _ in range(2):
        asyncio.run(use())  # which does not close it; what is left open is an error
    for _ in range(100):
        if number(server, r"connected_clients:(\d+)", "INFO", "clients") == 1:
            return
        threading.Event().wait(0.01)
    raise AssertionError("connections are left open")


def test_a_forked_child_has_connections_of_its_own(server: RedisServer, fresh_python: Callable[[str], str]) -> None:
    told = fresh_python(f"""
import asyncio, os
from llm.cache import RedisCache
cache = RedisCache({server.url!r}, max_entries=9, max_bytes=99)

async def main():
    await cache.put("a", b"1", ttl=60)


def child(loop):
    pid = os.fork()
    if pid == 0:
        found = loop.run_until_complete(cache.get("a"))
        own = cache._link._homes[loop].pid == os.getpid()
        os._exit(7 if own and found.value == b"1" else 8)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7

loop = asyncio.new_event_loop()
loop.run_until_complete(main())
fresh = asyncio.new_event_loop()
child(fresh)
child(loop)
for _ in range(3):
    assert loop.run_until_complete(cache.get("a")).value == b"1"
loop.run_until_complete(cache.close())
loop.close()
fresh.close()
print("fine")
""")
    assert told == "fine\n"


# A cluster


async def test_on_a_cluster_the_cache_is_spread_and_all_methods_work(
    redis_server: Callable[..., AbstractContextManager[RedisServer]],
) -> None:
    keys = [str(n) for n in range(64)]
    with redis_server("redis6", cluster=True) as server:
        async with closing(make(server.url, max_entries=16 * 20, max_bytes=16 * 100)) as cache:
            for key in keys:
                await cache.put(key, key.encode(), ttl=60, tags=["even" if int(key) % 2 == 0 else "odd"])
            assert {key: entry.value for key, entry in (await cache.get_many(keys)).items()} == {
                key: key.encode() for key in keys
            }
            assert (await cache.usage()).entries == 64
            assert integer(server, "DBSIZE") == 64 + 16 * 5  # each part has an index of its own
            assert await cache.delete("1")
            assert not await cache.exists("1")
            assert sorted([key async for key, _ in cache.scan(tags=["odd"])]) == sorted(keys[3::2])
            assert await cache.remove(tags=["odd"]) == 31
            for _ in range(30):  # all of one part
                await cache.put("big", b"x" * 101, ttl=60)
            assert not await cache.exists("big")
            lease = await cache.lease("a", 10)
            assert lease is not None
            assert await cache.lease("a", 10) is None
            await lease.release()
            assert await cache.released("a", 1)
            async with closing(make(server.url)) as other:
                heard: list[str | None] = []
                other.listen(heard.append)
                assert await other.exists("2")
                await until(other.in_touch)
                await cache.delete("2")
                await until(lambda: "2" in heard)
            await cache.clear()
            assert await cache.usage() == CacheUsage(0, 0)
