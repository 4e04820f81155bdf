"""The vendors' own clients of one configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm.core.config.providers import ProviderConfig
    from llm.core.protocols import Transport
    from llm.providers.sdk.transport import SDKTransport
    from llm.utils.redact import Secret


class Vendors:
    """Gives each key its way to the network: the common one, or a vendor's client of its own on top of that."""

    def __init__(self, common: Transport) -> None:
        """Send all by `common` in the end."""
        self._common = common
        self._made: list[SDKTransport] = []

    def transport(self, name: str, section: ProviderConfig, key: Secret | None) -> Transport:
        """Return the transport of one key of the provider `name`.

        Raises:
            LLMConfigurationError: The vendor's client cannot be made of this section.
        """
        if section.transport == "direct":
            return self._common
        from llm.providers.sdk.clients import sdk_transport  # noqa: PLC0415 - the vendors' clients load when one is used

        made = sdk_transport(name, section, key, self._common)
        self._made.append(made)
        return made

    async def close(self) -> None:
        """Close the vendors' clients."""
        for made in self._made:
            await made.close()
