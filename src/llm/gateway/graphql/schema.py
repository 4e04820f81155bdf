"""The schema: what can be asked, and how it is answered."""

from __future__ import annotations

from collections.abc import AsyncGenerator  # noqa: TC003 - strawberry reads it from the annotation
from typing import TYPE_CHECKING, Any

import strawberry
from strawberry.scalars import JSON

from llm.gateway.routes.health import told
from llm.providers.endpoints.answers import answer
from llm.providers.endpoints.streaming import Streaming

from .asked import CompletionInput  # noqa: TC001 - strawberry reads it from the annotation

if TYPE_CHECKING:
    from graphql import GraphQLError
    from strawberry.types import ExecutionContext

    from llm.core.types import LLMResponse, StreamChunk, TokenUsage
    from llm.gateway.desk import Desk
    from llm.gateway.exchange import Exchange

    from .documents import Document


class Context:
    """What an operation's fields are answered from.

    Attributes:
        desk: What routes work with.
        exchange: The client's request, or its operation on a socket.
        document: What it asks.
        status: The manager's status, once a field asked for it.
    """

    __slots__ = ("desk", "document", "exchange", "status")

    def __init__(self, desk: Desk, exchange: Exchange, document: Document) -> None:
        """Start an operation."""
        self.desk: Desk = desk
        self.exchange: Exchange = exchange
        self.document: Document = document
        self.status: dict[str, Any] | None = None


Info = strawberry.Info[Context, None]


@strawberry.type(description="Tokens of an answer.")
class Usage:
    """Tokens of an answer."""

    input_tokens: int = strawberry.field(description="Of the prompt, cached ones included.")
    output_tokens: int = strawberry.field(description="Of the answer, thoughts included.")
    total_tokens: int = strawberry.field(description="Both together.")
    cached_input_tokens: int = strawberry.field(description="Of the prompt, those that the provider had cached.")
    reasoning_tokens: int = strawberry.field(description="Of the answer, those that were thoughts.")

    @classmethod
    def of(cls, usage: TokenUsage) -> Usage:
        """Return the same in GraphQL's form."""
        return cls(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            total_tokens=usage.total_tokens,
            cached_input_tokens=usage.cached_input_tokens,
            reasoning_tokens=usage.reasoning_tokens,
        )


@strawberry.type(description="A model's wish to have a tool called.")
class ToolCall:
    """A model's wish to have a tool called."""

    id: str = strawberry.field(description="Its name.")
    name: str = strawberry.field(description="The tool.")
    arguments: str = strawberry.field(description="Its arguments, as JSON in a text.")


@strawberry.type(description="A whole answer.")
class Completion:
    """A whole answer."""

    content: str = strawberry.field(description="The text.")
    tool_calls: list[ToolCall] = strawberry.field(description="Tools that the model asks for.")
    finish_reason: str | None = strawberry.field(description="stop, length, tool_calls or content_filter.")
    model: str = strawberry.field(description="Model that answered.")
    provider: str = strawberry.field(description="Section of the configuration that answered.")
    cached: bool = strawberry.field(description="Whether the cache answered.")
    cost: float | None = strawberry.field(description="US dollars; null where the model's price is unknown.")
    usage: Usage = strawberry.field(description="Tokens.")

    @classmethod
    def of(cls, response: LLMResponse) -> Completion:
        """Return the same in GraphQL's form."""
        return cls(
            content=response.content,
            tool_calls=[ToolCall(id=call.id, name=call.name, arguments=call.arguments) for call in response.tool_calls],
            finish_reason=response.finish_reason,
            model=response.model,
            provider=response.provider,
            cached=response.cached,
            cost=response.cost,
            usage=Usage.of(response.usage),
        )


@strawberry.type(description="A piece of a tool call.")
class ToolCallPiece:
    """A piece of a tool call."""

    index: int = strawberry.field(description="Which call of the answer it belongs to, from 0.")
    id: str | None = strawberry.field(description="The call's name, in its first piece.")
    name: str | None = strawberry.field(description="The tool, in its first piece.")
    arguments: str = strawberry.field(description="More of the arguments' text.")


