"""One call from its prepared request to its one outcome: brake, deadline, chain, and who hears of the end."""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from .bounds import Scope
from .continuation import continued
from .ending import closed, late
from .exceptions import LLMConnectionError, LLMException, LLMInvalidRequestError, LLMTimeoutError
from .parts import Hop
from .repair import Fitting
from .stream import LLMStream, as_stream
from .types import complete_response

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .call import Call
    from .parts import Chain, Falling, Route, Routes
    from .protocols import CallNext
    from .stale import Stale
    from .stream import LLMResult
    from .types import LLMRequest, LLMResponse


_logger = logging.getLogger("llm.client")


class Conduct:
    """Takes one request through its chain, or through those of several targets until one can serve."""

    __slots__ = ("_brake", "_call", "_chain", "_hops", "_request", "_route", "_routes", "_way")

    _brake: Scope
    _way: CallNext

    def __init__(self, routes: Routes, route: Route, request: LLMRequest, hops: Sequence[Hop] = ()) -> None:
        """Take a request that has its model and its call; `hops` are all targets, where there is more than one."""
        if request.call is None:
            raise LLMInvalidRequestError("a request was prepared without a call")
        self._routes = routes
        self._route = route
        self._chain: Chain = route.chain  # a reload may put another in
        self._call: Call = request.call
        self._request = request
        self._hops = hops

    def at_hand(self) -> LLMResult | None:
        """Return the answer that is there without asking the chain, which ends the call; None where it must be run."""
        glance = self._chain.glance
        kept = None if glance is None or self._routes.calls.closing else glance(self._request)
        if kept is None:
            return None
        return self._answered(kept, self._call.deadline)

    async def run(self, brake: Scope | None = None) -> LLMResult:
        """Send the request down the chain; `brake` ends it early.

        Raises:
            LLMException: The call failed; the kinds say how.
        """
        routes, call, request = self._routes, self._call, self._request
        self._way = self._chain.call
        if self._hops or request.continue_stream:
            self._way = self._over_hops(self._hops or (Hop(self._route, request.model),))
        brake = self._brake = brake or Scope()
        if call.deadline is not None:
            brake.bound = routes.bound(request.timeout)
        routes.calls.enter(call, self._close)
        try:
            with brake:
                result = await self._way(request)
                if request.response_model is not None:
                    result = await self._fitted(result, request.response_model)
        except BaseException as raised:
            error = self._failure(raised)
            instead = self._instead_of(error)
            if instead is not None:
                return instead
            self._ended(None, error)
            if error is raised:
                raise
            raise error from None
        stale: Stale | None = call.stale
        if stale is not None and stale.renewal is not None:
            stale.begun = True
            routes.outbox.spawn(self._renewed(stale.renewal))
        return self._answered(result, call.deadline)

    def _answered(self, result: LLMResult, deadline: float | None) -> LLMResult:
        try:
            if isinstance(result, LLMStream) or self._request.stream:
                return self._streaming(as_stream(result), deadline)
            response = result if self._request.response_model is not None else self._completed(result)
        except Exception as error:  # what a layer, or a provider, of one's own gave is no answer
            self._ended(None, error)
            raise
        self._ended(response, None)
        return response

    def _over_hops(self, hops: Sequence[Hop]) -> CallNext:
        way = self._routes.parts.fall_back(self._call, hops, self._moved)
        return partial(self._carried, way) if self._request.continue_stream else way

    def _close(self) -> None:
        self._brake.pull(closed(self._call, self._request, self._route.provider))

    def _failure(self, raised: BaseException) -> BaseException:
        """Return what the call failed with: where it was ended, why."""
        if not isinstance(raised, TimeoutError):
            return raised
        call, brake = self._call, self._brake
        # A renewal's time may be shorter than it was to be: by a reload before it began.
        over = brake.ended or (call.deadline is not None and self._routes.parts.clock.now() >= call.deadline)
        return brake.reason or (late(call, self._request, self._route.provider) if over else raised)

    def _instead_of(self, error: BaseException) -> LLMResult | None:
        """Return an answer that is over its time, where the call failed and has one that may stand in."""
        call = self._call
        stale: Stale | None = call.stale
        if stale is None or self._routes.calls.closing:
            return None
        result = stale.instead_of(error)
        if result is not None and self._request.response_model is not None:
            result = self._fitting(self._request.response_model, partial(_fail, error)).at_once(result)
        if result is None:
            return None
        call.note(self._routes.parts.clock.now(), "stale", (stale.over, f"after {type(error).__name__}"))
        call.tell_end()  # its followers are not to wait until it has been read
        return self._answered(result, None)

    async def _renewed(self, request: LLMRequest) -> None:
        with suppress(LLMException):  # who observes calls has been told
            result = await Conduct(self._routes, self._route, request).run()
            if isinstance(result, LLMStream):
                async with result:
                    await result.response()

    async def _fitted(self, result: LLMResult, model: type) -> LLMResult:
        return await self._fitting(model, self._way).whole(result)

    def _fitting(self, model: type, way: CallNext) -> Fitting:
        parts = self._routes.parts
        show = parts.config.global_.log_content
        return Fitting(self._request, model, way, parts.clock, self._completed, show)

    async def _carried(self, way: Falling, request: LLMRequest) -> LLMResult:
        parts, result = self._routes.parts, await way(request)
        return continued(as_stream(result), self._request, way, price=parts.cost)

    def _moved(self, route: Route, request: LLMRequest) -> None:
        self._chain, self._route, self._request = route.chain, route, request

    def _streaming(self, stream: LLMStream, deadline: float | None) -> LLMStream:
        routes, call = self._routes, self._call
        routes.calls.enter(call, lambda: stream.interrupt(closed(call, self._request, self._route.provider)))
        if self._request.response_model is None:
            stream.finish_with(self._completed)
        stream.on_end(self._ended)
        stream.limit(routes.parts.clock, deadline)
        return stream

    def _completed(self, response: LLMResponse) -> LLMResponse:
        parts, call, provider = self._routes.parts, self._call, self._route.provider
        model = response.model or self._request.model or ""
        cost = response.cost  # the cache's, or the provider's own word
        if cost is None and not response.cached and not response.continued:
            cost = parts.cost(provider, model, response.usage)
        latency = parts.clock.now() - call.started
        return complete_response(response, model, response.provider or provider, cost, latency, call.sends)

    def _ended(self, response: LLMResponse | None, error: BaseException | None) -> None:
        call, request, routes = self._call, self._request, self._routes
        routes.calls.leave(call)
        if isinstance(error, LLMException):
            error.attempts = call.sends
            if call.arrived and isinstance(error, (LLMConnectionError, LLMTimeoutError)):
                error.sent = True  # it tells of the last attempt, and one before may have reached a provider
        call.ended(routes.parts.clock.now(), error)
        for observer in self._chain.observers:
            try:
                observer.call_ended(call, request, response, error)
            except Exception:
                _logger.exception("an observer of a call failed; the call itself did not")


async def _fail(error: BaseException, _: LLMRequest) -> LLMResult:
    raise error
