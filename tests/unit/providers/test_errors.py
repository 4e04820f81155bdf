from __future__ import annotations

import orjson
import pytest

from llm.core import exceptions
from llm.core.exceptions import (
    LLMAuthenticationError,
    LLMContentFilterError,
    LLMContextLengthError,
    LLMException,
    LLMInvalidRequestError,
    LLMOverloadedError,
    LLMProviderError,
    LLMQuotaExceededError,
    LLMRateLimitError,
    LLMServerError,
    LLMTimeoutError,
)
from llm.providers.errors import TABLE, error_for, wire_for
from llm.providers.failure import Failure, read_failure

KINDS = [kind for kind in vars(exceptions).values() if isinstance(kind, type) and issubclass(kind, LLMException)]
FROM_A_VENDOR = [
    LLMInvalidRequestError, LLMContextLengthError, LLMContentFilterError, LLMQuotaExceededError, LLMOverloadedError,
    LLMServerError, LLMRateLimitError, LLMAuthenticationError,
]  # fmt: skip


def make(kind: type[LLMException]) -> LLMException:
    return LLMTimeoutError("late", phase="total") if issubclass(kind, LLMTimeoutError) else kind("bad")


def openai(message: str = "m", type_: str | None = None, code: str | None = None) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": type_, "param": None, "code": code}})


def anthropic(type_: str, message: str = "m") -> bytes:
    return orjson.dumps({"type": "error", "error": {"type": type_, "message": message}, "request_id": "req_1"})


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, openai(type_="invalid_request_error"), LLMInvalidRequestError),
        (400, openai(type_="invalid_request_error", code="context_length_exceeded"), LLMContextLengthError),
        (400, openai(type_="invalid_request_error", code="content_policy_violation"), LLMContentFilterError),
        (401, openai(type_="invalid_request_error", code="invalid_api_key"), LLMAuthenticationError),
        (403, openai(type_="invalid_request_error", code="model_not_found"), LLMAuthenticationError),
        (403, openai(code="unsupported_country_region_territory"), LLMInvalidRequestError),
        (404, openai(type_="invalid_request_error", code="model_not_found"), LLMInvalidRequestError),
        (429, openai(type_="tokens", code="rate_limit_exceeded"), LLMRateLimitError),
        (429, openai(type_="insufficient_quota", code="insufficient_quota"), LLMQuotaExceededError),
        (500, openai(type_="server_error"), LLMServerError),
        (503, openai(type_="server_error"), LLMOverloadedError),
        (400, anthropic("invalid_request_error"), LLMInvalidRequestError),
        (400, anthropic("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"), LLMContextLengthError),
        (400, anthropic("invalid_request_error", "Output blocked by content filtering policy"), LLMContentFilterError),
        (400, anthropic("invalid_request_error", "Your credit balance is too low to go on"), LLMQuotaExceededError),
        (401, anthropic("authentication_error"), LLMAuthenticationError),
        (402, anthropic("billing_error"), LLMQuotaExceededError),
        (403, anthropic("permission_error"), LLMAuthenticationError),
        (404, anthropic("not_found_error"), LLMInvalidRequestError),
        (413, anthropic("request_too_large"), LLMInvalidRequestError),
        (429, anthropic("rate_limit_error"), LLMRateLimitError),
        (500, anthropic("api_error"), LLMServerError),
        (504, anthropic("timeout_error"), LLMServerError),
        (529, anthropic("overloaded_error"), LLMOverloadedError),
        (200, anthropic("overloaded_error"), LLMOverloadedError),
        (200, anthropic("rate_limit_error"), LLMRateLimitError),
        (200, anthropic("api_error"), LLMServerError),
        (200, anthropic("invalid_request_error"), LLMInvalidRequestError),
        (200, b'{"error": {"code": 502, "message": "down", "metadata": {"provider_name": "x"}}}', LLMServerError),
        (200, b'{"error": {"code": 429, "message": "slow down"}}', LLMRateLimitError),
        (402, b'{"error": {"code": 402, "message": "no credit"}}', LLMQuotaExceededError),
        (403, b'{"error": {"code": 403, "message": "no", "metadata": {"reasons": ["x"]}}}', LLMContentFilterError),
        (400, b'{"object": "error", "message": "bad", "type": "BadRequestError", "code": 400}', LLMInvalidRequestError),
        (400, b'{"error": "bad"}', LLMInvalidRequestError),
        (422, b'{"detail": "bad"}', LLMInvalidRequestError),
        (400, anthropic("invalid_request_error", "Input is too long for requested model."), LLMContextLengthError),
        (418, b"", LLMInvalidRequestError),
        (599, b"<html>", LLMServerError),
        (408, b"[]", LLMServerError),
    ],
)  # fmt: skip
def test_every_failure_gets_the_class_that_the_contract_names(
    status: int, body: bytes, kind: type[LLMException]
) -> None:
    error = error_for(status, read_failure(body))
    assert type(error) is kind


