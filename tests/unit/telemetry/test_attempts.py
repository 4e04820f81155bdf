from __future__ import annotations

from llm.core.call import Call, Charge, Ticket
from llm.telemetry.attempts import Attempt, story_of


class Lease:
    key = "key-1"

    def refund(self) -> None:
        pass

    def settle(self, used: Charge | None, most: Charge | None = None) -> None:
        pass


class Place:
    def give_back(self) -> None:
        pass

    def move(self) -> None:
        pass


def ticketed() -> Call:
    call = Call(0.0)
    call.ticketed(0.0, Ticket(Charge(), "m"))
    return call


def sent(call: Call, at: float, *, failure: tuple[str, object] | None = None, until: float) -> None:
    call.paid(at, Lease())
    call.sent(at)
    if failure is not None:
        call.note(until, *failure)
    call.attempted(until)


def test_each_send_is_an_attempt_with_its_key_times_and_failure() -> None:
    call = ticketed()
    sent(call, 1.0, failure=("failed", ("key-1", "LLMServerError", 500)), until=2.0)
    sent(call, 3.0, failure=("refused", ("key-1", 0.5)), until=4.0)
    sent(call, 5.0, until=7.0)
    call.ended(8.0)
    assert story_of(call, 8.0).attempts == [
        Attempt(1, 1.0, 2.0, "key-1", error="LLMServerError", status=500),
        Attempt(2, 3.0, 4.0, "key-1", error="LLMRateLimitError", status=429),
        Attempt(3, 5.0, 7.0, "key-1"),
    ]


def test_waits_are_summed_and_belong_to_the_send_after_them() -> None:
    call = ticketed()
    call.queued(1.0, Place(), "why")
    sent(call, 3.0, until=4.0)
    call.queued(5.0, Place(), "why")
    call.withdrawn(5.5)
    call.queued(6.0, Place(), "why")
    story = story_of(call, 10.0)
    assert [attempt.waited for attempt in story.attempts] == [2.0]
    assert story.waited == 2.0 + 0.5 + 4.0
    call.ended(8.0)
    assert story_of(call, 10.0).waited == 2.0 + 0.5 + 2.0
    assert [decision.event for decision in story_of(call, 10.0).others] == ["queued", "queued", "withdrawn", "queued"]


def test_what_was_paid_and_never_sent_is_no_attempt_and_changes_none() -> None:
    call = ticketed()
    sent(call, 1.0, until=2.0)
    call.paid(3.0, Lease())
    call.note(4.0, "failed", ("key-1", "LLMConnectionError", None))
    call.attempted(4.0)
    story = story_of(call, 5.0)
    assert story.attempts == [Attempt(1, 1.0, 2.0, "key-1")]
    assert [(decision.event, decision.at) for decision in story.others] == [("failed", 4.0), ("refunded", 4.0)]


def test_a_send_that_reached_nobody_is_an_attempt() -> None:
    call = ticketed()
    call.paid(1.0, Lease())
    call.sent(1.0)
    call.note(2.0, "failed", ("key-1", "LLMConnectionError", None))
    call.unsent(2.0)
    call.attempted(2.0)
    assert story_of(call, 5.0).attempts == [Attempt(1, 1.0, 2.0, "key-1", error="LLMConnectionError")]
    assert story_of(call, 5.0).others == ()


def test_attempts_keep_their_numbers_where_the_log_forgot_the_first() -> None:
    call = ticketed()
    for second in range(40):
        sent(call, float(second), until=second + 0.5)
    attempts = story_of(call, 50.0).attempts
    assert len(attempts) < 40
    assert [attempt.number for attempt in attempts] == list(range(41 - len(attempts), 41))
    assert attempts[-1].started == 39.0


def test_an_attempt_that_goes_on_ends_when_it_is_told() -> None:
    call = ticketed()
    call.paid(1.0, Lease())
    call.sent(1.0)
    assert story_of(call, 5.0).attempts == [Attempt(1, 1.0, 5.0, "key-1")]


def test_what_layers_note_is_told_in_words() -> None:
    call = ticketed()
    call.note(1.0, "unfit", "name: missing")
    call.closed(1.5)
    assert [tuple(decision) for decision in story_of(call, 2.0).others] == [(1.0, "unfit", "name: missing")]
