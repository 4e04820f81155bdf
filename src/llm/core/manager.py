"""The owner of everything with a life time: clients come from it, and closing it leaves nothing behind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias, TypeVar

from llm.utils.clock import SystemClock

from .client import LLMClient
from .exceptions import LLMConfigurationError, LLMPoolExhaustedError
from .explaining import explained
from .fixed import check_unchanged
from .inflight import InFlight, Outbox
from .invalidation import invalidate
from .options import check_client, check_drain
from .parts import Routes
from .report import provider_status
from .sealed import SealedSource
from .selection import Selection, read_tags
from .types import LLMRequest
from .watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence
    from types import TracebackType

    from httpx2 import AsyncBaseTransport

    from llm.utils.clock import Clock

    from .config import LLMConfig
    from .measured import Measured
    from .messages import MessagesLike
    from .parts import Composer, Parts
    from .protocols import Middleware, Transport
    from .sealed import ConfigSource
    from .standing import Admission, HealthStatus

    TransportMaker: TypeAlias = Callable[["LLMManager", asyncio.AbstractEventLoop, str | None, int], AsyncBaseTransport]

T = TypeVar("T")

_GRACE: Final = 1.0
"""Seconds that calls which were ended get to give back what they hold."""

_composers: list[Composer] = []
_transports: list[TransportMaker] = []


def install_composer(composer: Composer, transports: TransportMaker) -> None:
    """Have managers and their transports built so; the composition root does this as it is imported."""
    _composers[:], _transports[:] = [composer], [transports]


class LLMManager:
    """Pools, chains, caches and counts of one configuration.

    `await get_llm_manager()` returns the process's one; `LLMManager.open` makes an independent one.
    """

    def __init__(self, routes: Routes, *, source: SealedSource) -> None:
        """Take over what `open` built from `source`."""
        self._routes = routes
        self._source = source
        self._loop = asyncio.get_running_loop()
        self._changing = asyncio.Lock()
        self._closed = False
        self._watch = Watch(lambda: self.config, self.reload, clock=routes.parts.clock)
        self._watch.follow(source)

    @classmethod
    def open(
        cls, config: ConfigSource = None, *, transport: Transport | None = None, clock: Clock | None = None
    ) -> Opening:
        """Make an independent manager, to `await` or to use with `async with`.

        Args:
            config: A path, a mapping, an `LLMConfig`, or None for the usual places and the environment.
            transport: In place of the network, for tests.
            clock: In place of the machine's time, for tests.

        Raises:
            LLMConfigurationError: When awaited: the configuration is wrong; all mistakes in one message.
        """
        return Opening(SealedSource(config), transport, clock)

    async def here(self) -> LLMManager:
        """Return a manager for the loop that runs now: itself in its own loop, else one beside it, to be closed.

        That one has the same configuration, transport and clock, and queues, keys and connections of its own. They
        share metrics, the journal of calls, what answers taught, the cache, and limits as all managers of a process do.

        Raises:
            LLMPoolExhaustedError: This one is closed.
        """
        self._refuse_if_closed()
        if self._loop is asyncio.get_running_loop():
            return self
        outbox = Outbox()
        return _begun(await asyncio.to_thread(self._routes.parts.beside, outbox), outbox, self._source)

    @property
    def config(self) -> LLMConfig:
        """The configuration of today."""
        return self._routes.parts.config

    @property
    def parts(self) -> Parts:
        """What the configuration of today was built into, for who plans with it; a reload builds anew."""
        return self._routes.parts

    def is_of(self, source: SealedSource) -> bool:
        """Return whether `source` is this manager's configuration, or the file that it watches; does I/O."""
        if self.config.watch and (file := source.file()) is not None and file.absolute() == self._source.file():
            return True  # what it says differently is in force in a moment, or a mistake that is in the log
        return source.load() == self.config

    @property
    def closed(self) -> bool:
        """Whether it was closed, or is being closed."""
        return self._routes.calls.closing

    def get_client(
        self,
        provider: str | None = None,
        *,
        model: str | None = None,
        user: str | None = None,
        priority: int = 0,
        middleware: Sequence[Middleware | str] | None = None,
    ) -> LLMClient:
        """Return a client; cheap, no I/O.

        Args:
            provider: Section of the configuration; None for the default one.
            model: Model, `provider/model` or alias of its calls; None for any of the provider's.
            user: Tenant that limits and cache scope apply to.
            priority: Higher goes first.
            middleware: Layers in place of the configured chain, outermost first. Fallback stands outside of them:
                every target of a call has its own chain of these.

        Raises:
            LLMConfigurationError: There is no such provider, a layer is none, or an argument is of the wrong kind.
        """
        check_client(model, user, priority, middleware)
        routes = self._routes
        name = str(provider) if provider is not None else routes.parts.default_provider
        route = routes.configured(name) if middleware is None else routes.custom(name, middleware)
        return LLMClient(routes, route, model=model, user=user, priority=priority)

    def http_transport(self, *, user: str | None = None, priority: int = 0) -> AsyncBaseTransport:
        """Return a transport for the vendors' own clients, whose requests become calls of this manager; no I/O.

        `AsyncOpenAI(http_client=httpx2.AsyncClient(transport=manager.http_transport()))`, and so `AsyncAnthropic`. They
        may share one; who closes it does not close the manager. It is for the event loop that the manager is of.

        Args:
            user: Tenant that limits and cache scope apply to.
            priority: Higher goes first.

        Raises:
            LLMConfigurationError: An argument is of the wrong kind.
        """
        check_client(None, user, priority, None)
        return _installed(_transports)(self, self._loop, user, priority)

    def get_status(self) -> dict[str, Any]:
        """Return a snapshot, JSON-serialisable; times in seconds, costs in US dollars, saturation from 0 to 1.

        - `metrics`: what calls and attempts came to;
        - `models`: the same for each `provider/model`, with `first_token` (from the sending of a stream to its first
          chunk), `queue_wait` (for a key), `tokens_per_second` (of streams, from their first chunk on) and what the
          cache has `saved`; under the provider's name alone what was refused before it could wait for a key;
        - `users`: for each user that called `requests`, `tokens`, `cost`, and `resets_in`: seconds until the first of
          the user's budgets (limits per day, and in dollars) is whole again, None where none has anything taken;
        - `providers`: for each `health`, `waiting` calls, and `keys`, by fingerprint: `state` (`available`, `cooling`
          while none of its accounts may be called, `out_of_credit`, `rejected`), `cooling_seconds` until all of them
          may, the `reason` of either in the provider's words, `forbidden_models`, `calls` in flight, and of each of
          its `models` the saturation of its limits; `breakers`, by model: `state` (`closed`, `open`, `half_open`), the
          `failure_rate` of the `attempts` that are looked back on, or that opened it, and `retry_after`, seconds until
          it lets an attempt through (empty without `circuit_breaker:`); `retry_budget`: `calls` and `retries` of about
          the last ten seconds, how many retries are `allowed`, and how often one was `refused` (None without a bound);
          of a model on the box also `engine`, the figures of what runs it (see `EngineStats`), and among the saturation
          of its limits `max_batch` and `max_waiting`;
        - `pool`: `calls` that run, those `waiting`, `slots`, whether it is `closing`;
        - `cache`: its `backend`, `entries` and `bytes` (None where that is in another place: `manifold cache stats`
          asks there), and counts; `limits`: the saturation of the limits of everything and of each user; with
          `limits.store: redis` also `store`: its `state` (`unused`, `connected`, `lost`), `on_store_loss`, how many
          `processes` use it, how often it was lost (`losses`), and `calls_without`: calls that were let go meanwhile;
        - `calls`: the last 100 that waited, were repeated, fell back or brought no answer, each with its decision log;
          `started` is in seconds since 1970, a decision's `at` in seconds since the call's start.
        """
        parts = self._routes.parts
        pools = {name: chain.pool for name, chain in parts.chains.items()}
        return {
            **parts.status(),
            "providers": {name: provider_status(pool) | parts.provider_status(name) for name, pool in pools.items()},
            "pool": {
                "calls": len(self._routes.calls),
                "waiting": sum(pool.queue.waiting for pool in pools.values()),
                "slots": sum(len(pool.queue.slots) for pool in pools.values()),
                "closing": self.closed,
            },
        }

    def measured(self) -> Measured:
        """Return what calls and attempts came to, for exporters: by provider, model and key, with all durations."""
        return self._routes.parts.measured()

    async def health_check(self) -> dict[str, HealthStatus]:
        """Ask every provider how it is, all keys at once; one healthy key makes it healthy.

        A key that left the rotation because it was refused and is healthy now comes back.
        """
        pools = {name: chain.pool for name, chain in self._routes.parts.chains.items()}
        async with asyncio.TaskGroup() as group:
            tasks = {name: group.create_task(pool.health_check()) for name, pool in pools.items()}
        return {name: task.result() for name, task in tasks.items()}

    def explain(self, request: LLMRequest | MessagesLike) -> Admission:
        """Return what the limiter would do with a request now; takes nothing.

        Raises:
            LLMInvalidRequestError: No request, or no key has its model.
            LLMRateLimitError: It can never fit.
        """
        asked = request if isinstance(request, LLMRequest) else LLMRequest(request)
        return explained(self.get_client(), self._routes.parts, asked)

    async def reload(self, config: ConfigSource = None) -> None:
        """Change keys, limits, models, chain and features with no lost call.

        Calls that run end on what they began with; accounts that remain keep their level and their rest, and the
        counts go on.

        Args:
            config: As for `LLMManager.open`; None: where the manager's own configuration came from, read again.

        Raises:
            LLMConfigurationError: The configuration is wrong, or changes what cannot change (a store, the cache's
                backend, host or port, each by name); nothing has changed then.
        """
        source = self._source if config is None else SealedSource(config)
        del config
        self._refuse_if_closed()
        async with self._changing:
            source = await asyncio.to_thread(source.fixed)
            new = await asyncio.to_thread(source.load)
            check_unchanged(self.config, new)
            parts = await asyncio.to_thread(self._routes.parts.renew, new)
            self._refuse_if_closed()
            old = self._routes.swap(parts)
        self._source = source
        self._watch.follow(source)
        for name, chain in old.chains.items():
            heir = parts.chains.get(name)
            if heir is not None:
                chain.pool.follow(heir.pool)
            else:
                chain.pool.queue.keys_changed()  # who waits there is bound by other limits now

        async def retire() -> None:
            await self._routes.calls.wait()
            await old.close()

        self._routes.outbox.spawn(retire())

    async def invalidate_cache(  # noqa: PLR0913 - all by which answers are chosen
        self,
        *,
        key: str | None = None,
        request: LLMRequest | MessagesLike | None = None,
        provider: str | None = None,
        model: str | None = None,
        user: str | None = None,
        tags: str | Iterable[str] = (),
        older_than: float = 0.0,
    ) -> int:
        """Remove answers from the cache, and those that are just being put there; returns how many.

        One by its `key`; those to a `request`; or all that fit everything else that is said. Processes that share the
        store give them no more either. A call that is still on its way is not held back.

        Args:
            key: 64 hex digits, as `manifold cache list` shows them.
            request: What was asked, by a client of this `provider`, `model` and `user`; where several targets could
                answer it, the answer of each goes.
            provider: Section of the configuration that answered.
            model: Model that was asked for; it may carry its provider.
            user: Tenant; finds what was kept with the scope `user`.
            tags: Names that the answers carry, each of them.
            older_than: Seconds since they were kept, at least.

        Raises:
            LLMInvalidRequestError: Nothing is said (`clear_cache` removes everything), or what does not go together.
            LLMConnectionError: The store failed.
        """
        client = None if request is None else self.get_client(provider, model=model, user=user)
        chosen = Selection(provider, model, user, read_tags(tags), older_than)
        return await invalidate(self._routes.parts, chosen, key=key, request=request, client=client)

    async def clear_cache(self) -> None:
        """Remove every answer from the cache, and those that are just being put there.

        Raises:
            LLMConnectionError: The store failed.
        """
        if self._routes.parts.answers is not None:
            await self._routes.parts.answers.clear()

    async def close(self, drain: float = 30.0) -> None:
        """Refuse new calls, let those that run finish for `drain` seconds, then end them; leaves nothing running.

        A call that is ended so raises `LLMConnectionError`. Closing twice is free.
        """
        check_drain(drain)
        calls = self._routes.calls
        calls.closing = True
        await self._watch.close()
        if not await calls.wait(drain):
            calls.end_all()
            await calls.wait(_GRACE)
        async with self._changing:
            if self._closed:
                return
            await self._routes.outbox.drain()
            await self._routes.parts.close()
            await self._routes.outbox.drain()
            self._closed = True

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close; after an exception without waiting for calls."""
        await self.close(drain=30.0 if kind is None else 0.0)

    def _refuse_if_closed(self) -> None:
        if self.closed:
            raise LLMPoolExhaustedError("this manager is closed; get a new one from get_llm_manager()")


class Opening:
    """A manager on its way: `await` it, or use it with `async with`."""

    def __init__(self, source: SealedSource, transport: Transport | None = None, clock: Clock | None = None) -> None:
        """Keep the arguments of `LLMManager.open`."""
        self._source = source
        self._transport = transport
        self._clock = clock
        self._manager: LLMManager | None = None

    def __await__(self) -> Generator[Any, None, LLMManager]:
        """Return the manager."""
        return self._open().__await__()

    async def __aenter__(self) -> LLMManager:
        """Return the manager."""
        self._manager = await self._open()
        return self._manager

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        if self._manager is not None:
            await self._manager.__aexit__(kind, error, traceback)

    async def _open(self) -> LLMManager:
        # Files, imports and the table of prices are kept out of the loop's way.
        clock = self._clock or SystemClock()
        outbox = Outbox()

        def build() -> tuple[Parts, SealedSource]:
            parts = _installed(_composers)(self._source.load(), clock=clock, outbox=outbox, transport=self._transport)
            parts.warm()
            return parts, self._source.fixed()

        parts, source = await asyncio.to_thread(build)
        return _begun(parts, outbox, source)


def _begun(parts: Parts, outbox: Outbox, source: SealedSource) -> LLMManager:
    routes = Routes(parts, InFlight(parts.clock), outbox)
    parts.lend(lambda request: LLMClient(routes, routes.configured(routes.parts.default_provider)).request(request))
    parts.begin()
    return LLMManager(routes, source=source)


def _installed(made: list[T]) -> T:
    if not made:
        raise LLMConfigurationError("no composition root is installed; import llm, not its parts by path")
    return made[0]
