from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm.core.source import Replay
from llm.core.stream import LLMStream
from llm.core.types import LLMRequest, LLMResponse, StreamChunk, TokenUsage
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llm.core.stream import LLMResult

USAGE = TokenUsage(10, 5, 4)


class HandClock(SystemClock):
    """Stands still until it is set."""

    at = 100.0

    def now(self) -> float:
        return self.at


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(params=["unary", "stream"])
def dispatch(request: pytest.FixtureRequest, clock: HandClock) -> Callable[[LLMRequest], Awaitable[LLMResult]]:
    """An upstream that answers `sure` on `key-00000001` within two seconds, whole or in chunks."""

    async def answer(given: LLMRequest) -> LLMResult:
        clock.at += 2.0
        if request.param == "unary":
            return LLMResponse("1", "sure", given.model or "", "openai", USAGE, "stop", key="key-00000001")
        chunks = [StreamChunk("su"), StreamChunk("re", usage=USAGE, finish_reason="stop")]
        return await LLMStream(Replay(chunks, model=given.model or ""), provider="openai", key="key-00000001").begin()

    return answer
