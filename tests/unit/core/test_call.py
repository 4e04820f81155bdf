"""The call record under every order of events: what is held goes back once, by the rule of its state."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llm.core.call import Call, CallState, Charge, IllegalTransitionError, Ticket

LEASED = {CallState.PAID, CallState.SENT, CallState.ANSWERING}
TICKET = Ticket(Charge(10, 20, 30), "m")


class CountingPlace:
    def __init__(self) -> None:
        self.given_back = 0

    def give_back(self) -> None:
        self.given_back += 1

    def move(self) -> None:
        raise NotImplementedError


class CountingLease:
    key = "key-1"

    def __init__(self) -> None:
        self.ends: list[tuple[str, Charge | None]] = []

    def refund(self) -> None:
        self.ends.append(("refund", None))

    def settle(self, used: Charge | None, most: Charge | None = None) -> None:
        self.ends.append(("settle", used if most is None else most))


class CallMachine(RuleBasedStateMachine):
    """Drives one call by any events in any order, beside a model of what must be held."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.call = Call(self.now)
        self.places: list[CountingPlace] = []
        self.leases: list[CountingLease] = []
        self.told = 0
        self.sends = 0
        self.waits = 0
        self.call.on_end(lambda _: setattr(self, "told", self.told + 1))

    def tick(self) -> float:
        self.now += 1.0
        return self.now

    @precondition(lambda self: self.call.state is CallState.CREATED)
    @rule()
    def open_ticket(self) -> None:
        self.call.ticketed(self.tick(), TICKET)

    @precondition(lambda self: self.call.state is CallState.TICKETED)
    @rule()
    def close_ticket(self) -> None:
        self.call.closed(self.tick())
        assert self.call.ticket is None

    @precondition(lambda self: self.call.state in {CallState.CREATED, CallState.TICKETED})
    @rule()
    def fall_back(self) -> None:
        self.call.retryable = False
        moves, told = self.call.moves, self.told
        self.call.fell_back(self.tick(), ("a/m", "b/n", "LLMServerError"))
        assert (self.call.state, self.call.ticket, self.call.retryable) == (CallState.CREATED, None, True)
        assert (self.call.moves, self.told) == (moves + 1, told + 1)
        self.told = 0
        self.call.on_end(lambda _: setattr(self, "told", self.told + 1))

    @precondition(lambda self: self.call.state is CallState.TICKETED)
    @rule()
    def wait(self) -> None:
        self.waits += 1
        self.places.append(CountingPlace())
        self.call.queued(self.tick(), self.places[-1], "tokens_per_minute")

    @precondition(lambda self: self.call.state is CallState.QUEUED)
    @rule()
    def withdraw(self) -> None:
        self.call.withdrawn(self.tick())
        assert self.places[-1].given_back == 1

    @precondition(lambda self: self.call.state in {CallState.TICKETED, CallState.QUEUED})
    @rule()
    def pay(self) -> None:
        if self.call.state is CallState.QUEUED:
            self.places.pop()  # the queue took the call out itself
        self.leases.append(CountingLease())
        self.call.paid(self.tick(), self.leases[-1])

    @precondition(lambda self: self.call.state is CallState.PAID)
    @rule()
    def send(self) -> None:
        self.call.sent(self.tick())
        self.sends += 1

    @precondition(lambda self: self.call.state is CallState.SENT)
    @rule()
    def never_connected(self) -> None:
        self.call.unsent(self.tick())

    @precondition(lambda self: self.call.state is CallState.SENT)
    @rule()
    def first_chunk(self) -> None:
        self.call.answering(self.tick())

    @precondition(lambda self: self.call.state in LEASED)
    @rule(used=st.one_of(st.none(), st.builds(Charge, st.integers(0, 99), st.integers(0, 99))))
    def end_attempt(self, used: Charge | None) -> None:
        paid = self.call.state is CallState.PAID
        self.call.attempted(self.tick(), used)
        assert self.leases[-1].ends == ([("refund", None)] if paid else [("settle", used)])

    @precondition(lambda self: self.call.state is not CallState.ENDED)
    @rule(error=st.sampled_from([None, ValueError("x")]))
    def end(self, error: BaseException | None) -> None:
        state = self.call.state
        self.call.ended(self.tick(), error)
        if state in LEASED:
            expected = "refund" if state is CallState.PAID else "settle"
            assert self.leases[-1].ends == [(expected, None)]
        if state is CallState.QUEUED:
            assert self.places[-1].given_back == 1
        assert self.call.error is error

    @rule(
        step=st.sampled_from(
            ["ticketed", "closed", "withdrawn", "sent", "unsent", "answering", "attempted", "ended", "fell_back"]
        )
    )
    def refuse_what_does_not_follow(self, step: str) -> None:
        allowed = {
            "ticketed": {CallState.CREATED},
            "closed": {CallState.TICKETED},
            "withdrawn": {CallState.QUEUED},
            "sent": {CallState.PAID},
            "unsent": {CallState.SENT},
            "answering": {CallState.SENT},
            "attempted": LEASED,
            "ended": set(CallState) - {CallState.ENDED},
            "fell_back": {CallState.CREATED, CallState.TICKETED},
        }
        before = self.call.state
        if before in allowed[step]:
            return
        arguments = {"ticketed": (TICKET,), "fell_back": (("a/m", "b/n", "LLMServerError"),)}.get(step, ())
        with pytest.raises(IllegalTransitionError):
            getattr(self.call, step)(self.now, *arguments)
        assert self.call.state is before

    @invariant()
    def holds_at_most_one_thing_and_returns_all_others(self) -> None:
        open_places = [p for p in self.places if p.given_back == 0]
        open_leases = [lease for lease in self.leases if not lease.ends]
        state = self.call.state
        assert len(open_leases) == (1 if state in LEASED else 0)
        assert all(len(lease.ends) <= 1 for lease in self.leases)
        assert open_places == (self.places[-1:] if state is CallState.QUEUED else [])
        assert (self.call.key is not None) == (state in LEASED)

    @invariant()
    def knows_how_long_it_waited(self) -> None:
        # Every event takes a second, and each ends the wait before it.
        assert self.call.queue_seconds == self.waits - (self.call.state is CallState.QUEUED)
        assert self.call.waited == (self.waits > 0)

    @invariant()
    def tells_its_end_once(self) -> None:
        assert self.told == (1 if self.call.state is CallState.ENDED else 0)
        assert self.call.sends == self.sends


