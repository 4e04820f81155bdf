"""The tree of exceptions, what each one carries, and what none of them ever tells."""

# ruff: noqa: ANN401 - public names are looked up as tests run: a missing one fails its tests, not the collection

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

TREE = {
    "LLMException": "Exception",
    "LLMProviderError": "LLMException",
    "LLMInvalidRequestError": "LLMProviderError",
    "LLMContextLengthError": "LLMProviderError",
    "LLMContentFilterError": "LLMProviderError",
    "LLMQuotaExceededError": "LLMProviderError",
    "LLMOverloadedError": "LLMProviderError",
    "LLMServerError": "LLMProviderError",
    "LLMConnectionError": "LLMException",
    "LLMStreamInterruptedError": "LLMConnectionError",
    "LLMRateLimitError": "LLMException",
    "LLMAuthenticationError": "LLMException",
    "LLMTimeoutError": "LLMException",
    "LLMPoolExhaustedError": "LLMException",
    "LLMCircuitOpenError": "LLMException",
    "LLMValidationError": "LLMException",
    "LLMConfigurationError": "LLMException",
}
COMMON = ["provider", "model", "key", "status", "request_id", "retryable", "retry_after", "attempts"]
FACTS: dict[str, Any] = {
    "provider": "openai",
    "model": "gpt-4o-mini",
    "key": "key-3f2a91",
    "status": 429,
    "request_id": "req_1",
    "retryable": True,
    "retry_after": 2.5,
}
OWN: dict[str, dict[str, object]] = {
    "LLMContextLengthError": {"limit": 8192, "requested": 9000},
    "LLMConnectionError": {"sent": True},
    "LLMStreamInterruptedError": {"partial": "half an"},
    "LLMRateLimitError": {"scope": "user"},
    "LLMTimeoutError": {"phase": "first_token"},
}
NEVER_REPEATED = [
    "LLMInvalidRequestError",
    "LLMContextLengthError",
    "LLMContentFilterError",
    "LLMAuthenticationError",
    "LLMValidationError",
    "LLMConfigurationError",
]
MAY_SUCCEED_LATER = ["LLMOverloadedError", "LLMServerError", "LLMRateLimitError", "LLMConnectionError"]


def made(llm: ModuleType, name: str, message: str = "it failed", **facts: object) -> Any:
    return getattr(llm, name)(message, **{**OWN.get(name, {}), **facts})


@pytest.mark.parametrize(("name", "parent"), TREE.items())
def test_the_tree_of_exceptions(llm: ModuleType, name: str, parent: str) -> None:
    assert [base.__name__ for base in getattr(llm, name).__bases__] == [parent]


def test_no_exception_stands_outside_the_tree(llm: ModuleType) -> None:
    raised = {
        n for n in llm.__all__ if isinstance(getattr(llm, n), type) and issubclass(getattr(llm, n), BaseException)
    }
    assert raised == set(TREE)


@pytest.mark.parametrize("name", TREE)
def test_every_exception_carries_the_facts_it_is_given(llm: ModuleType, name: str) -> None:
    error = made(llm, name, **FACTS)
    assert {fact: getattr(error, fact) for fact in FACTS} == FACTS
    assert isinstance(error.attempts, int)


@pytest.mark.parametrize("name", TREE)
def test_a_fact_that_is_not_known_is_none(llm: ModuleType, name: str) -> None:
    error = made(llm, name)
    unknown = [fact for fact in COMMON if fact not in {"retryable", "attempts"}]
    assert [getattr(error, fact) for fact in unknown] == [None] * len(unknown)
    assert isinstance(error.retryable, bool)


@pytest.mark.parametrize("name", OWN)
def test_an_exceptions_own_attributes(llm: ModuleType, name: str) -> None:
    error = made(llm, name)
    assert {field: getattr(error, field) for field in OWN[name]} == OWN[name]


@pytest.mark.parametrize("scope", ["global", "provider", "user", "key"])
def test_a_rate_limit_says_whose_it_is(llm: ModuleType, scope: str) -> None:
    error = llm.LLMRateLimitError("slow down", scope=scope, retry_after=1.5)
    assert (error.scope, error.retry_after) == (scope, 1.5)


@pytest.mark.parametrize("phase", ["pool", "connect", "first_token", "idle", "total"])
def test_a_timeout_says_in_which_phase(llm: ModuleType, phase: str) -> None:
    assert llm.LLMTimeoutError("too slow", phase=phase).phase == phase


def test_a_configuration_error_says_where_and_what(llm: ModuleType) -> None:
    error = llm.LLMConfigurationError("bad configuration")
    assert (error.file, error.line, error.column, error.field) == (None, None, None, None)


@pytest.mark.parametrize("name", NEVER_REPEATED)
def test_what_cannot_succeed_is_not_retryable(llm: ModuleType, name: str) -> None:
    assert made(llm, name).retryable is False


@pytest.mark.parametrize("name", MAY_SUCCEED_LATER)
def test_what_may_pass_is_retryable(llm: ModuleType, name: str) -> None:
    assert made(llm, name).retryable is True


@pytest.mark.parametrize("name", TREE)
def test_str_tells_what_happened_and_on_which_provider_and_model(llm: ModuleType, name: str) -> None:
    told = str(made(llm, name, "the key is refused", **FACTS))
    assert [fact for fact in ("the key is refused", "openai", "gpt-4o-mini", "req_1") if fact not in told] == []


def pickled(error: object) -> Any:
    return pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes


@pytest.mark.parametrize("name", TREE)
@pytest.mark.parametrize("again", [copy.copy, pickled])
def test_an_exception_survives_copy_and_pickle(llm: ModuleType, name: str, again: Callable[[Any], Any]) -> None:
    error = made(llm, name, **FACTS)
    error.attempts = 3
    twin = again(error)
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert vars(twin) == vars(error)
