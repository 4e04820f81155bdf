from __future__ import annotations

import asyncio

from llm.core.source import Replay
from llm.core.stream import LLMStream
from llm.core.types import StreamChunk
from llm.middleware.broadcast import Broadcast
from llm.middleware.flight import Flight
from llm.testing import FakeClock


async def test_a_follower_cancelled_in_the_turn_in_which_it_is_told_reads_no_more() -> None:
    clock = FakeClock()
    flight = Flight(None, lambda: None, clock)
    follower = asyncio.create_task(flight.follow(None))
    await clock.sleep(0)
    over: list[Broadcast] = []
    broadcast = Broadcast(LLMStream(Replay([StreamChunk("a")] * 100)), over.append, now=clock.now, asked=0.0)
    flight.landed(broadcast)
    follower.cancel()
    await asyncio.wait([follower])
    assert over == [broadcast]
    assert broadcast.response is None


async def test_an_heir_cancelled_in_the_turn_in_which_it_is_told_hands_over_again() -> None:
    clock = FakeClock()
    flight = Flight(None, lambda: None, clock)
    heir, next_one = (asyncio.create_task(flight.follow(None)) for _ in range(2))
    await clock.sleep(0)
    flight.failed(asyncio.CancelledError())
    heir.cancel()
    assert await next_one is None
    assert heir.cancelled()


async def test_a_flight_without_followers_is_gone_when_its_leader_gives_up() -> None:
    gone: list[bool] = []
    flight = Flight(None, lambda: gone.append(True), FakeClock())
    flight.failed(asyncio.CancelledError())
    assert gone == [True]
