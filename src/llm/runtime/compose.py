"""From a configuration to the parts of a manager: keys, queues, pools, layers and chains."""

from __future__ import annotations

import importlib
import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from llm.core.exceptions import LLMConfigurationError, LLMInvalidRequestError
from llm.core.keys import Key, Slot
from llm.core.models import PriceBook
from llm.core.parts import Chain
from llm.core.pool import Pool
from llm.core.protocols import CallObserver, Charging, ProviderSettings
from llm.core.tokens import OutputEstimate, count_tokens, estimate_tokens
from llm.core.types import TokenUsage
from llm.limits.admission import AdmissionQueue
from llm.middleware.base import compose
from llm.middleware.cache import CacheMiddleware
from llm.middleware.logging import LoggingMiddleware
from llm.middleware.metrics import Metrics, MetricsMiddleware
from llm.middleware.rate_limiter import RateLimitMiddleware, estimated_charge
from llm.middleware.retry import RetryMiddleware, RetryPolicy
from llm.providers.transport import AiohttpTransport

from .accounts import Accounts
from .registry import provider_factory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llm.cache.base import CacheBackend
    from llm.core.call import Charge
    from llm.core.config import LLMConfig
    from llm.core.config.providers import ProviderConfig
    from llm.core.inflight import Outbox
    from llm.core.protocols import Middleware, Transport
    from llm.core.types import LLMRequest
    from llm.utils.clock import Clock
    from llm.utils.redact import Secret


_logger = logging.getLogger("llm.runtime")


class Composition:
    """The parts of one configuration; the manager's `Parts`."""

    def __init__(self, config: LLMConfig, *, clock: Clock, outbox: Outbox, transport: Transport | None) -> None:
        """Build all of it; nothing is opened before the first call.

        Raises:
            LLMConfigurationError: It names a provider, a layer or a backend that there is not.
        """
        _tell_of_unbuilt(config)
        self.config: LLMConfig = config
        self.clock: Clock = clock
        self.default_provider: str = config.default_provider
        self._outbox = outbox
        self._own_transport = (
            None if transport is not None else AiohttpTransport(connect_timeout=config.global_.timeouts.connect)
        )
        self._transport: Transport = cast("Transport", transport or self._own_transport)
        self._accounts = Accounts(config, clock)
        self._prices = PriceBook(config.prices)
        self._metrics = Metrics(self._cache_misses)
        self._cache = _cache_backend(config, clock)
        self._caches: list[CacheMiddleware] = []
        self._output = OutputEstimate()
        self._pools: dict[str, Pool] = {name: self._pool(name, section) for name, section in config.providers.items()}
        self.chains: dict[str, Chain] = {name: self.compose(name, config.global_.middleware) for name in self._pools}

    def compose(self, provider: str, middleware: Sequence[Middleware | str]) -> Chain:
        """Return a chain of these layers in front of the provider's keys.

        Raises:
            LLMConfigurationError: An unknown name, or an object that is no layer.
        """
        pool = self._pools[provider]
        opener = self._rate_limit(provider, pool)
        made = [self._layer(layer, provider, pool, opener) for layer in middleware]
        layers = [layer for layer in made if layer is not None]
        observers = tuple(layer for layer in layers if isinstance(layer, CallObserver))
        return Chain(compose(layers, pool), pool, opener.ticket, observers)

    def cost(self, provider: str, model: str, usage: TokenUsage) -> float | None:
        """Return US dollars; None where the price is unknown."""
        return self._prices.cost(self.config.providers[provider].type, model, usage)

    def estimate_tokens(self, provider: str, request: LLMRequest) -> int:
        """Return the prompt's tokens, exactly for OpenAI's models, else as an estimate."""
        exact = count_tokens(request, request.model or "") if self.config.providers[provider].type == "openai" else None
        return estimate_tokens(request) if exact is None else exact

    def status(self) -> dict[str, Any]:
        """Return metrics, users, cache and limits."""
        return {
            "metrics": self._metrics.snapshot(),
            "users": {name: {**counts, "resets_in": None} for name, counts in self._metrics.users().items()},
            "cache": {"backend": "none" if self._cache is None else "memory", "misses": self._cache_misses()},
            "limits": self._accounts.status(),
        }

    def warm(self) -> None:
        """Load what the first call would otherwise wait for; may run in a thread."""
        for name, section in self.config.providers.items():
            for model in section.models:
                self.cost(name, model, TokenUsage())

    async def close(self) -> None:
        """Close the keys' clients, the cache and our own connections."""
        for pool in self._pools.values():
            await pool.close()
        if self._cache is not None:
            await self._cache.close()
        if self._own_transport is not None:
            await self._own_transport.close()

    def _pool(self, name: str, section: ProviderConfig) -> Pool:
        config, clock = self.config, self.clock
        _refuse_unbuilt(name, section)
        make = partial(self._make_key, name, section, provider_factory(section.type))
        keys: dict[Secret | None, Key] = {}
        slots = [
            (
                Slot(slot.index, slot.model, keys.get(slot.key) or keys.setdefault(slot.key, make(slot.key))),
                self._accounts.of_slot(name, section, slot),
            )
            for slot in section.slots
        ]
        queue = AdmissionQueue(
            name,
            slots,
            clock=clock,
            book=self._accounts.book,
            levels=self._accounts.levels(config.pool.max_size),
            max_waiting=config.pool.max_waiting,
        )
        return Pool(
            name,
            queue,
            clock=clock,
            timeouts=config.global_.timeouts,
            acquire_timeout=config.pool.acquire_timeout,
            spawn=self._outbox.spawn,
            cost=partial(self._known_cost, name) if self._accounts.budgeted() else None,
        )

    def _make_key(
        self, name: str, section: ProviderConfig, factory: Callable[[ProviderSettings], Any], key: Secret | None
    ) -> Key:
        settings = ProviderSettings(
            name=name,
            models=section.models,
            clock=self.clock,
            transport=self._transport,
            key=key,
            base_url=None if section.base_url is None else str(section.base_url),
            device=section.device,
        )
        return Key(
            name if key is None else key.fingerprint,
            lambda: factory(settings),
            clock=self.clock,
            idle_timeout=self.config.pool.idle_timeout,
            max_lifetime=self.config.pool.max_lifetime,
        )

    def _layer(
        self, layer: Middleware | str, provider: str, pool: Pool, opener: RateLimitMiddleware
    ) -> Middleware | None:
        if not isinstance(layer, str):
            return layer
        makers: dict[str, Callable[[], Middleware | None]] = {
            "rate_limit": lambda: opener,
            "retry": lambda: RetryMiddleware(self._retry_policy(), clock=self.clock, rest=pool.queue.rest),
            "cache": lambda: self._cache_layer(provider),
            "logging": lambda: self._logging(provider),
            "metrics": lambda: MetricsMiddleware(self._metrics, self.clock, price=partial(self.cost, provider)),
        }
        return makers[layer]() if layer in makers else _imported(layer)

    def _logging(self, provider: str) -> LoggingMiddleware:
        secrets = [key for section in self.config.providers.values() for key in section.api_keys]
        content = self.config.global_.log_content
        return LoggingMiddleware(self.clock, provider=provider, log_content=content, secrets=secrets)

    def _rate_limit(self, provider: str, pool: Pool) -> RateLimitMiddleware:
        first = pool.queue.slots[0].key.client.provider
        charge = first.charge if isinstance(first, Charging) else estimated_charge(estimate_tokens)
        if self._accounts.budgeted():
            charge = partial(self._charge_with_cost, provider, charge)
        return RateLimitMiddleware(charge=charge, check=pool.queue.check, output=self._output, clock=self.clock)

    def _charge_with_cost(
        self, provider: str, charge: Callable[[LLMRequest, int], Charge], request: LLMRequest, expected: int
    ) -> Charge:
        plain = charge(request, expected)
        usage = TokenUsage(plain.input_tokens or estimate_tokens(request), request.max_tokens or expected)
        return replace(plain, cost=self._known_cost(provider, request.model or "", usage))

    def _known_cost(self, provider: str, model: str, usage: TokenUsage) -> float:
        cost = self.cost(provider, model, usage)
        if cost is None:
            raise LLMInvalidRequestError(
                f"the price of {model!r} is unknown, so it cannot be held to a budget in dollars; state it under "
                "`prices:` (US dollars per million tokens)",
                provider=provider,
                model=model,
            )
        return cost

    def _retry_policy(self) -> RetryPolicy:
        stated = self.config.retry
        return RetryPolicy(
            stated.max_attempts, stated.initial_delay, stated.max_delay, stated.retry_after_max, stated.after_send
        )

    def _cache_layer(self, provider: str) -> CacheMiddleware | None:
        stated = self.config.cache
        if self._cache is None or stated is None:
            return None
        layer = CacheMiddleware(
            self._cache,
            provider=provider,
            clock=self.clock,
            ttl=stated.ttl,
            scope=stated.scope,
            single_flight=stated.single_flight,
            streams=stated.streams,
            spawn=self._outbox.spawn,
            idle=self.config.global_.timeouts.idle,
            price=partial(self.cost, provider),
        )
        self._caches.append(layer)
        return layer

    def _cache_misses(self) -> int:
        return sum(layer.stats.misses for layer in self._caches)


