from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
from tests.patience import PATIENCE, until

from llm.cache import RedisCache
from llm.cache.lease import Leasing
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractContextManager

    from tests.conftest import RedisServer

CLOCK = SystemClock()


@pytest.fixture(scope="module", params=["valkey", "redis6"])
def running(
    redis_server: Callable[..., AbstractContextManager[RedisServer]], request: pytest.FixtureRequest
) -> Iterator[RedisServer]:
    with redis_server(request.param) as server:
        yield server


@pytest.fixture(autouse=True)
def _hears(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who hears of releases looks for itself after longer than a test waits, and not once a second."""
    monkeypatch.setattr("llm.cache.redis._POLL_IN_TOUCH", 4 * PATIENCE)


@pytest.fixture
async def processes(running: RedisServer) -> AsyncIterator[list[RedisCache]]:
    """What three processes have."""
    running.command("FLUSHALL")
    async with AsyncExitStack() as stack:
        caches = [RedisCache(running.url, max_entries=100, max_bytes=10_000) for _ in range(3)]
        for cache in caches:
            stack.push_async_callback(cache.close)
        yield caches


async def test_one_holds_a_lease_and_the_next_when_it_is_given_back(processes: list[RedisCache]) -> None:
    first, second, _ = processes
    assert isinstance(first, Leasing)
    lease = await first.lease("a", 10)
    assert lease is not None
    assert await second.lease("a", 10) is None
    assert await first.lease("a", 10) is None
    assert await second.lease("b", 10) is not None
    await lease.release()
    assert await second.lease("a", 10) is not None


async def test_a_lease_ends_by_itself_and_its_old_owner_can_neither_renew_nor_release_it(
    processes: list[RedisCache],
) -> None:
    first, second, third = processes
    old = await first.lease("a", 0.05)
    assert old is not None
    await CLOCK.sleep(0.08)
    assert not await old.renew(10)
    assert await second.lease("a", 10) is not None
    assert not await old.renew(10)
    await old.release()
    assert await third.lease("a", 10) is None


async def test_a_renewed_lease_lasts_on(processes: list[RedisCache], running: RedisServer) -> None:
    first, second, _ = processes
    lease = await first.lease("a", 5)
    assert lease is not None
    assert await lease.renew(60)
    found = re.search(rb":(\d+)", running.command("PTTL", "{llm:cache:0}:lease:a"))
    assert found is not None
    assert 50_000 < int(found[1]) <= 60_000
    assert await second.lease("a", 10) is None


async def test_those_who_wait_are_woken_when_it_is_given_back(processes: list[RedisCache]) -> None:
    first, second, third = processes
    assert await second.released("a", 1)  # nobody holds it
    lease = await first.lease("a", 3 * PATIENCE)
    assert lease is not None
    waiting = [asyncio.create_task(cache.released("a", 2 * PATIENCE)) for cache in (second, third, second)]
    await CLOCK.sleep(0.1)
    assert not any(task.done() for task in waiting)
    begun = CLOCK.now()
    await lease.release()
    assert [await task for task in waiting] == [True, True, True]
    assert CLOCK.now() - begun < PATIENCE / 2


async def test_those_who_wait_ask_no_more_often_than_it_takes(
    processes: list[RedisCache], running: RedisServer
) -> None:
    def asked() -> int:
        found = re.search(rb"cmdstat_evalsha:calls=(\d+)", running.command("INFO", "commandstats"))
        assert found is not None
        return int(found[1])

    first, second, _ = processes
    lease = await first.lease("a", 3 * PATIENCE)
    assert lease is not None
    assert not await second.released("a", 0.1)  # which begins to listen
    before = asked()
    waiting = asyncio.create_task(second.released("a", 2 * PATIENCE))
    await until(lambda: asked() - before)
    await CLOCK.sleep(0.3)
    assert asked() - before == 1
    await lease.release()
    assert await waiting


async def test_those_who_wait_go_on_when_the_owner_is_gone(processes: list[RedisCache]) -> None:
    first, second, _ = processes
    assert await first.lease("a", 0.1) is not None
    begun = CLOCK.now()
    assert await second.released("a", 2 * PATIENCE)
    assert CLOCK.now() - begun < PATIENCE / 2


async def test_who_waits_too_long_is_told_so(processes: list[RedisCache]) -> None:
    first, second, _ = processes
    assert await first.lease("a", 3 * PATIENCE) is not None
    assert not await second.released("a", 0.05)
    assert not await second.released("a", 0)


AWAITED = "{llm:cache:0}:lease:a:awaited"


async def test_a_release_is_told_only_where_somebody_waits(processes: list[RedisCache], running: RedisServer) -> None:
    first, second, _ = processes
    for waits in (False, True):
        lease = await first.lease("a", 10)
        assert lease is not None
        waiting = asyncio.create_task(second.released("a", 10 if waits else 0))
        await until(lambda: running.command("EXISTS", AWAITED) == b":1\r\n")
        if not waits:
            running.command("DEL", AWAITED)
        running.command("CONFIG", "RESETSTAT")
        await lease.release()
        assert await waiting == waits
        assert (b"cmdstat_publish" in running.command("INFO", "commandstats")) == waits


async def test_of_many_one_leads_at_a_time_and_all_come_to_it(processes: list[RedisCache]) -> None:
    leading, most, served = 0, 0, 0

    async def come(cache: RedisCache) -> None:
        nonlocal leading, most, served
        while (lease := await cache.lease("a", 10)) is None:
            await cache.released("a", 10)
        leading += 1
        most = max(most, leading)
        await CLOCK.sleep(0.005)
        leading -= 1
        served += 1
        await lease.release()

    async with CLOCK.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        for cache in processes * 4:
            tasks.create_task(come(cache))
    assert (most, served) == (1, 12)


async def test_those_who_wait_hear_at_once_that_redis_is_gone(
    redis_server: Callable[..., AbstractContextManager[RedisServer]],
) -> None:
    with redis_server() as server:
        cache = RedisCache(server.url, max_entries=9, max_bytes=99)
        assert await cache.lease("a", 3 * PATIENCE) is not None
        assert not await cache.released("a", 0.1)  # which begins to listen
        waiting = asyncio.create_task(cache.released("a", 2 * PATIENCE))
        await CLOCK.sleep(0.05)
        begun = CLOCK.now()
        server.kill()
        with pytest.raises(ConnectionError):
            await waiting
        assert CLOCK.now() - begun < PATIENCE / 2
        await cache.close()


async def test_who_can_hear_no_more_does_not_take_that_for_a_release(
    processes: list[RedisCache], running: RedisServer
) -> None:
    first, second, _ = processes
    lease = await first.lease("a", 3 * PATIENCE)
    assert lease is not None
    assert not await second.released("a", 0.1)  # which begins to listen
    waiting = asyncio.create_task(second.released("a", 2 * PATIENCE))
    await CLOCK.sleep(0.05)
    running.command("CLIENT", "KILL", "TYPE", "pubsub")
    await CLOCK.sleep(0.1)
    assert not waiting.done()
    await lease.release()
    assert await waiting


async def test_while_redis_is_gone_asking_and_waiting_fail_and_stop_nobody(
    redis_server: Callable[..., AbstractContextManager[RedisServer]],
) -> None:
    with redis_server() as server:
        cache = RedisCache(server.url, max_entries=9, max_bytes=99)
        lease = await cache.lease("a", 10)
        assert lease is not None
        waiting = asyncio.create_task(cache.released("a", 10))
        await CLOCK.sleep(0.05)
        server.kill()
        for asked in (lease.renew(1), lease.release(), cache.lease("a", 1), cache.released("a", 1)):
            with pytest.raises(ConnectionError):
                await asked
        waiting.cancel()
        await asyncio.wait([waiting])
        await cache.close()
