"""Whose failure it is, how long to pause, and when to give up."""

from __future__ import annotations

import pytest

from llm import (
    LLMAuthenticationError,
    LLMCircuitOpenError,
    LLMConfigurationError,
    LLMConnectionError,
    LLMContentFilterError,
    LLMContextLengthError,
    LLMException,
    LLMInvalidRequestError,
    LLMOverloadedError,
    LLMPoolExhaustedError,
    LLMQuotaExceededError,
    LLMRateLimitError,
    LLMServerError,
    LLMStreamInterruptedError,
    LLMTimeoutError,
    LLMValidationError,
)
from llm.batch.trouble import FIRST_PATIENCE, Alone, Trouble, is_trouble, shows_service

DOWN = LLMConnectionError("nobody is there")
TROUBLE = [
    LLMCircuitOpenError("x"),
    LLMConnectionError("x"),
    LLMOverloadedError("x"),
    LLMPoolExhaustedError("x"),
    LLMRateLimitError("x"),
    LLMRateLimitError("used up for today", retryable=False, retry_after=3_000.0),
    LLMTimeoutError("waited for a key", phase="pool"),
    LLMTimeoutError("waited for a connection", phase="connect"),
    LLMAuthenticationError("x"),
    LLMAuthenticationError("another key may use the model", model_only=True, retryable=True),
    LLMQuotaExceededError("x"),
    LLMConfigurationError("x"),
]
OWN = [
    LLMInvalidRequestError("x"),
    LLMContextLengthError("x"),
    LLMContentFilterError("x"),
    LLMServerError("x"),
    LLMValidationError("x"),
    LLMStreamInterruptedError("x"),
    LLMTimeoutError("x", phase="total"),
    LLMAuthenticationError("no key may use the model", model_only=True),
    LLMRateLimitError("it can never fit", retryable=False),
    LLMException("x"),
]


@pytest.mark.parametrize("error", TROUBLE, ids=lambda error: type(error).__name__)
def test_what_the_provider_cannot_do_for_anybody_is_not_the_rows_failure(error: LLMException) -> None:
    assert is_trouble(error)


@pytest.mark.parametrize("error", OWN, ids=lambda error: type(error).__name__)
def test_what_is_wrong_with_one_request_or_its_answer_is_the_rows_failure(error: LLMException) -> None:
    assert not is_trouble(error)


def served(trouble: Trouble) -> Trouble:
    trouble.over()
    return trouble


def test_pauses_have_full_jitter_and_grow_from_one_second_to_sixty() -> None:
    trouble = served(Trouble(600.0))
    assert [trouble.pause(0.0, DOWN, attempt, 0.0) for attempt in (1, 2, 9, 999)] == [1.0, 1.0, 1.0, 1.0]
    assert [trouble.pause(0.0, DOWN, attempt, 1.0) for attempt in (1, 2, 3, 9, 999)] == [2.0, 3.0, 5.0, 60.0, 60.0]


def test_a_time_that_was_told_is_waited_for_and_not_by_all_to_the_same_moment() -> None:
    trouble = Trouble(600.0)
    told = LLMRateLimitError("later", retry_after=42.0)
    assert [trouble.pause(0.0, told, 1, dice) for dice in (0.0, 0.5)] == [42.0, 42.5]
    assert trouble.pause(0.0, LLMRateLimitError("now", retry_after=0.0), 1, 0.0) == 1.0


def test_after_its_patience_without_one_answer_it_gives_up_and_the_last_pause_ends_there() -> None:
    trouble = served(Trouble(100.0))
    assert trouble.pause(50.0, DOWN, 1, 0.0) == 1.0
    assert trouble.pause(145.0, DOWN, 9, 1.0) == 5.0
    assert trouble.pause(150.0, DOWN, 10, 1.0) is None


def test_an_answer_ends_the_trouble_and_patience_begins_anew_with_the_next() -> None:
    trouble = served(Trouble(100.0))
    trouble.pause(0.0, DOWN, 1, 0.0)
    assert (trouble.over(), trouble.over()) == (True, False)
    assert trouble.pause(500.0, DOWN, 1, 0.0) == 1.0
    assert trouble.since == 500.0


@pytest.mark.parametrize(
    "error",
    [
        LLMAuthenticationError("x"),
        LLMQuotaExceededError("x"),
        LLMConfigurationError("x"),
        LLMRateLimitError("used up for today", retryable=False, retry_after=100.1),
    ],
    ids=["refused", "credit", "configuration", "told-more-than-patience"],
)
def test_what_does_not_pass_in_time_is_given_up_at_once(error: LLMException) -> None:
    assert Trouble(100.0).pause(0.0, error, 1, 0.0) is None


@pytest.mark.parametrize(
    ("error", "attempts", "served"),
    [
        (LLMInvalidRequestError("no", status=400), 1, True),
        (LLMInvalidRequestError("no", status=400), 0, False),  # nobody was asked
        (LLMInvalidRequestError("no"), 1, False),
        (LLMServerError("no", status=500), 1, False),
        (LLMTimeoutError("no", phase="total", status=400), 1, False),
    ],
)
def test_a_provider_that_refuses_a_request_serves(error: LLMException, attempts: int, *, served: bool) -> None:
    error.attempts = attempts
    assert shows_service(error) is served


@pytest.mark.parametrize("kind", [LLMAuthenticationError, LLMQuotaExceededError])
def test_a_key_that_is_refused_is_no_end_while_another_is_left(kind: type[LLMException]) -> None:
    assert Trouble(100.0).pause(0.0, kind("x", retryable=True), 1, 0.0) == 1.0


@pytest.mark.parametrize(
    "error", [DOWN, LLMCircuitOpenError("x"), LLMTimeoutError("x", phase="connect")], ids=lambda e: type(e).__name__
)
def test_who_was_never_reached_is_given_up_sooner_and_who_answered_once_is_not(error: LLMException) -> None:
    never, once = Trouble(600.0), served(Trouble(600.0))
    assert [trouble.pause(0.0, error, 1, 0.0) for trouble in (never, once)] == [1.0, 1.0]
    assert never.pause(FIRST_PATIENCE, error, 2, 0.0) is None
    assert once.pause(FIRST_PATIENCE, error, 2, 0.0) == 1.0


def test_who_says_that_it_is_full_was_reached() -> None:
    trouble = Trouble(600.0)
    trouble.pause(0.0, LLMOverloadedError("x"), 1, 0.0)
    assert trouble.pause(FIRST_PATIENCE, LLMOverloadedError("x"), 2, 0.0) == 1.0


@pytest.mark.parametrize("kind", [LLMConnectionError, LLMOverloadedError])
def test_a_request_that_fails_three_times_while_others_are_answered_failed_by_itself(kind: type[LLMException]) -> None:
    trouble = Trouble(600.0)
    alone = Alone(trouble)
    assert not alone.failed(kind("x"))  # nobody else was answered
    for expected in (False, False, True):
        trouble.over()
        assert alone.failed(kind("x")) is expected


def test_while_nobody_is_answered_no_request_failed_by_itself() -> None:
    trouble = Trouble(600.0)
    alone = Alone(trouble)
    trouble.over()
    told = [alone.failed(DOWN) for _ in range(9)]
    assert not any(told)


def test_a_limit_that_is_used_up_is_never_the_requests_own_failure() -> None:
    trouble = Trouble(600.0)
    alone = Alone(trouble)
    for _ in range(9):
        trouble.over()
        assert not alone.failed(LLMRateLimitError("x"))
