"""One of the answers that a provider gives to one request, how likely its tokens were, and who carried it on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .messages import Message, MessageRole, TextPart, ThinkingPart, ToolCall

if TYPE_CHECKING:
    from .messages import Part

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """How likely a token of an answer was.

    Attributes:
        token: Its text; no whole character where a character takes several tokens.
        logprob: Natural logarithm of its probability, 0 or less; OpenAI says -9999.0 for very unlikely.
        data: Its bytes in UTF-8; None where the provider gives none.
        top: The most likely tokens at its place, where they were asked for; these have no `top` of their own.
    """

    token: str
    logprob: float
    data: bytes | None = None
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several answers to one request; `str(choice)` is its text.

    Attributes:
        content: The text.
        finish_reason: Why it ended, as in `LLMResponse`.
        tool_calls: Tools that it asks for.
        thinking: The model's thoughts before it.
        logprobs: A value per token of the text, where they were asked for.
        refused: Whether the text is the model's refusal to answer.
    """

    content: str = ""
    finish_reason: FinishReason | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    thinking: tuple[ThinkingPart, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    refused: bool = False

    def __str__(self) -> str:
        """Return the text."""
        return self.content

    @property
    def message(self) -> Message:
        """It as a turn, to append to the conversation."""
        content: str | tuple[Part, ...] = self.content
        if self.thinking or self.refused:
            spoken = (TextPart(self.content, refusal=self.refused),) if self.content else ()
            content = (*self.thinking, *spoken)
        return Message(MessageRole.ASSISTANT, content, tool_calls=self.tool_calls)


@dataclass(frozen=True, slots=True)
class Continuation:
    """Who carried on a streamed answer that had broken off.

    Attributes:
        at: Characters of the answer's text before.
        provider: Section of the configuration.
        model: Model that was asked for.
        key: Fingerprint of the key.
    """

    at: int
    provider: str
    model: str
    key: str | None = None
