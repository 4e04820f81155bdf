"""The layers of the providers' chains, made of their names in the configuration."""

from __future__ import annotations

import importlib
from functools import partial
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from llm.core.config.checks import LAYERS
from llm.core.exceptions import LLMConfigurationError
from llm.middleware.cache import CacheMiddleware
from llm.middleware.logging import LoggingMiddleware
from llm.middleware.metrics import Metrics, MetricsMiddleware
from llm.middleware.retry import RetryMiddleware, RetryPolicy
from llm.middleware.shelf import CacheStats
from llm.telemetry.names import PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from llm.cache.vectors import VectorIndex
    from llm.core.config import LLMConfig
    from llm.core.config.providers import ProviderConfig
    from llm.core.models import PriceBook
    from llm.core.pool import Pool
    from llm.core.protocols import Middleware
    from llm.core.types import LLMRequest, LLMResponse
    from llm.middleware.rate_limiter import RateLimitMiddleware
    from llm.middleware.semantic import SemanticMiddleware, SemanticStats
    from llm.utils.clock import Clock
    from llm.utils.redact import Secret

    from .answers import Answers
    from .guards import Guards


class Layers:
    """Makes the layers of one configuration; what they count is shared by all chains, and outlives a reload."""

    def __init__(  # noqa: PLR0913 - what layers are made of, once
        self,
        config: LLMConfig,
        *,
        clock: Clock,
        answers: Answers | None,
        prices: PriceBook,
        guards: Guards,
        address: Callable[[str], str | None],
        before: Layers | None = None,
        beside: Layers | None = None,
    ) -> None:
        """Make no layer yet.

        Args:
            config: What they are made from.
            clock: Their time.
            answers: Those that are kept; None where none is.
            prices: What models cost.
            guards: Their budgets of retries.
            address: Returns where a provider's calls go; None where that is unknown.
            before: Those of the configuration before this one, which hand on their counts.
            beside: Those of another loop, which count in the same place.
        """
        self._config = config
        self._clock = clock
        self._answers = answers
        self._prices = prices
        self._guards = guards
        self._address = address
        self._cache_layers: dict[str, CacheMiddleware] = {}
        self._semantic_layers: dict[str, SemanticMiddleware] = {}
        kin = before or beside
        self.cache_stats: dict[str, CacheStats] = {} if kin is None else kin.cache_stats
        """What the cache did for each provider, also before a reload."""
        self.semantic_stats: dict[str, SemanticStats] = {} if kin is None else kin.semantic_stats
        """What the semantic cache did for each provider, also before a reload."""
        misses = partial(_misses, self.cache_stats, self.semantic_stats)
        self.metrics: Metrics = Metrics(misses) if kin is None else kin.metrics
        self.ask: Callable[[LLMRequest], Awaitable[LLMResponse]] | None = None if before is None else before.ask
        """Makes a call of a layer's own; None until somebody lends it."""
        self._questions: VectorIndex | None = None if before is None else before._questions

    def names(self, middleware: Sequence[Middleware | str]) -> list[Middleware | str]:
        """Return the layers of a chain, with those that its features add."""
        if not self._config.features.semantic_cache:
            return list(middleware)
        return [name for layer in middleware for name in ((layer, "semantic_cache") if layer == "cache" else (layer,))]

    def layer(
        self, layer: Middleware | str, provider: str, pool: Pool, opener: RateLimitMiddleware
    ) -> Middleware | None:
        """Return a layer of a provider's chain by its name, or the layer itself; None where its section is off.

        Raises:
            LLMConfigurationError: An unknown name.
        """
        if not isinstance(layer, str):
            return layer
        makers: dict[str, Callable[[], Middleware | None]] = {
            "rate_limit": lambda: opener,
            "retry": lambda: RetryMiddleware(
                self._retry_policy(), clock=self._clock, rest=pool.rest, budget=self._guards.budget(provider)
            ),
            "cache": lambda: self._cache_layer(provider),
            "semantic_cache": lambda: self._semantic_layer(provider),
            "logging": lambda: self._logging(provider),
            "metrics": lambda: self._metrics(provider),
            "tracing": lambda: self._tracing(provider),
        }
        return makers[layer]() if layer in makers else _imported(layer, ", ".join(LAYERS))

    def _logging(self, provider: str) -> LoggingMiddleware:
        content = self._config.global_.log_content
        return LoggingMiddleware(self._clock, provider=provider, log_content=content, secrets=self._secrets())

    def _metrics(self, provider: str) -> MetricsMiddleware:
        price = partial(self._prices.cost, self._config.providers[provider].type)
        return MetricsMiddleware(self.metrics, self._clock, provider=provider, price=price)

    def _tracing(self, provider: str) -> Middleware:
        try:
            from llm.middleware.tracing import TracingMiddleware, Upstream  # noqa: PLC0415 - an extra, where it is named
        except ImportError as error:
            raise LLMConfigurationError(
                f"global.middleware: tracing needs {error.name or 'opentelemetry'}, which is not installed; type: "
                "pip install 'llm-manifold[otel]'"
            ) from None
        upstreams = {
            name: Upstream(_conventional(section), *_host_and_port(self._address(name)))
            for name, section in self._config.providers.items()
        }
        return TracingMiddleware(
            self._clock,
            provider=provider,
            upstreams=upstreams,
            log_content=self._config.global_.log_content,
            secrets=self._secrets(),
        )

    def _secrets(self) -> list[Secret]:
        return [key for section in self._config.providers.values() for key in section.api_keys]

    def _retry_policy(self) -> RetryPolicy:
        stated = self._config.retry
        return RetryPolicy(
            stated.max_attempts, stated.initial_delay, stated.max_delay, stated.retry_after_max, stated.after_send
        )

    def _cache_layer(self, provider: str) -> CacheMiddleware | None:
        stated = self._config.cache
        if self._answers is None or stated is None:
            return None
        if provider in self._cache_layers:  # one for all chains, so that their calls share its flights
            return self._cache_layers[provider]
        layer = self._cache_layers[provider] = CacheMiddleware(
            self._answers.backend,
            provider=provider,
            clock=self._clock,
            ttl=stated.ttl,
            scope=stated.scope,
            single_flight=stated.single_flight,
            streams=stated.streams,
            spawn=self._answers.write,
            idle=self._config.global_.timeouts.idle,
            stale_while_revalidate=stated.stale_while_revalidate,
            stale_if_error=stated.stale_if_error,
            stats=self.cache_stats.setdefault(provider, CacheStats()),
        )
        return layer

    def _semantic_layer(self, provider: str) -> SemanticMiddleware | None:
        stated, semantic = self._config.cache, self._config.semantic_cache
        if self._answers is None or stated is None:
            return None
        if provider in self._semantic_layers:
            return self._semantic_layers[provider]
        from llm.cache.vectors import VectorIndex  # noqa: PLC0415 - only where the feature is on
        from llm.middleware.comparable import Terms  # noqa: PLC0415 - likewise
        from llm.middleware.semantic import SemanticMiddleware, SemanticStats  # noqa: PLC0415 - likewise

        if self._questions is None:
            self._questions = VectorIndex(semantic.max_entries)
        self._questions.resize(semantic.max_entries)
        terms = Terms(
            model=semantic.model or "",
            threshold=semantic.threshold,
            timeout=semantic.timeout,
            ttl=stated.ttl,
            scope=stated.scope,
            streams=stated.streams,
        )
        layer = self._semantic_layers[provider] = SemanticMiddleware(
            self._answers.backend,
            self._questions,
            terms,
            provider=provider,
            clock=self._clock,
            ask=self._asked,
            spawn=self._answers.write,
            durable=stated.backend != "memory",
            stats=self.semantic_stats.setdefault(provider, SemanticStats()),
        )
        return layer

    def _asked(self, request: LLMRequest) -> Awaitable[LLMResponse]:
        if self.ask is None:
            raise RuntimeError("a layer made a call before the manager lent it a client")
        return self.ask(request)


def _misses(exact: dict[str, CacheStats], similar: dict[str, SemanticStats]) -> int:
    """Return the calls that neither cache could answer."""
    return sum(each.misses for each in tuple(exact.values())) - sum(each.hits for each in tuple(similar.values()))


def _conventional(section: ProviderConfig) -> str:
    platform = section.sdk.client if section.sdk is not None else None
    return PROVIDERS.get(platform or section.type, section.type)


def _host_and_port(address: str | None) -> tuple[str | None, int | None]:
    if address is None:
        return None, None
    parts = urlsplit(address)
    return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _imported(path: str, known: str) -> Middleware:
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
        return cast("Middleware", found() if isinstance(found, type) else found)
    except Exception as error:
        raise LLMConfigurationError(
            f"middleware {path!r} cannot be used: {type(error).__name__}: {error}; name one of {known}, or a "
            "class made without arguments, as package.module:Class"
        ) from error
