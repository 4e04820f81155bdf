"""What goes in and what comes out of a call, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, cast

from llm.utils.frozen import copier

from .call import Call
from .exceptions import LimitScope, LLMInvalidRequestError
from .messages import Message, MessageRole, MessagesLike, TextPart, ThinkingPart, ToolCall, read_messages
from .options import check_cache_policy, check_options, read_stop, read_tools

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .messages import Part

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
CacheScope = Literal["shared", "user"]


class LLMProvider(StrEnum):
    """The kinds of provider that come with the package; a section's name may be any other."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    OPENROUTER = "openrouter"
    LOCAL = "local"


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of one answer, or of many together.

    Attributes:
        input_tokens: Tokens of the prompt, cached ones included.
        output_tokens: Tokens of the answer, thoughts included.
        cached_input_tokens: Tokens of the prompt that the provider read from its cache.
        reasoning_tokens: Tokens of the answer that were thoughts.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: TokenUsage) -> TokenUsage:
        """Return both together."""
        return TokenUsage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A tool that the model may ask for.

    Attributes:
        name: Its name.
        description: What it does, for the model.
        parameters: JSON Schema of its arguments.
        strict: Whether the provider must hold the arguments to the schema.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})
    strict: bool | None = None

    def __post_init__(self) -> None:
        """Refuse what no provider can read.

        Raises:
            LLMInvalidRequestError: A field is of the wrong kind; names it.
        """
        given: Any = self  # what came may differ from what is declared
        if not (isinstance(given.name, str) and isinstance(given.description, str) and given.name):
            raise LLMInvalidRequestError("a ToolDefinition's name and description are texts, and the name is not empty")
        if not isinstance(given.parameters, Mapping):
            raise LLMInvalidRequestError(
                f"parameters of the tool {given.name!r} is a {type(given.parameters).__name__}; pass a JSON Schema"
            )


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call in a stream.

    Attributes:
        index: Which call of the answer it belongs to, from 0; pieces of several calls may come interleaved.
        id: The call's id, in its first piece.
        name: The tool's name, in its first piece.
        arguments: More of the arguments' JSON text.
    """

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How one call uses the cache.

    Attributes:
        ttl: Seconds that the answer may be used again; None: as configured.
        refresh: Ask again, and keep the new answer.
        scope: `shared` or `user`; None: as configured.

    Raises:
        LLMInvalidRequestError: A field is of the wrong kind or out of range; names it and what is expected.
    """

    ttl: float | None = None
    refresh: bool = False
    scope: CacheScope | None = None

    def __post_init__(self) -> None:
        """Refuse what would fail, or share too much, later."""
        check_cache_policy(self)


@dataclass(frozen=True, slots=True)
class LLMRequest:
    """All of one request; the names and defaults of `LLMClient.complete`, and `stream`.

    Attributes:
        messages: The conversation; text and mappings become a tuple of `Message`.
        model: Model, `provider/model` or alias; None: one is chosen.
        temperature: 0 to 2; None: the provider's default.
        top_p: 0 to 1; None: the provider's default.
        max_tokens: Most tokens of the answer, 1 or more.
        stop: Texts that end the answer.
        seed: For repeatable sampling, where the provider has it.
        tools: `ToolDefinition`s, or mappings in OpenAI's form.
        tool_choice: `auto`, `none`, `required`, a tool's name, or the vendor's mapping.
        response_format: `text`, `json_object`, or the vendor's mapping.
        response_model: Pydantic class that `response.parsed` is an instance of.
        reasoning_effort: `low`, `medium`, `high`, where the model has it.
        timeout: Seconds for all of the call; None: as configured.
        user: Tenant whose limits and cache scope apply.
        priority: Higher goes first; None: the client's.
        cache: None: as configured. False: no cache. Or a `CachePolicy`.
        metadata: The caller's own notes; never sent.
        extra: Vendor fields, sent as they are.
        stream: Whether the answer comes in chunks.
        call: The record of the call that this request belongs to; set by the client.

    Raises:
        LLMInvalidRequestError: An option is of the wrong kind or out of range; names it and the range.
    """

    messages: tuple[Message, ...]
    model: str | None = field(default=None, kw_only=True)
    temperature: float | None = field(default=None, kw_only=True)
    top_p: float | None = field(default=None, kw_only=True)
    max_tokens: int | None = field(default=None, kw_only=True)
    stop: tuple[str, ...] | None = field(default=None, kw_only=True)
    seed: int | None = field(default=None, kw_only=True)
    tools: tuple[ToolDefinition | Mapping[str, Any], ...] | None = field(default=None, kw_only=True)
    tool_choice: str | Mapping[str, Any] | None = field(default=None, kw_only=True)
    response_format: str | Mapping[str, Any] | None = field(default=None, kw_only=True)
    response_model: type | None = field(default=None, kw_only=True)
    reasoning_effort: str | None = field(default=None, kw_only=True)
    timeout: float | None = field(default=None, kw_only=True)
    user: str | None = field(default=None, kw_only=True)
    priority: int | None = field(default=None, kw_only=True)
    cache: CachePolicy | bool | None = field(default=None, kw_only=True)
    metadata: Mapping[str, Any] | None = field(default=None, kw_only=True)
    extra: Mapping[str, Any] | None = field(default=None, kw_only=True)
    stream: bool = field(default=False, kw_only=True)
    call: Call | None = field(default=None, kw_only=True, repr=False, compare=False)

    if TYPE_CHECKING:

        def __init__(  # noqa: PLR0913 - the contract's options
            self,
            messages: MessagesLike,
            *,
            model: str | None = None,
            temperature: float | None = None,
            top_p: float | None = None,
            max_tokens: int | None = None,
            stop: str | Sequence[str] | None = None,
            seed: int | None = None,
            tools: Sequence[ToolDefinition | Mapping[str, Any]] | None = None,
            tool_choice: str | Mapping[str, Any] | None = None,
            response_format: str | Mapping[str, Any] | None = None,
            response_model: type | None = None,
            reasoning_effort: str | None = None,
            timeout: float | None = None,
            user: str | None = None,
            priority: int | None = None,
            cache: CachePolicy | bool | None = None,
            metadata: Mapping[str, Any] | None = None,
            extra: Mapping[str, Any] | None = None,
            stream: bool = False,
            call: Call | None = None,
        ) -> None:
            """Take more forms than are kept."""

    def __post_init__(self) -> None:
        """Bring the arguments into their one form."""
        given: Any = self  # the declared types are what is kept, not what came
        if not _are_read(given.messages):
            object.__setattr__(self, "messages", read_messages(given.messages))
        if given.stop is not None:
            object.__setattr__(self, "stop", read_stop(given.stop))
        if given.tools is not None:
            object.__setattr__(self, "tools", read_tools(given.tools, ToolDefinition))
        check_options(given, CachePolicy)


