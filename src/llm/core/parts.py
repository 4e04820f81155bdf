"""What the manager owns, and the routes by which its clients reach it, which a reload swaps under them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from .call import Ticket
from .pool import Pool
from .protocols import CallNext, CallObserver
from .routing import check_provider, resolve
from .types import LLMRequest, LLMResponse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llm.utils.clock import Clock

    from .config import LLMConfig
    from .inflight import InFlight, Outbox
    from .measured import Measured
    from .protocols import Middleware, Transport
    from .types import TokenUsage


@dataclass(frozen=True, slots=True)
class Chain:
    """A provider's chain.

    Attributes:
        call: The composed layers.
        pool: The keys at its end.
        ticket: Returns what a request for a model would ask of the limits.
        observers: Those of its layers that hear of every call.
        glance: Returns the answer that is at hand without asking the layers; None where nothing ever is.
    """

    call: CallNext
    pool: Pool
    ticket: Callable[[LLMRequest, str], Ticket]
    observers: tuple[CallObserver, ...]
    glance: Callable[[LLMRequest], LLMResponse | None] | None = None


class Parts(Protocol):
    """What the composition root builds from a configuration, for the manager to own."""

    @property
    def config(self) -> LLMConfig:
        """What they were built from."""
        ...

    @property
    def clock(self) -> Clock:
        """Their time."""
        ...

    @property
    def default_provider(self) -> str:
        """Provider of a client that names none."""
        ...

    @property
    def chains(self) -> Mapping[str, Chain]:
        """A chain for each provider."""
        ...

    def compose(self, provider: str, middleware: Sequence[Middleware | str]) -> Chain:
        """Return a chain of these layers, outermost first, in front of the provider's keys.

        Raises:
            LLMConfigurationError: An unknown name, or an object that is no layer.
        """
        ...

    def cost(self, provider: str, model: str, usage: TokenUsage) -> float | None:
        """Return US dollars; None where the price is unknown."""
        ...

    def estimate_tokens(self, provider: str, request: LLMRequest) -> int:
        """Return the prompt's tokens, exactly where the model's tokenizer is known, else as an estimate."""
        ...

    def renew(self, config: LLMConfig) -> Parts:
        """Return the parts of another configuration, which go on with what these counted, cached and learned.

        Changes nothing before they `begin`; may run in a thread.

        Raises:
            LLMConfigurationError: The configuration names what there is not.
        """
        ...

    def begin(self) -> None:
        """Hold to the configuration's limits from now on, and take over what the parts before leave."""

    def status(self) -> dict[str, Any]:
        """Return metrics, users, cache, limits and calls of late, JSON-serialisable."""
        ...

    def provider_status(self, provider: str) -> dict[str, Any]:
        """Return what is known of a provider beside its keys, JSON-serialisable."""
        ...

    def measured(self) -> Measured:
        """Return what calls and attempts came to, as values."""
        ...

    def warm(self) -> None:
        """Load what the first call would otherwise wait for; may run in a thread."""

    async def close(self) -> None:
        """Close clients, caches and connections; calls have ended before."""


class Composer(Protocol):
    """Builds the parts of a configuration; `llm.runtime.compose_parts` is the one."""

    def __call__(self, config: LLMConfig, *, clock: Clock, outbox: Outbox, transport: Transport | None) -> Parts:
        """Build; opens nothing.

        Raises:
            LLMConfigurationError: The configuration names what there is not.
        """
        ...


class Route:
    """A provider's chain as a client holds it; a reload puts a new chain in.

    Attributes:
        provider: Section of the configuration.
        chain: The chain of today.
    """

    __slots__ = ("__weakref__", "_middleware", "_others", "_routes", "chain", "provider")

    def __init__(self, routes: Routes, provider: str, middleware: tuple[Middleware | str, ...] | None = None) -> None:
        """Make the way to a provider, through the configured chain or through these layers."""
        self.provider: str = provider
        self._routes = routes
        self._middleware = middleware
        self._others: dict[str, Route] = {}
        self.chain: Chain = self.compose(routes.parts)

    def compose(self, parts: Parts) -> Chain:
        """Build the chain from these parts.

        Raises:
            LLMConfigurationError: The provider is gone, or a layer is none.
        """
        check_provider(self.provider, parts.chains)
        if self._middleware is None:
            return parts.chains[self.provider]
        return parts.compose(self.provider, self._middleware)

    def to(self, name: str | None) -> tuple[Route, str | None]:
        """Return the route and the model that a caller's name stands for; see `routing.resolve`."""
        if name is None:
            return self, None
        routes = self._routes
        target = resolve(name, default=self.provider, providers=routes.parts.chains, aliases=routes.aliases)
        if target.provider == self.provider:
            return self, target.model
        if self._middleware is None:
            return routes.configured(target.provider), target.model
        other = self._others.get(target.provider)
        if other is None:
            other = self._others[target.provider] = Route(routes, target.provider, self._middleware)
            routes.keep(other)
        return other, target.model


class Routes:
    """All routes of a manager, and what its calls share.

    Attributes:
        parts: The parts of today.
        calls: Calls that run.
        outbox: What is done beside the calls.
        aliases: Targets by name.
    """

    def __init__(self, parts: Parts, calls: InFlight, outbox: Outbox) -> None:
        """Start with these parts."""
        self.calls: InFlight = calls
        self.outbox: Outbox = outbox
        self.parts: Parts = parts
        self.aliases: Mapping[str, tuple[str, ...]] = _aliases(parts)
        self._configured: dict[str, Route] = {}
        self._custom: weakref.WeakSet[Route] = weakref.WeakSet()

    def configured(self, provider: str) -> Route:
        """Return the way through the configured chain.

        Raises:
            LLMConfigurationError: There is no such provider.
        """
        route = self._configured.get(provider)
        if route is None:
            route = self._configured[provider] = Route(self, provider)
        return route

    def custom(self, provider: str, middleware: Sequence[Middleware | str]) -> Route:
        """Return a way through these layers.

        Raises:
            LLMConfigurationError: There is no such provider, or a layer is none.
        """
        route = Route(self, provider, tuple(middleware))
        self.keep(route)
        return route

    def keep(self, route: Route) -> None:
        """Remember a way of its own layers, to compose it anew at a reload, while somebody holds it."""
        self._custom.add(route)

    def swap(self, parts: Parts) -> Parts:
        """Send all calls from now on through new parts; return the old ones, for their last calls to end.

        Raises:
            LLMConfigurationError: A client's own layers do not fit the new parts; nothing has changed then.
        """
        routes = [route for route in (*self._configured.values(), *self._custom) if route.provider in parts.chains]
        chains = [route.compose(parts) for route in routes]
        parts.begin()
        for route, chain in zip(routes, chains, strict=True):
            route.chain = chain
        self.aliases = _aliases(parts)
        old, self.parts = self.parts, parts
        return old


def _aliases(parts: Parts) -> dict[str, tuple[str, ...]]:
    return {name: tuple(alias.targets) for name, alias in parts.config.aliases.items()}