def _cache_backend(config: LLMConfig, clock: Clock) -> CacheBackend | None:
    stated = config.cache
    if stated is None or stated.backend == "none":
        return None
    if stated.backend != "memory":
        raise LLMConfigurationError(f"cache.backend: {stated.backend} is not built yet; use memory or none")
    from llm.cache.memory import InMemoryCache  # noqa: PLC0415 - only where something is cached

    return InMemoryCache(max_entries=stated.max_entries, max_bytes=stated.max_bytes, clock=clock)


def _tell_of_unbuilt(config: LLMConfig) -> None:
    """Say what is read and not in force yet, so that nobody relies on it.

    Raises:
        LLMConfigurationError: It would be wrong to go on without it.
    """
    if config.limits.store != "memory":
        raise LLMConfigurationError(f"limits.store: {config.limits.store} is not built yet; use memory")
    if "tracing" in config.global_.middleware:
        raise LLMConfigurationError("global.middleware: tracing is not built yet; take it out")
    stated = {
        "global.fallback": config.global_.fallback,
        "circuit_breaker": config.circuit_breaker,
        "aliases with more than one target": [a for a in config.aliases.values() if len(a.targets) > 1],
    }
    idle = [name for name, value in stated.items() if value]
    if idle:
        _logger.warning("read, but not in force in this version: %s", ", ".join(idle))


def _refuse_unbuilt(name: str, section: ProviderConfig) -> None:
    if section.transport != "direct":
        raise LLMConfigurationError(f"providers.{name}.transport: {section.transport} is not built yet; use direct")


def _imported(path: str) -> Middleware:
    module, _, name = path.partition(":")
    try:
        return cast("Middleware", getattr(importlib.import_module(module), name)())
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise LLMConfigurationError(
            f"global.middleware: {path!r} cannot be used: {error}; name a layer of the package, or a class made "
            "without arguments, as package.module:Class"
        ) from error