@pytest.mark.parametrize("status", range(400, 600))
def test_every_status_has_an_exception(status: int) -> None:
    error = error_for(status, Failure())
    assert error.status == status
    assert error.retryable == (status >= 500 or status in {408, 409, 425, 429})


def test_the_table_says_nothing_twice() -> None:
    assert len({(row.status, row.code) for row in TABLE}) == len(TABLE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_every_exception_can_be_told_in_every_dialect(kind: type[LLMException], dialect: str) -> None:
    told = wire_for(make(kind), anthropic=dialect == "anthropic")
    assert 400 <= told.status < 600
    assert told.type


@pytest.mark.parametrize("kind", FROM_A_VENDOR)
def test_what_openai_is_told_comes_back_as_the_same_exception(kind: type[LLMException]) -> None:
    told = wire_for(make(kind))
    assert type(error_for(told.status, read_failure(openai(type_=told.type, code=told.code)))) is kind


@pytest.mark.parametrize("kind", sorted(set(FROM_A_VENDOR) - {LLMContextLengthError, LLMContentFilterError}, key=str))
def test_what_anthropic_is_told_comes_back_as_the_same_exception(kind: type[LLMException]) -> None:
    # Anthropic has no code for the two that are left out.
    told = wire_for(make(kind), anthropic=True)
    assert type(error_for(told.status, read_failure(anthropic(told.type)))) is kind


@pytest.mark.parametrize(("status", "told"), [(404, 404), (413, 413), (422, 400), (None, 400)])
def test_a_bad_request_keeps_the_statuses_that_say_more(status: int | None, told: int) -> None:
    assert wire_for(LLMInvalidRequestError("bad", status=status)).status == told


@pytest.mark.parametrize("anthropic_dialect", [False, True])
def test_a_model_forbidden_to_a_key_stays_apart_from_a_refused_key(anthropic_dialect: bool) -> None:
    told = wire_for(LLMAuthenticationError("no", model_only=True), anthropic=anthropic_dialect)
    error = error_for(told.status, Failure(codes=(told.code or told.type,)))
    assert isinstance(error, LLMAuthenticationError)
    assert error.model_only


@pytest.mark.parametrize(
    ("message", "limit", "requested"),
    [
        ("This model's maximum context length is 8192 tokens. However, your messages resulted in 9001.", 8192, 9001),
        ("prompt is too long: 210000 tokens > 200000 maximum", 200000, 210000),
        ("input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000", 200000, 209573),
        ("the prompt exceeds the context window", None, None),
        ("maximum context length is 8192 tokens", 8192, None),
    ],
)
def test_a_prompt_that_does_not_fit_says_by_how_much(message: str, limit: int | None, requested: int | None) -> None:
    error = error_for(400, Failure(message))
    assert isinstance(error, LLMContextLengthError)
    assert (error.limit, error.requested) == (limit, requested)


def test_a_failure_says_what_happened_and_what_to_do() -> None:
    error = error_for(429, Failure("Too many requests"), request_id="req_1", retry_after=2.0)
    assert str(error) == (
        "the provider answered with a failure: Too many requests; wait, or set lower rate_limits so that calls wait "
        "before they are sent (status 429, request req_1, retry after 2 s)"
    )
    assert isinstance(error_for(500, Failure()), LLMProviderError)


@pytest.mark.parametrize("offset", range(8))
def test_a_long_message_is_cut_between_words_so_that_no_half_of_a_key_remains(offset: int) -> None:
    message = error_for(500, Failure("x" * offset + " sk-12345" * 1000)).message
    assert len(message) < 700
    assert set(message.partition(": ")[2].partition(" …")[0].split()) <= {"x" * offset, "sk-12345"}


@pytest.mark.parametrize("form", ["maximum context length is {0}", "{0} tokens > 10", "10 tokens > {0}"])
def test_a_number_that_is_no_window_is_left_out(form: str) -> None:
    said = Failure(form.format("9" * 5000), ("context_length_exceeded",))
    error = error_for(400, said)
    assert isinstance(error, LLMContextLengthError)
    assert (error.limit, error.requested) == (None, None)
