"""OpenAI's Responses API: the interface beside chat completions, whose models keep their thoughts between calls.

The conversation is the caller's, so nothing is kept at the vendor (`store: false`), and models that think are asked
for their thoughts in encrypted form: `response.message` carries them, and the next request hands each back in front of
what it led to. What such a request cannot say: `stop`, and audio, are refused; `seed` and the names of speakers are
left out. Where `strict` of a tool is None the
vendor takes it as true. `extra` goes over the body last, unread, but for `reasoning`, `text` and `include`, which join
what is there, unless it is empty: `extra={"store": True}`, `extra={"text": {"verbosity": "low"}}`.

Items of the vendor's own tools (web search, code interpreter, …) are in `raw` alone.

Source: https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from llm.providers.openai import BASE_URL, OpenAIDialect

from .answer import read_answer
from .body import write_body
from .events import ResponsesEvents

if TYPE_CHECKING:
    from llm.core.types import LLMRequest, LLMResponse

_OWN_HOST: Final = urlsplit(BASE_URL).hostname


class ResponsesDialect(OpenAIDialect):
    """Responses at `base_url`, OpenAI's own if that is None; keys, limits and charges are those of chat completions."""

    def __init__(self, base_url: str | None = None) -> None:
        """Take the address, with or without the `/v1` at its end.

        Raises:
            LLMConfigurationError: It is no web address.
        """
        super().__init__(base_url)
        root = self.health_url.removesuffix("/models")
        self.url = f"{root}/responses"
        self._is_own = urlsplit(root).hostname == _OWN_HOST

    def encode(self, request: LLMRequest, *, stream: bool) -> bytes:
        """Return the body.

        Raises:
            LLMInvalidRequestError: The dialect cannot express the request; names the field.
        """
        return write_body(request, own=self._is_own, stream=stream)

    def decode(self, body: bytes, *, provider: str, key: str | None) -> LLMResponse:
        """Read a whole answer."""
        return read_answer(body, provider=provider, key=key)

    def events(self) -> ResponsesEvents:
        """Return a reader for one stream."""
        return ResponsesEvents()
