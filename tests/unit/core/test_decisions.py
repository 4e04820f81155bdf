"""A decision log keeps values, bounded, and has words for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import pytest

from llm.core.call import Call, Charge, Ticket
from llm.core.decisions import Decision, Decisions

if TYPE_CHECKING:
    from collections.abc import Callable

ASKED = Charge(10, 20, 30)
DEAR = Charge(10, 20, 30, 0.0125)


@pytest.mark.parametrize(
    ("event", "detail", "told"),
    [
        ("queued", "tokens_per_minute of the key", "tokens_per_minute of the key"),
        ("ticketed", ASKED, "asks for 30 tokens (10 in, 20 out)"),
        ("ticketed", DEAR, "asks for 30 tokens (10 in, 20 out), 0.0125 US dollars"),
        ("refunded", ASKED, "30 tokens (10 in, 20 out)"),
        ("settled", (ASKED, Charge(10, 5, 15)), "30 tokens (10 in, 20 out) reserved, 15 tokens (10 in, 5 out) used"),
        ("settled", (ASKED, None), "30 tokens (10 in, 20 out) reserved, kept"),
        ("refused", ("key-1", 20.0), "key-1 rests for 20 seconds"),
        ("failed", ("key-1", "LLMServerError", 500), "LLMServerError (500) on key-1"),
        ("failed", ("key-1", "LLMConnectionError", None), "LLMConnectionError on key-1"),
        ("a layer's own", 5, "5"),
    ],
)
def test_every_kind_of_detail_has_words(event: str, detail: object, told: str) -> None:
    decisions = Decisions()
    decisions.note(1.5, event, detail)
    assert decisions.read() == (Decision(1.5, event, told),)


class Lease:
    key = "key-1"

    def refund(self) -> None: ...

    def settle(self, used: Charge | None) -> None: ...


class Place:
    def give_back(self) -> None: ...

    def move(self) -> None: ...


Steps: TypeAlias = "list[Callable[[Call], None]]"
ticketed: Steps = [lambda call: call.ticketed(1.0, Ticket(ASKED, "m"))]
paid: Steps = [*ticketed, lambda call: call.paid(2.0, Lease())]
sent: Steps = [*paid, lambda call: call.sent(3.0)]


@pytest.mark.parametrize(
    ("steps", "events"),
    [
        ([*ticketed, lambda call: call.closed(2.0)], "ticketed closed"),
        ([*paid, lambda call: call.attempted(3.0)], "ticketed paid refunded"),
        ([*sent, lambda call: call.attempted(4.0, ASKED)], "ticketed paid sent settled"),
        (
            [*sent, lambda call: call.unsent(4.0), lambda call: call.ended(5.0)],
            "ticketed paid sent unsent refunded ended",
        ),
        ([*sent, lambda call: call.ended(4.0)], "ticketed paid sent settled ended"),
        ([*sent, lambda call: call.answering(4.0)], "ticketed paid sent answering"),
    ],
)
def test_each_step_of_a_call_is_one_entry_named_by_what_happened(
    steps: list[Callable[[Call], None]], events: str
) -> None:
    call = Call(0.0)
    for step in steps:
        step(call)
    assert [entry.event for entry in call.log] == events.split()


def test_a_call_remembers_that_it_waited() -> None:
    call = Call(0.0)
    call.ticketed(1.0, Ticket(ASKED, "m"))
    assert not call.waited
    call.queued(2.0, Place(), "its turn")
    call.withdrawn(3.0)
    assert call.waited
    assert [entry.event for entry in call.log] == ["ticketed", "queued", "withdrawn"]
