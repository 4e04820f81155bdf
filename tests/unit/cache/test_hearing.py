from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from tests.patience import until

from llm.cache.hearing import Hearing
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from contextlib import AbstractAsyncContextManager

CLOCK = SystemClock()
BEGIN = {"type": "subscribe", "data": 1}
PONG = {"type": "pong", "data": b""}


def message(text: bytes) -> dict[str, Any]:
    return {"type": "message", "data": text}


class Channel:
    """Says what it was given, one by one, None where it is silent; then nothing for ever."""

    def __init__(self, *script: dict[str, Any] | None) -> None:
        self.script = list(script)
        self.pings = 0
        self.closed = False

    async def subscribe(self, *channels: str) -> None:
        assert channels == ("told",)

    async def get_message(self, *, timeout: float) -> dict[str, Any] | None:  # noqa: ASYNC109 - as redis has it
        assert 0 < timeout <= 5
        if self.script:
            return self.script.pop(0)
        await asyncio.Event().wait()  # for ever
        return None

    async def ping(self) -> None:
        self.pings += 1

    async def aclose(self) -> None:
        self.closed = True
        raise OSError("closed already")


def hearing(*channels: Channel, told: list[str | None]) -> AbstractAsyncContextManager[Hearing]:
    @asynccontextmanager
    async def listening() -> AsyncGenerator[Hearing]:
        left = list(channels)
        hearing = Hearing(lambda: left.pop(0), "told", sender="me", told=told.append)
        for _ in range(20):
            await CLOCK.sleep(0)
        try:
            yield hearing
        finally:
            await hearing.close()

    return listening()


async def test_what_others_say_is_told_and_ones_own_is_not() -> None:
    told: list[str | None] = []
    said = [b"gone me a", b"gone you a b", b"gone you", b"gone me", b"\xff", b""]
    async with hearing(Channel(BEGIN, *map(message, said), PONG), told=told) as listening:
        assert listening.in_touch
        assert told == [None, "a b", None, None, None]  # what cannot be read may mean anything


async def test_silence_is_looked_into_and_goes_on_where_there_is_a_sign() -> None:
    channel = Channel(BEGIN, None, PONG, None, PONG)
    async with hearing(channel, told=[]) as listening:
        assert listening.in_touch
        assert channel.pings == 2


async def test_without_a_sign_it_is_out_of_touch_and_begins_anew() -> None:
    told: list[str | None] = []
    dead, deaf, new = Channel(BEGIN, None, None), Channel(None), Channel(BEGIN)
    async with hearing(dead, deaf, new, told=told) as listening:
        assert not listening.in_touch
        assert dead.closed
        assert told == [None, None]
        await until(lambda: listening.in_touch)
        assert deaf.closed
    assert not listening.in_touch
    assert new.closed
