"""One call's record: what it holds, what happened to it, and how it ended.

Every transition is one method, and every method takes `now` (monotonic seconds). Whoever gives up a call, gives back
through it: `ended` releases what is still held, whatever the state, exactly once.

    created → ticketed → [queued →] paid → sent → [answering →] ticketed … → ended
"""

from __future__ import annotations

from enum import StrEnum
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias

from llm.utils.frozen import packer

from .decisions import MOST, in_words
from .exceptions import kind_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from .decisions import Decision, Noted
    from .spent import Spent

ReportedUnit: TypeAlias = Literal["requests", "input_tokens", "output_tokens", "total_tokens"]

_ids = count(1)


class CallState(StrEnum):
    """Where a call stands; `design.md` calls it the state table."""

    CREATED = "created"
    TICKETED = "ticketed"
    QUEUED = "queued"
    PAID = "paid"
    SENT = "sent"
    ANSWERING = "answering"
    ENDED = "ended"


class Charge(NamedTuple):
    """What an attempt takes from the limits.

    Attributes:
        input_tokens: Tokens of the prompt.
        output_tokens: Tokens of the answer.
        total_tokens: What counts against limits on tokens as such; not always the sum, vendors differ.
        cost: US dollars.
        requests: Requests.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cost: float = 0.0
    requests: int = 1


class Ticket(NamedTuple):
    """What a call asks of the limits; paid anew by each attempt.

    Attributes:
        charge: What the provider will charge at admission.
        model: Model that the slot must have.
        user: Tenant whose limits apply; None for none.
        priority: Higher goes first.
        deadline: Monotonic seconds after which waiting is pointless; None for never.
    """

    charge: Charge
    model: str
    user: str | None = None
    priority: int = 0
    deadline: float | None = None


make_charge, make_ticket = packer(Charge), packer(Ticket)
"""Make one of all its fields, as one tuple: every call has several."""


class LimitReport(NamedTuple):
    """What a provider's answer says about one of its limits, as it stood when the request was admitted.

    Attributes:
        unit: Which part of a `Charge` it counts.
        limit: The number, in that unit, per period.
        remaining: What was left of it.
        reset: Seconds, from when the request was sent, until all of it is there again; None where it does not say.
        rounding: By how much `remaining` may be off, since some vendors round.
        refused: Whether the request was refused for its limits, and so took nothing of them.
    """

    unit: ReportedUnit
    limit: float
    remaining: float
    reset: float | None = None
    rounding: float = 0.0
    refused: bool = False


class Place(Protocol):
    """A place in the queue."""

    def give_back(self) -> None:
        """Leave the queue, in constant time."""

    def move(self) -> None:
        """Take the place that the call's priority, which changed, gives it."""


class Lease(Protocol):
    """A slot and the capacity paid for one attempt on it."""

    @property
    def key(self) -> str:
        """Fingerprint of the slot's key."""
        ...

    def refund(self) -> None:
        """Give everything back: nothing was sent."""

    def settle(self, used: Charge | None, most: Charge | None = None) -> None:
        """Correct the tokens to what was used; None keeps what was paid, where that is unknown.

        `most` is what the provider may have used, where nobody knows: so much its own limits keep.
        """


class Trace(Protocol):
    """What a call is traced as."""

    @property
    def carrier(self) -> Mapping[str, str] | None:
        """Headers that tell a server what the call belongs to, names in lower case; None for none."""
        ...


class IllegalTransitionError(RuntimeError):
    """A fault of this package: a call was moved to where it cannot go from its state."""