request_with = copier(LLMRequest)
"""Returns a request with other values in the fields that are named, unchecked."""


def _are_read(messages: object) -> bool:
    return (
        type(messages) is tuple
        and len(cast("tuple[object, ...]", messages)) > 0
        and all(type(m) is Message for m in cast("tuple[object, ...]", messages))
    )


@dataclass(frozen=True, slots=True)
class StreamChunk:
    """A piece of a streamed answer; `str(chunk)` is its text.

    Attributes:
        content: More text.
        tool_calls: Pieces of tool calls.
        finish_reason: Why the answer ended, in its last chunks.
        usage: Tokens of the whole answer, where the provider sends them: near the end.
        thinking: A piece of a thought.
    """

    content: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    finish_reason: FinishReason | None = None
    usage: TokenUsage | None = None
    thinking: ThinkingPart | None = None

    def __str__(self) -> str:
        """Return the text."""
        return self.content


@dataclass(frozen=True, slots=True)
class LLMResponse:
    """A whole answer; `str(response)` is its text.

    Attributes:
        id: The provider's identifier of the answer.
        content: The text.
        model: Model that answered, as the provider names it.
        provider: Section of the configuration that answered.
        usage: Tokens.
        finish_reason: `stop`, `length`, `tool_calls` or `content_filter`; None where the provider gives none.
        tool_calls: Tools that the model asks for.
        parsed: Instance of the request's `response_model`, if it had one.
        cached: Whether the cache answered.
        cost: US dollars; None where the model's price is unknown.
        latency: Seconds from the call to the whole answer, waiting included.
        attempts: How often the request was sent; 0 for an answer from the cache.
        key: Fingerprint of the key; never the key.
        raw: The provider's answer as it came, where there is one.
        thinking: The model's thoughts, to hand back in the next turn.
    """

    id: str = ""
    content: str = ""
    model: str = ""
    provider: str = ""
    usage: TokenUsage = TokenUsage()
    finish_reason: FinishReason | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    parsed: Any = None
    cached: bool = False
    cost: float | None = None
    latency: float = 0.0
    attempts: int = 0
    key: str | None = None
    raw: Mapping[str, Any] | None = field(default=None, repr=False)
    thinking: tuple[ThinkingPart, ...] = ()

    def __str__(self) -> str:
        """Return the text."""
        return self.content

    @property
    def message(self) -> Message:
        """The answer as a turn, to append to the conversation."""
        if not self.thinking:
            return Message(MessageRole.ASSISTANT, self.content, tool_calls=self.tool_calls)
        parts: tuple[Part, ...] = (*self.thinking, TextPart(self.content)) if self.content else self.thinking
        return Message(MessageRole.ASSISTANT, parts, tool_calls=self.tool_calls)


response_with = copier(LLMResponse)
"""Returns a response with other values in the fields that are named."""


@dataclass(frozen=True, slots=True)
class EmbeddingResponse:
    """Vectors of texts, in the texts' order.

    Attributes:
        embeddings: A vector per text, all of one length.
        model: Model that made them.
        provider: Section of the configuration that answered.
        usage: Tokens.
        cost: US dollars; None where the model's price is unknown.
        key: Fingerprint of the key.
    """

    embeddings: tuple[tuple[float, ...], ...]
    model: str = ""
    provider: str = ""
    usage: TokenUsage = TokenUsage()
    cost: float | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class HealthStatus:
    """What a provider answered when it was asked how it is.

    Attributes:
        healthy: Whether it can serve.
        latency: Seconds that the answer took; None where it was not asked.
        error: What is wrong, and what to do; None when healthy.
    """

    healthy: bool
    latency: float | None = None
    error: str | None = None

    def __bool__(self) -> bool:
        """Return whether it can serve."""
        return self.healthy


@dataclass(frozen=True, slots=True)
class Admission:
    """What the limiter would do with a request now.

    Attributes:
        admitted: Whether it would be sent at once.
        wait_seconds: Seconds until it could be sent, after those who wait already and if nothing else came; infinite
            where it never fits.
        level: Level of the binding limit: `global`, `provider`, `user` or `key`; None where nothing binds.
        limit: Its field's name in the configuration.
        key: Fingerprint of the key that would be taken.
        saturation: How full the binding limit is, 0 to 1.
        as_of: Monotonic seconds of this view.
    """

    admitted: bool
    wait_seconds: float = 0.0
    level: LimitScope | None = None
    limit: str | None = None
    key: str | None = None
    saturation: float = 0.0
    as_of: float = 0.0
