"""Turns of a conversation: asked, answered, and shown as they come."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llm.core.messages import Message, MessageRole

from .shell import Shell

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from llm.core.client import LLMClient
    from llm.core.manager import LLMManager
    from llm.core.types import LLMResponse


@dataclass(slots=True)
class Conversation:
    """What was said so far, and to whom.

    Attributes:
        provider: As the user named it.
        model: As the user named it.
        system: Instructions before the turns.
        turns: The user's and the model's.
    """

    provider: str | None = None
    model: str | None = None
    system: str | None = None
    turns: list[Message] = field(default_factory=list[Message])

    def asking(self, text: str) -> list[Message]:
        """Return what is sent to have the user's next turn answered."""
        before = [] if self.system is None else [Message(MessageRole.SYSTEM, self.system)]
        return [*before, *self.turns, Message(MessageRole.USER, text)]


@dataclass(slots=True)
class Talk:
    """A conversation, and how its answers are shown.

    Attributes:
        shell: Where they are shown.
        conversation: What was said.
        stream: Whether an answer is printed as it comes.
    """

    shell: Shell
    conversation: Conversation
    stream: bool = field(kw_only=True)

    async def answer(self, manager: LLMManager, text: str) -> None:
        """Have the user's next turn answered; where that fails it was never said."""
        said = self.conversation
        client = manager.get_client(said.provider, model=said.model)
        if self.stream and not self.shell.json:
            response = await self._printed(client, said.asking(text))
        else:
            with self._waiting():
                response = await client.complete(said.asking(text))
            self._put(response)
        said.turns = [*said.turns, Message(MessageRole.USER, text), response.message]

    async def _printed(self, client: LLMClient, turns: list[Message]) -> LLMResponse:
        stream = client.stream_complete(turns)
        with self._waiting():
            await stream.begin()
        began = False
        try:
            async with stream:
                async for chunk in stream:
                    began = began or bool(chunk.content)
                    self.shell.put(chunk.content, end="")
                return await stream.response()
        finally:
            if began:
                self.shell.put("")

    def _put(self, response: LLMResponse) -> None:
        if self.shell.json:
            self.shell.put_json(_as_json(response))
        else:
            self.shell.put(response.content)

    def _waiting(self) -> AbstractContextManager[object]:
        """Show on a terminal that something goes on; a model on this machine takes seconds to load."""
        if not self.shell.drawing:
            return nullcontext()
        from rich.console import Console

        return Console(stderr=True).status("waiting for the answer")


def _as_json(response: LLMResponse) -> dict[str, Any]:
    usage = response.usage
    return {
        "id": response.id,
        "content": response.content,
        "model": response.model,
        "provider": response.provider,
        "usage": {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cached_input_tokens": usage.cached_input_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
            "total_tokens": usage.total_tokens,
        },
        "finish_reason": response.finish_reason,
        "cached": response.cached,
        "cost": response.cost,
        "latency": round(response.latency, 6),
        "attempts": response.attempts,
        "key": response.key,
    }
