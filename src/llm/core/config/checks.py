"""Mistakes that no single field shows: names that nothing has, numbers that contradict each other."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

from llm.core import kinds

from .faults import Fault, dotted, meant
from .sdk import client_faults
from .sections import CHAIN
from .slots import ANY_MODEL, broadcast

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .gateway import GatewayConfig
    from .limits import LimitsConfig
    from .providers import ProviderConfig
    from .sections import (
        AliasConfig,
        CacheConfig,
        FeaturesConfig,
        GlobalConfig,
        PoolConfig,
        RetryConfig,
        SemanticCacheConfig,
    )

LAYERS = (*CHAIN, "tracing")
"""Layers that have a name of their own."""

_CLASS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_PROVIDER_NAME = re.compile(r"[\w.-]+")

# Without an address these ask the vendor, who asks for a key.
_NEED_KEYS: Final = (*kinds.VENDORS, *kinds.HOSTED)

# What only some kinds of provider know; a registered kind may know all of it.
_KNOWN_TO: Final = {
    "headers": kinds.ON_HTTP,
    "models_ttl": ("openrouter",),
    "on_unsupported": ("openrouter",),
    "routing": ("openrouter",),
}


class Whole(Protocol):
    """What the checks read of a configuration."""

    @property
    def global_(self) -> GlobalConfig:
        """What holds for every call."""
        ...

    @property
    def retry(self) -> RetryConfig:
        """How failed attempts are repeated."""
        ...

    @property
    def cache(self) -> CacheConfig | None:
        """Where answers are kept."""
        ...

    @property
    def semantic_cache(self) -> SemanticCacheConfig:
        """How similar questions are found."""
        ...

    @property
    def features(self) -> FeaturesConfig:
        """Switches."""
        ...

    @property
    def limits(self) -> LimitsConfig:
        """Limits above those of single keys."""
        ...

    @property
    def pool(self) -> PoolConfig:
        """How calls take keys in turn."""
        ...

    @property
    def providers(self) -> Mapping[str, ProviderConfig]:
        """Upstreams by name."""
        ...

    @property
    def gateway(self) -> GatewayConfig:
        """The HTTP gateway."""
        ...

    @property
    def aliases(self) -> Mapping[str, AliasConfig]:
        """Names of one's own for models."""
        ...


def faults_of(config: Whole) -> list[Fault]:
    """Return the mistakes of a configuration whose single fields are all right."""
    return [
        *_providers(config.providers),
        *_provider_names(config.global_, config.providers),
        *_middleware(config.global_),
        *_numbers(config),
        *_aliases(config),
        *_semantic_cache(config),
        *_gateway_keys(config.gateway),
    ]


def _providers(providers: Mapping[str, ProviderConfig]) -> Iterator[Fault]:
    if not providers:
        yield Fault("providers", "no provider; add one, or let `load_config` take them from the environment")
    for name, provider in providers.items():
        path = dotted(("providers", name))
        if not _PROVIDER_NAME.fullmatch(name):
            yield Fault(path, "a provider's name has letters, digits, `_`, `-` and `.` only", on_name=True)
        _, faults = broadcast(provider)
        for fault in (*faults, *client_faults(provider)):
            needs = tuple(f"{path}.{field}" for field in fault.needs)
            yield replace(fault, field=f"{path}.{fault.field}", needs=needs)
        if provider.api == "responses" and provider.type != "openai":
            told = f'"{provider.type}" has no `api: responses`; take the line away, or say `type: openai`'
            yield Fault(f"{path}.api", told, needs=(f"{path}.type",))
        if provider.type in _NEED_KEYS and not provider.api_keys and _asks_vendor(provider):
            wanted = (
                f'add `api_keys: ["${{{provider.type.upper()}_API_KEY}}"]`, or the base_url of a server without keys'
            )
            yield Fault(f"{path}.api_keys", f"no keys; {wanted}", needs=(f"{path}.base_url", f"{path}.transport"))
        yield from _unknown_to(path, provider)


def _unknown_to(path: str, provider: ProviderConfig) -> Iterator[Fault]:
    if provider.type not in kinds.ALL:
        return
    for field, knowing in _KNOWN_TO.items():
        if provider.type not in knowing and field in provider.model_fields_set:
            message = f"a provider of `type: {provider.type}` has no use for it; it is for {', '.join(knowing)}"
            yield Fault(f"{path}.{field}", message, on_name=True, needs=(f"{path}.type",))


