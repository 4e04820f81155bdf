"""What the manager owns, and the routes by which its clients reach it, which a reload swaps under them."""

from __future__ import annotations

import random
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .bounds import Bound
from .call import Ticket
from .pool import Pool
from .protocols import CallNext, CallObserver
from .routing import Target, check_provider, followers, resolve
from .speeds import Speeds
from .strategies import Alias, by_price, by_weight
from .stream import LLMResult
from .types import LLMRequest, LLMResponse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from llm.utils.clock import Clock

    from .call import Call
    from .config import LLMConfig
    from .exceptions import LLMException
    from .inflight import InFlight, Outbox
    from .measured import Measured
    from .protocols import Answers, Middleware, Transport
    from .standing import Room
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
        key: Returns the key under which the answer to a request is kept, None where it is not; None where none ever is.
    """

    call: CallNext
    pool: Pool
    ticket: Callable[[LLMRequest, str], Ticket]
    observers: tuple[CallObserver, ...]
    glance: Callable[[LLMRequest], LLMResult | None] | None = None
    key: Callable[[LLMRequest], str | None] | None = None


class Hop(NamedTuple):
    """One of the targets that a call may go to.

    Attributes:
        route: Its provider's chain of today.
        model: Its model; None: the provider chooses one when it is asked.
        speeds: What is told how fast it answers; None where nobody asks.
    """

    route: Route
    model: str | None
    speeds: Speeds | None = None


class Moved(Protocol):
    """Is told where a call goes on."""

    def __call__(self, route: Route, request: LLMRequest) -> None:
        """Take over the route, and the request as it is made there."""


class Falling(Protocol):
    """The way of one call over several targets, as a `CallNext`."""

    @property
    def targets(self) -> int:
        """How many targets it has."""
        ...

    @property
    def target(self) -> Target:
        """The one that was asked last."""
        ...

    async def __call__(self, request: LLMRequest) -> LLMResult:
        """Ask the first, and where that cannot serve the others, in order."""
        ...

    async def go_on(self, request: LLMRequest, error: LLMException, *, at: int) -> LLMResult:
        """Ask the next, or the same again where it is the last, since its stream broke at a character, with an error.

        Raises:
            LLMException: None could go on; the error itself where it is too late to ask.
        """
        ...


class CallsOfLate(Protocol):
    """The calls that ended of late, for who watches them go by."""

    def watch(self, *, plain: bool) -> None:
        """Keep those that go straight through, too, or no longer."""

    def latest(self, after: int, most: int) -> list[dict[str, Any]]:
        """Return the newest of those that ended after the one of this `turn`, oldest first; JSON-serialisable.

        Those that did not go straight through go first where there are more than `most`.
        """
        ...


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
    def answers(self) -> Answers | None:
        """Those that are kept; None where none is."""
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

    def fall_back(self, call: Call, hops: Sequence[Hop], moved: Moved) -> Falling:
        """Return the way of a call over these targets; where it falls back, `moved` is told."""
        ...

    def cost(self, provider: str, model: str, usage: TokenUsage) -> float | None:
        """Return US dollars; None where the price is unknown."""
        ...

    def likely_cost(self, provider: str, model: str, request: LLMRequest) -> float | None:
        """Return the US dollars that a request may take there; None where the price is unknown."""
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

    def beside(self, outbox: Outbox) -> Parts:
        """Return the parts of the same configuration for another loop, which count, learn and keep in the same places.

        May run in a thread.
        """
        ...

    def lend(self, ask: Callable[[LLMRequest], Awaitable[LLMResponse]]) -> None:
        """Let layers make calls of their own, for a vector for one; once, also for the parts that follow."""

    def begin(self) -> None:
        """Hold to the configuration's limits from now on, and take over what the parts before leave."""

    @property
    def journal(self) -> CallsOfLate:
        """The calls that ended of late; one for all parts of a manager."""
        ...

    def status(self, *sections: str) -> dict[str, Any]:
        """Return metrics, models, users, cache, limits and calls of late, or these of them; JSON-serialisable."""
        ...

    def provider_status(self, provider: str) -> dict[str, Any]:
        """Return what is known of a provider beside its keys, JSON-serialisable."""
        ...

    def measured(self) -> Measured:
        """Return what calls and attempts came to, as values."""
        ...

    def rooms(self, user: str) -> list[Room]:
        """Return what a user's own limits still let through; of several in a unit what is nearest to its end."""
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

    def to(self, name: str | None, request: LLMRequest) -> tuple[Route, str | None, tuple[Hop, ...]]:
        """Return the route and the model that a caller's name stands for, and where there are several targets, all.

        What is asked first stands first; where it is the only one, there are no others to tell of.
        """
        routes = self._routes
        alias = None if name is None else routes.aliases.get(name)
        if alias is None and not routes.fallback and (name is None or "/" not in name):
            return self, name, ()
        targets = routes.targets(name, self.provider) if alias is None else routes.order(alias, request)
        if len(targets) == 1 or (request.embed is not None and (alias is not None or name is None)):
            # Vectors of different models do not go together.
            return self._toward(targets[0].provider), targets[0].model, ()
        speeds = routes.speeds if alias is not None and alias.strategy == "fastest" else None
        hops = tuple([Hop(self._toward(target.provider), target.model, speeds) for target in targets])
        return hops[0].route, hops[0].model, hops

    def _toward(self, provider: str) -> Route:
        if provider == self.provider:
            return self
        if self._middleware is None:
            return self._routes.configured(provider)
        other = self._others.get(provider)
        if other is None:
            other = self._others[provider] = Route(self._routes, provider, self._middleware)
            self._routes.keep(other)
        return other


