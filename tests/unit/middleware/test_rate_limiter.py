"""The layer that opens the ticket: what it asks, whom it refuses, and what it learns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm.core.call import Call, CallState, Charge, Ticket
from llm.core.exceptions import LLMRateLimitError
from llm.core.stream import LLMStream
from llm.core.types import LLMRequest, LLMResponse, TokenUsage
from llm.middleware.rate_limiter import RateLimitMiddleware, estimated_charge
from llm.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llm.core.stream import LLMResult

    Dispatch = Callable[[LLMRequest], Awaitable[LLMResult]]


class Learning:
    def __init__(self) -> None:
        self.observed: list[tuple[str, int]] = []

    def expected(self, model: str) -> int:
        del model
        return 300

    def observe(self, model: str, output_tokens: int) -> None:
        self.observed.append((model, output_tokens))


class Bench:
    def __init__(self) -> None:
        self.checked: list[Ticket] = []
        self.refusal: LLMRateLimitError | None = None
        self.learning = Learning()
        self.layer = RateLimitMiddleware(
            charge=lambda request, output: Charge(len(request.messages[0].text), output, 7),
            check=self.check,
            output=self.learning,
            clock=FakeClock(start=50.0),
        )

    def check(self, ticket: Ticket) -> None:
        self.checked.append(ticket)
        if self.refusal is not None:
            raise self.refusal


@pytest.fixture
def bench() -> Bench:
    return Bench()


def request(**options: int | str) -> LLMRequest:
    call = Call(50.0, deadline=99.0, user="alice", priority=3)
    return LLMRequest("hello", model="m", call=call, **options)  # type: ignore[arg-type]  # a test's few options


async def test_the_ticket_says_what_for_whom_how_urgent_and_until_when(bench: Bench, dispatch: Dispatch) -> None:
    asked = request(max_tokens=20)
    assert asked.call is not None
    await bench.layer(asked, dispatch)
    assert bench.checked == [Ticket(Charge(5, 20, 7), "m", "alice", 3, 99.0)]
    assert asked.call.ticket == bench.checked[0]
    assert asked.call.state is CallState.TICKETED


async def test_without_max_tokens_the_expected_answer_is_reserved(bench: Bench, dispatch: Dispatch) -> None:
    await bench.layer(request(), dispatch)
    assert bench.checked[0].charge.output_tokens == 300


async def test_what_can_never_be_paid_is_refused_before_anything_else_happens(bench: Bench, dispatch: Dispatch) -> None:
    bench.refusal = LLMRateLimitError("never")
    asked = request()
    assert asked.call is not None
    with pytest.raises(LLMRateLimitError):
        await bench.layer(asked, dispatch)
    assert asked.call.state is CallState.CREATED


async def test_it_learns_from_an_answer_how_long_answers_are_once_it_has_ended(
    bench: Bench, dispatch: Dispatch
) -> None:
    result = await bench.layer(request(), dispatch)
    if isinstance(result, LLMStream):
        assert bench.learning.observed == []
        await result.response()
    assert bench.learning.observed == [("m", 5)]


async def test_a_stored_or_broken_answer_teaches_nothing(bench: Bench) -> None:
    async def stored(_: LLMRequest) -> LLMResult:
        return LLMResponse("1", "x", "m", "fake", TokenUsage(1, 2), "stop", cached=True)

    await bench.layer(request(), stored)
    assert bench.learning.observed == []


async def test_a_stream_left_early_teaches_nothing(bench: Bench, dispatch: Dispatch) -> None:
    result = await bench.layer(request(), dispatch)
    if isinstance(result, LLMStream):
        await result.aclose()
        assert bench.learning.observed == []


async def test_a_request_that_has_its_ticket_or_no_call_passes(bench: Bench, dispatch: Dispatch) -> None:
    asked = request()
    await bench.layer(asked, dispatch)
    await bench.layer(asked, dispatch)
    await bench.layer(LLMRequest("hello", model="m"), dispatch)
    assert len(bench.checked) == 1


def test_explaining_a_request_without_a_call_needs_none(bench: Bench) -> None:
    asked = LLMRequest("hello", user="bob", priority=2)
    assert bench.layer.ticket(asked, "m") == Ticket(Charge(5, 300, 7), "m", "bob", 2)


def test_providers_that_do_not_say_their_charge_are_charged_by_the_estimate() -> None:
    assert estimated_charge(lambda _: 40)(LLMRequest("hello"), 60) == Charge(40, 60, 100)
