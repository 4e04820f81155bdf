"""The seams: what a middleware, a provider and a transport are, and what the manager is given to own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

from llm.utils.clock import Clock
from llm.utils.redact import Secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from .call import Call, Charge
    from .selection import Selection
    from .standing import EngineStanding, HealthStatus
    from .stream import LLMResult, LLMStream
    from .types import LLMRequest, LLMResponse, TokenUsage

CallNext: TypeAlias = "Callable[[LLMRequest], Awaitable[LLMResult]]"
"""The rest of the chain.

It runs once per attempt for what stands inside `retry`, once per call for what stands outside. It returns a response,
or a stream whose first chunk is in hand; it raises `LLMException` or `CancelledError`.
"""


@runtime_checkable
class Middleware(Protocol):
    """A layer of the chain; a plain coroutine function with these parameters is one too.

    To change the request, pass on `dataclasses.replace(request, …)`. To learn the outcome of a call whose result may be
    a stream, use `llm.core.stream.at_end`.
    """

    async def __call__(self, request: LLMRequest, call_next: CallNext) -> LLMResult:
        """Handle one request: pass it on, answer it, repeat it or refuse it."""
        ...


@runtime_checkable
class CallObserver(Protocol):
    """A layer that wants to hear of whole calls too, not only of the attempts that pass through it."""

    def call_ended(
        self, call: Call, request: LLMRequest, response: LLMResponse | None, error: BaseException | None
    ) -> None:
        """Hear of a call's one outcome, hits, followers, refusals and cancellations included; must not block.

        `response` carries cost, latency and attempts. Of a call that was cancelled `error` is `CancelledError`, of a
        stream that was left early `GeneratorExit`.
        """


@runtime_checkable
class Provider(Protocol):
    """One key at one vendor, or a model on the box.

    It sends once and never repeats; it never waits for capacity. What fails raises an `LLMException`, with `.sent` or
    `.status` telling what is known.
    """

    async def initialize(self) -> None:
        """Do what must be done before the first call; called once, before it."""

    async def complete(self, request: LLMRequest) -> LLMResponse:
        """Answer whole."""
        ...

    async def stream(self, request: LLMRequest) -> LLMStream:
        """Return a stream whose first chunk is in hand (`await LLMStream(source).begin()`)."""
        ...

    async def health_check(self) -> HealthStatus:
        """Ask whether it can serve, at no cost in tokens."""
        ...

    async def close(self) -> None:
        """Give back what it holds; calls that run have ended before."""


@runtime_checkable
class Charging(Protocol):
    """A provider that knows what its vendor charges at admission; others are charged by the common estimate."""

    def charge(self, request: LLMRequest, expected_output: int) -> Charge:
        """Return the charge; `expected_output` stands in, in tokens, where the request has no `max_tokens`."""
        ...

    def used(self, usage: TokenUsage) -> Charge:
        """Return what an answer of this usage takes in the end."""
        ...


@runtime_checkable
class Embedding(Protocol):
    """A provider that makes vectors of texts."""

    async def embed(self, request: LLMRequest) -> LLMResponse:
        """Return the vectors of `request.embed` as `embeddings`: one per text, in order, all of one length."""
        ...


@dataclass(frozen=True, slots=True)
class EmbeddingLimits:
    """The most that one request for vectors may hold; `client.embed` makes several of what is more.

    Attributes:
        texts: How many texts; None for any number.
        tokens: How many tokens, of all texts together; None for any number.
    """

    texts: int | None = None
    tokens: int | None = None


@runtime_checkable
class EmbeddingLimited(Protocol):
    """A provider that knows how much one request for vectors may hold, or that it makes none after all."""

    @property
    def embedding_limits(self) -> EmbeddingLimits | None:
        """The most in one request; None where it makes no vectors."""
        ...


@runtime_checkable
class TokenCounting(Protocol):
    """A provider that counts a prompt's tokens exactly."""

    async def count_tokens(self, request: LLMRequest) -> int | None:
        """Return the tokens that the request's prompt takes; None where it turns out that it cannot tell."""
        ...


@runtime_checkable
class RunsModels(Protocol):
    """A provider that runs its models in this process, with limits and figures of its own."""

    def engine_standing(self) -> EngineStanding | None:
        """Return how that does now, from any thread; None while nothing is loaded. Must not block."""
        ...


