"""The ways to have an answer in the form of a `response_model`, and which of them a server takes.

A request is rewritten into one that asks by a way every dialect has words for: a native schema, a forced tool, JSON
mode, or words alone. A dialect says which there are (`Dialect.ways`); what a server refuses is remembered, and the
next attempt goes the next way.
"""

from __future__ import annotations

import re
from dataclasses import replace
from enum import Enum, auto
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from llm.core.exceptions import LLMInvalidRequestError
from llm.core.messages import Message, MessageRole, TextPart
from llm.core.structured import shape_of
from llm.core.types import ToolDefinition

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm.core.exceptions import LLMException
    from llm.core.structured import Shape
    from llm.core.types import LLMRequest

ANSWER_TOOL: Final = "llm_structured_answer"
"""Name of the tool whose arguments are the answer."""

_MOST_SCOPES: Final = 1024


class Way(Enum):
    """A way to ask, the best first."""

    NATIVE = auto()
    TOOL = auto()
    JSON = auto()
    WORDS = auto()


class Ways(NamedTuple):
    """How a model can be asked.

    Attributes:
        order: The ways, the best first; the last is one that nobody refuses.
        schema: For `NATIVE`: the schema in the form that the vendor takes.
    """

    order: tuple[Way, ...]
    schema: Mapping[str, Any] | None = None


# The names of our fields, as a server repeats them; never its other words.
_BLAMED: Final = {
    Way.NATIVE: re.compile(r"response_format|json_schema|output_config|output_format|text\.format"),
    Way.TOOL: re.compile(rf"tool_choice|{ANSWER_TOOL}|support tool use|function[ _]call"),
    Way.JSON: re.compile(r"response_format|json_object|text\.format"),
}
_OF_THE_FORM: Final = re.compile(r"(?<!json[_ -])schema\b", re.IGNORECASE)
"""Words about one class's schema, where another's may do."""

_ODD: Final = ("reasoning_effort", "stop", "stream", "tool_choice", "tools")
"""Fields that do not go with every way at every server; so may whatever stands in `extra`."""

_REFUSALS: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY})


class _Scope(NamedTuple):
    """The calls for which a refusal counts: those of a model that ask for the same beside, and for the same form."""

    model: str
    beside: frozenset[str] = frozenset()
    form: int | None = None


class RefusedWays:
    """Which ways the server of a section refused; one for all keys of the section.

    What a plain call was refused counts for every call to the model. Where a call asks for more, the way may be
    refused for that alone, so it counts for such calls only; and what is said of a schema, for that schema only.
    """

    def __init__(self) -> None:
        """Start with none."""
        self._refused: dict[_Scope, frozenset[Way]] = {}

    def choose(self, request: LLMRequest, ways: Ways) -> Way:
        """Return the best way that was not refused."""
        refused = self._of(request)
        return next((way for way in ways.order if way not in refused), ways.order[-1])

    def learn(self, request: LLMRequest, ways: Ways, error: LLMException) -> None:
        """Note a way that an error blames; the error then asks for another attempt, which goes the next way."""
        way = self.choose(request, ways)
        if not isinstance(error, LLMInvalidRequestError) or error.status not in _REFUSALS or way is ways.order[-1]:
            return
        refused = self._of(request)
        if _BLAMED[way].search(error.message):
            if len(self._refused) >= _MOST_SCOPES:
                self._refused.clear()
            form = _form(request) if _OF_THE_FORM.search(error.message) else None
            scope = _Scope(request.model or "", _beside(request), form)
            self._refused[scope] = self._refused.get(scope, frozenset()) | {way}
        elif not any(_BLAMED[earlier].search(error.message) for earlier in refused):  # sent before that was known
            return
        error.retryable, error.retry_after = True, 0.0

    def _of(self, request: LLMRequest) -> frozenset[Way]:
        if not self._refused:
            return frozenset()
        model, beside, form = request.model or "", _beside(request), _form(request)
        scopes = (_Scope(model), _Scope(model, beside), _Scope(model, form=form), _Scope(model, beside, form))
        return frozenset(way for scope in scopes for way in self._refused.get(scope, ()))


def _beside(request: LLMRequest) -> frozenset[str]:
    return frozenset((*(name for name in _ODD if getattr(request, name)), *(request.extra or ())))


def _form(request: LLMRequest) -> int | None:
    return None if request.response_model is None else hash(shape_of(request.response_model).text)


def openai_ways(shape: Shape, *, native: bool) -> Ways:
    """Return the ways of OpenAI's dialects; `native`: whether the model holds to a schema."""
    rest = (Way.TOOL, Way.JSON, Way.WORDS)
    return Ways((Way.NATIVE, *rest), shape.strict) if native and shape.strict is not None else Ways(rest)


def anthropic_ways(request: LLMRequest, shape: Shape, *, native: bool) -> Ways:
    """Return the ways of Anthropic's; a model that thinks cannot be forced to call a tool.

    Source: https://platform.claude.com/docs/en/build-with-claude/extended-thinking
    """
    match (request.extra or {}).get("thinking"):
        case None | {"type": "disabled"}:
            rest: tuple[Way, ...] = (Way.TOOL, Way.WORDS)
        case _:
            rest = (Way.WORDS,)
    if native and shape.unbounded is not None and not shape.recursive:
        return Ways((Way.NATIVE, *rest), shape.unbounded)
    return Ways(rest)


def shaped(request: LLMRequest, way: Way, schema: Mapping[str, Any] | None = None) -> LLMRequest:
    """Return the request that asks for its `response_model` in this way, in words that every dialect has."""
    if request.response_model is None:
        return request
    shape = shape_of(request.response_model)
    match way:
        case Way.NATIVE:
            form = {"name": shape.name, "strict": True, "schema": schema}
            return replace(request, response_model=None, response_format={"type": "json_schema", "json_schema": form})
        case Way.TOOL:
            return _with_tool(request, shape)
        case Way.JSON:
            return replace(_with_words(request, shape), response_format="json_object")
        case Way.WORDS:
            return _with_words(request, shape)


def _with_tool(request: LLMRequest, shape: Shape) -> LLMRequest:
    about = shape.schema.get("description")
    told = f"Gives the answer: {about}" if about else "Gives the answer."
    tool = ToolDefinition(ANSWER_TOOL, told, shape.schema)
    choice = request.tool_choice
    if not request.tools or choice == "none":
        choice = ANSWER_TOOL
    elif choice is None or choice == "auto":
        choice = "required"  # one of the caller's, or the answer
    return replace(request, response_model=None, tools=(*(request.tools or ()), tool), tool_choice=choice)


def _with_words(request: LLMRequest, shape: Shape) -> LLMRequest:
    words = f"Answer with one JSON object alone, without any other text, that fits this JSON Schema:\n{shape.text}"
    first, *rest = request.messages
    if first.role not in {MessageRole.SYSTEM, MessageRole.DEVELOPER}:
        return replace(request, response_model=None, messages=(Message(MessageRole.SYSTEM, words), *request.messages))
    # Into the first turn, since many a model on the box knows of one system turn only.
    content = first.content
    more = f"{content}\n\n{words}" if isinstance(content, str) else (*content, TextPart(f"\n\n{words}"))
    return replace(request, response_model=None, messages=(replace(first, content=more), *rest))
