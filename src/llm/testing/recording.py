"""A layer that writes down what passes it, for tests that compare the order of events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm.core.stream import at_end

if TYPE_CHECKING:
    from llm.core.protocols import CallNext
    from llm.core.stream import LLMResult
    from llm.core.types import LLMRequest, LLMResponse


class RecordingMiddleware:
    """Appends to a list that several of them may share.

    | event | when |
    |---|---|
    | `name:in` | a request comes in |
    | `name:out` | its result is in hand: the response, or a stream with its first chunk |
    | `name:ended` | the answer is whole: at once for a response, later for a stream |
    | `name:left` | the stream was left before its end |
    | `name:error:Type` | it failed, before or after `out`; a cancellation is `CancelledError` |
    """

    def __init__(self, name: str, events: list[str]) -> None:
        """Write under `name` into `events`."""
        self.name: str = name
        self.events: list[str] = events

    async def __call__(self, request: LLMRequest, call_next: CallNext) -> LLMResult:
        """Pass the request on, and write."""
        self.events.append(f"{self.name}:in")
        try:
            result = await call_next(request)
        except BaseException as error:
            self._ended(None, error)
            raise
        self.events.append(f"{self.name}:out")
        return at_end(result, self._ended)

    def _ended(self, _: LLMResponse | None, error: BaseException | None) -> None:
        if error is None:
            self.events.append(f"{self.name}:ended")
        elif isinstance(error, GeneratorExit):
            self.events.append(f"{self.name}:left")
        else:
            self.events.append(f"{self.name}:error:{type(error).__name__}")
