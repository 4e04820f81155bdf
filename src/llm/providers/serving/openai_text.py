"""`/completions` in OpenAI's dialect, from the server's side: prompts → conversations of one turn, answers → bodies.

Source: https://platform.openai.com/docs/api-reference/completions/create
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from .fields import is_list, wrong
from .openai_read import read_request
from .openai_write import DONE, write_usage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llm.core.types import LLMRequest, LLMResponse, StreamChunk, TokenUsage

MOST_PROMPTS: Final = 128
_DEFAULT_TOKENS: Final = 16
"""The vendor's, where the body names no `max_tokens`."""

_READ: Final = frozenset({"prompt", "echo", "max_tokens", "best_of", "suffix", "logprobs"})


def read_prompts(body: Mapping[str, Any]) -> tuple[list[str], list[LLMRequest]]:
    """Return the prompts of a body, and for each the request for its continuation.

    Raises:
        LLMInvalidRequestError: A field is missing or wrong, or asks for what conversations have not; says which.
    """
    prompts = _prompts(body.get("prompt"))
    if body.get("echo") not in (None, False, True):
        raise wrong("echo", "true or false")
    if body.get("best_of") not in (None, 1):
        raise wrong("best_of", "1, for answers are not compared here")
    if body.get("suffix"):
        raise wrong("suffix", "none, for no text is put in between here")
    if body.get("logprobs") is not None:
        raise wrong("logprobs", "none; /v1/chat/completions tells them")
    options = {name: value for name, value in body.items() if name not in _READ}
    most = body.get("max_tokens")
    options["max_tokens"] = _DEFAULT_TOKENS if most is None else most
    return prompts, [read_request({**options, "messages": [{"role": "user", "content": text}]}) for text in prompts]


def _prompts(given: object) -> list[str]:
    several = [given] if isinstance(given, str) else given
    if not is_list(several) or not several or len(several) > MOST_PROMPTS:
        raise wrong("prompt", f"text, or a list of 1 to {MOST_PROMPTS} texts")
    for place, text in enumerate(several):
        if not isinstance(text, str) or not text:
            raise wrong(f"prompt[{place}]", "text that is not empty; tokens are not taken")
    return several


def write_texts(responses: Sequence[LLMResponse], echoed: Sequence[str], *, created: int) -> dict[str, Any]:
    """Return the body that answers `/completions`.

    Args:
        responses: The answers, in the order of the prompts.
        echoed: What stands before the text of each.
        created: Seconds since 1970.
    """
    choices = [
        (before + choice.content, choice.finish_reason)
        for response, before in zip(responses, echoed, strict=True)
        for choice in response.choices
    ]
    usage = sum((response.usage for response in responses[1:]), responses[0].usage)
    first = responses[0]
    return {
        **_head(first.id, first.model, created),
        "choices": [_choice(index, text, reason or "stop") for index, (text, reason) in enumerate(choices)],
        "usage": write_usage(usage),
    }


class TextStream:
    """Writes a continuation as server-sent events."""

    def __init__(
        self,
        *,
        id: str,  # noqa: A002 - the vendor's name
        model: str,
        created: int,
        include_usage: bool = False,
        echoed: str = "",
    ) -> None:
        """Start an answer; `echoed` comes before it, and with `include_usage` its usage before the end."""
        self._head = _head(id, model, created)
        self._include_usage = include_usage
        self._echoed = echoed
        self._usage: TokenUsage | None = None

    def begin(self) -> bytes:
        """Return what comes before the first chunk: what is echoed."""
        return self._event(0, self._echoed) if self._echoed else b""

    def chunk(self, chunk: StreamChunk) -> bytes:
        """Return the event of a chunk; none for one without text that does not end a choice."""
        self._usage = chunk.usage or self._usage
        if not chunk.content and chunk.finish_reason is None:
            return b""
        return self._event(chunk.index, chunk.content, chunk.finish_reason)

    def end(self) -> bytes:
        """Return what closes the answer: the usage where it was asked for, and the mark of the end."""
        if not self._include_usage or self._usage is None:
            return DONE
        told: dict[str, Any] = {**self._head, "choices": [], "usage": write_usage(self._usage)}
        return b"data: " + orjson.dumps(told) + b"\n\n" + DONE

    def _event(self, index: int, text: str, reason: str | None = None) -> bytes:
        return b"data: " + orjson.dumps({**self._head, "choices": [_choice(index, text, reason)]}) + b"\n\n"


def _head(name: str, model: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "text_completion", "created": created, "model": model, "system_fingerprint": None}


def _choice(index: int, text: str, reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}
