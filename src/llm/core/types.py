"""What goes in and what comes out of a call, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from llm.utils.frozen import completer, copier, filler, quick

from . import choices
from .call import Call
from .choices import Choice, Continuation, TokenLogprob
from .exceptions import LLMInvalidRequestError
from .messages import Message, MessagesLike, ThinkingPart, ToolCall, are_read, read_messages
from .options import check_cache_policy, check_continuation, check_embedding, check_options, read_stop, read_tools
from .texts import EmbeddingInput
from .vendor import CachePoint

if TYPE_CHECKING:
    from collections.abc import Sequence

FinishReason = choices.FinishReason
CacheScope = Literal["shared", "user"]


class LLMProvider(StrEnum):
    """The kinds of provider that come with the package; a section's name may be any other."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    OPENROUTER = "openrouter"
    LOCAL = "local"


@quick
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
        cache_point: Marks the tools up to this one for the provider's prompt cache.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})
    strict: bool | None = None
    cache_point: CachePoint | None = None

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


@quick
@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call in a stream.

    Attributes:
        index: Which call of the answer it belongs to, from 0; pieces of several calls may come interleaved.
        id: The call's id, in its first piece.
        name: The tool's name, in its first piece.
        arguments: More of the arguments' text.
        custom: Whether the tool takes free text, as in `ToolCall`.
        signature: The call's signature, in one of its pieces.
    """

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    custom: bool = False
    signature: str | None = None


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How one call uses the cache.

    Attributes:
        ttl: Seconds that the answer may be used again; None: as configured.
        refresh: Ask again, and keep the new answer.
        scope: `shared` or `user`; None: as configured.
        stale_while_revalidate: Seconds after its time during which an answer is given all the same, while it is asked
            for again beside the call, once; None: as configured, 0 where nothing is.
        stale_if_error: Seconds after its time during which it is given where the provider fails; None: the same.

    Raises:
        LLMInvalidRequestError: A field is of the wrong kind or out of range; names it and what is expected.
    """

    ttl: float | None = None
    refresh: bool = False
    scope: CacheScope | None = None
    stale_while_revalidate: float | None = None
    stale_if_error: float | None = None

    def __post_init__(self) -> None:
        """Refuse what would fail, or share too much, later."""
        check_cache_policy(self)


@quick
@dataclass(frozen=True, slots=True)
class LLMRequest:
    """All of one request; the names and defaults of `LLMClient.complete`, and `stream`.

    Attributes:
        messages: The conversation; text and mappings become a tuple of `Message`. Empty in a call for vectors.
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
        continue_stream: Whether a stream that breaks after text came is carried on, by the next target or else by the
            same one again; `response.continued` tells who did. Not with tools, nor where the answer has a form.
        call: The record of the call that this request belongs to; set by the client.
        embed: Texts whose vectors are asked for, in place of an answer to a conversation; what concerns answers in
            words (sampling, tools, formats, streaming) is then refused.

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
    continue_stream: bool = field(default=False, kw_only=True)
    call: Call | None = field(default=None, kw_only=True, repr=False, compare=False)
    embed: EmbeddingInput | None = field(default=None, kw_only=True)

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
            continue_stream: bool = False,
            call: Call | None = None,
            embed: EmbeddingInput | None = None,
        ) -> None:
            """Take more forms than are kept."""

    def __post_init__(self) -> None:
        """Bring the arguments into their one form."""
        given: Any = self  # the declared types are what is kept, not what came
        if given.embed is not None:
            check_embedding(given, EmbeddingInput)
            object.__setattr__(self, "messages", ())
        elif type(given.messages) is str or not are_read(given.messages):
            object.__setattr__(self, "messages", read_messages(given.messages))
        if given.stop is not None:
            object.__setattr__(self, "stop", read_stop(given.stop))
        if given.tools is not None:
            object.__setattr__(self, "tools", read_tools(given.tools, ToolDefinition))
        check_options(given, CachePolicy)
        if given.continue_stream is not False:
            check_continuation(given)


request_with = copier(LLMRequest)
"""Returns a request with other values in the fields that are named, unchecked."""

fill_request = filler(LLMRequest, "model", "user", "priority", "call")
"""Completes a request that was made for one call and is in nobody's hands yet."""


