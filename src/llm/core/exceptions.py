"""What can go wrong, as one tree.

LLMException                        .provider .model .key .status .request_id .retryable .retry_after .attempts
├── LLMProviderError                the provider answered with a failure
│   ├── LLMInvalidRequestError      400/404/413/422: never retried
│   ├── LLMContextLengthError       the prompt does not fit; .limit .requested in tokens
│   ├── LLMContentFilterError       refused for its content
│   ├── LLMQuotaExceededError       the credit is gone: this key, not a pause
│   ├── LLMOverloadedError          503/529: the provider, not the key
│   └── LLMServerError              other 5xx, and answers that make no sense
├── LLMConnectionError              .sent: whether the request may have reached the provider
│   └── LLMStreamInterruptedError   the stream ended without its closing event; .partial holds what came
├── LLMRateLimitError               ours or the provider's, budgets included; .scope
├── LLMAuthenticationError          the key, or a model on that key, is refused
├── LLMTimeoutError                 .phase
├── LLMPoolExhaustedError           too many calls wait already, or too long
├── LLMCircuitOpenError             the breaker refuses without asking
├── LLMValidationError              the answer does not fit the response model
└── LLMConfigurationError           .problems: file, line, column, field, what was expected

Every kind knows whether another attempt can help (`retryable`); nobody decides that from a message's text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypedDict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Unpack

TimeoutPhase = Literal["pool", "connect", "first_token", "idle", "total"]
LimitScope = Literal["global", "provider", "user", "key"]


class ErrorFacts(TypedDict, total=False):
    """Where a failure happened: the keyword arguments that every `LLMException` takes."""

    provider: str | None
    model: str | None
    key: str | None
    status: int | None
    request_id: str | None
    retryable: bool | None
    retry_after: float | None


class LLMException(Exception):  # noqa: N818 - the contract's name
    """The root of everything this package raises on purpose.

    Attributes:
        provider: Section of the configuration that was asked, if one was.
        model: Model that was asked for.
        key: Fingerprint of the key that was used; never the key.
        status: HTTP status of the answer, if there was one.
        request_id: The provider's identifier of the exchange.
        retryable: Whether the same request can succeed when it is sent again.
        retry_after: Seconds that the provider (or our limiter) asks to wait; None when nothing was said.
        attempts: How many times the request was sent before this was raised.
    """

    retryable_by_default: ClassVar[bool] = False

    def __init__(self, message: str, **facts: Unpack[ErrorFacts]) -> None:
        """Keep the message and the facts; a fact that is not given is None."""
        super().__init__(message)
        self.message: str = message
        self.provider: str | None = facts.get("provider")
        self.model: str | None = facts.get("model")
        self.key: str | None = facts.get("key")
        self.status: int | None = facts.get("status")
        self.request_id: str | None = facts.get("request_id")
        retryable = facts.get("retryable")
        self.retryable: bool = self.retryable_by_default if retryable is None else retryable
        self.retry_after: float | None = facts.get("retry_after")
        self.attempts: int = 0

    def __reduce__(self) -> tuple[object, ...]:
        """Copy and pickle whole, whatever arguments a subclass takes."""
        return _rebuild, (type(self), self.args, self.__dict__)

    def __str__(self) -> str:
        """Return the message with the facts that help to act on it."""
        facts = (
            ("provider", self.provider),
            ("model", self.model),
            ("key", self.key or None),
            ("status", self.status),
            ("request", self.request_id),
            ("retry after", None if self.retry_after is None else f"{self.retry_after:g} s"),
            ("attempts", self.attempts or None),
        )
        told = ", ".join(f"{name} {value}" for name, value in facts if value is not None)
        return f"{self.message} ({told})" if told else self.message


def _rebuild(kind: type[LLMException], args: tuple[object, ...], facts: dict[str, object]) -> LLMException:
    error = kind.__new__(kind, *args)
    error.__dict__.update(facts)
    return error


class LLMProviderError(LLMException):
    """The provider answered, and its answer is a failure."""


class LLMInvalidRequestError(LLMProviderError):
    """The request itself is wrong (400, 404, 413, 422, or refused before sending); sending it again cannot help."""


class LLMContextLengthError(LLMProviderError):
    """The prompt does not fit the model.

    Attributes:
        limit: The model's context window in tokens, where known.
        requested: Tokens that the request needs, where known.
    """

    def __init__(
        self, message: str, *, limit: int | None = None, requested: int | None = None, **facts: Unpack[ErrorFacts]
    ) -> None:
        """Keep both counts beside the common facts."""
        super().__init__(message, **facts)
        self.limit: int | None = limit
        self.requested: int | None = requested


class LLMContentFilterError(LLMProviderError):
    """The provider refuses the request for its content."""


class LLMQuotaExceededError(LLMProviderError):
    """The account's credit is gone (402, `insufficient_quota`): another key may serve, waiting does not help."""


class LLMOverloadedError(LLMProviderError):
    """The provider is overloaded (503, 529), whichever key asks."""

    retryable_by_default = True


class LLMServerError(LLMProviderError):
    """The provider failed (other 5xx), or what it sent is no answer: cut, empty, garbled, or an error inside a 200."""

    retryable_by_default = True


