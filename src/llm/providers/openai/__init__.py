"""OpenAI's chat completions, which most other servers speak as well.

What it has no word for: a document by its address is refused (OpenAI takes documents as bytes, or by the name of an
uploaded file), thoughts are left out (OpenAI takes none back). `user`, `metadata`, `priority`, `cache` and `timeout`
are ours and never sent; `extra` is merged over the body last, unread but for `n`, which multiplies what is charged.

A refusal is text with `refused` set, and ends as `content_filter`. Speech is told by its transcript; its sound is in
`LLMResponse.raw`, as is all else that has no field of ours.

Source: https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final
from urllib.parse import urlsplit

from llm.core.call import Charge, make_charge
from llm.core.models import holds_to_schema
from llm.providers.dialect import Headers, root_of
from llm.providers.estimate import prompt_tokens
from llm.providers.limit_headers import openai_reports
from llm.providers.structured import openai_ways

from .answer import read_answer
from .body import Flavor, choices_of, write_body
from .embeddings import OpenAIEmbeddings
from .events import OpenAIEvents

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm.core.call import LimitReport
    from llm.core.structured import Shape
    from llm.core.types import LLMRequest, LLMResponse, TokenUsage
    from llm.providers.dialect import EventReader
    from llm.providers.limit_headers import Told
    from llm.providers.structured import Ways
    from llm.utils.redact import Secret

BASE_URL: Final = "https://api.openai.com/v1"

_OWN: Final = Flavor(limit="max_completion_tokens", developer=True, refusals=True)


class OpenAIDialect:
    """Chat completions at `base_url`, OpenAI's own if that is None.

    Attributes:
        flavor: How servers other than OpenAI's own take them.
        url: Where calls are sent.
        health_url: Where the models are listed.
        embeddings: How vectors are asked for.
    """

    flavor: ClassVar[Flavor] = Flavor()

    def __init__(self, base_url: str | None = None) -> None:
        """Take the address, with or without the `/v1` at its end.

        Raises:
            LLMConfigurationError: It is no web address.
        """
        root = root_of(base_url or BASE_URL, version="/v1")
        self.url: str = f"{root}/chat/completions"
        self.health_url: str = f"{root}/models"
        self.embeddings: OpenAIEmbeddings = OpenAIEmbeddings(root)
        self._flavor = _OWN if urlsplit(root).hostname == urlsplit(BASE_URL).hostname else self.flavor

    def headers(self, key: Secret | None) -> Mapping[str, str]:
        """Return the headers of every request, with the key as a bearer token."""
        return Headers({"content-type": "application/json"}, "authorization", key, prefix="Bearer ")

    def encode(self, request: LLMRequest, *, stream: bool) -> bytes:
        """Return the body.

        Raises:
            LLMInvalidRequestError: The dialect cannot express the request; names the field.
        """
        return write_body(request, self._flavor, stream=stream)

    def ways(self, request: LLMRequest, shape: Shape) -> Ways:
        """Return the ways to ask for an answer of this form."""
        return openai_ways(shape, native=holds_to_schema(request.model or ""))

    def decode(self, body: bytes, *, provider: str, key: str | None) -> LLMResponse:
        """Read a whole answer."""
        return read_answer(body, provider=provider, key=key)

    def events(self) -> EventReader:
        """Return a reader for one stream."""
        return OpenAIEvents()

    def reports(self, headers: Mapping[str, str], told: Told) -> tuple[LimitReport, ...]:
        """Read `x-ratelimit-*`."""
        return openai_reports(headers, told)

    def charge(self, request: LLMRequest, expected_output: int) -> Charge:
        """Charge the larger of the prompt's estimate and the most output, that of every choice.

        Source: https://platform.openai.com/docs/guides/rate-limits; for `n`
        https://github.com/openai/openai-cookbook/blob/main/examples/api_request_parallel_processor.py
        """
        prompt = prompt_tokens(request)
        output = request.max_tokens or expected_output
        if request.extra:
            output *= choices_of(request.extra)
        return make_charge((prompt, output, max(prompt, output), 0.0, 1))

    def used(self, usage: TokenUsage) -> Charge:
        """Return what was read and written, together."""
        return make_charge((usage.input_tokens, usage.output_tokens, usage.total_tokens, 0.0, 1))
