"""Every await point of a call can be cancelled, and nothing is left: no slot, capacity, task, timer or stream."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from llm import LLMClient, LLMManager, LLMServerError, register_provider
from llm.testing import FakeClock, FakeProvider

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    Work = Callable[[LLMClient], Coroutine[None, None, object]]

pytestmark = pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again

_MOST_STEPS = 400
_STEP, _LEAP = 0.05, 1.0  # seconds of the fake clock: while much happens, and while all wait for the limit
_LIVELY = 2.0

LIMITS = {"requests_per_minute": 4, "concurrent_requests": 2, "tokens_per_minute": 10_000, "algorithm": "token_bucket"}
CONFIG: dict[str, Any] = {
    "retry": {"initial_delay": 0.2},
    "cache": {},
    "providers": {"fake": {"api_keys": ["k1"], "models": ["m"], "rate_limits": LIMITS}},
}


async def unary(client: LLMClient) -> object:
    return await client.chat("hello", max_tokens=10)


async def streamed(client: LLMClient) -> object:
    async with client.stream_complete("a text of some length", max_tokens=10) as stream:
        return "".join([str(chunk) async for chunk in stream])


async def embedded(client: LLMClient) -> object:
    return (await client.embed(["a text", "another"])).embeddings


async def left_unread(client: LLMClient) -> object:
    """An unnamed stream closes when it is freed."""
    async for chunk in client.stream_complete("a text of some length", max_tokens=10):
        return str(chunk)
    return None


class Bench:
    """A manager on a fake clock and one provider that fails once, then answers slowly."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.failures = 1
        self.provider = FakeProvider(self.answer, latency=0.3, interval=0.1, clock=self.clock)

    def answer(self, _: object) -> str:
        if self.failures:
            self.failures -= 1
            raise LLMServerError("down")
        return "a text of some length"

    async def open(self) -> LLMManager:
        register_provider("fake", lambda _: self.provider)
        return await LLMManager.open(CONFIG, clock=self.clock)

    async def run(self, coroutine: Awaitable[object]) -> object:
        """Let virtual time pass until it is done."""
        task = asyncio.ensure_future(coroutine)  # noqa: TID251 - a TaskGroup cannot be stepped through
        for _ in range(_MOST_STEPS * 10):
            if task.done():
                break
            await self.clock.advance(_STEP)
        return await task


async def step(clock: FakeClock, ticks: int) -> None:
    """Go on by single turns of the loop, and when those bring nothing, by time."""
    for _ in range(ticks):
        await asyncio.sleep(0)  # noqa: TID251 - the smallest step there is
        if _ready() == 0:
            await clock.advance(_STEP if clock.now() < _LIVELY else _LEAP)


def _ready() -> int:
    loop: Any = asyncio.get_running_loop()
    return len(loop._ready)


def leftovers(bench: Bench, manager: LLMManager) -> dict[str, object]:
    status = manager.get_status()
    key = status["providers"]["fake"]["keys"][0]
    metrics = status["metrics"]
    left: dict[str, object] = {
        "calls": status["pool"]["calls"],
        "waiting": status["pool"]["waiting"],
        "calls of the key": key["calls"],
        "concurrent": key["models"]["m"]["concurrent_requests"],
        "in flight": bench.provider.in_flight,
        "open streams": bench.provider.open_streams,
        "uncounted": metrics["total_requests"]
        - metrics["successful_requests"]
        - metrics["failed_requests"]
        - metrics["cancelled_requests"],
    }
    return {name: value for name, value in left.items() if value}


@pytest.mark.parametrize("work", [unary, streamed, left_unread, embedded])
@pytest.mark.parametrize("others", [0, 3], ids=["alone", "while others wait"])
async def test_a_call_cancelled_at_any_await_point_leaves_nothing_behind(work: Work, others: int) -> None:
    points, finished = 0, False
    for ticks in range(_MOST_STEPS):
        bench = Bench()
        manager = await bench.open()
        async with asyncio.TaskGroup() as group:
            crowd = [group.create_task(manager.get_client().chat(f"other {i}", max_tokens=10)) for i in range(others)]
            task = group.create_task(work(manager.get_client()))
            await step(bench.clock, ticks)
            finished = task.done()
            task.cancel()
            while not (task.done() and all(other.done() for other in crowd)):
                await bench.clock.advance(_STEP)
        assert {str(other.result()) for other in crowd} <= {"a text of some length"}
        assert leftovers(bench, manager) == {}, f"cancelled after {ticks} steps"
        assert str(await bench.run(manager.get_client().chat("next", max_tokens=10))) == "a text of some length"
        await manager.close()
        assert bench.clock.timers == 0, f"cancelled after {ticks} steps"
        points += 1
        if finished:
            break
    assert finished
    assert points > 5


async def test_a_cancelled_call_gives_its_reserved_tokens_back_before_it_was_sent() -> None:
    bench = Bench()
    bench.failures = 0
    manager = await bench.open()
    client = manager.get_client()
    async with asyncio.TaskGroup() as group:
        first = [group.create_task(client.chat(f"{i}", max_tokens=10)) for i in range(2)]
        await bench.clock.advance(0.0)
        waiting = group.create_task(client.chat("x" * 400, max_tokens=5_000))
        await bench.clock.advance(0.01)
        before = manager.get_status()["providers"]["fake"]["keys"][0]["models"]["m"]["tokens_per_minute"]
        assert before < 0.01
        waiting.cancel()
        await bench.clock.advance(0.01)
        after = manager.get_status()["providers"]["fake"]["keys"][0]["models"]["m"]["tokens_per_minute"]
        assert after <= before
        while not all(task.done() for task in first):
            await bench.clock.advance(1.0)
    await manager.close()
