"""Anthropic as a provider: calls as any vendor's, and exact counts of prompts."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from llm.core.exceptions import LLMException
from llm.providers.base import HTTPProvider
from llm.providers.frames import bare
from llm.providers.wire import read_object, senseless
from llm.utils.redact import Address

from . import AnthropicDialect
from .body import write_count_body

if TYPE_CHECKING:
    from llm.core.protocols import ProviderSettings, Reply
    from llm.core.types import LLMRequest
    from llm.providers.structured import RefusedWays


class AnthropicProvider(HTTPProvider):
    """One key at Anthropic, or at a server that speaks its dialect."""

    def __init__(self, settings: ProviderSettings, refused: RefusedWays | None = None) -> None:
        """Take the settings, and what the keys of a section share.

        Raises:
            LLMConfigurationError: The base URL is no web address, or the key holds characters that no header may.
        """
        dialect = AnthropicDialect(settings.base_url)
        super().__init__(settings, dialect, refused)
        self._count_url = Address(dialect.count_url)

    async def count_tokens(self, request: LLMRequest) -> int | None:
        """Return the tokens that the vendor counts for the request's prompt.

        None where the server has no such address, as some that speak the dialect do not: then only an estimate is
        left. A 404 that names the model is about the model, and raises.

        Raises:
            LLMException: The vendor was asked, and failed.
        """
        reply: Reply | None = None
        try:
            body = write_count_body(request)
            reply = await self._send("POST", self._count_url, body)
            return _count(await self._answer(reply))
        except LLMException as error:
            if error.status == HTTPStatus.NOT_FOUND and (request.model or "") not in error.message:
                return None
            self._tell(error, request.model, reply)
            failure = bare(error)
        raise failure


def _count(body: bytes) -> int:
    tokens: object = read_object(body).get("input_tokens")
    if type(tokens) is not int or tokens < 0:
        raise senseless("an object without a count of tokens")
    return tokens
