"""What an operation asks for: its document and variables as they are sent, and the input of a completion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, cast

import strawberry
from strawberry.scalars import JSON

from llm.core.exceptions import LLMInvalidRequestError
from llm.providers.serving.openai_read import read_request

from .errors import too_complex

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llm.core.types import LLMRequest

    Nested: TypeAlias = dict[str, Any] | list[Any]

MOST_VALUES: Final = 10_000
"""Of the variables, those within others counted: each is looked at by itself, which takes time. A message has three."""


class Asked(NamedTuple):
    """An operation as it is sent.

    Attributes:
        document: The text.
        variables: Their values.
        operation: Name of the one that is meant, where the document has several.
    """

    document: str
    variables: dict[str, Any] | None
    operation: str | None


def read_asked(payload: Mapping[str, Any]) -> Asked:
    """Return the operation of a body or a `subscribe` message.

    Raises:
        LLMInvalidRequestError: A field is missing or wrong; says which.
        GraphQLError: The variables are too large.
    """
    document, variables = payload.get("query"), payload.get("variables")
    operation = payload.get("operationName")
    if not isinstance(document, str) or not document.strip():
        raise LLMInvalidRequestError("query: expected a GraphQL document as text", status=400)
    if variables is not None and not isinstance(variables, dict):
        raise LLMInvalidRequestError("variables: expected an object", status=400)
    if operation is not None and not isinstance(operation, str):
        raise LLMInvalidRequestError("operationName: expected text", status=400)
    given = cast("dict[str, Any] | None", variables)
    _check_size(given)
    return Asked(document, given, operation or None)


def _check_size(variables: object) -> None:
    level: list[Any] = [variables]
    seen = 0
    while level:
        seen += len(level)
        if seen > MOST_VALUES:
            raise too_complex(f"the variables have more than {MOST_VALUES} values; send a shorter conversation")
        level = [part for whole in level if isinstance(whole, (dict, list)) for part in _parts(cast("Nested", whole))]


def _parts(whole: Nested) -> Iterable[Any]:
    return whole.values() if isinstance(whole, dict) else whole


@strawberry.input(description="A call of a tool that an earlier answer asked for.")
class ToolCallInput:
    """A call of a tool that an earlier answer asked for."""

    id: str = strawberry.field(description="Its name; the message with the tool's answer carries it as toolCallId.")
    name: str = strawberry.field(description="The tool.")
    arguments: str = strawberry.field(description="Its arguments, as JSON in a text.")

    def body(self) -> dict[str, Any]:
        """Return it in OpenAI's words."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


@strawberry.input(description="One turn of a conversation.")
class MessageInput:
    """One turn of a conversation."""

    role: str = strawberry.field(description="system, developer, user, assistant or tool.")
    content: JSON | None = strawberry.field(
        default=None, description="A text, or a list of parts as in OpenAI's chat completions."
    )
    name: str | None = strawberry.field(default=None, description="The speaker's or the tool's name.")
    tool_calls: list[ToolCallInput] | None = strawberry.field(
        default=None, description="Calls that an assistant's turn asked for."
    )
    tool_call_id: str | None = strawberry.field(default=None, description="The call that a tool's turn answers.")

    def body(self) -> dict[str, Any]:
        """Return it in OpenAI's words."""
        body: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.name is not None:
            body["name"] = self.name
        if self.tool_calls:
            body["tool_calls"] = [call.body() for call in self.tool_calls]
        if self.tool_call_id is not None:
            body["tool_call_id"] = self.tool_call_id
        return body


@strawberry.input(description="A tool that the model may ask for.")
class ToolInput:
    """A tool that the model may ask for."""

    name: str = strawberry.field(description="Its name.")
    description: str = strawberry.field(default="", description="What it does, for the model.")
    parameters: JSON | None = strawberry.field(default=None, description="JSON Schema of its arguments.")
    strict: bool | None = strawberry.field(
        default=None, description="Whether the provider holds the arguments to the schema."
    )

    def body(self) -> dict[str, Any]:
        """Return it in OpenAI's words."""
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": {**function, "strict": self.strict}}


@strawberry.input(description="What to answer, and how. Of messages and prompt one is given.")
class CompletionInput:
    """What to answer, and how."""

    messages: list[MessageInput] | None = strawberry.field(default=None, description="The conversation.")
    prompt: str | None = strawberry.field(default=None, description="What the user says, in place of messages.")
    system: str | None = strawberry.field(default=None, description="Instructions that stand before the conversation.")
    model: str | None = strawberry.field(
        default=None, description="Model, provider/model or alias; null: one of the default provider's."
    )
    max_tokens: int | None = strawberry.field(default=None, description="Most tokens of the answer.")
    temperature: float | None = strawberry.field(default=None, description="0 to 2; null: the provider's default.")
    top_p: float | None = strawberry.field(default=None, description="0 to 1; null: the provider's default.")
    stop: list[str] | None = strawberry.field(default=None, description="Texts that end the answer.")
    seed: int | None = strawberry.field(default=None, description="For repeatable sampling, where there is such.")
    reasoning_effort: str | None = strawberry.field(
        default=None, description="low, medium or high, where the model has it."
    )
    response_format: JSON | None = strawberry.field(
        default=None, description="The form of the answer, as in OpenAI's chat completions."
    )
    tools: list[ToolInput] | None = strawberry.field(default=None, description="Tools that the model may ask for.")
    tool_choice: str | None = strawberry.field(
        default=None, description="auto, none, required, or the name of the tool that is to be asked for."
    )

    def request(self, *, stream: bool) -> LLMRequest:
        """Return the request that it stands for.

        Raises:
            LLMInvalidRequestError: A field is missing or wrong; says which.
        """
        return read_request({**self._body(), "stream": stream})

    def _body(self) -> dict[str, Any]:
        if (self.messages is None) == (self.prompt is None):
            raise LLMInvalidRequestError("input: expected messages or prompt, one of them", status=400)
        if self.messages is not None:
            messages = [message.body() for message in self.messages]
        else:
            messages = [{"role": "user", "content": self.prompt}]
        if self.system is not None:
            messages.insert(0, {"role": "system", "content": self.system})
        return {
            "messages": messages,
            "model": self.model,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "stop": self.stop,
            "seed": self.seed,
            "reasoning_effort": self.reasoning_effort,
            "response_format": self.response_format,
            "tools": None if self.tools is None else [tool.body() for tool in self.tools],
            "tool_choice": self._tool_choice(),
        }

    def _tool_choice(self) -> object:
        if self.tool_choice in (None, "auto", "none", "required"):
            return self.tool_choice
        return {"type": "function", "function": {"name": self.tool_choice}}
