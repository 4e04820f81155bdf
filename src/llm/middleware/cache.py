"""The cache's layer: a hit answers, a miss asks once for all who ask the same, and what came whole is kept."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from llm.cache.answer import Answer, as_cached
from llm.cache.key import cache_key
from llm.cache.lease import Leasing
from llm.core.call import Call
from llm.core.exceptions import LLMInvalidRequestError
from llm.core.stale import Stale
from llm.core.stream import LLMStream
from llm.core.types import CachePolicy, request_with

from .broadcast import Broadcast, Reader
from .flight import Flight
from .freshness import Rules, Use
from .hold import SECONDS, Hold, take
from .shelf import CacheStats, Shelf

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from llm.cache.base import CacheBackend
    from llm.core.protocols import CallNext
    from llm.core.stream import LLMResult
    from llm.core.types import CacheScope, LLMRequest, LLMResponse, StreamChunk
    from llm.utils.clock import Clock

    from .freshness import Place

_AS_CONFIGURED = CachePolicy()
_MOST_TURNS = 2  # of other processes, that are waited for: where one is killed, the next asks; then each for itself


class CacheMiddleware:
    """Answers from the cache, and lets identical calls that are in flight share one request.

    It stands inside `retry`, so a miss is asked once per attempt; those who wait for it stay parked until the leader's
    call has ended. What the cache answers is marked `cached`, costs nothing and was never sent. Only whole answers of
    this provider are kept; a backend that fails makes calls slower, never wrong.

    Where the backend can lease, processes share a request as calls do: one asks, the others wait until the answer is
    kept. Failures elsewhere are not shared, nor what may not be kept: whoever waited asks for itself, as where the
    holder died, and whoever did so twice waits for nobody any more.

    What is over its time may be given while it is asked for again, or where asking fails: the layer leaves with the
    call what may be given or asked (`Call.stale`), and whoever conducts the call does that.

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
        stale_while_revalidate: float = 0.0,
        stale_if_error: float = 0.0,
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
            stale_while_revalidate: Seconds after its time that an answer is given while it is asked for again.
            stale_if_error: Seconds after its time that it is given where the provider fails.
            stats: Where it counts what it does; None for counts of its own.
        """
        self.stats: CacheStats = CacheStats() if stats is None else stats
        self._shelf = Shelf(backend, provider=provider, clock=clock, spawn=spawn, stats=self.stats)
        self._provider = provider
        self._clock = clock
        self._rules = Rules(ttl, None, False, scope, stale_while_revalidate, stale_if_error)  # noqa: FBT003 - no refresh
        self._single_flight = single_flight
        self._streams = streams
        self._spawn = spawn
        self._idle = idle
        self._flights: dict[Place, Flight] = {}
        self._renewing: set[str] = set()
        self._leasing = backend if isinstance(backend, Leasing) else None

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
            request.call.forget = partial(self._shelf.forget, use.key)
        if not self._single_flight:
            return await self._ask(use, None, request, call_next, look=True)
        place = use.place(stream=request.stream)
        flight = self._flights.get(place)
        if flight is None:
            flight = self._flights[place] = Flight(request.call, lambda: self._flights.pop(place, None), self._clock)
            return await self._ask(use, flight, request, call_next, look=True)
        if flight.led_by(request.call):
            return await self._ask(use, flight, request, call_next, look=False)
        try:
            told = await flight.follow(request.call)
        except BaseException:
            self._offer(use, request, flight.stale)
            raise
        if told is not None:
            return await self._followed(told, request)
        return await self._ask(use, flight, request, call_next, look=True)

    def glance(self, request: LLMRequest) -> LLMResult | None:
        """Return the answer that the backend has at hand; None where the chain must be asked.

        A hit takes nothing, waits for nothing and cannot fail, so of all that a call goes through it needs the count
        alone. What was found out about a request that is not here is left with its call.
        """
        call = request.call
        if not self._shelf.at_once or call is None or request.response_model is not None:
            return None
        use = self._use(request)
        answer = None if use is None or use.rules.refresh else self._shelf.at_hand(use)
        if answer is None:
            call.glanced = (request, use)
            return None
        self.stats.hits += 1
        return answer.result(stream=request.stream)

    def key(self, request: LLMRequest) -> str | None:
        """Return the key under which the answer to this request is looked for; None where none is."""
        use = self._use(request)
        return None if use is None or use.rules.refresh else use.key

    async def forget(self, request: LLMRequest) -> None:
        """Remove the answer to this request, such as one that does not fit the caller's `response_model`."""
        use = self._use(request)
        if use is not None:
            await self._shelf.forget(use.key)

    def _use_of(self, request: LLMRequest) -> Use | None:
        call = request.call
        if call is None or call.glanced is None:
            return self._use(request)
        glanced, call.glanced = call.glanced, None  # the two hold each other
        return glanced[1] if glanced[0] is request else self._use(request)

    def _use(self, request: LLMRequest) -> Use | None:
        asked, rules = request.cache, self._rules
        if asked is False or (request.stream and not self._streams):
            return None
        if isinstance(asked, CachePolicy):
            rules = rules.under(asked)
        if rules.ttl <= 0:
            return None
        try:
            return Use(cache_key(request, provider=self._provider, scope=rules.scope, user=request.user), rules)
        except LLMInvalidRequestError:  # it has no JSON form; whoever builds the body says what is wrong
            return None

    async def _ask(
        self, use: Use, flight: Flight | None, request: LLMRequest, call_next: CallNext, *, look: bool
    ) -> LLMResult:
        try:
            if look and (kept := await self._look_up(use, flight, request)) is not None:
                self.stats.hits += 1
                return await self._hit(kept, flight, request)
            if self._leasing is not None and flight is not None and flight.hold is None:
                kept = await self._turn(self._leasing, use, flight, request)
                if kept is not None:
                    self.stats.followers += 1
                    return await self._hit(kept, flight, request)
            self.stats.misses += look
            asked = self._clock.now()
            result = await call_next(request)
        except BaseException as error:
            if flight is not None:
                flight.failed(error)
            raise
        if request.call is not None and request.call.stale is not None and request.call.stale.renewal is None:
            request.call.stale = None
        if isinstance(result, LLMStream):
            return await self._spread(result, use, flight, request, asked)
        answer = self._kept(use, result, seconds=self._clock.now() - asked)
        if not result.cached:  # else it is the answer to a question like this one, and kept under that
            self._shelf.keep(use, request, answer, None if flight is None else flight.hold)
        if flight is not None:
            flight.landed(answer)
            flight.gone()
        return result

    async def _look_up(self, use: Use, flight: Flight | None, request: LLMRequest) -> Answer | None:
        found = None if use.rules.refresh else await self._shelf.read(use)
        if found is None:
            return None
        if found.over < 0.0:
            return found.answer
        if found.over < use.rules.while_renewed and request.call is not None:
            self._renew(use.key, found.over, request, request.call)
            return found.answer.aged()
        stale = (found.answer, self._clock.now() - found.over)
        if flight is not None:
            flight.stale = stale  # for those who wait with this call
        self._offer(use, request, stale)
        return None

    def _renew(self, key: str, over: float, request: LLMRequest, call: Call) -> None:
        """Have the question asked again beside this call, unless that is on its way."""
        now = self._clock.now()
        self.stats.stale += 1
        call.note(now, "stale", (over, "while it is asked for again"))
        if key in self._renewing:
            return
        self._renewing.add(key)
        deadline = None if call.deadline is None else now + call.deadline - call.started
        renewal = Call(now, deadline=deadline, user=call.user, priority=call.priority)
        renewal.on_end(lambda _: self._renewing.discard(key))
        policy = replace(request.cache if isinstance(request.cache, CachePolicy) else _AS_CONFIGURED, refresh=True)
        again = request_with(request, cache=policy, call=renewal, continue_stream=False)
        call.stale = stale = Stale(over, renewal=again)
        call.on_end(lambda _: None if stale.begun else self._renewing.discard(key))

    def _offer(self, use: Use, request: LLMRequest, stale: tuple[Answer, float] | None) -> None:
        """Leave with the call what is over its time, for where it fails."""
        if stale is None or request.call is None:
            return
        answer, end = stale
        over = self._clock.now() - end
        if over < use.rules.if_error:
            request.call.stale = Stale(over, give=partial(self._give, answer, stream=request.stream))

    def _give(self, answer: Answer, *, stream: bool) -> LLMResult:
        self.stats.stale += 1
        return answer.aged().result(stream=stream)

    async def _turn(self, backend: Leasing, use: Use, flight: Flight, request: LLMRequest) -> Answer | None:
        """Wait until this process may ask; returns the answer, where another has kept it meanwhile."""
        began, name, turns = self._clock.now(), use.lease(stream=request.stream), 0
        while flight.hold is None and turns < _MOST_TURNS:
            try:
                lease = await take(backend, name, spawn=self._spawn)
                if lease is None:
                    self._park(request.call)
                    turns += await backend.released(name, SECONDS)
            except Exception as error:  # noqa: BLE001 - whatever it is, the call goes on
                self._shelf.trouble("leasing", error)
                return None
            if lease is not None:
                flight.hold = Hold(lease, clock=self._clock, spawn=self._spawn, trouble=self._shelf.trouble)
            found = await self._shelf.read(
                use
            )  # also with the lease in hand: who had it may have come since the last look
            fresh = found is not None and found.over < 0.0
            if found is not None and fresh and (not use.rules.refresh or found.age < self._clock.now() - began):
                return found.answer
        return None

    def _park(self, call: Call | None) -> None:
        if call is not None:
            call.note(self._clock.now(), "parked", "another process asks the same")

    async def _hit(self, answer: Answer, flight: Flight | None, request: LLMRequest) -> LLMResult:
        if flight is not None:
            flight.landed(answer)
            flight.gone()
        return await self._again(answer, request)

    async def _followed(self, told: Answer | Reader, request: LLMRequest) -> LLMResult:
        self.stats.followers += 1
        if request.call is not None:
            request.call.note(self._clock.now(), "followed")
        if isinstance(told, Answer):
            return await self._again(told, request)
        stream = self._stream(told, request)
        broadcast = told.broadcast
        stream.finish_with(lambda response: as_cached(broadcast.response or response, broadcast.seconds))
        return await stream.begin()

    async def _again(self, answer: Answer, request: LLMRequest) -> LLMResult:
        result = answer.result(stream=request.stream)
        return await result.begin() if isinstance(result, LLMStream) else result

    async def _spread(
        self, upstream: LLMStream, use: Use, flight: Flight | None, request: LLMRequest, asked: float
    ) -> LLMStream:
        def over(broadcast: Broadcast) -> None:
            if broadcast.response is not None and not broadcast.response.cached:
                whole = self._kept(use, broadcast.response, broadcast.chunks, seconds=broadcast.seconds)
                self._shelf.keep(use, request, whole, None if flight is None else flight.hold)
            if flight is not None:
                flight.gone()

        # From here on each reader has its own deadline; that nothing comes is the provider's fault still.
        upstream.watch(self._clock, idle=self._idle, deadline=None)
        # Who waits in another process waits for its end, and is not seen from here.
        eager = flight is not None and flight.hold is not None
        broadcast = Broadcast(upstream, over, now=self._clock.now, asked=asked, eager=eager)
        stream = self._stream(broadcast.reader(), request, key=upstream.key)
        stream.finish_with(lambda response: broadcast.response or response)
        if flight is not None:
            flight.landed(broadcast)
        return await stream.begin()

    def _stream(self, reader: Reader, request: LLMRequest, *, key: str | None = None) -> LLMStream:
        stream = LLMStream(reader, provider=reader.broadcast.provider, key=key)
        stream.watch(self._clock, idle=self._idle, deadline=None if request.call is None else request.call.deadline)
        return stream

    def _kept(
        self, use: Use, response: LLMResponse, chunks: Sequence[StreamChunk] | None = None, *, seconds: float
    ) -> Answer:
        return Answer.of(response, chunks, seconds=seconds, fresh=use.rules.ttl if use.rules.beyond > 0.0 else None)