CallMachine.TestCase.settings = settings(
    max_examples=2 * settings().max_examples, stateful_step_count=40, deadline=None
)
TestCallMachine = CallMachine.TestCase


def test_the_decision_log_keeps_the_last_entries_and_their_order() -> None:
    call = Call(0.0)
    for i in range(100):
        call.note(float(i), "waited", str(i))
    assert [int(entry.detail) for entry in call.log] == list(range(36, 100))


def test_a_call_that_moves_for_long_keeps_the_last_entries_alone() -> None:
    call = Call(0.0)
    for i in range(100):
        call.ticketed(float(i), TICKET)
        call.closed(float(i))
    assert len(call.decisions) == len(call.log) == 64
    assert call.log[-1].at == 99.0


def test_calls_are_numbered_in_the_order_of_their_making() -> None:
    first, second = Call(0.0), Call(0.0)
    assert first.number < second.number


def test_a_call_knows_when_it_was_last_sent_and_when_its_first_chunk_came() -> None:
    call = Call(0.0)
    assert (call.sent_at, call.answering_at) == (None, None)
    call.ticketed(1.0, TICKET)
    for now in (2.0, 3.0):
        call.paid(now, CountingLease())
        call.sent(now)
        call.attempted(now)
    assert (call.sent_at, call.answering_at) == (3.0, None)
    call.paid(4.0, CountingLease())
    call.sent(5.0)
    call.answering(6.5)
    assert (call.sent_at, call.answering_at) == (5.0, 6.5)
