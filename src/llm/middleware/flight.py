"""One upstream call, and the identical calls that wait for it instead of making their own.

A flight belongs to the call that leads it, not to an attempt: it stands through the leader's retries and is concluded
when the leader's call ends. Everything here is synchronous but the wait of a follower.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

from llm.core.call import CallState
from llm.core.exceptions import LLMTimeoutError

from .broadcast import Broadcast, Reader
from .errors import another, concerns_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm.cache.answer import Answer
    from llm.core.call import Call
    from llm.utils.clock import Clock, Timer

    from .hold import Hold

_IN_VAIN: Final = "the identical call that is waited for got no key in the seconds of global.fallback_after"
_ROUNDING: Final = 1e-9


class _Seat:
    __slots__ = ("call", "timer", "told", "until")

    def __init__(self, call: Call | None, waited: float) -> None:
        self.call = call
        self.timer: Timer | None = None
        self.until: float | None = None if call is None or call.patience is None else waited + call.patience
        self.told: asyncio.Future[Answer | Reader | None] = asyncio.get_running_loop().create_future()

    @property
    def priority(self) -> int:
        return 0 if self.call is None else self.call.priority


class Flight:
    """A question that is being asked.

    It has a leader, who asks, until it has landed: with an answer, a stream that all may read, or an error for all.
    `on_gone` is told once, when nobody can join any more.

    Attributes:
        stale: What was found to be over its time, and the monotonic second in which that was over; None for nothing.
        hold: The lease by which other processes wait for it; None where it has none.
    """

    def __init__(self, leader: Call | None, on_gone: Callable[[], object], clock: Clock) -> None:
        """Start with its leader; a request without a call's record leads for one attempt only."""
        self.stale: tuple[Answer, float] | None = None
        self.hold: Hold | None = None
        self._leader = leader
        self._on_gone = on_gone
        self._clock = clock
        self._seats: dict[_Seat, None] = {}
        self._error: BaseException | None = None
        self._outcome: Answer | Broadcast | None = None
        self._gone = False
        self._promised: set[Call] = set()
        self._stood = 0.0  # seconds that the leaders before have waited for capacity
        self._before = 0.0 if leader is None else leader.queue_seconds  # such seconds of the leader before it led
        self._since = 0.0  # when it began to wait for capacity
        self._watch(leader)

    def led_by(self, call: Call | None) -> bool:
        """Return whether this call leads, and so must not wait for itself."""
        return call is not None and self._leader is call and self._outcome is None

    async def follow(self, call: Call | None) -> Answer | Reader | None:
        """Wait for the answer.

        Returns:
            The answer, or a place in its stream; None where the leader gave up and this call leads from now on.

        Raises:
            LLMException: The provider's final word to the leader, and so to all; or the leader waits for capacity
                longer than this call would.
        """
        if self._outcome is not None:
            return self._share(self._outcome)
        seat = _Seat(call, self._waited())
        self._seats[seat] = None
        self._raise_priority(seat)
        self._bound(seat)
        try:
            return await seat.told
        except asyncio.CancelledError:
            self._vacate(seat)
            raise
        finally:
            self._seats.pop(seat, None)
            self._leave(seat)

    def landed(self, outcome: Answer | Broadcast) -> None:
        """Give all who wait the answer, or a place in its stream."""
        self._outcome = outcome
        for seat in self._waiting():
            seat.told.set_result(self._share(outcome))

    def failed(self, error: BaseException) -> None:
        """Note that the leader's attempt failed; it may make another, unless nothing is known of its call."""
        self._error = error
        if self._leader is None:
            self._conclude(error, left=None)

    def gone(self) -> None:
        """Let nobody join any more."""
        if not self._gone:
            self._gone = True
            self._on_gone()
            if self.hold is not None and not self.hold.writing:
                self.hold.let_go()

    def _call_ended(self, call: Call) -> None:
        if self._leader is call and self._outcome is None and not self._gone:
            self._conclude(call.error, left=None if call.deadline is None else call.deadline - self._clock.now())

    def _conclude(self, ended_by: BaseException | None, *, left: float | None) -> None:
        # A leader that was answered elsewhere (by its fallback) still leaves what it was told here.
        error = self._error
        failures = [failure for failure in (error, ended_by) if failure is not None]
        if error is None or not all(concerns_all(failure, left=left) for failure in failures):
            self._hand_over()
        else:
            self.gone()
            for seat in self._waiting():
                if seat.call is not None:
                    seat.call.retryable = False
                seat.told.set_exception(another(error))

    def _hand_over(self) -> None:
        self._error = None
        waiting = self._waiting()
        if not waiting:
            self.gone()
            return
        heir = max(waiting, key=lambda seat: seat.priority)  # the first of the most urgent
        self._seats.pop(heir)
        self._leave(heir)
        self._stood, self._before = self._waited(), 0.0 if heir.call is None else heir.call.queue_seconds
        self._leader = heir.call
        self._watch(heir.call)
        heir.told.set_result(None)

    def _vacate(self, seat: _Seat) -> None:
        # It may have been told in the very turn of the loop in which it was cancelled.
        if not seat.told.done() or seat.told.cancelled() or seat.told.exception() is not None:
            return
        told = seat.told.result()
        if told is None and seat.call is None:
            self._hand_over()
        elif isinstance(told, Reader):
            told.close()

    def _watch(self, leader: Call | None) -> None:
        if leader is None:
            return
        leader.when_queued = self._leader_waits
        if leader not in self._promised:
            self._promised.add(leader)
            leader.on_end(self._call_ended)

    def _waited(self) -> float:
        """Return seconds that leaders have waited for capacity so far."""
        leader = self._leader
        if leader is None:
            return self._stood
        waits = self._clock.now() - self._since if leader.state is CallState.QUEUED else 0.0
        return self._stood + leader.queue_seconds - self._before + waits

    def _leader_waits(self) -> None:
        self._since = self._clock.now()
        for seat in self._waiting():
            self._bound(seat)

    def _bound(self, seat: _Seat) -> None:
        """End the seat's wait when its own patience for capacity would be over, while the leader waits for that."""
        if seat.until is None or self._leader is None or self._leader.state is not CallState.QUEUED:
            return
        if seat.timer is not None:
            seat.timer.cancel()
        seat.timer = self._clock.call_later(max(0.0, seat.until - self._waited()), partial(self._look, seat))

    def _look(self, seat: _Seat) -> None:
        seat.timer = None
        if seat.until is None or seat.told.done():
            return
        if seat.until - self._waited() > _ROUNDING:  # meanwhile the leader was asked, and may wait again
            self._bound(seat)
        else:
            seat.told.set_exception(LLMTimeoutError(_IN_VAIN, phase="pool", sent=False))

    def _leave(self, seat: _Seat) -> None:
        """Have the call itself wait no longer than it would have without the flight."""
        if seat.timer is not None:
            seat.timer.cancel()
        if seat.until is not None and seat.call is not None:
            seat.call.patience = max(0.0, seat.until - self._waited())

    def _waiting(self) -> list[_Seat]:
        return [seat for seat in self._seats if not seat.told.done()]

    def _raise_priority(self, seat: _Seat) -> None:
        if self._leader is not None:
            self._leader.urge(seat.priority)

    def _share(self, outcome: Answer | Broadcast) -> Answer | Reader:
        return outcome.reader() if isinstance(outcome, Broadcast) else outcome
