from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from llm.core.exceptions import LLMConnectionError
from llm.providers.direct.transport import DirectTransport
from llm.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


class Counted(asyncio.Protocol):
    """Answers whatever comes, and counts connections."""

    answer = ANSWER
    made = 0
    now = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        Counted.made += 1
        Counted.now += 1

    def data_received(self, data: bytes) -> None:
        del data
        self.transport.write(self.answer)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        Counted.now -= 1


@pytest.fixture
async def url() -> AsyncIterator[str]:
    Counted.made = Counted.now = 0
    Counted.answer = ANSWER
    server = await asyncio.get_running_loop().create_server(Counted, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    server.close()
    await server.wait_closed()


async def ask(transport: DirectTransport, url: str) -> None:
    reply = await transport.request("POST", url, headers={}, body=b"{}")
    assert await reply.read() == b"{}"


async def crowd(transport: DirectTransport, url: str, number: int) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(number):
            group.create_task(ask(transport, url))


async def turns(number: int = 10) -> None:
    for _ in range(number):
        await asyncio.to_thread(int)


async def test_a_connection_idle_for_too_long_is_closed_and_not_used(url: str) -> None:
    clock = FakeClock()
    transport = DirectTransport(trust_env=False, clock=clock)
    await ask(transport, url)
    await clock.advance(29.0)
    await ask(transport, url)
    assert Counted.made == 1
    await clock.advance(31.0)
    await ask(transport, url)
    assert Counted.made == 2
    await transport.close()


async def test_a_connection_that_the_server_keeps_for_less_is_not_used_after_that(url: str) -> None:
    clock = FakeClock()
    transport = DirectTransport(trust_env=False, clock=clock)
    Counted.answer = ANSWER.replace(b"\r\n\r\n", b"\r\nKeep-Alive: timeout=6, max=100\r\n\r\n")
    await ask(transport, url)
    await clock.advance(4.5)
    await ask(transport, url)
    assert Counted.made == 1
    await clock.advance(5.5)
    await ask(transport, url)
    assert Counted.made == 2
    await transport.close()


async def test_idle_connections_are_closed_without_another_request_and_no_timer_stays(url: str) -> None:
    clock = FakeClock()
    transport = DirectTransport(trust_env=False, clock=clock)
    await crowd(transport, url, 5)
    assert clock.timers == 1  # one for all connections
    await clock.advance(61.0)
    await turns()
    assert Counted.now == 0
    assert clock.timers == 0
    await transport.close()


async def test_closing_leaves_no_connection_and_no_timer(url: str) -> None:
    clock = FakeClock()
    transport = DirectTransport(trust_env=False, clock=clock)
    await crowd(transport, url, 5)
    home = transport._homes[asyncio.get_running_loop()]  # pyright: ignore[reportPrivateUsage]
    await transport.close()
    assert not home.pool._all  # pyright: ignore[reportPrivateUsage]  # on return, and not some time later
    await turns()
    assert Counted.now == 0
    assert clock.timers == 0
    with pytest.raises(LLMConnectionError, match="closed"):
        await ask(transport, url)


async def test_closing_that_is_cancelled_leaves_nothing_and_upsets_no_one(url: str) -> None:
    upset: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: upset.append(context))
    transport = DirectTransport(trust_env=False)
    await ask(transport, url)
    pool = transport._homes[asyncio.get_running_loop()].pool  # pyright: ignore[reportPrivateUsage]
    closing = asyncio.create_task(pool.close())
    asyncio.get_running_loop().call_soon(closing.cancel)  # in the very turn in which it begins
    await turns()
    assert closing.cancelled()
    assert (upset, Counted.now) == ([], 0)
    await transport.close()


async def test_a_connection_made_while_the_transport_closes_is_not_left_open(url: str) -> None:
    transport = DirectTransport(trust_env=False)
    asking = asyncio.create_task(ask(transport, url))
    await turns(1)
    await transport.close()
    await asyncio.wait([asking])
    assert asking.cancelled() or isinstance(asking.exception(), LLMConnectionError)
    await turns()
    assert Counted.now == 0


async def test_requests_cancelled_at_any_turn_leave_nothing(url: str) -> None:
    clock = FakeClock()
    transport = DirectTransport(trust_env=False, clock=clock)
    for wait in range(30):
        asking = asyncio.create_task(ask(transport, url))
        for _ in range(wait):
            await turn()
        asking.cancel()
        await asyncio.wait([asking])
    await ask(transport, url)
    await transport.close()
    await turns()
    assert Counted.now == 0
    assert clock.timers == 0


async def turn() -> None:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_soon(future.set_result, None)
    await future


def test_each_event_loop_has_connections_of_its_own() -> None:
    transport = DirectTransport(trust_env=False)

    async def scenario() -> int:
        Counted.made = Counted.now = 0
        server = await asyncio.get_running_loop().create_server(Counted, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        await ask(transport, url)
        await ask(transport, url)
        server.close()
        return Counted.made

    assert [asyncio.run(scenario()) for _ in range(3)] == [1, 1, 1]
    asyncio.run(transport.close())


async def test_closing_ends_the_connections_of_other_loops_too(url: str) -> None:
    transport = DirectTransport(trust_env=False)
    other = asyncio.new_event_loop()
    thread = threading.Thread(target=other.run_forever)
    thread.start()
    try:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(ask(transport, url), other))
        await ask(transport, url)
        assert Counted.now == 2
        await transport.close()
        await turns()
        assert Counted.now == 0
    finally:
        other.call_soon_threadsafe(other.stop)
        await asyncio.to_thread(thread.join)
        other.close()


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
def test_what_the_first_request_needs_can_be_loaded_before(fresh_python: Callable[[str], str]) -> None:
    said = fresh_python("""
import sys
sys.path.insert(0, "src")
from llm.providers.direct.transport import DirectTransport
print("httptools" in sys.modules)
DirectTransport().warm()
print("httptools" in sys.modules)
""")
    assert said.split() == ["False", "True"]