class Call:
    """What is known of one call, from the request to its outcome.

    Attributes:
        number: Number of the call in this process, from 1.
        started: Monotonic seconds at which it was made.
        deadline: Monotonic seconds at which it must have ended; None for never.
        user: Tenant; None for none.
        priority: Higher goes first.
        state: Where it stands.
        ticket: What it asks of the limits, while it has one.
        sends: How often it was sent.
        retryable: False once an answer was given elsewhere (by the leader of its flight): no retry here.
        patience: Seconds it still waits for capacity, since another provider may have some; None: as long as it takes.
        user_wait: Seconds that a limit of its user's own may hold an attempt; None: as long as the deadline allows.
        when_queued: Is told whenever it begins to wait for capacity; None where nobody waits with it.
        moves: How often it fell back to another provider or model.
        heard: Reads what the last answer said of the provider's limits; None where none came.
        error: How it failed; None while it runs and where it succeeded.
        waited: Whether it ever stood in a queue.
        queue_seconds: How long it stood there, all its waits together.
        sent_at: Monotonic seconds at which it was last sent; None before that.
        answering_at: Monotonic seconds of the last first chunk of a stream; None before that.
        forget: Takes the answer out of the cache again; None where none keeps it.
        spent: What answers took that are not its outcome, which counts where it fails; None where there are none.
        stale: What the cache knows of an answer over its time, a `llm.core.stale.Stale`; None where there is none.
        glanced: A request, and what the cache's layer found out about it before the chain; None where it did not look.
        trace: What it is traced as; None where it is not.
        decisions: Its decision log; `log` has it in words.
    """

    __slots__ = (
        "_ends", "_lease", "_place", "_queued_at", "_unreached", "answering_at", "deadline", "decisions", "error",
        "forget", "glanced", "heard", "moves", "number", "patience", "priority", "queue_seconds", "retryable", "sends",
        "sent_at", "spent", "stale", "started", "state", "ticket", "trace", "user", "user_wait", "waited",
        "when_queued",
    )  # fmt: skip

    def __init__(self, now: float, deadline: float | None = None, user: str | None = None, priority: int = 0) -> None:
        """Start the record."""
        self.number: int = next(_ids)
        self.started: float = now
        self.deadline: float | None = deadline
        self.user: str | None = user
        self.priority: int = priority
        self.state: CallState = _CREATED
        self.ticket: Ticket | None = None
        self.sends: int = 0
        self.retryable: bool = True
        self.patience: float | None = None
        self.user_wait: float | None = None
        self.when_queued: Callable[[], None] | None = None
        self.moves: int = 0
        self.heard: Callable[[], tuple[LimitReport, ...]] | None = None
        self.error: BaseException | None = None
        self.waited: bool = False
        self.queue_seconds: float = 0.0
        self.sent_at: float | None = None
        self.answering_at: float | None = None
        self.forget: Callable[[], Awaitable[None]] | None = None
        self.spent: Spent | None = None
        self.stale: Any = None
        self.glanced: tuple[object, Any] | None = None
        self.trace: Trace | None = None
        self.decisions: Noted = []
        self._place: Place | None = None
        self._queued_at: float = now
        self._lease: Lease | None = None
        self._ends: tuple[Callable[[Call], None], ...] = ()
        self._unreached = 0  # sends that certainly reached nobody

    @property
    def log(self) -> tuple[Decision, ...]:
        """The last decisions about this call, oldest first."""
        return in_words(self.decisions)

    @property
    def reports(self) -> tuple[LimitReport, ...]:
        """What the last answer said of the provider's limits; empty where it said nothing."""
        return () if self.heard is None else self.heard()

    @property
    def arrived(self) -> bool:
        """Whether a request of it may have reached a provider, whatever became of it."""
        return self.sends > self._unreached

    @property
    def key(self) -> str | None:
        """Fingerprint of the key that is in use."""
        return self._lease.key if self._lease is not None else None

    @property
    def waits(self) -> bool:
        """Whether it waited for a key when it was last seen to do anything but give back."""
        marks = [entry.event for entry in self.log if entry.event in _MARKS]
        return bool(marks) and marks[-1] == _QUEUED

    def urge(self, priority: int) -> None:
        """Raise the priority, where it is lower, also of a call that waits already."""
        if priority > self.priority:
            self.priority = priority
            if self._place is not None:
                self._place.move()

    def note(self, now: float, event: str, detail: object = "") -> None:
        """Add to the decision log; the kinds of `detail` are those that `decisions` has words for."""
        self.decisions.append((now, event, detail))

    def spend(self, spent: Spent) -> None:
        """Know of an answer that was paid for and is not the call's outcome."""
        self.spent = spent if self.spent is None else self.spent.with_more(spent)

    def on_end(self, callback: Callable[[Call], None]) -> None:
        """Be told once, when the call has ended, or left its provider for another, and holds nothing any more."""
        self._ends = (*self._ends, callback)

    def ticketed(self, now: float, ticket: Ticket) -> None:
        """Take a ticket."""
        if self.state is not _CREATED:
            raise self._illegal(_TICKETED)
        self.state, self.ticket = _TICKETED, ticket
        self.decisions.append((now, "ticketed", ticket.charge))

    def closed(self, now: float) -> None:
        """Close the ticket, so that another provider can open its own."""
        self._move(now, _CREATED, _TICKETED, "closed")
        self.ticket = None
        self._forget()

    def fell_back(self, now: float, move: tuple[str, str, str]) -> None:
        """Leave a target for another, and close the ticket; whoever watches over the call there hears of its end.

        `move` has the two and the reason: "from … to …: …".
        """
        if self.state is _TICKETED:
            self.closed(now)
        if self.state is not _CREATED:
            raise IllegalTransitionError(f"call {self.number}: a fallback does not follow {self.state}")
        self.moves += 1
        self.retryable, self.forget = True, None
        self.note(now, "fell_back", move)
        self.tell_end()

    def queued(self, now: float, place: Place, reason: str = "") -> None:
        """Wait: no slot can pay now."""
        self._move(now, _QUEUED, _TICKETED, "queued", reason)
        self.waited, self._place, self._queued_at = True, place, now
        if self.when_queued is not None:
            self.when_queued()

    def withdrawn(self, now: float) -> None:
        """Leave the queue without having been paid."""
        self._move(now, _TICKETED, _QUEUED, "withdrawn")
        self._release(now, None)

    def paid(self, now: float, lease: Lease) -> None:
        """Hold a lease: all limits were taken in one step."""
        if self.state is _QUEUED:
            self.queue_seconds += now - self._queued_at
        elif self.state is not _TICKETED:
            raise self._illegal(_PAID)
        self.state, self._place, self._lease = _PAID, None, lease
        self.decisions.append((now, "paid", lease.key))

    def sent(self, now: float) -> None:
        """Know that the first byte may have left."""
        if self.state is not _PAID:
            raise self._illegal(_SENT)
        self.sends += 1
        self.state, self.sent_at, self.heard = _SENT, now, None
        self.decisions.append((now, "sent", ""))

    def unsent(self, now: float, *, tried: bool = True) -> None:
        """Know for certain that no byte left after all: no connection was made, or (not even tried) nothing written."""
        self._move(now, _PAID, _SENT, "unsent")
        if tried:
            self._unreached += 1
        else:
            self.sends -= 1

    def answering(self, now: float) -> None:
        """Have a stream's first chunk in hand: no retry and no fallback any more."""
        self._move(now, _ANSWERING, _SENT, "answering")
        self.answering_at = now

    def attempted(self, now: float, used: Charge | None = None, most: Charge | None = None) -> None:
        """End an attempt: the lease goes back, and the call keeps its ticket.

        Nothing sent is refunded whole; what was sent stays charged and settles to `used`, or where that is None to
        what was paid; at the provider's own limits to `most`, where it may have used more than is known.
        """
        if self.state not in _LEASED:
            raise IllegalTransitionError(f"call {self.number}: an attempt ends while {self.state}")
        self._release(now, used, most)
        self.state = _TICKETED

    def ended(self, now: float, error: BaseException | None = None) -> None:
        """End the call, once; what is still held goes back by the rule of the state."""
        if self.state is _ENDED:
            raise IllegalTransitionError(f"call {self.number} ended twice")
        if self._lease is not None or self._place is not None:
            self._release(now, None)
        self.decisions.append((now, "ended", "" if error is None else kind_of(error)))
        self.state, self.ticket, self.error = _ENDED, None, error
        if self._ends:
            self.tell_end()

    def tell_end(self) -> None:
        """Tell those who watch over the call that it will not be answered by whom it asked."""
        ends, self._ends = self._ends, ()
        for callback in ends:
            callback(self)

    def _move(self, now: float, to: CallState, source: CallState, event: str, detail: object = "") -> None:
        """Move where not every call goes; in the three moves of each, it would take half of the move."""
        if self.state is not source:
            raise self._illegal(to)
        self.state = to
        self.decisions.append((now, event, detail))

    def _illegal(self, to: CallState) -> IllegalTransitionError:
        return IllegalTransitionError(
            f"call {self.number}: {to} does not follow {self.state}; a layer may send a call again when what call_next "
            "gave before has ended: an answer that is there, or a stream that is read to its end or closed"
        )

    def _forget(self) -> None:
        """Drop the oldest decisions of many; whatever repeats comes by here."""
        del self.decisions[:-MOST]

    def _release(self, now: float, used: Charge | None, most: Charge | None = None) -> None:
        place, self._place = self._place, None
        lease, self._lease = self._lease, None
        if len(self.decisions) > MOST:
            self._forget()
        if place is not None:
            self.queue_seconds += now - self._queued_at
            place.give_back()
        if lease is None:
            return
        reserved = _NOTHING if self.ticket is None else self.ticket.charge
        if self.state is _PAID:
            self.decisions.append((now, "refunded", reserved))
            lease.refund()
        else:
            self.decisions.append((now, "settled", (reserved, used)))
            lease.settle(used, most)


# Here once, for a look at an enum's member takes as long as a call of a function.
_CREATED, _TICKETED, _QUEUED, _PAID, _SENT, _ANSWERING, _ENDED = CallState
_NOTHING = Charge(requests=0)
_MARKS = frozenset({CallState.QUEUED.value, CallState.PAID.value, CallState.SENT.value})
_LEASED = frozenset({_PAID, _SENT, _ANSWERING})
