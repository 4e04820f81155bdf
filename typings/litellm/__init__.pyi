"""What `benchmarks` relies on of litellm 1.106."""

from collections.abc import Mapping, Sequence

class RateLimitError(Exception): ...

class Message:
    content: str | None

class Choice:
    message: Message

class ModelResponse:
    choices: list[Choice]

class Router:
    def __init__(
        self, model_list: Sequence[Mapping[str, object]], *, routing_strategy: str, num_retries: int
    ) -> None: ...
    async def acompletion(
        self, model: str, messages: Sequence[Mapping[str, str]], *, max_tokens: int
    ) -> ModelResponse: ...
