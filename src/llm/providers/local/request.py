"""What is asked of the engine and what comes back, as frozen values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from llm.core.choices import TokenLogprob
from llm.core.exceptions import LLMInvalidRequestError

from .grammar import Grammar


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns for the model's chat template, and the tools that the model may call.

    Attributes:
        messages: `{"role": …, "content": …}`; an assistant's turn may have `tool_calls` in OpenAI's form, with the
            arguments as an object, and a tool's turn `name`.
        tools: In OpenAI's form: `{"type": "function", "function": {"name", "description", "parameters"}}`.
    """

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] = ()


Prompt: TypeAlias = str | Sequence[Mapping[str, Any]] | Conversation
"""A text to continue as it stands, or a conversation of `{"role": …, "content": …}` for the model's chat template."""

Ending = Literal["stop", "length", "cancelled"]

_SEEDS = 2**64
_MOST_LIKELY = 20
_MOST_CHOICES = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How one text is generated; None everywhere: as the model's own generation defaults say.

    Attributes:
        max_tokens: Most tokens to generate, 1 or more; None: the model's default, else until its window is full. What
            goes beyond the window is cut, and ends with `length`.
        temperature: 0 takes the likeliest token; None: the model's default, else 1.
        top_p: Share of the likeliest tokens to draw from, 0 to 1; None: the model's default, else 1.
        top_k: Number of the likeliest tokens to draw from, 1 or more; None: the model's default, else all.
        seed: The same seed draws the same text; None: another each time.
        stop: Texts before which the answer ends.
        ignore_eos: Go on past the model's own end, for measurements.
        grammar: Form that the text is held to; None: any text.
        logprobs: Tell how likely each token was, and so many of the likeliest in its place, 0 to 20; None: nothing.
        choices: Texts to generate, 1 to 128; they share the prompt, and with a `seed` each has the next one.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    grammar: Grammar | None = None
    logprobs: int | None = None
    choices: int = 1

    def __post_init__(self) -> None:
        """Refuse what no model can do.

        Raises:
            LLMInvalidRequestError: A value out of range; names it and the range.
        """
        _check("max_tokens", self.max_tokens, 1, math.inf, whole=True)
        _check("temperature", self.temperature, 0, math.inf)
        _check("top_p", self.top_p, 0, 1)
        _check("top_k", self.top_k, 1, math.inf, whole=True)
        _check("seed", self.seed, -(_SEEDS // 2), _SEEDS - 1, whole=True)
        _check("logprobs", self.logprobs, 0, _MOST_LIKELY, whole=True)
        _check("choices", self.choices, 1, _MOST_CHOICES, whole=True)
        _check_stops(self.stop)

    def of_choice(self, choice: int) -> Settings:
        """Return those of one of several texts."""
        return self if self.seed is None or choice == 0 else replace(self, seed=_later_seed(self.seed, choice))


def _later_seed(seed: int, by: int) -> int:
    return seed + by if seed + by < _SEEDS else seed + by - _SEEDS


def check_text(prompt: Prompt) -> None:
    """Refuse a prompt that is no text, or cannot be written.

    Raises:
        LLMInvalidRequestError: Says where.
    """
    turns = prompt.messages if isinstance(prompt, Conversation) else prompt
    texts = [turns] if isinstance(turns, str) else [message.get("content") for message in turns]
    for at, text in enumerate(texts):
        place = "the prompt" if isinstance(prompt, str) else f"messages[{at}]"
        if not isinstance(text, str):
            raise LLMInvalidRequestError(f"{place} has a {type(text).__name__} as its content; expected a text")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise LLMInvalidRequestError(
                f"{place} holds half of a surrogate pair at {error.start}, which is no character; leave it out"
            ) from None


def _check_stops(stops: Sequence[object]) -> None:
    if not all(isinstance(text, str) and text for text in stops):
        raise LLMInvalidRequestError("stop has an element that is no text; expected texts of one character or more")


def _check(name: str, value: object, low: float, high: float, *, whole: bool = False) -> None:
    if value is None:
        return
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high or value == math.inf:
        kind = "a whole number" if whole else "a number"
        span = f"{low:g} to {high:g}" if math.isfinite(high) else f"{low:g} or more"
        raise LLMInvalidRequestError(f"{name} is {value!r}; expected {kind}, {span}")


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """One generated text.

    Attributes:
        text: The text, without the prompt and without a stop string.
        input_tokens: Tokens of the prompt, the chat template's included.
        output_tokens: Tokens that were generated, the one that ends an answer and those of a stop string included.
        finish_reason: `stop` (the model's end or a stop string), `length`, or `cancelled`: left early, this is a part.
        cached_tokens: Tokens of the prompt that were read for another request before.
        logprobs: How likely the text's tokens were, where that was asked for.
        others: The texts beyond the first, where several were asked for.
    """

    text: str
    input_tokens: int
    output_tokens: int
    finish_reason: Ending
    cached_tokens: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    others: tuple[GenerationResult, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """More of a text that is being generated.

    Attributes:
        text: The text.
        logprobs: How likely its tokens were, where that was asked for.
        choice: Which of several texts it belongs to, from 0.
    """

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    choice: int = 0