def _asks_vendor(provider: ProviderConfig) -> bool:
    return provider.base_url is None and provider.transport == "direct"


def _provider_names(settings: GlobalConfig, providers: Mapping[str, ProviderConfig]) -> Iterator[Fault]:
    if settings.default_provider is not None:
        yield from _known("global.default_provider", settings.default_provider, providers)
    for index, name in enumerate(settings.fallback):
        field = f"global.fallback[{index}]"
        yield from _known(field, name, providers)
        if name in settings.fallback[:index]:
            yield Fault(field, f'"{name}" is in the list twice')


def _known(field: str, name: str, providers: Mapping[str, ProviderConfig]) -> Iterator[Fault]:
    if name not in providers:
        there = ", ".join(providers) or "none"
        yield Fault(
            field, f'no provider "{name}"{meant(name, providers)}; there are: {there}', needs=(f"providers.{name}",)
        )


def _middleware(settings: GlobalConfig) -> Iterator[Fault]:
    for index, name in enumerate(settings.middleware):
        field = f"global.middleware[{index}]"
        if name in settings.middleware[:index]:
            yield Fault(field, f'"{name}" is in the chain twice')
        elif name not in LAYERS and not _CLASS.fullmatch(name):
            there = ", ".join(LAYERS)
            yield Fault(field, f'no middleware "{name}"{meant(name, LAYERS)}; {there}, or "package.module:Class"')


def _numbers(config: Whole) -> Iterator[Fault]:
    retry, pool, cache = config.retry, config.pool, config.cache
    if retry.initial_delay > retry.max_delay:
        yield Fault("retry.initial_delay", f"{retry.initial_delay:g} is more than max_delay, {retry.max_delay:g}")
    if pool.min_size > pool.max_size:
        yield Fault("pool.min_size", f"{pool.min_size} is more than max_size, {pool.max_size}")
    if cache is not None and cache.backend == "redis" and cache.url is None:
        yield Fault("cache.url", "the redis backend needs its address, such as redis://localhost:6379/0")


def _aliases(config: Whole) -> Iterator[Fault]:
    for name, alias in config.aliases.items():
        path = dotted(("aliases", name))
        if "/" in name:
            yield Fault(path, "an alias has no `/`, which stands between provider and model", on_name=True)
        if not alias.targets:
            yield Fault(f"{path}.targets", "no targets; give one or more `provider/model`")
        for index, target in enumerate(alias.targets):
            yield from _target(f"{path}.targets[{index}]", target, config.providers)
        yield from _weights(path, alias)


def _semantic_cache(config: Whole) -> Iterator[Fault]:
    field, model = "semantic_cache.model", config.semantic_cache.model
    if model is None:
        if config.features.semantic_cache:
            told = "features.semantic_cache needs a model that makes vectors, such as openai/text-embedding-3-small"
            yield Fault(field, told, needs=("features.semantic_cache",))
    elif model not in config.aliases:
        yield from _target(field, model, config.providers)


def _target(field: str, target: str, providers: Mapping[str, ProviderConfig]) -> Iterator[Fault]:
    name, slash, model = target.partition("/")
    if not (name and slash and model):
        yield Fault(field, "expected `provider/model`, such as openai/gpt-4o-mini")
        return
    if name not in providers:
        yield from _known(field, name, providers)
        return
    models = providers[name].models
    if models and model not in models and ANY_MODEL not in models:
        there = ", ".join(dict.fromkeys(models))
        message = f'"{name}" has no model "{model}"{meant(model, models)}; it has: {there}'
        yield Fault(field, message, needs=(f"providers.{name}.models",))


def _weights(path: str, alias: AliasConfig) -> Iterator[Fault]:
    if alias.weights is None:
        return
    if alias.strategy != "weighted":
        yield Fault(f"{path}.weights", "weights belong to `strategy: weighted`")
    elif len(alias.weights) != len(alias.targets):
        told = f"{len(alias.weights)} weights for {len(alias.targets)} targets"
        yield Fault(f"{path}.weights", f"{told}; give one for each")


def _gateway_keys(gateway: GatewayConfig) -> Iterator[Fault]:
    first: dict[str | None, str] = {}
    for name, key in gateway.api_keys.items():
        other = first.setdefault(key.key_hash, name)
        if other != name:
            field = dotted(("gateway", "api_keys", name))
            yield Fault(field, f'has the same key as "{other}", so nobody could say whose call it is; make a new one')
