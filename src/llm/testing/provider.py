"""A provider that answers from a script."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from llm.core.exceptions import LLMInvalidRequestError
from llm.core.standing import HealthStatus
from llm.core.stream import LLMStream
from llm.core.types import LLMResponse
from llm.utils.clock import SystemClock

from .echo import answer, prompt_tokens, vectors
from .script import Script, complete, cut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from llm.core.types import LLMRequest
    from llm.utils.clock import Clock

    from .script import Answer, Piece


class FakeProvider:
    """A `Provider` double: echoes the last user's text, or answers from a script.

    ```python
    FakeProvider()                                         # echo
    FakeProvider("yes")                                    # always that
    FakeProvider([LLMServerError("down"), "hello"])        # fails, then answers, then has nothing left
    FakeProvider([["Hel", "lo", LLMConnectionError("cut", sent=True)]])   # a stream that breaks after two chunks
    FakeProvider([["Hel", ...]])                           # a stream that stalls
    FakeProvider(lambda request: request.messages[-1].text.upper())
    ```

    Hand it to what takes a `Provider`, or `register_provider("fake", lambda settings: provider)`. Tokens are counted
    as four characters each, and `max_tokens` cuts the answer.

    Attributes:
        requests: All requests, in order.
        in_flight: Calls being answered now, open streams included.
        most_in_flight: The most there ever were at once.
        open_streams: Streams that were opened and neither ended nor closed: 0 where nothing leaks.
        initialized: Whether `initialize` was called.
        closed: Whether `close` was called.
        healthy: What `health_check` answers.
    """

    def __init__(  # noqa: PLR0913 - options of a double, each with its default
        self,
        answers: str | Sequence[Answer] | Callable[[LLMRequest], Answer] | None = None,
        *,
        name: str = "",
        key: str | None = None,
        latency: float = 0.0,
        interval: float = 0.0,
        chunk_size: int = 8,
        clock: Clock | None = None,
    ) -> None:
        """Make a double.

        Args:
            answers: One text for every call, a sequence of answers, or a function of the request; None echoes.
            name: Goes into responses as their provider; empty leaves that to the caller.
            key: Fingerprint that goes into responses.
            latency: Seconds before an answer, or before a stream's first chunk.
            interval: Seconds before each further chunk.
            chunk_size: Characters per chunk of a streamed text.
            clock: Its time; the machine's by default.
        """
        self.name: str = name
        self.key: str | None = key
        self.requests: list[LLMRequest] = []
        self.in_flight: int = 0
        self.most_in_flight: int = 0
        self.open_streams: int = 0
        self.initialized: bool = False
        self.closed: bool = False
        self.healthy: bool = True
        self._answers = answers
        self._latency = latency
        self._interval = interval
        self._chunk_size = chunk_size
        self._clock: Clock = clock if clock is not None else SystemClock()

    @property
    def calls(self) -> int:
        """How many requests came."""
        return len(self.requests)

    async def initialize(self) -> None:
        """Note it."""
        self.initialized = True

    async def close(self) -> None:
        """Note it."""
        self.closed = True

    async def health_check(self) -> HealthStatus:
        """Return `healthy`."""
        return HealthStatus(self.healthy, error=None if self.healthy else "the double was told to be ill")

    async def complete(self, request: LLMRequest) -> LLMResponse:
        """Answer whole.

        Raises:
            Exception: The script's.
            AssertionError: The script has no answer left.
        """
        self._enter(request)
        try:
            said = await self._say(request)
            if isinstance(said, LLMResponse):
                return replace(said, provider=said.provider or self.name, key=said.key or self.key)
            return await self._streamed(request, complete(request, said)).response()
        finally:
            self.in_flight -= 1

    async def stream(self, request: LLMRequest) -> LLMStream:
        """Return a stream with its first chunk in hand.

        Raises:
            Exception: The script's.
            AssertionError: The script has no answer left.
        """
        self._enter(request)
        try:
            said = await self._say(request)
        except BaseException:
            self.in_flight -= 1
            raise
        if isinstance(said, LLMResponse):
            stream = self._streamed(request, cut(said, self._chunk_size), id=said.id)
        else:
            stream = self._streamed(request, complete(request, said))
        stream.on_end(self._stream_ended)
        self.open_streams += 1
        return await stream.begin()

    async def embed(self, request: LLMRequest) -> LLMResponse:
        """Return a vector per text: 8 numbers, or as many as asked for, that depend on the text alone.

        Where the script has a response with `embeddings`, it is that; a text of the script only takes its turn.

        Raises:
            Exception: The script's.
            AssertionError: The script has no answer left.
            LLMInvalidRequestError: The request asks for no vectors.
        """
        if request.embed is None:
            raise LLMInvalidRequestError("embed is None; pass an EmbeddingInput with the texts")
        self._enter(request)
        try:
            said = await self._turn(request)
            response = said if isinstance(said, LLMResponse) else vectors(request.embed, request.model or "fake-model")
            return replace(response, provider=response.provider or self.name, key=response.key or self.key)
        finally:
            self.in_flight -= 1

    async def count_tokens(self, request: LLMRequest) -> int:
        """Return a token for every four characters of the messages."""
        return prompt_tokens(request)

    def _enter(self, request: LLMRequest) -> None:
        self.requests.append(request)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)

    async def _turn(self, request: LLMRequest) -> LLMResponse | str | Sequence[Piece] | None:
        said = self._next(request)
        if self._latency:
            await self._clock.sleep(self._latency)
        if isinstance(said, Exception):
            raise said
        return said

    async def _say(self, request: LLMRequest) -> LLMResponse | Sequence[Piece]:
        said = await self._turn(request)
        return answer(request, said, id=f"fake-{self.calls}") if isinstance(said, str) or said is None else said

    def _next(self, request: LLMRequest) -> Answer | None:
        answers = self._answers
        if answers is None or isinstance(answers, str):
            return answers
        if callable(answers):
            return answers(request)
        if self.calls > len(answers):
            raise AssertionError(f"FakeProvider was called {self.calls} times and has {len(answers)} answers")
        return answers[self.calls - 1]

    def _streamed(self, request: LLMRequest, pieces: Iterable[Piece], *, id: str = "") -> LLMStream:  # noqa: A002 - the response's field
        source = Script(
            iter(pieces),
            id=id or f"fake-{self.calls}",
            model=request.model or "fake-model",
            interval=self._interval,
            clock=self._clock,
        )
        return LLMStream(source, provider=self.name, key=self.key)

    def _stream_ended(self, *_: object) -> None:
        self.in_flight -= 1
        self.open_streams -= 1