class Reply(Protocol):
    """An HTTP answer whose body is still to be read."""

    @property
    def status(self) -> int:
        """HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers, found in any case of letters."""
        ...

    async def read(self) -> bytes:
        """Return the whole body.

        Raises:
            LLMConnectionError: It broke off.
            LLMServerError: It is larger than any answer may be.
        """
        ...

    async def chunk(self) -> bytes:
        """Return the next bytes as they come; empty at the orderly end of the body.

        Raises:
            LLMConnectionError: It broke off, or `close` was called.
        """
        ...

    def waiting(self) -> bool:
        """Return whether bytes wait to be read."""
        ...

    def close(self) -> None:
        """Close it: back to the pool of connections when it was read to its end, cut otherwise."""


class Transport(Protocol):
    """Bytes over HTTP; knows no dialect."""

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
        """Send once and return when the answer's head is there.

        Raises:
            LLMConnectionError: No answer; `.sent` tells whether the request may have arrived.
            LLMTimeoutError: No connection within the connect time.
        """
        ...

    async def close(self) -> None:
        """Close all connections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """How models on the box run.

    Attributes:
        dtype: Numbers: `auto`, `float32`, `bfloat16` or `float16`.
        threads: Cores to use; None: all physical ones.
        memory_limit: Bytes that models and their requests may have together; None: no limit.
        max_batch: Requests to one model that run at once.
        max_waiting: Requests that may wait for a place.
        prompt_lookup: Whether next tokens are guessed from the text so far, and those that are right taken together.
    """

    dtype: str = "auto"
    threads: int | None = None
    memory_limit: int | None = None
    max_batch: int = 64
    max_waiting: int = 256
    prompt_lookup: bool = True


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """What a provider is made of; `register_provider(name, factory)` takes a factory of these.

    Attributes:
        name: Section of the configuration, for responses and errors.
        models: Models of the section.
        clock: Its time.
        transport: Its way to the network.
        key: Its key; None where it needs none.
        base_url: Where it is; None for the vendor's own address.
        device: For a model on the box: `auto`, `cpu`, `cuda` or `mps`.
        engine: For a model on the box: how it runs.
        api: Which of OpenAI's two interfaces it speaks: `chat_completions` or `responses`.
        headers: Headers to send with every request, by name; those that must not be shown as secrets.
        on_unsupported: What becomes of a sampling parameter that the model does not take.
        models_ttl: Seconds after which what is known of the models is asked for again.
        routing: What the section's `routing` adds to the body of every request.
    """

    name: str
    models: tuple[str, ...]
    clock: Clock
    transport: Transport
    key: Secret | None = None
    base_url: str | None = field(default=None, repr=False)  # a password may stand in it
    device: str = "auto"
    engine: EngineSettings = EngineSettings()
    api: str = "chat_completions"
    headers: Mapping[str, Secret | str] = field(default_factory=dict[str, Secret | str])
    on_unsupported: Literal["drop", "refuse"] = "drop"
    models_ttl: float = 3600.0
    routing: Mapping[str, Any] = field(default_factory=dict[str, Any])


ProviderFactory: TypeAlias = "Callable[[ProviderSettings], Provider]"


class Answers(Protocol):
    """The answers that are kept."""

    def key(self, provider: str, request: LLMRequest) -> str:
        """Return the key of the answer that a provider gives to a request.

        Raises:
            LLMInvalidRequestError: It has no JSON form, and so no key.
        """
        ...

    async def has(self, key: str) -> bool:
        """Return whether an answer is kept under the key, which does not count as its use; False where that fails."""
        ...

    async def remove(self, keys: Iterable[str]) -> int:
        """Remove the answers under these keys, those on their way there included; returns how many there were.

        Raises:
            LLMConnectionError: The store failed.
        """
        ...

    async def remove_all(self, chosen: Selection) -> int:
        """Remove the answers that fit, those on their way there included; returns how many there were.

        Raises:
            LLMConnectionError: The store failed.
        """
        ...

    async def clear(self) -> None:
        """Remove every answer.

        Raises:
            LLMConnectionError: The store failed.
        """
