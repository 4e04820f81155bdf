"""What `benchmarks` relies on of litellm 1.106."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Literal, overload

class RateLimitError(Exception): ...

class Message:
    content: str | None

class Choice:
    message: Message

class ModelResponse:
    choices: list[Choice]

class Delta:
    content: str | None

class StreamingChoice:
    delta: Delta

class ModelResponseStream:
    choices: list[StreamingChoice]

class Router:
    def __init__(
        self, model_list: Sequence[Mapping[str, object]], *, routing_strategy: str, num_retries: int
    ) -> None: ...
    async def acompletion(
        self, model: str, messages: Sequence[Mapping[str, str]], *, max_tokens: int
    ) -> ModelResponse: ...

@overload
async def acompletion(
    model: str, messages: Sequence[Mapping[str, str]], *, max_tokens: int, api_key: str, api_base: str
) -> ModelResponse: ...
@overload
async def acompletion(
    model: str,
    messages: Sequence[Mapping[str, str]],
    *,
    max_tokens: int,
    api_key: str,
    api_base: str,
    stream: Literal[True],
    stream_options: Mapping[str, object],
) -> AsyncIterator[ModelResponseStream]: ...
