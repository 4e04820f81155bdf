"""Each refusal says what happened, which limit it was, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm.core.call import Charge, Ticket
from llm.core.exceptions import LLMAuthenticationError, LLMPoolExhaustedError, LLMRateLimitError
from llm.core.keys import no_key_left
from llm.limits import refusals
from llm.limits.base import Binding
from llm.limits.bucket import TokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable

    Refusal = Callable[[str, Ticket, Binding], LLMRateLimitError]

LIMIT = TokenBucket("input_tokens_per_minute", "input_tokens", 100.0, 60.0, level="user")
TICKET = Ticket(Charge(120, 5, 125), "m", "alice")


@pytest.mark.parametrize(
    ("bound", "told"),
    [
        (Binding(3.0, LIMIT), "input_tokens_per_minute of the user"),
        (Binding(3.0), "the pause that the provider asked for"),
        (Binding(), "its turn"),
    ],
)
def test_what_is_waited_for_is_told_in_words(bound: Binding, told: str) -> None:
    assert refusals.told(bound) == told


def test_a_request_that_is_too_large_says_how_large_and_what_to_do() -> None:
    error = refusals.too_large("openai", TICKET, LIMIT)
    assert str(error) == (
        "the request needs 120 input tokens, and input_tokens_per_minute of the user is 100: it can never fit. "
        "Shorten it, lower max_tokens, or raise the limit (provider openai, model m)"
    )
    assert (error.scope, error.limit, error.retryable) == ("user", "input_tokens_per_minute", False)


@pytest.mark.parametrize("refusal", [refusals.used_up, refusals.too_late])
def test_what_has_no_room_in_time_tells_the_seconds(refusal: Refusal) -> None:
    ours = refusal("openai", TICKET, Binding(7.5, LIMIT))
    assert (ours.scope, ours.limit, ours.retry_after) == ("user", "input_tokens_per_minute", 7.5)
    pause = refusal("openai", TICKET, Binding(7.5))
    assert (pause.scope, pause.limit, pause.retry_after, pause.retryable) == ("key", None, 7.5, False)


def test_a_full_queue_and_a_wait_that_was_too_long_name_their_setting() -> None:
    assert "pool.max_waiting" in str(refusals.too_many_waiting("openai", TICKET, 5))
    late = refusals.waited_too_long("openai", TICKET, Binding(3.0, LIMIT), 5.0)
    assert "pool.acquire_timeout" in str(late)
    assert "input_tokens_per_minute of the user" in str(late)


def test_no_key_left_tells_why_the_first_of_them_left() -> None:
    from llm.core.keys import Key, Slot  # noqa: PLC0415
    from llm.testing import FakeClock, FakeProvider  # noqa: PLC0415

    keys = [Key(f"k{i}", FakeProvider, clock=FakeClock(), idle_timeout=1, max_lifetime=1) for i in range(2)]
    slots = [Slot(i, "m", key) for i, key in enumerate(keys)]
    assert isinstance(no_key_left("openai", "m", slots), LLMPoolExhaustedError)
    keys[1].refuse(LLMAuthenticationError("wrong key", status=401, key="k1"))
    error = no_key_left("openai", "m", slots)
    assert isinstance(error, LLMAuthenticationError)
    assert (error.status, error.key, error.retryable) == (401, "k1", False)
    assert "wrong key" in str(error)


def test_no_key_left_for_a_model_alone_is_told_so() -> None:
    from llm.core.keys import Key, Slot  # noqa: PLC0415
    from llm.testing import FakeClock, FakeProvider  # noqa: PLC0415

    keys = [Key(f"k{i}", FakeProvider, clock=FakeClock(), idle_timeout=1, max_lifetime=1) for i in range(2)]
    keys[0].refuse(LLMAuthenticationError("wrong key", status=401))
    keys[1].refuse(LLMAuthenticationError("not this model", status=403, model_only=True), model="m")
    error = no_key_left("openai", "m", [Slot(i, "m", key) for i, key in enumerate(keys)])
    assert isinstance(error, LLMAuthenticationError)
    assert error.model_only
    keys[1].refuse(LLMAuthenticationError("wrong key", status=401))
    whole = no_key_left("openai", "m", [Slot(i, "m", key) for i, key in enumerate(keys)])
    assert isinstance(whole, LLMAuthenticationError)
    assert not whole.model_only


def test_every_refusal_says_what_to_do() -> None:
    bound = Binding(3.0, LIMIT)
    assert "raise the limit" in str(refusals.used_up("openai", TICKET, bound))
    assert "Send fewer at once" in str(refusals.waited_too_long("openai", TICKET, bound, 5.0))
    assert "give another key" in str(no_key_left("openai", "m", []))


def test_money_is_told_in_dollars() -> None:
    budget = TokenBucket("cost_per_day", "cost", 0.0001, 86400.0, level="user")
    error = refusals.too_large("openai", Ticket(Charge(cost=0.0003), "m"), budget)
    assert "needs 0.0003 US dollars" in str(error)
