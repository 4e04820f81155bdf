"""Makes one call, and says how it ended for its caller."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llm import LLMException, LLMStreamInterruptedError
from llm.testing.echo import DIMENSIONS, vector
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from llm import LLMClient, LLMManager

    from .plan import Asked

CLOCK: Final = SystemClock()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended.

    Attributes:
        kind: `answered`, `left`, `cancelled`, or the name of its error.
        begun: Whether the client was asked before it was cancelled.
        wrong: What is against the promise; None where nothing is.
    """

    kind: str
    begun: bool = True
    wrong: str | None = None


class Caller:
    """One caller of one call."""

    def __init__(self, manager: LLMManager, asked: Asked) -> None:
        """Call through the configured chain."""
        self._asked = asked
        self._manager = manager
        self._begun = False
        self._got = ""

    async def run(self) -> Outcome:
        """Call, and cancel where that is planned; never raises."""
        task = asyncio.create_task(self._call())
        try:
            await self._wait(task)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise
        return self._outcome(task)

    async def _wait(self, task: asyncio.Task[str]) -> None:
        asked = self._asked
        if asked.cancel_turns is not None:
            for _ in range(asked.cancel_turns):
                await CLOCK.sleep(0)
        elif asked.cancel_seconds is not None:
            await asyncio.wait([task], timeout=asked.cancel_seconds)
        if asked.cancelled:
            task.cancel()
        await asyncio.wait([task])

    def _outcome(self, task: asyncio.Task[str]) -> Outcome:
        asked = self._asked
        if task.cancelled():
            return Outcome("cancelled", self._begun, None if asked.cancelled else "cancelled by nobody")
        error = task.exception()
        if error is None:
            return Outcome(task.result(), wrong=self._wrong_answer(task.result()))
        name = type(error).__name__
        if not isinstance(error, LLMException):
            return Outcome(name, wrong=f"an error that is not ours: {error!r}")
        partial = error.partial if isinstance(error, LLMStreamInterruptedError) else ""
        own = asked.text.startswith(partial) and asked.text.startswith(self._got)
        return Outcome(name, wrong=None if own else f"a part of another answer: {partial or self._got!r}")

    def _wrong_answer(self, kind: str) -> str | None:
        own = self._asked.text.startswith(self._got) if kind == "left" else self._got == self._asked.text
        return None if own else f"another answer: {self._got!r}"

    async def _call(self) -> str:
        client = self._manager.get_client(self._asked.provider, user=self._asked.user, priority=self._asked.priority)
        if self._asked.way == "embed":
            return await self._embed(client)
        return await (self._whole(client) if self._asked.way == "whole" else self._stream(client))

    async def _whole(self, client: LLMClient) -> str:
        asked, self._begun = self._asked, True
        response = await client.complete(asked.text, timeout=asked.timeout, cache=None if asked.cached else False)
        self._got = response.content
        return "answered"

    async def _stream(self, client: LLMClient) -> str:
        asked, self._begun = self._asked, True
        leaves = asked.way == "left"
        stream = client.stream_complete(asked.text, timeout=asked.timeout, cache=None if asked.cached else False)
        chunks = 0
        async with stream:
            async for chunk in stream:
                self._got += chunk.content
                chunks += 1
                if leaves and chunks > asked.chunks:
                    return "left"
            whole = await stream.response()
        if whole.content != self._got:
            self._got = whole.content
        return "answered"

    async def _embed(self, client: LLMClient) -> str:
        asked, self._begun = self._asked, True
        answer = await client.embed(asked.text)
        own = vector(asked.text, DIMENSIONS)
        self._got = asked.text if tuple(answer.embeddings[0]) == own else "another vector"
        return "answered"
