"""One key at OpenRouter, and what the keys of a section share."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from llm.providers.base import HTTPProvider
from llm.providers.dialect import joined
from llm.providers.structured import RefusedWays

from .dialect import OpenRouterDialect
from .listing import Listing

if TYPE_CHECKING:
    from llm.core.protocols import ProviderSettings
    from llm.core.stream import LLMStream
    from llm.core.types import LLMRequest, LLMResponse


class OpenRouterProvider(HTTPProvider):
    """One key at OpenRouter, which asks what the models accept before it writes to them."""

    def __init__(self, settings: ProviderSettings, listing: Listing, refused: RefusedWays | None = None) -> None:
        """Take the key, and the list and what else it shares with the section's others.

        Raises:
            LLMConfigurationError: The key holds characters that no header may, or the address is none.
        """
        dialect = OpenRouterDialect(
            settings.base_url,
            routing=settings.routing,
            on_unsupported=settings.on_unsupported,
            knowledge=listing,
        )
        super().__init__(settings, dialect, refused)
        self._listing = listing
        self._closed = False
        listing.join()

    async def close(self) -> None:
        """Send nothing from now on, and leave the list; what is fetched for nobody ends."""
        await super().close()
        if not self._closed:
            self._closed = True
            await self._listing.leave()

    async def complete(self, request: LLMRequest) -> LLMResponse:
        """Answer whole, once it is known what the model accepts."""
        await self._listing.ready()
        return await super().complete(request)

    async def stream(self, request: LLMRequest) -> LLMStream:
        """Return a stream whose first chunk is in hand, once it is known what the model accepts."""
        await self._listing.ready()
        return await super().stream(request)


class OpenRouterFactory:
    """Makes the providers of one section, which share one list of models as long as any of them lives."""

    def __init__(self) -> None:
        """Start without a list."""
        self._listings: WeakValueDictionary[str, Listing] = WeakValueDictionary()
        self._refused = RefusedWays()

    def __call__(self, settings: ProviderSettings) -> OpenRouterProvider:
        """Return a provider.

        Raises:
            LLMConfigurationError: The key holds characters that no header may, or the address is none.
        """
        dialect = OpenRouterDialect(settings.base_url)
        listing = self._listings.get(dialect.models_url)
        if listing is None:
            headers = joined(dialect.headers(None), settings.headers)  # the list is public: no key goes there
            listing = self._listings[dialect.models_url] = Listing(settings, dialect.models_url, headers)
        return OpenRouterProvider(settings, listing, self._refused)
