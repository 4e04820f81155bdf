"""When a provider that fails is left alone for a while: a circuit breaker for each of its models.

Closed, it counts how attempts end over a window of time. Open, it refuses all. Half open, it lets a few attempts
through, and what comes of them decides. Pure: who asks holds the lock and knows the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from llm.core.exceptions import LLMConnectionError, LLMOverloadedError, LLMServerError, LLMTimeoutError

_STEPS: Final = 20  # parts of a window, which leave it one by one
_SOON: Final = 1.0  # seconds: while attempts try whether it serves again, nobody knows when they will have ended


class BreakerState(StrEnum):
    """What a breaker does with the next attempt: counts it, refuses it, or tries with it."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a breaker opens, and for how long.

    Attributes:
        failure_rate: Share of failed attempts, above 0 and at most 1, that opens it.
        window: Seconds that are looked back on.
        min_calls: Attempts in the window before the share says anything.
        open_for: Seconds of refusal.
        half_open_calls: Attempts let through then; all of them must succeed.
        slow_call: Seconds to a whole answer, or to a stream's first chunk, above which an attempt counts as failed;
            None: it may take as long as it likes.
    """

    failure_rate: float = 0.5
    window: float = 30.0
    min_calls: int = 20
    open_for: float = 15.0
    half_open_calls: int = 3
    slow_call: float | None = None


def verdict(error: BaseException | None) -> bool | None:
    """Return whether the end of an attempt speaks for its provider or against it; None where it says nothing.

    Against it are overload, its failures, the network's, and time that ran out on the provider's side. A limit, a
    credit, a key, a request or its content say nothing of how it is, and neither does a caller who had enough.
    """
    if error is None:
        return True
    if isinstance(error, LLMTimeoutError):
        # The call's own deadline, which is not retryable, may be shorter than any provider could keep.
        ours = error.unread or error.phase == "pool" or (error.phase == "total" and not error.retryable)
        return None if ours else False
    return False if isinstance(error, LLMOverloadedError | LLMServerError | LLMConnectionError) else None


class Permit:
    """A breaker's leave for one attempt; says how it ended, once.

    Attributes:
        breaker: Whose.
        good: Whether it speaks for the provider; None while, or where, it says nothing.
        late: Whether the call's deadline ended it: then it speaks against the provider if it was slow already.
        answered: Monotonic seconds at which the answer, or its first chunk, was there; None where it never was.
    """

    __slots__ = ("_generation", "_served", "_since", "answered", "breaker", "good", "late")

    def __init__(self, breaker: Breaker, generation: int, now: float) -> None:
        """Begin an attempt."""
        self.breaker: Breaker = breaker
        self.good: bool | None = None
        self.late: bool = False
        self._generation = generation
        self._served = False  # as the breaker was told before the end
        self.answered: float | None = None
        self._since = now

    def answer(self, now: float) -> BreakerState | None:
        """Know that the answer, or its first chunk, is there, and return what the breaker changed to, if it did.

        Where it is tried whether the provider serves, it does: a stream may take minutes to its end.
        """
        self.answered = now
        breaker = self.breaker
        if breaker.closed or (breaker.slow_call is not None and now - self._since > breaker.slow_call):
            return None
        self._served = True
        return breaker.told(now, self._generation, True)  # noqa: FBT003 - a verdict

    def end(self, now: float) -> BreakerState | None:
        """Tell the breaker, and return what it changed to, if it did."""
        breaker, good = self.breaker, self.good
        if breaker.slow_call is not None and (good or (good is None and self.late)):
            seconds = (now if self.answered is None else self.answered) - self._since
            if seconds > breaker.slow_call:
                good = False
        if self._served and good is not False:
            return None
        return breaker.told(now, self._generation, good)


class Breaker:
    """The breaker of one model of a provider.

    Attributes:
        model: The model.
        policy: When it opens.
        failures: Attempts that failed, of those that opened it last.
        attempts: Attempts that it was opened by.
        again: Whether it opened again since, as an attempt to see whether the provider serves failed too.
        closed: Whether it only counts.
        slow_call: Its policy's.
    """

    __slots__ = (
        "_free", "_generation", "_state", "_succeeded", "_until", "_window",
        "again", "attempts", "closed", "failures", "model", "policy", "slow_call",
    )  # fmt: skip

    def __init__(self, policy: BreakerPolicy, model: str) -> None:
        """Start closed, having seen nothing."""
        self.model: str = model
        self.policy: BreakerPolicy = policy
        self.failures: int = 0
        self.attempts: int = 0
        self.again: bool = False
        self.closed: bool = True
        self.slow_call: float | None = policy.slow_call
        self._state = BreakerState.CLOSED
        self._window = _Window(policy.window)
        self._until = 0.0
        self._free = 0  # places of attempts that may still be let through, half open
        self._succeeded = 0
        self._generation = 0  # counts the changes: what was sent before one says nothing after it

    def state(self, now: float) -> BreakerState:
        """Return what it does."""
        if self._state is BreakerState.OPEN and now >= self._until:
            self._turn(BreakerState.HALF_OPEN)
            self._free = self.policy.half_open_calls
            self._succeeded = 0
        return self._state

    def wait(self, now: float) -> float:
        """Return seconds until it lets an attempt through; 0 where it does.

        While attempts are under way that decide, that is a second, or `open_for` if that is less.
        """
        if self.closed:
            return 0.0
        if self.state(now) is BreakerState.OPEN:
            return self._until - now
        return 0.0 if self._free > 0 else min(_SOON, self.policy.open_for)

    def permit(self, now: float) -> Permit:
        """Let an attempt through; only where there is no `wait`."""
        if not self.closed:
            self._free -= 1
        return Permit(self, self._generation, now)

    def told(self, now: float, generation: int, good: bool | None) -> BreakerState | None:  # noqa: FBT001 - a verdict
        """Hear how an attempt ended that was let through in `generation`; return what it changed to, if it did."""
        if generation != self._generation:
            return None
        if not self.closed:  # half open: open, it has let nothing through
            return self._tried(now, good)
        if good is None:
            return None
        window, policy = self._window, self.policy
        window.add(now, not good)
        if not window.failures or window.attempts < policy.min_calls:
            return None
        if window.failures < policy.failure_rate * window.attempts:
            return None
        self.failures, self.attempts, self.again = window.failures, window.attempts, False
        return self._open(now)

    def counts(self, now: float) -> tuple[int, int]:
        """Return how many attempts failed and how many there were: in the window, or of those that opened it."""
        if not self.closed:
            return self.failures, self.attempts
        self._window.roll(now)
        return self._window.failures, self._window.attempts

    def snapshot(self, now: float) -> dict[str, Any]:
        """Return its state for a status: JSON values, times in seconds."""
        failures, attempts = self.counts(now)
        return {
            "state": self.state(now).value,
            "failure_rate": round(failures / attempts, 4) if attempts else 0.0,
            "attempts": attempts,
            "retry_after": round(self.wait(now), 3),
        }

    def idle(self, now: float) -> bool:
        """Return whether nothing would change if it were forgotten."""
        return self.closed and not self.counts(now)[1]

    def _tried(self, now: float, good: bool | None) -> BreakerState | None:  # noqa: FBT001 - a verdict
        if good is None:
            self._free += 1
            return None
        if not good:
            self.again = True
            return self._open(now)
        self._succeeded += 1
        if self._succeeded < self.policy.half_open_calls:
            return None
        self._window = _Window(self.policy.window)
        return self._turn(BreakerState.CLOSED)

    def _open(self, now: float) -> BreakerState:
        self._until = now + self.policy.open_for
        return self._turn(BreakerState.OPEN)

    def _turn(self, state: BreakerState) -> BreakerState:
        self._state = state
        self.closed = state is BreakerState.CLOSED
        self._generation += 1
        return state


class _Window:
    """How many attempts there were lately, and how many failed: counts for each part of the window, no list."""

    __slots__ = ("_attempts", "_failures", "_part", "_place", "_step", "_until", "attempts", "failures")

    def __init__(self, seconds: float) -> None:
        self.attempts = 0
        self.failures = 0
        self._step = seconds / _STEPS
        self._part = self._place = 0
        self._until = self._step  # monotonic seconds, when the part ends that is now
        self._attempts = [0] * _STEPS
        self._failures = [0] * _STEPS

    def add(self, now: float, failed: bool) -> None:  # noqa: FBT001 - each attempt comes by here
        if now >= self._until:
            self.roll(now)
        self.attempts += 1
        self._attempts[self._place] += 1
        if failed:
            self.failures += 1
            self._failures[self._place] += 1

    def roll(self, now: float) -> None:
        """Leave behind what is older than the window."""
        part = int(now / self._step)
        if part <= self._part:
            return
        for place in range(max(self._part + 1, part - _STEPS + 1), part + 1):
            place %= _STEPS  # noqa: PLW2901 - the same place, in the list
            self.attempts -= self._attempts[place]
            self.failures -= self._failures[place]
            self._attempts[place] = self._failures[place] = 0
        self._part, self._place = part, part % _STEPS
        self._until = (part + 1) * self._step
