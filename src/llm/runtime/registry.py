"""Kinds of provider by name: those of the package, those registered, those of other distributions."""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, cast

from llm.core import kinds
from llm.core.exceptions import LLMConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.metadata import EntryPoint

    from llm.core.protocols import ProviderFactory
    from llm.providers.dialect import Dialect

_registered: dict[str, ProviderFactory] = {}

_OPENAIS = {
    "chat_completions": ("llm.providers.openai", "OpenAIDialect"),
    "responses": ("llm.providers.responses", "ResponsesDialect"),
}


def register_provider(name: str, factory: ProviderFactory) -> None:
    """Make `type: name` in `llm.yaml` stand for what `factory` makes of a `ProviderSettings`.

    A name that is registered again gets the new factory; managers that are open keep what they have. Other
    distributions register through the entry point group `llm.providers`.

    Raises:
        LLMConfigurationError: The name is empty, or `factory` cannot be called.
    """
    if not name or not callable(factory):
        raise LLMConfigurationError("register_provider needs a name and a function from ProviderSettings to a Provider")
    _registered[name] = factory


def provider_factory(name: str) -> ProviderFactory:
    """Return the factory of a kind of provider.

    Raises:
        LLMConfigurationError: There is none; names those there are.
    """
    if name in _registered:
        return _registered[name]
    if name in kinds.ALL:
        return _built_in(name)
    return _from_entry_point(name)


def _built_in(name: str) -> ProviderFactory:
    """Return a factory of the package's own, whose module is loaded only now."""
    match name:
        case "openai":
            from llm.providers.base import HTTPProvider  # noqa: PLC0415 - loaded when a provider is used

            @cache
            def spoken(api: str) -> ProviderFactory:
                return HTTPProvider.factory(_openai(api))

            return lambda settings: spoken(settings.api)(settings)
        case "anthropic":
            from llm.providers.anthropic.provider import AnthropicProvider  # noqa: PLC0415 - loaded when a provider is used
            from llm.providers.structured import RefusedWays  # noqa: PLC0415 - loaded when a provider is used

            refused = RefusedWays()
            return lambda settings: AnthropicProvider(settings, refused)
        case "openrouter":
            from llm.providers.openrouter import OpenRouterFactory  # noqa: PLC0415 - loaded when a provider is used

            return OpenRouterFactory()
        case "local":
            from llm.providers.local.provider import LocalProvider  # noqa: PLC0415 - loaded when a provider is used

            return LocalProvider
        case _:
            from llm.providers.compatible import SERVERS, OpenAICompatible  # noqa: PLC0415 - loaded when one is used

            return OpenAICompatible.factory_of(SERVERS[name])


def _openai(api: str) -> Callable[[str | None], Dialect]:
    module, dialect = _OPENAIS[api]
    made: Callable[[str | None], Dialect] = getattr(importlib.import_module(module), dialect)
    return made


def _from_entry_point(name: str) -> ProviderFactory:
    offered = {entry.name: entry for entry in entry_points(group="llm.providers")}
    if name in offered:
        return _loaded(offered[name])
    known = sorted({*_registered, *kinds.ALL, *offered})
    raise LLMConfigurationError(
        f"there is no kind of provider {name!r}; there are: {', '.join(known)}. Correct `type:`, or register it with "
        "register_provider before the manager opens; a server that speaks OpenAI's dialect is `type: openai` with a "
        "base_url"
    )


def _loaded(entry: EntryPoint) -> ProviderFactory:
    try:
        factory = entry.load()
    except Exception as error:
        raise LLMConfigurationError(
            f"provider {entry.name!r} cannot be loaded from {entry.value}: {type(error).__name__}: {error}; repair or "
            "remove the distribution that offers it"
        ) from error
    if not callable(factory):
        raise LLMConfigurationError(
            f"provider {entry.name!r}: {entry.value} is no function from ProviderSettings to a Provider"
        )
    return cast("ProviderFactory", factory)
