"""A decision log keeps values, bounded, and has words for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm.core.call import Call, Charge, Ticket
from llm.core.decisions import Decision, in_words

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
        ("fell_back", ("openai/m", "local/n", "LLMServerError 500"), "from openai/m to local/n: LLMServerError 500"),
        ("continued", ("local/n", 12), "local/n goes on at character 12"),
        ("a layer's own", 5, "5"),
    ],
)
def test_every_kind_of_detail_has_words(event: str, detail: object, told: str) -> None:
    assert in_words([(1.5, event, detail)]) == (Decision(1.5, event, told),)


class Lease:
    key = "key-1"

    def refund(self) -> None: ...

    def settle(self, used: Charge | None, most: Charge | None = None) -> None: ...


class Place:
    def give_back(self) -> None: ...

    def move(self) -> None: ...


STEPS: dict[str, Callable[[Call], None]] = {
    "ticketed": lambda call: call.ticketed(1.0, Ticket(ASKED, "m")),
    "closed": lambda call: call.closed(2.0),
    "paid": lambda call: call.paid(2.0, Lease()),
    "sent": lambda call: call.sent(3.0),
    "unsent": lambda call: call.unsent(4.0),
    "answering": lambda call: call.answering(4.0),
    "attempted": lambda call: call.attempted(5.0, ASKED),
    "ended": lambda call: call.ended(6.0),
}


@pytest.mark.parametrize(
    ("steps", "events"),
    [
        ("ticketed closed", "ticketed closed"),
        ("ticketed paid attempted", "ticketed paid refunded"),
        ("ticketed paid sent attempted", "ticketed paid sent settled"),
        ("ticketed paid sent unsent ended", "ticketed paid sent unsent refunded ended"),
        ("ticketed paid sent ended", "ticketed paid sent settled ended"),
        ("ticketed paid sent answering ended", "ticketed paid sent answering settled ended"),
    ],
)
def test_each_step_of_a_call_is_one_entry_named_by_what_happened(steps: str, events: str) -> None:
    call = Call(0.0)
    for step in steps.split():
        STEPS[step](call)
    assert [entry.event for entry in call.log] == events.split()


def test_a_call_remembers_that_it_waited() -> None:
    call = Call(0.0)
    call.ticketed(1.0, Ticket(ASKED, "m"))
    assert not call.waited
    call.queued(2.0, Place(), "its turn")
    call.withdrawn(3.0)
    assert call.waited
    assert [entry.event for entry in call.log] == ["ticketed", "queued", "withdrawn"]
