"""The layer that opens the ticket: what it asks, whom it refuses, and what it learns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm.core.call import Call, CallState, Charge, Ticket
from llm.core.exceptions import LLMRateLimitError
from llm.core.stream import LLMStream
from llm.core.types import LLMRequest, LLMResponse, TokenUsage
from llm.middleware.rate_limiter import RateLimitMiddleware, Reserved
from llm.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llm.core.stream import LLMResult

    Dispatch = Callable[[LLMRequest], Awaitable[LLMResult]]


class FixedCharges:
    def __init__(self) -> None:
        self.learned: list[tuple[str, str, Reserved, int]] = []

    def reserve(self, request: LLMRequest, model: str) -> Reserved:
        del model
        return Reserved(Charge(len(request.messages[0].text), 20, 7), 4)

    def learn(self, request: LLMRequest, model: str, reserved: Reserved, response: LLMResponse) -> None:
        self.learned.append((request.messages[0].text, model, reserved, response.usage.output_tokens))


class Bench:
    def __init__(self) -> None:
        self.checked: list[Ticket] = []
        self.refusal: LLMRateLimitError | None = None
        self.charges = FixedCharges()
        self.layer = RateLimitMiddleware(charges=self.charges, check=self.check, clock=FakeClock(start=50.0))

    def check(self, ticket: Ticket) -> None:
        self.checked.append(ticket)
        if self.refusal is not None:
            raise self.refusal


@pytest.fixture
def bench() -> Bench:
    return Bench()


def request() -> LLMRequest:
    call = Call(50.0, deadline=99.0, user="alice", priority=3)
    return LLMRequest("hello", model="m", call=call)


async def test_the_ticket_says_what_for_whom_how_urgent_and_until_when(bench: Bench, dispatch: Dispatch) -> None:
    asked = request()
    assert asked.call is not None
    await bench.layer(asked, dispatch)
    assert bench.checked == [Ticket(Charge(5, 20, 7), "m", "alice", 3, 99.0)]
    assert asked.call.ticket == bench.checked[0]
    assert asked.call.state is CallState.TICKETED


async def test_what_can_never_be_paid_is_refused_before_anything_else_happens(bench: Bench, dispatch: Dispatch) -> None:
    bench.refusal = LLMRateLimitError("never")
    asked = request()
    assert asked.call is not None
    with pytest.raises(LLMRateLimitError):
        await bench.layer(asked, dispatch)
    assert asked.call.state is CallState.CREATED


async def test_it_learns_from_an_answer_beside_what_was_reserved_once_it_has_ended(
    bench: Bench, dispatch: Dispatch
) -> None:
    result = await bench.layer(request(), dispatch)
    if isinstance(result, LLMStream):
        assert bench.charges.learned == []
        await result.response()
    assert bench.charges.learned == [("hello", "m", Reserved(Charge(5, 20, 7), 4), 5)]


async def test_a_stored_answer_teaches_nothing(bench: Bench) -> None:
    async def stored(_: LLMRequest) -> LLMResult:
        return LLMResponse("1", "x", "m", "fake", TokenUsage(1, 2), "stop", cached=True)

    await bench.layer(request(), stored)
    assert bench.charges.learned == []


async def test_a_stream_left_early_teaches_nothing(bench: Bench, dispatch: Dispatch) -> None:
    result = await bench.layer(request(), dispatch)
    if isinstance(result, LLMStream):
        await result.aclose()
        assert bench.charges.learned == []


async def test_a_request_that_has_its_ticket_or_no_call_passes(bench: Bench, dispatch: Dispatch) -> None:
    asked = request()
    await bench.layer(asked, dispatch)
    await bench.layer(asked, dispatch)
    await bench.layer(LLMRequest("hello", model="m"), dispatch)
    assert len(bench.checked) == 1


def test_explaining_a_request_without_a_call_needs_none(bench: Bench) -> None:
    asked = LLMRequest("hello", user="bob", priority=2)
    assert bench.layer.ticket(asked, "m") == Ticket(Charge(5, 20, 7), "m", "bob", 2)
