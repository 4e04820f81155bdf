"""OpenRouter: OpenAI's dialect at an address of its own.

It takes documents by address and the effort of reasoning in an object, puts a failure of the model behind it into an
answer of status 200 or an event, with the status as the error's code, and sends comments to keep a stream alive.

Source: https://openrouter.ai/docs/api-reference/overview
"""

from __future__ import annotations

from typing import ClassVar, Final

from .openai import OpenAIDialect
from .openai.body import Flavor

BASE_URL: Final = "https://openrouter.ai/api/v1"


class OpenRouterDialect(OpenAIDialect):
    """Chat completions at OpenRouter, or at `base_url`."""

    flavor: ClassVar[Flavor] = Flavor(developer=True, reasoning=True, document_url=True)

    def __init__(self, base_url: str | None = None) -> None:
        """Take the address, with or without the `/v1` at its end.

        Raises:
            LLMConfigurationError: It is no web address.
        """
        super().__init__(base_url or BASE_URL)
