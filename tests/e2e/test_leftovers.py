"""Whatever is left of a call that nobody waits for any more is closed upstream within a second, in each dialect."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.patience import until

from llm import LLMException, LLMManager, LLMTimeoutError
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.e2e.conftest import Peer, Spoken

    from llm import LLMClient

CLOCK: Final = SystemClock()
LAST: Final = b"0\r\n\r\n"


def config(peer: Peer, spoken: Spoken) -> dict[str, Any]:
    return {"retry": {"max_attempts": 1}, "providers": {spoken.provider: peer.section(spoken)}}


def begun(spoken: Spoken) -> list[bytes]:
    """A stream's beginning, until something is there for the caller."""
    return spoken.streamed(*spoken.events[:-2])


class Life:
    """A manager, and the server that its calls go to and never end at."""

    def __init__(self, manager: LLMManager, peer: Peer, spoken: Spoken) -> None:
        self.manager = manager
        self.peer = peer
        self.spoken = spoken
        self.client: LLMClient = manager.get_client(spoken.provider)

    async def asked(self) -> None:
        """Wait until the request is there."""
        before = self.peer.requests
        await until(lambda: self.peer.requests > before)

    async def task(self, work: Awaitable[object], group: asyncio.TaskGroup | None = None) -> asyncio.Task[object]:
        async def run() -> object:
            return await work

        task = asyncio.create_task(run()) if group is None else group.create_task(run())
        await self.asked()
        return task

    def plays_all(self) -> None:
        self.peer.plays(*self.spoken.streamed(*self.spoken.events), LAST)


async def cancelled_before_the_head(life: Life) -> None:
    life.peer.plays(end="hold")
    task = await life.task(life.client.chat("Hi"))
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def cancelled_in_the_body(life: Life) -> None:
    life.peer.plays(life.spoken.answer(life.spoken.whole)[:-20], end="hold")
    task = await life.task(life.client.chat("Hi"))
    await CLOCK.sleep(0.03)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def cancelled_before_the_first_chunk(life: Life) -> None:
    life.peer.plays(*life.spoken.streamed(), end="hold")
    task = await life.task(life.client.stream_complete("Hi").response())
    await CLOCK.sleep(0.03)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def cancelled_in_a_stream(life: Life) -> None:
    life.peer.plays(*begun(life.spoken), end="hold")
    task = await life.task(life.client.stream_complete("Hi").response())
    await CLOCK.sleep(0.03)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def left_by_break(life: Life) -> None:
    life.peer.plays(*begun(life.spoken), end="hold")
    async for _ in life.client.stream_complete("Hi"):
        break


async def left_by_a_dropped_reference(life: Life) -> None:
    life.peer.plays(*begun(life.spoken), end="hold")
    stream = life.client.stream_complete("Hi")
    await anext(stream)
    del stream


async def left_in_a_ring_of_references(life: Life) -> None:
    life.peer.plays(*begun(life.spoken), end="hold")
    held: list[object] = [life.client.stream_complete("Hi")]
    held.append(held)
    await anext(held[0])  # type: ignore[call-overload]  # a stream is what stands first
    del held
    gc.collect()


async def left_by_aclose(life: Life) -> None:
    life.peer.plays(*begun(life.spoken), end="hold")
    stream = life.client.stream_complete("Hi")
    await anext(stream)
    await stream.aclose()


async def left_by_an_exception(life: Life) -> None:
    life.peer.plays(*begun(life.spoken), end="hold")

    async def read() -> None:
        async with life.client.stream_complete("Hi") as stream:
            async for _ in stream:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await read()


async def left_by_an_exception_outside_a_block(life: Life) -> None:
    life.peer.plays(*begun(life.spoken), end="hold")

    async def read() -> None:
        async for _ in life.client.stream_complete("Hi"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await read()
    # What was raised holds the frames, and they the stream, until it is forgotten.


async def left_by_a_group(life: Life) -> None:
    life.peer.plays(*begun(life.spoken), end="hold")

    async def fail() -> None:
        await CLOCK.sleep(0.03)
        raise ZeroDivisionError

    async def together() -> None:
        async with asyncio.TaskGroup() as group:
            _ = await life.task(life.client.stream_complete("Hi").response(), group)
            _ = await life.task(life.client.chat("Hi"), group)
            group.create_task(fail())

    with pytest.raises(ExceptionGroup):
        await together()


async def ended_by_its_deadline(life: Life) -> None:
    life.peer.plays(end="hold")
    with pytest.raises(LLMTimeoutError):
        await life.client.chat("Hi", timeout=0.1)


async def ended_by_its_deadline_in_a_stream(life: Life) -> None:
    life.peer.plays(*begun(life.spoken), end="hold")
    with pytest.raises(LLMTimeoutError) as caught:
        await life.client.stream_complete("Hi", timeout=0.1).response()
    assert caught.value.phase == "total"


WAYS: Final[list[Callable[[Life], Awaitable[None]]]] = [
    cancelled_before_the_head,
    cancelled_in_the_body,
    cancelled_before_the_first_chunk,
    cancelled_in_a_stream,
    left_by_break,
    left_by_a_dropped_reference,
    left_in_a_ring_of_references,
    left_by_aclose,
    left_by_an_exception,
    left_by_an_exception_outside_a_block,
    left_by_a_group,
    ended_by_its_deadline,
    ended_by_its_deadline_in_a_stream,
]


@pytest.mark.parametrize("leave", WAYS, ids=lambda way: way.__name__)
async def test_what_is_left_closes_upstream_and_the_next_call_is_served(
    peer: Peer, spoken: Spoken, leave: Callable[[Life], Awaitable[None]]
) -> None:
    async with LLMManager.open(config(peer, spoken)) as manager:
        life = Life(manager, peer, spoken)
        life.plays_all()
        await life.client.stream_complete("Hi").response()  # a warm connection, which the call to be left then has
        kept, before = peer.open, peer.connections
        await leave(life)
        await until(lambda: peer.open < kept or peer.connections > before)
        await until(lambda: manager.get_status()["pool"]["calls"] == 0)
        await until(lambda: peer.open <= kept - 1)
        assert manager.get_status()["pool"]["calls"] == 0
        life.plays_all()
        for _ in range(2):
            await life.client.stream_complete("Hi").response()
        assert peer.open == kept  # the two shared one, and nothing of what was left is there
        metrics = manager.get_status()["metrics"]
        assert metrics["successful_requests"] == 3
        assert metrics["total_requests"] == 3 + metrics["failed_requests"] + metrics["cancelled_requests"]
    await until(lambda: peer.open == 0)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_closing_without_a_drain_closes_upstream(peer: Peer, spoken: Spoken, stream: bool) -> None:
    manager = await LLMManager.open(config(peer, spoken))
    life = Life(manager, peer, spoken)
    peer.plays(*(begun(spoken) if stream else []), end="hold")
    task = await life.task(life.client.stream_complete("Hi").response() if stream else life.client.chat("Hi"))
    await CLOCK.sleep(0.03)
    closing = asyncio.create_task(manager.close(drain=0))
    await until(lambda: peer.open == 0)
    with suppress(asyncio.CancelledError), pytest.raises(LLMException):
        await task
    await closing
