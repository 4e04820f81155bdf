"""From a configuration to the parts of a manager: keys, queues, pools, layers and chains."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from llm.core.exceptions import LLMInvalidRequestError
from llm.core.models import PriceBook
from llm.core.parts import Chain
from llm.core.protocols import CallObserver
from llm.core.settlement import Settlement
from llm.core.tokens import OutputEstimate, PromptCalibration, count_tokens, estimate_tokens
from llm.core.types import TokenUsage
from llm.core.upkeep import Upkeep
from llm.middleware.base import compose
from llm.middleware.cache import CacheMiddleware
from llm.middleware.fallback import Fallback
from llm.middleware.rate_limiter import RateLimitMiddleware
from llm.middleware.retry import RetryMiddleware
from llm.providers.direct.transport import DirectTransport

from .accounts import Accounts
from .answers import Answers
from .charges import Charges
from .guards import Guards
from .journal import Journal
from .layers import Layers
from .pools import Pools
from .vendors import Vendors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from llm.core.call import Call
    from llm.core.config import LLMConfig
    from llm.core.config.providers import ProviderConfig
    from llm.core.inflight import Outbox
    from llm.core.measured import Measured
    from llm.core.parts import Falling, Hop, Moved
    from llm.core.pool import Pool
    from llm.core.protocols import Middleware, Transport
    from llm.core.standing import Room
    from llm.core.stream import LLMResult
    from llm.core.types import LLMRequest, LLMResponse
    from llm.limits.sharing import Sharing
    from llm.utils.clock import Clock


class Composition:
    """The parts of one configuration; the manager's `Parts`."""

    def __init__(  # noqa: PLR0913 - what parts are made of, once
        self,
        config: LLMConfig,
        *,
        clock: Clock,
        outbox: Outbox,
        transport: Transport | None,
        before: Composition | None = None,
        beside: Composition | None = None,
    ) -> None:
        """Build all of it; nothing is opened before the first call, and nothing that is shared changes before `begin`.

        What was counted, cached and learned `before` goes on. `beside` is that of another loop, which goes on itself:
        what any loop may use, both use.

        Raises:
            LLMConfigurationError: It names a provider, a layer or a backend that there is not.
        """
        self.config: LLMConfig = config
        self.clock: Clock = clock
        self.default_provider: str = config.default_provider
        self._outbox = outbox
        self._given_transport = transport
        self._own_transport: DirectTransport | None = None if transport is not None else self._connections(before)
        self._transport: Transport = cast("Transport", transport or self._own_transport)
        self._vendors = Vendors(self._transport)
        self._sharing: Sharing | None = self._store(before)
        own = config.own_part()
        self._accounts: Accounts = Accounts(own, clock, None if before is None else before._accounts, self._sharing)
        self._guards: Guards = Guards(
            config, clock=clock, lock=self._accounts.book.lock, before=None if before is None else before._guards
        )
        self._prices = PriceBook(config.prices)
        self.answers: Answers | None = self._kept(before, beside)
        self._layers: Layers = Layers(
            config,
            clock=clock,
            answers=self.answers,
            prices=self._prices,
            guards=self._guards,
            address=self._address,
            before=None if before is None else before._layers,
            beside=None if beside is None else beside._layers,
        )
        kin = before or beside
        self.journal: Journal = Journal(clock) if kin is None else kin.journal
        self._output: OutputEstimate = OutputEstimate() if kin is None else kin._output
        self._prompts: PromptCalibration = PromptCalibration() if kin is None else kin._prompts
        pools = Pools(
            own,
            clock=clock,
            spawn=outbox.spawn,
            accounts=self._accounts,
            vendors=self._vendors,
            guards=self._guards,
            sharing=self._sharing,
        )
        self._pools: dict[str, Pool] = {
            name: pools.pool(name, section, self._settlement(name, section)) for name, section in own.providers.items()
        }
        self._charges: dict[str, Charges] = {name: self._charges_of(name, pool) for name, pool in self._pools.items()}
        self.chains: dict[str, Chain] = {name: self.compose(name, config.global_.middleware) for name in self._pools}
        self._upkeep = Upkeep(
            self._pools.values(),
            clock=clock,
            interval=config.pool.health_check_interval,
            min_size=config.pool.min_size,
        )
        self._before: Composition | None = before

    def renew(self, config: LLMConfig) -> Composition:
        """Return the parts of another configuration, which go on with what these counted, cached and learned.

        Raises:
            LLMConfigurationError: As for a new one.
        """
        return Composition(config, clock=self.clock, outbox=self._outbox, transport=self._given_transport, before=self)

    def beside(self, outbox: Outbox) -> Composition:
        """Return the parts of the same configuration for another loop, which count, learn and keep in the same places.

        Each loop has its own keys, queues, breakers and connections.
        """
        return Composition(self.config, clock=self.clock, outbox=outbox, transport=self._given_transport, beside=self)

    def lend(self, ask: Callable[[LLMRequest], Awaitable[LLMResponse]]) -> None:
        """Let layers make calls of their own, for a vector for one; once, also for the parts that follow."""
        self._layers.ask = ask

    def begin(self) -> None:
        """Hold to the configuration's limits from now on, and take over what the parts before leave."""
        self._accounts.apply()
        if self._sharing is not None:
            self._sharing.hold_to(self.config.limits.on_store_loss)
        self._upkeep.start()
        before, self._before = self._before, None
        if before is not None:
            before._upkeep.stop()
            before._hand_over(self)

    def compose(self, provider: str, middleware: Sequence[Middleware | str]) -> Chain:
        """Return a chain of these layers in front of the provider's keys.

        Raises:
            LLMConfigurationError: An unknown name, or an object that is no layer.
        """
        pool = self._pools[provider]
        opener = RateLimitMiddleware(charges=self._charges[provider], check=pool.queue.check, clock=self.clock)
        names = self._layers.names(middleware)
        ordered = sorted(names, key=lambda layer: layer != "tracing")  # which sees all that the others do
        made = [self._layers.layer(layer, provider, pool, opener) for layer in ordered]
        layers = [layer for layer in made if layer is not None]
        observers = [layer for layer in layers if isinstance(layer, CallObserver)]
        hearing: tuple[CallObserver, ...] = (*observers, self.journal.observer(provider))
        key = next((layer.key for layer in layers if isinstance(layer, CacheMiddleware)), None)
        return Chain(compose(layers, pool), pool, opener.ticket, hearing, _glance(layers), key)

    def fall_back(self, call: Call, hops: Sequence[Hop], moved: Moved) -> Falling:
        """Return the way of a call over these targets; where it falls back, `moved` is told."""
        return Fallback(
            call,
            hops,
            clock=self.clock,
            after=self.config.global_.fallback_after,
            after_send=self.config.retry.after_send,
            window=self._window,
            moved=moved,
        )

    def cost(self, provider: str, model: str, usage: TokenUsage) -> float | None:
        """Return US dollars; None where the price is unknown."""
        section = self.config.providers.get(provider)
        # A call that runs while a reload takes its provider away ends all the same.
        return None if section is None else self._prices.cost(section.type, model, usage)

    def likely_cost(self, provider: str, model: str, request: LLMRequest) -> float | None:
        """Return the US dollars that a request may take there; None where the price is unknown.

        Those of its estimated prompt, and of an answer as long as it allows, or else as the model's longer ones are.
        """
        prompt = self._prompts.tokens(self.config.providers[provider].type, model, estimate_tokens(request))
        return self.cost(provider, model, TokenUsage(prompt, request.max_tokens or self._output.expected(model)))

    def estimate_tokens(self, provider: str, request: LLMRequest) -> int:
        """Return the prompt's tokens: exactly for OpenAI's models, else as an estimate that answers have corrected."""
        exact = count_tokens(request, request.model or "") if self.config.providers[provider].type == "openai" else None
        return self._charges[provider].prompt_tokens(request) if exact is None else exact

    def status(self, *sections: str) -> dict[str, Any]:
        """Return metrics, models, users, cache, limits and the calls of late that did not go straight through.

        Where `sections` names some of these, those alone.
        """
        told: dict[str, Callable[[], object]] = {
            "metrics": self._layers.metrics.snapshot,
            "models": self._layers.metrics.models,
            "users": self._users_status,
            "cache": self._cache_status,
            "limits": self._limits_status,
            "calls": self.journal.snapshot,
        }
        return {name: tell() for name, tell in told.items() if not sections or name in sections}

    def rooms(self, user: str) -> list[Room]:
        """Return what a user's own limits still let through; of several in a unit what is nearest to its end."""
        return self._accounts.rooms(user)

    def provider_status(self, provider: str) -> dict[str, Any]:
        """Return what is known of a provider beside its keys: its breakers, and its budget of retries."""
        return self._guards.status(provider)

    def measured(self) -> Measured:
        """Return what calls and attempts came to, as values."""
        return self._layers.metrics.measured()

    def _users_status(self) -> dict[str, Any]:
        users = self._layers.metrics.users()
        return {name: {**counts, "resets_in": self._resets_in(name)} for name, counts in users.items()}

    def _resets_in(self, user: str) -> float | None:
        seconds = self._accounts.resets_in(user)
        return None if seconds is None else round(seconds, 3)

    def _limits_status(self) -> dict[str, Any]:
        shares = self._accounts.status()
        return shares if self._sharing is None else {**shares, "store": self._sharing.status()}

    def _cache_status(self) -> dict[str, Any]:
        counted = ("hits", "followers", "misses", "stale", "stored", "errors")
        counts = {name: sum(getattr(stats, name) for stats in self._layers.cache_stats.values()) for name in counted}
        similar = self._layers.semantic_stats.values()
        counts["semantic_hits"] = sum(stats.hits for stats in similar)
        counts["semantic_skipped"] = sum(stats.skipped for stats in similar)
        counts["misses"] -= counts["semantic_hits"]  # which were misses of the exact one
        return {**({"backend": "none"} if self.answers is None else self.answers.status()), **counts}

    def warm(self) -> None:
        """Load what the first call would otherwise wait for; may run in a thread."""
        if self._own_transport is not None and any(
            section.type != "local" for section in self.config.providers.values()
        ):
            self._own_transport.warm()
        for name, section in self.config.providers.items():
            for model in section.models:
                self.cost(name, model, TokenUsage())
        for alias in self.config.aliases.values():
            for target in alias.targets:
                name, _, model = target.partition("/")
                self.cost(name, model, TokenUsage())

    async def close(self) -> None:
        """Close the keys' clients, the cache, the limits' store and our own connections."""
        await self._upkeep.close()
        for pool in self._pools.values():
            await pool.close()
        await self._vendors.close()
        if self.answers is not None:
            await self.answers.close()
        if self._sharing is not None:
            await self._sharing.close()
        if self._own_transport is not None:
            await self._own_transport.close()

    def _window(self, provider: str, model: str) -> int | None:
        section = self.config.providers.get(provider)
        return None if section is None else self._prices.context_window(section.type, model)

    def _settlement(self, provider: str, section: ProviderConfig) -> Settlement:
        return Settlement(
            cost=partial(self._spent, provider) if self._accounts.counts_dollars(section) else None,
            expected=self._output.expected,
        )

    def _charges_of(self, provider: str, pool: Pool) -> Charges:
        section = self.config.providers[provider]
        return Charges(
            pool.queue.slots[0].key.client.provider,
            kind=section.type,
            prompts=self._prompts,
            output=self._output,
            price=partial(self._price, provider) if self._accounts.counts_dollars(section) else None,
        )

    def _price(self, provider: str, request: LLMRequest, usage: TokenUsage) -> float:
        user = request.user if request.call is None else request.call.user
        if not self._accounts.budgeted(self.config.providers[provider], user):
            return 0.0
        return self._known_cost(provider, request.model or "", usage)

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

    def _spent(self, provider: str, model: str, usage: TokenUsage) -> float:
        return self.cost(provider, model, usage) or 0.0

    def _address(self, provider: str) -> str | None:
        section = self.config.providers[provider]
        if section.sdk is not None and section.sdk.client is not None:  # whose own client knows
            return section.base_url
        return getattr(self._pools[provider].queue.slots[0].key.client.provider, "url", None)

    def _connections(self, before: Composition | None) -> DirectTransport:
        bound = self.config.global_.timeouts.connect
        if before is not None and before._own_transport is not None and before.config.global_.timeouts.connect == bound:
            return before._own_transport
        return DirectTransport(connect_timeout=bound)

    def _kept(self, before: Composition | None, beside: Composition | None) -> Answers | None:
        stated = self.config.cache
        if stated is None or stated.backend == "none":
            return None
        was = None if before is None else before.answers
        near = None if beside is None else beside.answers
        return Answers(stated, clock=self.clock, spawn=self._outbox.spawn, before=was, beside=near)

    def _store(self, before: Composition | None) -> Sharing | None:
        """Return the store of the limits; None where they are this process's own."""
        stated = self.config.limits
        if stated.store == "memory":
            return None
        if before is not None and before._sharing is not None:
            return before._sharing
        from llm.limits.redis import RedisLedger  # noqa: PLC0415 - only where limits are shared
        from llm.limits.sharing import Sharing  # noqa: PLC0415

        make = partial(RedisLedger, stated.url, clock=self.clock, dice=random.random)
        return Sharing(make, clock=self.clock, spawn=self._outbox.spawn, policy=stated.on_store_loss)

    def _hand_over(self, heir: Composition) -> None:
        if self.answers is not None and heir.answers is not None and heir.answers.backend is self.answers.backend:
            self.answers = None
        if heir._sharing is self._sharing:
            self._sharing = None
        if heir._own_transport is self._own_transport:
            self._own_transport = None


def _glance(layers: Sequence[Middleware]) -> Callable[[LLMRequest], LLMResult | None] | None:
    """Return how to look into the cache before the chain: where nothing stands before it that must see a hit."""
    for layer in layers:
        if isinstance(layer, CacheMiddleware):
            return layer.glance
        if not isinstance(layer, RateLimitMiddleware | RetryMiddleware):
            return None
    return None
