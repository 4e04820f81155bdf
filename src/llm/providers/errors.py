"""The one table from a vendor's failure to our exception, and the one back.

Sources: https://platform.openai.com/docs/guides/error-codes, https://docs.claude.com/en/api/errors,
https://openrouter.ai/docs/api-reference/errors
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple

from llm.core.exceptions import (
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
    LLMProviderError,
    LLMQuotaExceededError,
    LLMRateLimitError,
    LLMServerError,
    LLMStreamInterruptedError,
    LLMTimeoutError,
    LLMValidationError,
)

if TYPE_CHECKING:
    from typing import Unpack

    from llm.core.exceptions import ErrorFacts

    from .failure import Failure

_EVENT: Final = 200
"""The status of a failure that comes inside an answer."""


class Row(NamedTuple):
    """A line of the table.

    Attributes:
        status: HTTP status; None for any.
        code: The vendor's code or type; None for any.
        kind: The exception.
        model_only: For `LLMAuthenticationError`: only this key with this model is refused.
    """

    status: int | None
    code: str | None
    kind: type[LLMException]
    model_only: bool = False


# Where a response failed for what it was asked with (OpenAI's Responses API), which no second try changes.
_WRONG_INPUT: Final = (
    "invalid_prompt", "invalid_encrypted_content", "data_residency_mismatch", "invalid_image", "invalid_image_format",
    "invalid_base64_image", "invalid_image_url", "invalid_image_mode", "image_too_large", "image_too_small",
    "image_parse_error", "image_file_too_large", "unsupported_image_media_type", "empty_image_file",
    "failed_to_download_image", "image_file_not_found",
)  # fmt: skip

# The most exact row wins: status and code, then code, then status. A type that says less than the status does
# (`invalid_request_error` comes with 401 and 404, too) stands only under 200, where there is no other word.
TABLE: Final = (
    Row(None, "insufficient_quota", LLMQuotaExceededError),
    Row(None, "billing_hard_limit_reached", LLMQuotaExceededError),
    Row(None, "billing_not_active", LLMQuotaExceededError),
    Row(None, "billing_error", LLMQuotaExceededError),
    Row(None, "enforced_spend_limit_reached", LLMQuotaExceededError),
    Row(None, "contract_spend_limit_reached", LLMQuotaExceededError),
    Row(None, "context_length_exceeded", LLMContextLengthError),
    Row(None, "content_filter", LLMContentFilterError),
    Row(None, "content_policy_violation", LLMContentFilterError),
    Row(None, "moderation", LLMContentFilterError),
    Row(None, "image_content_policy_violation", LLMContentFilterError),
    Row(None, "bio_policy", LLMContentFilterError),
    Row(None, "misalignment_policy_violation", LLMContentFilterError),
    Row(None, "invalid_api_key", LLMAuthenticationError),
    Row(None, "API_KEY_INVALID", LLMAuthenticationError),
    Row(None, "account_deactivated", LLMAuthenticationError),
    Row(None, "authentication_error", LLMAuthenticationError),
    Row(403, "permission_error", LLMAuthenticationError, model_only=True),
    Row(403, "model_not_found", LLMAuthenticationError, model_only=True),
    Row(424, "api_error", LLMServerError),  # Bedrock: the model failed, whatever it was asked
    Row(None, "rate_limit_exceeded", LLMRateLimitError),
    Row(None, "rate_limit_error", LLMRateLimitError),
    Row(None, "openrouter_in_flight_budget", LLMRateLimitError),
    Row(None, "overloaded_error", LLMOverloadedError),
    Row(None, "server_is_overloaded", LLMOverloadedError),
    Row(None, "slow_down", LLMOverloadedError),
    Row(_EVENT, "permission_error", LLMAuthenticationError, model_only=True),
    Row(_EVENT, "invalid_request_error", LLMInvalidRequestError),
    Row(_EVENT, "request_too_large", LLMInvalidRequestError),
    Row(_EVENT, "not_found_error", LLMInvalidRequestError),
    *(Row(_EVENT, code, LLMInvalidRequestError) for code in _WRONG_INPUT),
    Row(_EVENT, None, LLMServerError),
    Row(400, None, LLMInvalidRequestError),
    Row(401, None, LLMAuthenticationError),
    Row(402, None, LLMQuotaExceededError),
    Row(403, None, LLMInvalidRequestError),
    Row(404, None, LLMInvalidRequestError),
    Row(408, None, LLMServerError),
    Row(409, None, LLMServerError),
    Row(413, None, LLMInvalidRequestError),
    Row(422, None, LLMInvalidRequestError),
    Row(425, None, LLMServerError),
    Row(429, None, LLMRateLimitError),
    Row(503, None, LLMOverloadedError),
    Row(529, None, LLMOverloadedError),
)

_ROWS: Final = {(row.status, row.code): row for row in TABLE}

_UNCLEAR: Final = frozenset({_EVENT, 400})

# What a vendor says in words alone, under a 400 that could mean anything. Here, so that nobody else reads text.
_SAID: Final = (
    (
        # The second is Bedrock's.
        re.compile(
            r"prompt is too long|Input is too long for|"
            r"maximum context length|exceeds? (?:the )?context (?:limit|window)"
        ),
        "context_length_exceeded",
    ),
    (re.compile(r"credit balance is too low"), "billing_error"),
    (re.compile(r"blocked by content filtering"), "content_filter"),
)

_REMEDIES: Final[dict[type[LLMException], str]] = {
    LLMInvalidRequestError: "correct the request; sending it again cannot help",
    LLMContextLengthError: "shorten the conversation, ask for fewer tokens, or take a model with a larger window",
    LLMContentFilterError: "change the content; sending it again cannot help",
    LLMQuotaExceededError: "add credit at the provider, or give another key",
    LLMOverloadedError: "try again later, or configure a fallback",
    LLMServerError: "try again; if it stays, see the provider's status page",
    LLMRateLimitError: "wait, or set lower rate_limits so that calls wait before they are sent",
    LLMAuthenticationError: "check the key, and what the account behind it may use",
}


def error_for(status: int, failure: Failure, /, **facts: Unpack[ErrorFacts]) -> LLMException:
    """Return the exception for a vendor's failure; its words are the vendor's, which may repeat a key.

    Args:
        status: HTTP status of the answer; 200 for a failure inside one.
        failure: What the vendor says.
        facts: Where it happened, as every `LLMException` takes them.
    """
    if status < HTTPStatus.MULTIPLE_CHOICES and failure.status is not None:
        status = failure.status
    row = _row(status, failure)
    said = f": {words}" if (words := _short(_words(failure)).rstrip(". ")) else ""
    message = f"the provider answered with a failure{said}; {_REMEDIES[row.kind]}"
    facts["status"] = status
    if row.kind is LLMContextLengthError:
        limit, requested = _window(_words(failure))
        return LLMContextLengthError(message, limit=limit, requested=requested, **facts)
    if row.kind is LLMAuthenticationError:
        return LLMAuthenticationError(message, model_only=row.model_only, **facts)
    return row.kind(message, **facts)


def _words(failure: Failure) -> str:
    return f"{failure.message.rstrip('. ')} ({failure.behind})" if failure.behind else failure.message


_MESSAGE_CHARS: Final = 500


def _short(message: str) -> str:
    # Cut between words only: the half of a key would not be known as one, and would stay.
    message = message.strip()
    return message if len(message) <= _MESSAGE_CHARS else f"{message[:_MESSAGE_CHARS].rpartition(' ')[0]} …"


def _row(status: int, failure: Failure) -> Row:
    said = _said(failure) if status in _UNCLEAR else []
    for code in (*said, *failure.codes):
        row = _ROWS.get((status, code)) or _ROWS.get((None, code))
        if row is not None:
            return row
    known = _ROWS.get((status, None))
    return known or Row(
        status, None, LLMServerError if status >= HTTPStatus.INTERNAL_SERVER_ERROR else LLMInvalidRequestError
    )


def _said(failure: Failure) -> list[str]:
    return [
        code
        for pattern, code in _SAID
        # The credit behind a router is the router's.
        if pattern.search(failure.message) or (code != "billing_error" and pattern.search(failure.behind))
    ]


# Two numbers that vendors put beside the words, in one order or the other. Of more digits than a window has, a text
# tells nothing, and Python reads no number of thousands of them.
_NUMBER: Final = r"(?<!\d)(\d{1,15})(?!\d)"
_LIMIT_FIRST: Final = re.compile(rf"maximum context length (?:is|of) {_NUMBER}(?:\D+{_NUMBER})?")
_LIMIT_LAST: Final = re.compile(rf"{_NUMBER}(?: \+ {_NUMBER})?(?: tokens)? > {_NUMBER}")


def _window(message: str) -> tuple[int | None, int | None]:
    if found := _LIMIT_LAST.search(message):
        return int(found[3]), int(found[1]) + int(found[2] or 0)
    if found := _LIMIT_FIRST.search(message):
        return int(found[1]), int(found[2]) if found[2] else None
    return None, None


class Wire(NamedTuple):
    """How a failure is told to a caller in a vendor's dialect.

    Attributes:
        status: HTTP status.
        type: The vendor's type of error.
        code: OpenAI's code; None where it has none, and in Anthropic's dialect.
    """

    status: int
    type: str
    code: str | None = None


# Kind → (OpenAI's form, Anthropic's form). A kind that is not here is told as the nearest one above it.
_BACK: Final[dict[type[LLMException], tuple[Wire, Wire]]] = {
    LLMException: (Wire(500, "server_error"), Wire(500, "api_error")),
    LLMProviderError: (Wire(502, "server_error"), Wire(502, "api_error")),
    LLMInvalidRequestError: (Wire(400, "invalid_request_error"), Wire(400, "invalid_request_error")),
    LLMContextLengthError: (
        Wire(400, "invalid_request_error", "context_length_exceeded"),
        Wire(400, "invalid_request_error"),
    ),
    LLMContentFilterError: (Wire(400, "invalid_request_error", "content_filter"), Wire(400, "invalid_request_error")),
    LLMQuotaExceededError: (Wire(429, "insufficient_quota", "insufficient_quota"), Wire(402, "billing_error")),
    LLMOverloadedError: (Wire(503, "server_error", "overloaded"), Wire(529, "overloaded_error")),
    LLMServerError: (Wire(502, "server_error"), Wire(502, "api_error")),
    LLMConnectionError: (Wire(502, "server_error", "connection_error"), Wire(502, "api_error")),
    LLMStreamInterruptedError: (Wire(502, "server_error", "stream_interrupted"), Wire(502, "api_error")),
    LLMRateLimitError: (Wire(429, "rate_limit_error", "rate_limit_exceeded"), Wire(429, "rate_limit_error")),
    LLMAuthenticationError: (
        Wire(401, "invalid_request_error", "invalid_api_key"),
        Wire(401, "authentication_error"),
    ),
    LLMTimeoutError: (Wire(504, "server_error", "timeout"), Wire(504, "timeout_error")),
    LLMPoolExhaustedError: (Wire(503, "server_error", "overloaded"), Wire(529, "overloaded_error")),
    LLMCircuitOpenError: (Wire(503, "server_error", "overloaded"), Wire(529, "overloaded_error")),
    LLMValidationError: (Wire(502, "server_error", "invalid_answer"), Wire(502, "api_error")),
    LLMConfigurationError: (Wire(500, "server_error"), Wire(500, "api_error")),
}
_FORBIDDEN: Final = (Wire(403, "invalid_request_error", "model_not_found"), Wire(403, "permission_error"))
_NOT_FOUND: Final = (Wire(404, "invalid_request_error"), Wire(404, "not_found_error"))
_TOO_LARGE: Final = (Wire(413, "invalid_request_error"), Wire(413, "request_too_large"))


def wire_for(error: LLMException, *, anthropic: bool = False) -> Wire:
    """Return how `error` is told in OpenAI's dialect, or in Anthropic's."""
    return _forms(error)[anthropic]


def _forms(error: LLMException) -> tuple[Wire, Wire]:
    match error:
        case LLMAuthenticationError(model_only=True):
            return _FORBIDDEN
        case LLMInvalidRequestError(status=404):
            return _NOT_FOUND
        case LLMInvalidRequestError(status=413):
            return _TOO_LARGE
        case _:
            return next(_BACK[kind] for kind in type(error).__mro__ if kind in _BACK)
