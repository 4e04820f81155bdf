"""The routes that answer: what their bodies are, what their answers hold, and how their streams end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from .settings import CLAUDE, GPT

if TYPE_CHECKING:
    from collections.abc import Mapping


class Spoken(NamedTuple):
    """A route that answers.

    Attributes:
        path: Its path.
        model: A model that its clients like to ask for.
        whole: What ends a stream of it that is whole.
    """

    path: str
    model: str
    whole: bytes

    def body(self, text: str, model: str, *, stream: bool) -> dict[str, Any]:
        """Return the body of a request whose answer is its text again."""
        match self.path:
            case "/v1/responses":
                asked: dict[str, Any] = {"input": text}
            case "/v1/generate" | "/v1/completions":
                asked = {"prompt": text}
            case _:
                asked = {"messages": [{"role": "user", "content": text}]}
        most = "max_output_tokens" if self.path == "/v1/responses" else "max_tokens"
        if self.path != "/v1/generate":
            asked[most] = 1000
        return {**asked, "model": model, "stream": stream}


DIALECTS: Final = (
    Spoken("/v1/chat/completions", GPT, b"data: [DONE]"),
    Spoken("/v1/messages", CLAUDE, b"event: message_stop"),
    Spoken("/v1/responses", GPT, b"event: response.completed"),
    Spoken("/v1/completions", GPT, b"data: [DONE]"),
    Spoken("/v1/generate", GPT, b'"done":true'),
)


def text_of(events: bytes) -> str:
    """Return the text that the events of a stream carry."""
    data = [line[6:] for line in events.split(b"\n") if line.startswith(b"data: {")]
    return "".join([_piece(orjson.loads(each)) for each in data])


def _piece(event: Mapping[str, Any]) -> str:
    match event:
        case {"type": "response.output_text.delta", "delta": str(text)}:
            return text
        case {"type": "content_block_delta", "delta": {"text": str(text)}}:
            return text
        case {"choices": [{"delta": {"content": str(text)}}]} | {"choices": [{"text": str(text)}]}:
            return text
        case {"text": str(text)} if "type" not in event:
            return text
        case _:
            return ""