@quick
@dataclass(frozen=True, slots=True)
class StreamChunk:
    """A piece of a streamed answer; `str(chunk)` is its text.

    Attributes:
        content: More text.
        tool_calls: Pieces of tool calls.
        finish_reason: Why the answer ended, in its last chunks.
        usage: Tokens of the whole answer, where the provider sends them: near the end.
        thinking: A piece of a thought.
        index: Which of several choices it belongs to, from 0; theirs may come interleaved.
        logprobs: How likely its tokens were, where that was asked for.
        refused: Whether the text is part of a refusal.
        cost: US dollars of the whole answer, where the provider tells them: with the usage.
    """

    content: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    finish_reason: FinishReason | None = None
    usage: TokenUsage | None = None
    thinking: ThinkingPart | None = None
    index: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    refused: bool = False
    cost: float | None = None

    def __str__(self) -> str:
        """Return the text."""
        return self.content


@quick
@dataclass(frozen=True, slots=True)
class LLMResponse:
    """A whole answer; `str(response)` is its text. Of several choices it is the first; `choices` has all.

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
        cost: US dollars, the provider's own word where it gives one; None where the model's price is unknown.
        latency: Seconds from the call to the whole answer, waiting included.
        attempts: How often the request was sent; 0 for an answer from the cache.
        key: Fingerprint of the key; never the key.
        raw: The provider's answer as it came, where there is one. Of a stream: the fields of its events merged, the
            last word on each; of their choices what is not in the chunks, put together, under `message`.
        thinking: The model's thoughts, to hand back in the next turn.
        alternatives: The choices beyond the first, where several were asked for.
        logprobs: How likely the text's tokens were, where that was asked for.
        refused: Whether the text is the model's refusal to answer.
        embeddings: A vector per text of the request's `embed`, in order; empty for other calls.
        continued: Who carried the answer on where its stream broke, and at which character; `provider`, `model` and
            `key` are of its beginning, usage and cost of all parts, as estimates where a broken part told none.
        stale: Whether the cache answered with what was over its time, as a `CachePolicy` allows.
        original_latency: Seconds that the provider took for what the cache answered; None where that is unknown.
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
    alternatives: tuple[Choice, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    refused: bool = False
    embeddings: tuple[tuple[float, ...], ...] = field(default=(), repr=False)
    continued: tuple[Continuation, ...] = ()
    stale: bool = False
    original_latency: float | None = None

    def __str__(self) -> str:
        """Return the text."""
        return self.content

    @property
    def choices(self) -> tuple[Choice, ...]:
        """All choices in order; the first is what `content` and its neighbours tell."""
        return (
            Choice(self.content, self.finish_reason, self.tool_calls, self.thinking, self.logprobs, self.refused),
            *self.alternatives,
        )

    @property
    def message(self) -> Message:
        """The answer as a turn, to append to the conversation."""
        return self.choices[0].message


response_with = copier(LLMResponse)
"""Returns a response with other values in the fields that are named."""

complete_response = completer(LLMResponse, "model", "provider", "cost", "latency", "attempts")
"""Returns a response as its caller gets it: with what only the call knows."""


@dataclass(frozen=True, slots=True)
class EmbeddingResponse:
    """Vectors of texts, in the texts' order.

    Attributes:
        embeddings: A vector per text, all of one length.
        model: Model that made them.
        provider: Section of the configuration that answered.
        usage: Tokens.
        cost: US dollars, 0 for what the cache answered; None where the model's price is unknown.
        key: Fingerprint of the key; None where the cache answered, or several keys shared the texts.
    """

    embeddings: tuple[tuple[float, ...], ...]
    model: str = ""
    provider: str = ""
    usage: TokenUsage = TokenUsage()
    cost: float | None = None
    key: str | None = None
