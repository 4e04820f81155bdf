"""Anthropic's messages.

What it says otherwise, and what it has no word for:

- `max_tokens` is required; where the request has none, `DEFAULT_MAX_TOKENS` is sent, and on top what it may think.
- `reasoning_effort` is the vendor's effort, and a budget of thoughts for models that know no other; see `thinking`.
- System and developer turns, wherever they stand, become the one system prompt, in their order; in blocks
  where one of them has parts.
- A `CachePoint` becomes `cache_control` on the block before it, a tool's `cache_point` that of the tool.
- `response_format` is text or a `json_schema`; `json_object` is refused, and so is audio.
- `seed` and a turn's `name` are hints to a model, and left out.
- A thought goes back only with its signature: one of another vendor's model would be refused, and is left out.

`user`, `metadata`, `priority`, `cache` and `timeout` are ours and never sent; `extra` is merged over the body last,
unread, but for `output_config`, whose fields join those that are there.

Source: https://docs.claude.com/en/api/messages
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llm.core.call import Charge, make_charge
from llm.core.models import holds_to_schema
from llm.providers.dialect import Headers, root_of
from llm.providers.estimate import prompt_tokens
from llm.providers.limit_headers import anthropic_reports
from llm.providers.structured import anthropic_ways

from .answer import read_answer
from .body import write_body
from .events import AnthropicEvents
from .thinking import thinking_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm.core.call import LimitReport
    from llm.core.structured import Shape
    from llm.core.types import LLMRequest, LLMResponse, TokenUsage
    from llm.providers.limit_headers import Told
    from llm.providers.structured import Ways
    from llm.utils.redact import Secret

BASE_URL: Final = "https://api.anthropic.com"
VERSION: Final = "2023-06-01"


class AnthropicDialect:
    """Messages at `base_url`, Anthropic's own if that is None.

    Attributes:
        url: Where calls are sent.
        count_url: Where prompts are counted.
        health_url: Where the models are listed.
    """

    def __init__(self, base_url: str | None = None) -> None:
        """Take the address, with or without a `/v1` at its end.

        Raises:
            LLMConfigurationError: It is no web address.
        """
        root = root_of(base_url or BASE_URL, version="").removesuffix("/v1")
        self.url: str = f"{root}/v1/messages"
        self.count_url: str = f"{self.url}/count_tokens"
        self.health_url: str = f"{root}/v1/models"

    def headers(self, key: Secret | None) -> Mapping[str, str]:
        """Return the headers of every request, with the key in one of its own."""
        return Headers({"content-type": "application/json", "anthropic-version": VERSION}, "x-api-key", key)

    def encode(self, request: LLMRequest, *, stream: bool) -> bytes:
        """Return the body.

        Raises:
            LLMInvalidRequestError: The dialect cannot express the request; names the field.
        """
        return write_body(request, stream=stream)

    def ways(self, request: LLMRequest, shape: Shape) -> Ways:
        """Return the ways to ask for an answer of this form."""
        return anthropic_ways(request, shape, native=holds_to_schema(request.model or ""))

    def decode(self, body: bytes, *, provider: str, key: str | None) -> LLMResponse:
        """Read a whole answer."""
        return read_answer(body, provider=provider, key=key)

    def events(self) -> AnthropicEvents:
        """Return a reader for one stream."""
        return AnthropicEvents()

    def reports(self, headers: Mapping[str, str], told: Told) -> tuple[LimitReport, ...]:
        """Read `anthropic-ratelimit-*`."""
        return anthropic_reports(headers, told)

    def charge(self, request: LLMRequest, expected_output: int) -> Charge:  # noqa: ARG002 - the seam's, see below
        """Charge the prompt's estimate and the most output, each by itself.

        Without `max_tokens` the vendor sees, and charges, the default that is sent in its place.

        Source: https://docs.claude.com/en/api/rate-limits
        """
        prompt = prompt_tokens(request)
        output = request.max_tokens or thinking_of(request).max_tokens
        return make_charge((prompt, output, prompt + output, 0.0, 1))

    def used(self, usage: TokenUsage) -> Charge:
        """Return what was read and written, less what came from the cache: that does not count.

        What was written to the cache counts. With a few models of long ago, such as Claude 3.5 Haiku, what came from
        the cache counts too; there the answer's own headers bring the level down to the vendor's.

        Source: https://docs.claude.com/en/api/rate-limits, "Cache-aware ITPM"
        """
        read = max(0, usage.input_tokens - usage.cached_input_tokens)
        return make_charge((read, usage.output_tokens, read + usage.output_tokens, 0.0, 1))
