"""The outermost layer: where a target cannot serve, the call's next one is asked, through that provider's own chain.

It moves on where another may do better: when retries have ended, at once where nobody was asked (an open circuit, an
exhausted pool) or no key is left, and after `global.fallback_after` seconds of waiting for capacity. It stays with what
the next would meet too: a bad request, a refusal for content, a user's limit, a limit of everything, the call's end;
and where `retry.after_send` is off with what one target may have done already: that another does it repeats it, too.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from llm.core.call import CallState
from llm.core.exceptions import (
    LLMAuthenticationError,
    LLMCircuitOpenError,
    LLMConnectionError,
    LLMContextLengthError,
    LLMException,
    LLMOverloadedError,
    LLMPoolExhaustedError,
    LLMQuotaExceededError,
    LLMRateLimitError,
    LLMServerError,
    LLMTimeoutError,
)
from llm.core.routing import Target
from llm.core.types import request_with

from .errors import another, may_have_arrived

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llm.core.call import Call
    from llm.core.parts import Hop, Moved, Route
    from llm.core.speeds import Speeds
    from llm.core.stream import LLMResult
    from llm.core.types import LLMRequest
    from llm.utils.clock import Clock


class Failure(NamedTuple):
    """How a target failed a call.

    Attributes:
        target: Which one, as `provider/model`.
        error: How.
    """

    target: str
    error: LLMException


class Fallback:
    """The way of one call: a `CallNext` in front of the chains of its targets.

    Asked again, as for a second answer that fits a `response_model`, it goes on with the target that answered.

    Attributes:
        targets: How many it has.
        target: The one that was asked last.
    """

    def __init__(  # noqa: PLR0913 - what it goes by, once
        self,
        call: Call,
        hops: Sequence[Hop],
        *,
        clock: Clock,
        after: float | None,
        after_send: bool = True,
        window: Callable[[str, str], int | None],
        moved: Moved,
    ) -> None:
        """Make the way.

        Args:
            call: Whose way it is.
            hops: The targets, in the order in which they are tried; the first is asked for the request's own model.
            clock: Its time.
            after: Seconds of waiting for capacity after which it moves on; None: it waits as long as it takes.
            after_send: Whether to ask another for what one target may have done, though nobody has the answer.
            window: Returns the context window, in tokens, of a provider's model; None where that is unknown.
            moved: Is told of each move.
        """
        self.targets: int = len(hops)
        self.target: Target = Target(hops[0].route.provider, hops[0].model)
        self._call = call
        self._hops = list(hops)
        self._clock = clock
        self._after = after
        self._after_send = after_send
        self._window = window
        self._moved = moved

    async def __call__(self, request: LLMRequest) -> LLMResult:
        """Ask the targets until one answers.

        Raises:
            LLMException: None did; the last error that says most, with what the others were in its message.
        """
        failures: list[Failure] = []
        try:
            while True:
                try:
                    return await self._ask(request)
                except LLMException as error:
                    failures.append(Failure(str(self.target), error))
                    following = self._following(request, error)
                    if following is None:
                        if len(failures) == 1:
                            raise
                        told = _together(failures)
                        raise told from error
                    request = following
        finally:
            failures.clear()  # an error holds this frame, which held the errors

    async def go_on(self, request: LLMRequest, error: LLMException, *, at: int) -> LLMResult:
        """Ask the next target, or the same again where it is the last, since its stream broke at a character.

        Whose call it is does not change any more: that of the target that began.

        Raises:
            LLMException: None answers, as for a call; where it is too late to ask, or others still read what broke
                for this call alone, `error` itself.
        """
        call = self._call
        if self._is_late() or call.state is CallState.ANSWERING:
            raise error
        self._moved = _nobody
        here = request_with(request, model=self.target.model)
        if len(self._hops) > 1:
            here = self._advance(here, error) or here
        elif call.state is CallState.TICKETED:
            call.closed(self._clock.now())
        result = await self(here)
        call.note(self._clock.now(), "continued", (str(self.target), at))
        return result

    async def _ask(self, request: LLMRequest) -> LLMResult:
        hop = self._hops[0]
        self.target = Target(hop.route.provider, request.model)
        self._call.patience = self._after if len(self._hops) > 1 else None
        if hop.speeds is None:
            return await hop.route.chain.call(request)
        return await self._timed(hop, hop.speeds, request)

    async def _timed(self, hop: Hop, speeds: Speeds, request: LLMRequest) -> LLMResult:
        began, sends = self._clock.now(), self._call.sends
        speeds.asked(began, self.target, stream=request.stream)
        try:
            result = await hop.route.chain.call(request)
        except LLMException as error:
            if _moves_on(error):
                speeds.failed(self._clock.now(), self.target, stream=request.stream)
            raise
        except asyncio.CancelledError:  # also the call's own deadline
            now = self._clock.now()
            speeds.overran(now, self.target, now - began, stream=request.stream)
            raise
        if self._call.sends > sends:  # else it came from the cache
            now = self._clock.now()
            speeds.answered(now, self.target, now - began, stream=request.stream)
        return result

    def _following(self, request: LLMRequest, error: LLMException) -> LLMRequest | None:
        """Go to the next target that may do better, and return the request as it is made there; None: there is none."""
        if self._is_late() or not _moves_on(error) or not (self._after_send or not may_have_arrived(error)):
            return None
        return self._advance(request, error)

    def _advance(self, request: LLMRequest, error: LLMException) -> LLMRequest | None:
        left = self._hops.pop(0)
        if isinstance(error, LLMContextLengthError):
            self._hops = self._roomier(left, request, error)
        if not self._hops:
            self._hops = [left]  # for a call that is asked again
            return None
        hop = self._hops[0]
        taken = Target(hop.route.provider, hop.model or hop.route.chain.pool.queue.choose_model())
        self._call.fell_back(self._clock.now(), (str(self.target), str(taken), _in_short(error)))
        following = request_with(request, model=taken.model)
        self._moved(hop.route, following)
        return following

    def _is_late(self) -> bool:
        deadline = self._call.deadline
        return deadline is not None and self._clock.now() >= deadline

    def _roomier(self, left: Hop, request: LLMRequest, error: LLMContextLengthError) -> list[Hop]:
        """Return the targets that are known to have the room that this one lacked, with the models that have it."""
        limit = error.limit or self._window(left.route.provider, request.model or "")
        if limit is None and error.requested is None:
            return []
        needed = max((limit or 0) + 1, error.requested or 0)
        return [fit for hop in self._hops if (fit := self._fitting(hop, needed)) is not None]

    def _fitting(self, hop: Hop, needed: int) -> Hop | None:
        models = hop.route.chain.pool.queue.models() if hop.model is None else (hop.model,)
        fits = (model for model in models if (self._window(hop.route.provider, model) or 0) >= needed)
        model = next(fits, None)
        return None if model is None else hop._replace(model=model)


def _nobody(route: Route, request: LLMRequest) -> None:
    """Hear of a move that changes nothing."""


def _moves_on(error: LLMException) -> bool:
    """Return whether another target may serve where this one failed so."""
    match error:
        case LLMRateLimitError():
            return error.scope in _OF_ONE_PROVIDER
        case LLMTimeoutError():
            return error.retryable or error.phase == "pool"  # else it was the call's own end
        case _:
            return isinstance(error, _OF_THE_TARGET)


_OF_ONE_PROVIDER: Final = ("provider", "key")
_OF_THE_TARGET: Final = (
    LLMAuthenticationError,
    LLMCircuitOpenError,
    LLMConnectionError,
    LLMContextLengthError,
    LLMOverloadedError,
    LLMPoolExhaustedError,
    LLMQuotaExceededError,
    LLMServerError,
)


def _together(failures: Sequence[Failure]) -> LLMException:
    """Return the last error that says most, with what became of the other targets."""
    chosen = max(enumerate(failures), key=lambda entry: (_telling(entry[1].error), entry[0]))[1]
    others = [f"{failure.target} ({_in_short(failure.error)})" for failure in failures if failure is not chosen]
    told = another(chosen.error)
    told.message = f"{told.message}; no other target could serve: {', '.join(others)}"
    return told


def _telling(error: LLMException) -> int:
    """Return how much an error says: most where it ends the call whatever the target, little where nobody was asked."""
    if not _moves_on(error):
        return 2
    unasked = isinstance(error, (LLMCircuitOpenError, LLMPoolExhaustedError)) or (
        isinstance(error, LLMTimeoutError) and error.phase == "pool"
    )
    return 0 if unasked else 1


def _in_short(error: LLMException) -> str:
    """Return an error's kind and status: nothing of its words, which may be a provider's."""
    name = type(error).__name__
    return name if error.status is None else f"{name} {error.status}"