class LLMConnectionError(LLMException):
    """The network failed.

    Attributes:
        sent: Whether the request may have reached the provider. False is certain, True is not.
    """

    retryable_by_default = True

    def __init__(self, message: str, *, sent: bool = False, **facts: Unpack[ErrorFacts]) -> None:
        """Keep whether a byte may have left."""
        super().__init__(message, **facts)
        self.sent: bool = sent


class LLMStreamInterruptedError(LLMConnectionError):
    """A stream ended without its closing event.

    Attributes:
        partial: The text that came before the end.
    """

    def __init__(self, message: str, *, partial: str = "", **facts: Unpack[ErrorFacts]) -> None:
        """Keep what came; the request was certainly sent."""
        super().__init__(message, sent=True, **facts)
        self.partial: str = partial


class LLMRateLimitError(LLMException):
    """A limit of ours or of the provider refuses the call, budgets included.

    Attributes:
        scope: Whose limit it is: `global`, `provider`, `user` or `key`.
        limit: Name of the limit's field in the configuration, where it is ours.
    """

    retryable_by_default = True

    def __init__(
        self, message: str, *, scope: LimitScope = "key", limit: str | None = None, **facts: Unpack[ErrorFacts]
    ) -> None:
        """Keep whose limit it is."""
        super().__init__(message, **facts)
        self.scope: LimitScope = scope
        self.limit: str | None = limit


class LLMAuthenticationError(LLMException):
    """The key is refused (401, or 403 about the key), or may not use this model.

    Attributes:
        model_only: True when only the pair of this key and this model is refused.
    """

    def __init__(self, message: str, *, model_only: bool = False, **facts: Unpack[ErrorFacts]) -> None:
        """Keep how much of the key is refused."""
        super().__init__(message, **facts)
        self.model_only: bool = model_only


class LLMTimeoutError(LLMException):
    """Time ran out.

    Attributes:
        phase: What was being waited for: `pool`, `connect`, `first_token`, `idle` or `total`.
        sent: Whether the request may have reached the provider.
        unread: Whether a stream ended since it was not read on, though there was more of it.
    """

    def __init__(
        self,
        message: str,
        *,
        phase: TimeoutPhase,
        sent: bool = True,
        unread: bool = False,
        **facts: Unpack[ErrorFacts],
    ) -> None:
        """Keep the phase."""
        super().__init__(message, **facts)
        self.phase: TimeoutPhase = phase
        self.sent: bool = sent
        self.unread: bool = unread


class LLMPoolExhaustedError(LLMException):
    """Too many calls wait for a key already, or this one waited longer than `pool.acquire_timeout`."""


class LLMCircuitOpenError(LLMException):
    """The provider failed so often lately that it is not asked for a while."""


class LLMValidationError(LLMException):
    """The answer does not fit `response_model`, also after it was asked for once more.

    Attributes:
        problems: What is wrong, a line per field, in the order of the model; nothing of the answer itself.
        partial: The answer's text.
    """

    def __init__(
        self, message: str, *, problems: Sequence[str] = (), partial: str = "", **facts: Unpack[ErrorFacts]
    ) -> None:
        """Keep what is wrong, and with what."""
        super().__init__(message, **facts)
        self.problems: tuple[str, ...] = tuple(problems)
        self.partial: str = partial


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One mistake in a configuration.

    Attributes:
        field: Dotted path of the field, such as `providers.openai.models[2]`.
        message: What is wrong, what was expected, and what to do.
        file: File it stands in; None for a mapping or the environment.
        line: Line, from 1.
        column: Column, from 1.
    """

    field: str
    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        """Return `file:line:column: field: message`, as compilers and editors write it."""
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        return ": ".join(part for part in (place, self.field, self.message) if part)


class LLMConfigurationError(LLMException):
    """A configuration, or a use of one, that cannot work; all mistakes in one message.

    Attributes:
        problems: Each mistake by itself, in the order of the file.
    """

    def __init__(self, message: str, *, problems: Sequence[ConfigProblem] = (), **facts: Unpack[ErrorFacts]) -> None:
        """Keep the mistakes and list them below the message."""
        self.problems: tuple[ConfigProblem, ...] = tuple(problems)
        super().__init__("\n  ".join([message, *map(str, self.problems)]), **facts)

    @property
    def file(self) -> str | None:
        """File of the first mistake."""
        return self.problems[0].file if self.problems else None

    @property
    def line(self) -> int | None:
        """Line of the first mistake, from 1."""
        return self.problems[0].line if self.problems else None

    @property
    def column(self) -> int | None:
        """Column of the first mistake, from 1."""
        return self.problems[0].column if self.problems else None

    @property
    def field(self) -> str | None:
        """Path of the first mistake's field."""
        return self.problems[0].field if self.problems else None


def kind_of(error: BaseException) -> str:
    """Return a failure's name, and of our own limits which one refused, without its words."""
    name = type(error).__name__
    if isinstance(error, LLMRateLimitError) and error.limit is not None:
        return f"{name}: {error.limit} of the {error.scope}"
    return name