class Routes:
    """All routes of a manager, and what its calls share.

    Attributes:
        parts: The parts of today.
        calls: Calls that run.
        outbox: What is done beside the calls.
        aliases: Names of one's own for targets.
        fallback: Providers in the order in which they are tried when one cannot serve.
        speeds: How fast the targets of aliases are that go to the fastest; outlives a reload.
    """

    def __init__(
        self, parts: Parts, calls: InFlight, outbox: Outbox, *, dice: Callable[[], float] = random.random
    ) -> None:
        """Start with these parts; `dice` returns a number from 0 up to, but not, 1."""
        self.calls: InFlight = calls
        self.outbox: Outbox = outbox
        self.parts: Parts = parts
        self.aliases: Mapping[str, Alias] = _aliases(parts)
        self.fallback: tuple[str, ...] = parts.config.global_.fallback
        self.speeds: Speeds = Speeds()
        self._whole = _whole(parts)
        self._dice = dice
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

    def targets(self, name: str | None, provider: str) -> tuple[Target, ...]:
        """Return the targets of a name that is no alias, for a client of this provider; the first to be asked first."""
        first = resolve(name, default=provider, providers=self.parts.chains)
        return (first, *followers(first, self.fallback, self._models)) if self.fallback else (first,)

    def order(self, alias: Alias, request: LLMRequest) -> tuple[Target, ...]:
        """Return the targets of an alias in the order in which this request tries them."""
        match alias.strategy:
            case "weighted":
                return by_weight(alias, self._dice)
            case "cheapest":
                return by_price(alias, lambda target: self._price(target, request))
            case "fastest":
                return self.speeds.order(self.parts.clock.now(), alias.targets, stream=request.stream)
            case "fallback":
                return alias.targets

    def bound(self, timeout: float | None) -> Bound | None:
        """Return what ends a call after its own `timeout`, in seconds, or else after the configured one."""
        return self._whole if timeout is None else Bound(self.parts.clock, timeout)

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
        for name in self._configured.keys() - parts.chains.keys():
            self.keep(self._configured.pop(name))  # only its clients hold it now, and go on if it comes back
        self.aliases, self.fallback = _aliases(parts), parts.config.global_.fallback
        self._whole = _whole(parts)
        old, self.parts = self.parts, parts
        return old

    def _models(self, provider: str) -> tuple[str, ...]:
        return self.parts.chains[provider].pool.queue.models()

    def _price(self, target: Target, request: LLMRequest) -> float | None:
        return self.parts.likely_cost(target.provider, target.model or "", request)


def _whole(parts: Parts) -> Bound | None:
    """Return what ends the calls that have no timeout of their own; one timer serves them all."""
    seconds = parts.config.global_.timeout
    return None if seconds is None else Bound(parts.clock, seconds)


def _aliases(parts: Parts) -> dict[str, Alias]:
    return {
        name: Alias.read(alias.targets, alias.strategy, alias.weights) for name, alias in parts.config.aliases.items()
    }
