"""The cache's layer: a hit answers, a miss asks once for all who ask the same, and what came whole is kept."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from llm.cache.answer import Answer, as_cached
from llm.cache.base import Peeking
from llm.cache.key import cache_key
from llm.core.exceptions import LLMInvalidRequestError
from llm.core.stream import LLMStream
from llm.core.types import CachePolicy
from llm.utils.redact import redact

from .broadcast import Broadcast, Reader
from .flight import Flight

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from llm.cache.base import CacheBackend, CacheEntry
    from llm.core.protocols import CallNext
    from llm.core.stream import LLMResult
    from llm.core.types import CacheScope, LLMRequest, LLMResponse
    from llm.utils.clock import Clock

_logger = logging.getLogger("llm.cache")
_LOG_EVERY = 60.0  # seconds between two lines about a broken backend
_AS_CONFIGURED = CachePolicy()
_MOST_DECODED = 16_777_216  # bytes, of answers that are held as values too


@dataclass(slots=True)
class CacheStats:
    """What the cache did for one provider.

    Attributes:
        hits: Calls that a kept answer served.
        misses: Calls for which none was there.
        stored: Answers that were kept.
        followers: Calls that the answer to an identical call served, while that was on its way.
        errors: How often the backend failed, or an entry could not be read or written.
    """

    hits: int = 0
    misses: int = 0
    stored: int = 0
    followers: int = 0
    errors: int = 0

    @property
    def hit_ratio(self) -> float:
        """Share of the calls that were answered without asking the provider, 0 to 1."""
        served = self.hits + self.followers
        return served / (served + self.misses) if served else 0.0


class _Use(NamedTuple):
    """How one request uses the cache; `tenant` is empty where all share."""

    key: str
    ttl: float
    oldest: float | None
    refresh: bool
    model: str
    tenant: tuple[str, ...]


class CacheMiddleware:
    """Answers from the cache, and lets identical calls that are in flight share one request.

    It stands inside `retry`, so a miss is asked once per attempt; those who wait for it stay parked until the leader's
    call has ended. What the cache answers is marked `cached`, costs nothing and was never sent. Only whole answers of
    this provider are kept; a backend that fails makes calls slower, never wrong.

    Attributes:
        stats: What it did so far.
    """

    def __init__(  # noqa: PLR0913 - what the layer is made of, once
        self,
        backend: CacheBackend,
        *,
        provider: str,
        clock: Clock,
        ttl: float,
        scope: CacheScope,
        single_flight: bool,
        streams: bool,
        spawn: Callable[[Coroutine[object, object, None]], None],
        idle: float | None = None,
        stats: CacheStats | None = None,
    ) -> None:
        """Make the layer of one provider.

        Args:
            backend: Where answers are kept; providers may share it.
            provider: Section of the configuration whose answers these are.
            clock: Its time.
            ttl: Seconds that an answer may be used, where the call does not say.
            scope: Whether tenants share answers (`shared`) or each has its own (`user`), where the call does not say.
            single_flight: Whether identical calls in flight share one request.
            streams: Whether streams are kept, and answered, too.
            spawn: Runs what must not delay a caller and must be finished before the manager has closed.
            idle: Seconds after which a stream that stalls, or that nobody reads, is ended; None for never.
            stats: Where it counts what it does; None for counts of its own.
        """
        self.stats: CacheStats = CacheStats() if stats is None else stats
        self._backend = backend
        self._provider = provider
        self._clock = clock
        self._ttl = ttl
        self._scope: CacheScope = scope
        self._single_flight = single_flight
        self._streams = streams
        self._spawn = spawn
        self._idle = idle
        self._flights: dict[tuple[str, bool, bool], Flight] = {}
        self._unwritten: dict[str, Answer] = {}  # on their way to the backend, and found already
        self._logged_at = -_LOG_EVERY
        self._peek = backend.peek if isinstance(backend, Peeking) else None
        # Beside the bytes that are kept, so that an answer that is given often is read once.
        self._decoded: dict[str, tuple[bytes, Answer]] = {}
        self._decoded_bytes = 0

    @property
    def flights(self) -> int:
        """How many questions are on their way."""
        return len(self._flights)

    async def __call__(self, request: LLMRequest, call_next: CallNext) -> LLMResult:
        """Answer from the cache, wait for an identical call, or ask and keep the answer.

        Raises:
            LLMException: The provider's, of this call or of the identical one that it waited for.
        """
        use = self._use_of(request)
        if use is None:
            return await call_next(request)
        if request.response_model is not None and request.call is not None:
            request.call.forget = partial(self._forget, use.key)
        if not self._single_flight:
            return await self._ask(use, None, request, call_next, look=True)
        place = (use.key, request.stream, use.refresh)
        flight = self._flights.get(place)
        if flight is None:
            flight = self._flights[place] = Flight(
                request.call, lambda: self._flights.pop(place, None), self._clock.now
            )
            return await self._ask(use, flight, request, call_next, look=True)
        if not flight.led_by(request.call):
            told = await flight.follow(request.call)
            if told is not None:
                return await self._followed(told, request)
            self.stats.misses += 1
        return await self._ask(use, flight, request, call_next, look=False)

    def glance(self, request: LLMRequest) -> LLMResponse | None:
        """Return the answer that the backend has at hand; None where the chain must be asked.

        A hit takes nothing, waits for nothing and cannot fail, so of all that a call goes through it needs the count
        alone. What was found out about a request that is not here is left with its call.
        """
        call = request.call
        if self._peek is None or call is None or request.stream or request.response_model is not None:
            return None
        use = self._use(request)
        answer = None if use is None or use.refresh else self._at_hand(use)
        if answer is None:
            call.glanced = (request, use)
            return None
        self.stats.hits += 1
        return answer.response

    def _at_hand(self, use: _Use) -> Answer | None:
        written = self._unwritten.get(use.key)
        if written is not None or self._peek is None:
            return written
        try:
            return self._readable(use, self._peek(use.key))
        except Exception:  # noqa: BLE001 - the chain meets it again, and counts it
            return None

    async def forget(self, request: LLMRequest) -> None:
        """Remove the answer to this request, such as one that does not fit the caller's `response_model`."""
        use = self._use(request)
        if use is not None:
            await self._forget(use.key)

    async def _forget(self, key: str) -> None:
        self._unwritten.pop(key, None)
        try:
            await self._backend.delete(key)
        except Exception as error:  # noqa: BLE001 - whatever it is, the call goes on
            self._trouble("removing an answer", error)

    def _use_of(self, request: LLMRequest) -> _Use | None:
        call = request.call
        if call is None or call.glanced is None:
            return self._use(request)
        glanced, call.glanced = call.glanced, None  # the two hold each other
        return glanced[1] if glanced[0] is request else self._use(request)

    def _use(self, request: LLMRequest) -> _Use | None:
        if request.cache is False or (request.stream and not self._streams):
            return None
        policy = request.cache if isinstance(request.cache, CachePolicy) else _AS_CONFIGURED
        ttl = self._ttl if policy.ttl is None else policy.ttl
        if ttl <= 0:
            return None
        scope = policy.scope or self._scope
        try:
            key = cache_key(request, provider=self._provider, scope=scope, user=request.user)
        except (
            LLMInvalidRequestError
        ):  # without a JSON form there is no key; whoever builds the body says what is wrong
            return None
        tenant = (request.user or "",) if scope == "user" else ()
        return _Use(key, ttl, policy.ttl, policy.refresh, request.model or "", tenant)

    async def _ask(
        self, use: _Use, flight: Flight | None, request: LLMRequest, call_next: CallNext, *, look: bool
    ) -> LLMResult:
        try:
            if look and (kept := await self._look_up(use)) is not None:
                return await self._hit(kept, flight, request)
            result = await call_next(request)
        except BaseException as error:
            if flight is not None:
                flight.failed(error)
            raise
        if isinstance(result, LLMStream):
            return await self._spread(result, use, flight, request)
        answer = Answer.of(result)
        if not result.cached:  # else it is the answer to a question like this one, and kept under that
            self._keep(use, answer)
        if flight is not None:
            flight.landed(answer)
            flight.gone()
        return result

    async def _look_up(self, use: _Use) -> Answer | None:
        answer = None if use.refresh else await self._read(use)
        if answer is None:
            self.stats.misses += 1
        return answer

    async def _read(self, use: _Use) -> Answer | None:
        if (written := self._unwritten.get(use.key)) is not None:
            return written
        try:
            entry = await self._backend.get(use.key)
        except Exception as error:  # noqa: BLE001 - whatever it is, the call goes on
            self._trouble("reading", error)
            return None
        answer = self._readable(use, entry)
        if answer is None and entry is not None and _is_young(use, entry):
            self._trouble("reading", ValueError("an entry is damaged, or of another version"))
        return answer

    def _readable(self, use: _Use, entry: CacheEntry | None) -> Answer | None:
        if entry is None or not _is_young(use, entry):
            return None
        value = entry.value
        known = self._decoded.get(use.key)
        if known is not None and known[0] is value:  # the very bytes that were read before
            return known[1]
        answer = Answer.decode(value)
        if answer is not None and self._peek is not None and len(value) < _MOST_DECODED:
            self._decoded_bytes += len(value)
            if self._decoded_bytes > _MOST_DECODED:  # what is asked for again is read again
                self._decoded.clear()
                self._decoded_bytes = len(value)
            self._decoded[use.key] = (value, answer)
        return answer

    async def _hit(self, answer: Answer, flight: Flight | None, request: LLMRequest) -> LLMResult:
        self.stats.hits += 1
        if flight is not None:
            flight.landed(answer)
            flight.gone()
        return await self._again(answer, request)

    async def _followed(self, told: Answer | Reader, request: LLMRequest) -> LLMResult:
        self.stats.followers += 1
        if isinstance(told, Answer):
            return await self._again(told, request)
        stream = self._stream(told, request)
        stream.finish_with(lambda response: as_cached(told.broadcast.response or response))
        return await stream.begin()

    async def _again(self, answer: Answer, request: LLMRequest) -> LLMResult:
        result = answer.result(stream=request.stream)
        return await result.begin() if isinstance(result, LLMStream) else result

    async def _spread(self, upstream: LLMStream, use: _Use, flight: Flight | None, request: LLMRequest) -> LLMStream:
        def over(broadcast: Broadcast) -> None:
            if broadcast.response is not None and not broadcast.response.cached:
                self._keep(use, Answer.of(broadcast.response, broadcast.chunks))
            if flight is not None:
                flight.gone()

        # From here on each reader has its own deadline; that nothing comes is the provider's fault still.
        upstream.watch(self._clock, idle=self._idle, deadline=None)
        broadcast = Broadcast(upstream, over)
        stream = self._stream(broadcast.reader(), request, key=upstream.key)
        stream.finish_with(lambda response: broadcast.response or response)
        if flight is not None:
            flight.landed(broadcast)
        return await stream.begin()

    def _stream(self, reader: Reader, request: LLMRequest, *, key: str | None = None) -> LLMStream:
        stream = LLMStream(reader, provider=reader.broadcast.provider, key=key)
        stream.watch(self._clock, idle=self._idle, deadline=None if request.call is None else request.call.deadline)
        return stream

    def _keep(self, use: _Use, answer: Answer) -> None:
        response = answer.response
        if response.finish_reason == "content_filter" or response.provider not in {"", self._provider}:
            return
        self._unwritten[use.key] = answer
        self._spawn(self._write(use, answer))

    async def _write(self, use: _Use, answer: Answer) -> None:
        try:
            if self._unwritten.get(use.key) is not answer:
                return  # forgotten, or replaced, since
            tags = (f"provider:{self._provider}", f"model:{use.model}", *(f"user:{user}" for user in use.tenant))
            await self._backend.put(use.key, answer.encode(), ttl=use.ttl, tags=tags)
            self.stats.stored += 1
            if use.key not in self._unwritten:  # forgotten meanwhile
                await self._backend.delete(use.key)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller has its answer
            self._trouble("writing", error)
        finally:
            if self._unwritten.get(use.key) is answer:
                del self._unwritten[use.key]

    def _trouble(self, doing: str, error: Exception) -> None:
        self.stats.errors += 1
        now = self._clock.now()
        if now - self._logged_at >= _LOG_EVERY:
            self._logged_at = now
            _logger.warning(
                "the cache of %s failed while %s (%s: %s); calls go on without it, %d failures so far",
                self._provider, doing, type(error).__name__, redact(str(error)), self.stats.errors,
            )  # fmt: skip


def _is_young(use: _Use, entry: CacheEntry) -> bool:
    return use.oldest is None or entry.age < use.oldest