@strawberry.type(description="A piece of an answer. The last has no text, and tells of the whole.")
class CompletionPiece:
    """A piece of an answer."""

    content: str = strawberry.field(default="", description="More text.")
    tool_calls: list[ToolCallPiece] = strawberry.field(default_factory=list, description="Pieces of tool calls.")
    finish_reason: str | None = strawberry.field(default=None, description="Why the answer ended, in the last piece.")
    model: str | None = strawberry.field(default=None, description="Model that answered, in the last piece.")
    provider: str | None = strawberry.field(default=None, description="Who answered, in the last piece.")
    cached: bool | None = strawberry.field(default=None, description="Whether the cache answered, in the last piece.")
    cost: float | None = strawberry.field(default=None, description="US dollars, in the last piece.")
    usage: Usage | None = strawberry.field(default=None, description="Tokens of the whole, in the last piece.")

    @classmethod
    def of(cls, chunk: StreamChunk) -> CompletionPiece:
        """Return a chunk in GraphQL's form."""
        pieces = [
            ToolCallPiece(index=piece.index, id=piece.id, name=piece.name, arguments=piece.arguments)
            for piece in chunk.tool_calls
        ]
        return cls(content=chunk.content, tool_calls=pieces)

    @classmethod
    def last(cls, response: LLMResponse) -> CompletionPiece:
        """Return what ends the pieces of an answer."""
        return cls(
            finish_reason=response.finish_reason,
            model=response.model,
            provider=response.provider,
            cached=response.cached,
            cost=response.cost,
            usage=Usage.of(response.usage),
        )


@strawberry.type(description="How the gateway is.")
class Health:
    """How the gateway is."""

    status: str = strawberry.field(description="ok, unavailable where no provider can serve, or draining.")


@strawberry.type(description="A model that may be asked for.")
class Model:
    """A model that may be asked for."""

    id: str = strawberry.field(description="Its name, or an alias.")
    provider: str = strawberry.field(description="Section of the configuration that it goes to.")


@strawberry.type
class Query:
    """What can be looked up."""

    @strawberry.field(description="How the gateway is.")
    def health(self, info: Info) -> Health:
        """Return what `/v1/health` tells."""
        return Health(status=told(info.context.desk)["status"])

    @strawberry.field(description="The models that the caller may use.")
    def models(self, info: Info) -> list[Model]:
        """Return what `/v1/models` tells."""
        asking = info.context.desk.asking
        caller = info.context.exchange.caller
        return [Model(id=name, provider=asking.provider_of(caller, name) or "") for name in asking.models(caller)]

    @strawberry.field(
        description="Metrics, providers, limits and cache; of users, and of calls of late, only the caller's own."
    )
    def status(self, info: Info) -> JSON:
        """Return the manager's status, once for all fields that ask for it."""
        context = info.context
        if context.status is None:
            context.status = own(context.desk.manager.get_status(), context.exchange.caller.user)
        return JSON(context.status)


@strawberry.type
class Mutation:
    """What makes calls."""

    @strawberry.mutation(description="Answers a conversation whole.")
    async def complete(self, info: Info, input: CompletionInput) -> Completion:  # noqa: A002 - the contract's name
        """Ask for an answer; several of one operation are asked for one after the other, and count together."""
        context = info.context
        before = context.exchange.usage
        response = await answer(context.desk, context.exchange, input.request(stream=False))
        if before is not None:
            context.exchange.usage = before + response.usage
        return Completion.of(response)


@strawberry.type
class Subscription:
    """What comes in pieces."""

    @strawberry.subscription(description="Answers a conversation in pieces.")
    async def completion(
        self,
        info: Info,
        input: CompletionInput,  # noqa: A002 - the contract's name
    ) -> AsyncGenerator[CompletionPiece, None]:
        """Yield the answer as it comes."""
        context = info.context
        async with Streaming(context.desk, context.exchange, input.request(stream=True)) as chunks:
            async for chunk in chunks:
                if chunk.content or chunk.tool_calls:
                    yield CompletionPiece.of(chunk)
            yield CompletionPiece.last(await chunks.response())


def own(status: dict[str, Any], user: str | None) -> dict[str, Any]:
    """Return a status without what concerns other users than this one; None, where there are no keys, sees all."""
    if user is None:
        return status
    mine, limits = f"user {user}", status["limits"].items()
    return {
        **status,
        "users": {name: counts for name, counts in status["users"].items() if name == user},
        "limits": {name: full for name, full in limits if not name.startswith("user ") or name == mine},
        "calls": [call for call in status["calls"] if call["user"] == user],
    }


class Schema(strawberry.Schema):
    """The schema, which writes no errors into a log of its own: they may hold what a caller wrote."""

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Leave them to who sends them."""
