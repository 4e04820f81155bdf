"""`response_model`: the JSON Schema of a class goes out, an instance comes back, or why there is none.

A class is whatever pydantic validates and whose JSON is an object: a model, a dataclass, a `TypedDict`. How a provider
is brought to answer by the schema is its own business; validation is done here, whichever way that was.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from json import JSONDecodeError, JSONDecoder
from typing import TYPE_CHECKING, Any, Final, Protocol, cast, get_args

import orjson

from .exceptions import LLMInvalidRequestError
from .strict import inlined_root, is_recursive, strict_schema

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from pydantic import TypeAdapter, ValidationError

    from .types import LLMResponse, StreamChunk

    class _Stream(Protocol):
        def __aiter__(self) -> AsyncIterator[StreamChunk]: ...

        async def response(self) -> LLMResponse: ...


_NAME_CHARS: Final = 64
_MOST_ADAPTERS: Final = 64
_MOST_PROBLEMS: Final = 20
_MOST_STARTS: Final = 16  # braces in the words before an answer
_MAY_REPEAT: Final = frozenset({"value_error", "assertion_error", "union_tag_invalid"})  # in their words, what came
_SHORT: Final = 4096  # characters; a text up to here is read with each chunk
_STEPS: Final = 128  # what is longer is read when it grew by this part of what is above
_BEGINNING: Final = re.compile(r"\{(?=\s*(?:[\"}]|$))")
_IN_NUMBERS: Final = "0123456789.eE+-"
_CUT_NUMBER: Final = re.compile(r"(?<=[\[:,\s])-?\d[\d.eE+-]*\Z")
_NO_NAME: Final = re.compile(r"[^a-zA-Z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Shape:
    """The form of an answer.

    Attributes:
        name: The class's name, in letters, digits, `_` and `-`, at most 64.
        schema: JSON Schema, an object at its root.
        text: The schema as JSON, its keys in order.
        strict: The schema in the form that OpenAI holds a model to; None where it has none.
        unbounded: The same without limits of numbers and lists, which Anthropic does not take.
        recursive: Whether it refers to itself, which not every vendor takes.
    """

    name: str
    schema: Mapping[str, Any]
    text: str
    strict: Mapping[str, Any] | None
    unbounded: Mapping[str, Any] | None
    recursive: bool


class UnfitError(Exception):
    """A text that holds no instance.

    Attributes:
        problems: What is wrong, a line per field; nothing of the text but the names of fields.
        told: The same in full, for the model that wrote the text.
        malformed: Whether it is no JSON at all.
    """

    def __init__(self, problems: Iterable[str], told: Iterable[str], *, malformed: bool) -> None:
        """Keep both forms."""
        self.problems: tuple[str, ...] = tuple(problems)
        self.told: tuple[str, ...] = tuple(told)
        self.malformed: bool = malformed
        super().__init__("; ".join(self.problems))


_shapes: weakref.WeakKeyDictionary[type, Shape] = weakref.WeakKeyDictionary()


def shape_of(model: type) -> Shape:
    """Return the form of a class's JSON; made once for each.

    Raises:
        LLMInvalidRequestError: pydantic makes no JSON Schema of it, or its JSON is no object.
    """
    shape = _shapes.get(model)
    if shape is None:
        shape = _shapes[model] = _made(model)
    return shape


def read_instance(model: type, text: str) -> Any:  # noqa: ANN401 - an instance of the class
    """Return the instance that a text holds as JSON, be it in a fence or among other words.

    Raises:
        UnfitError: It holds none; says what is wrong.
    """
    from pydantic import ValidationError

    try:
        return _validated(model, text)
    except ValidationError as error:
        unfit = _unfit(model, error)
    if unfit.malformed and (found := _json_in(text)) is not None:
        try:
            return _validated(model, found)
        except ValidationError as error:
            unfit = _unfit(model, error)
    raise unfit


def read_partial(text: str) -> dict[str, Any] | None:
    """Return what a text that is still growing holds of a JSON object; None as long as it has not begun.

    A field is there as soon as its value is known or, of a text, has begun: the last text may be cut.
    """
    from pydantic_core import from_json

    begun = _BEGINNING.search(text)
    if begun is None:
        return None
    start = begun.start()
    try:
        # A number that goes on is another number. It is looked for at the end only: this runs for every chunk.
        cut = _CUT_NUMBER.search(text, len(text.rstrip(_IN_NUMBERS)))
        value = from_json(text[start : None if cut is None else cut.start()], allow_partial="trailing-strings")
    except ValueError:
        try:
            value, _ = _DECODER.raw_decode(text, start)  # words after it
        except (JSONDecodeError, RecursionError):
            return None
    return cast("dict[str, Any]", value)


async def growing(stream: _Stream) -> AsyncIterator[dict[str, Any]]:
    """Yield what `read_partial` finds, whenever that is more, and at the end what the whole answer holds.

    A text is read from its start each time, so a long one is read less often than it grows: the time for all of it is
    in proportion to its length.
    """
    text, last, due = "", None, 0
    async for chunk in stream:
        if chunk.index:  # another choice
            continue
        text += chunk.content
        if not chunk.content or len(text) < due:
            continue
        due = len(text) + max(0, len(text) - _SHORT) // _STEPS
        if (value := read_partial(text)) is not None and value != last:
            last = value
            yield value
    value = read_partial((await stream.response()).content)
    if value is not None and value != last:  # another answer than the one that was streamed
        yield value


def _made(model: type) -> Shape:
    from pydantic import BaseModel
    from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

    try:
        schema = _adapter(model).json_schema()
    except (PydanticUserError, PydanticUndefinedAnnotation) as error:
        reason = str(error).partition("\n")[0]
    else:
        schema = inlined_root(schema)
        if schema.get("type") == "object" and model is not BaseModel:
            return _shape(model, schema)
        reason = "it has no fields" if model is BaseModel else "its JSON is no object"
    raise LLMInvalidRequestError(
        f"response_model is {model.__qualname__}, and {reason}; pass a pydantic model, a dataclass or a TypedDict, "
        "with what you want in a field of it"
    )


def _shape(model: type, schema: dict[str, Any]) -> Shape:
    text = orjson.dumps(schema, option=orjson.OPT_SORT_KEYS).decode()
    name = _NO_NAME.sub("_", model.__name__)[:_NAME_CHARS].strip("_") or "answer"
    strict, unbounded = strict_schema(schema, bounds=True), strict_schema(schema, bounds=False)
    return Shape(name, schema, text, strict, unbounded, is_recursive(schema))


def _adapter(model: type) -> TypeAdapter[Any]:
    from pydantic import BaseModel, TypeAdapter

    # Of a model an adapter costs nothing; of other classes it is worth keeping, though it keeps the class alive.
    return TypeAdapter(model) if _is_a(model, BaseModel) else _kept_adapter(model)


def _is_a(model: type, kind: type) -> bool:
    return issubclass(model, kind)


@lru_cache(_MOST_ADAPTERS)
def _kept_adapter(model: type) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(model)


def _validated(model: type, text: str) -> Any:  # noqa: ANN401 - an instance of the class
    return _adapter(model).validate_json(text)


def _unfit(model: type, error: ValidationError) -> UnfitError:
    known = _names(shape_of(model).schema)
    found = error.errors(include_url=False, include_context=False, include_input=False)
    problems: list[str] = []
    told: list[str] = []
    for problem in found[:_MOST_PROBLEMS]:
        # Keys that the model made up, and the words of a validator, may repeat what it wrote.
        place = ".".join(str(step) if isinstance(step, int) or step in known else "…" for step in problem["loc"])
        problems.append(f"{place or 'the answer'}: {_discreet(problem)}")
        told.append(f"{'.'.join(map(str, problem['loc'])) or 'the answer'}: {problem['msg']}")
    if (more := len(found) - _MOST_PROBLEMS) > 0:
        problems.append(f"and {more} more")
    return UnfitError(problems, told, malformed=found[0]["type"] == "json_invalid")


def _discreet(problem: Any) -> str:  # noqa: ANN401 - pydantic's mapping
    if problem["type"] == "json_invalid":
        return "it is no JSON"
    return problem["msg"] if problem["type"] in _plain_kinds() else "its own validation refuses it"


@cache
def _plain_kinds() -> frozenset[str]:
    from pydantic_core.core_schema import ErrorType

    return frozenset(get_args(ErrorType)) - _MAY_REPEAT


def _names(schema: object) -> frozenset[str]:
    """Return the names that a schema itself gives: of fields, and of the classes in it."""
    found: set[str] = set()
    ahead: list[Any] = [schema]
    while ahead:
        part = ahead.pop()
        if isinstance(part, dict):
            inside = cast("dict[str, Any]", part)
            for group in ("properties", "$defs"):
                found |= set(inside.get(group) or ())
            ahead.extend(inside.values())
        elif isinstance(part, list):
            ahead.extend(cast("list[object]", part))
    return frozenset(found)


def _json_in(text: str) -> str | None:
    """Return the first JSON object among other words."""
    start = text.find("{")
    for _ in range(_MOST_STARTS):
        if start < 0:
            break
        try:
            _, end = _DECODER.raw_decode(text, start)
        except (JSONDecodeError, RecursionError):
            if _is_cut(text[start:]):  # what is whole in it is a part
                break
            start = text.find("{", start + 1)
        else:
            return text[start:end]
    return None


def _is_cut(text: str) -> bool:
    """Return whether a text is a JSON object, or the beginning of one."""
    from pydantic_core import from_json

    try:
        return bool(from_json(text, allow_partial="trailing-strings"))
    except ValueError:
        return False


_DECODER: Final = JSONDecoder()
