"""What makes two requests the same question: the canonical form of what decides the answer, and its hash.

The canonical form is JSON with sorted keys. Messages are lists of their fields, bytes stand as their SHA-256, and of
what a caller wrote freely (`extra`, tools, a vendor's mapping) every element counts: a blank text, a None and nothing
at all are three things.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import orjson

from llm.core.exceptions import LLMInvalidRequestError
from llm.core.messages import (
    AudioPart,
    DocumentPart,
    ImagePart,
    Message,
    MessageRole,
    TextPart,
    ThinkingPart,
    read_message,
)
from llm.core.structured import shape_of
from llm.core.texts import EmbeddingInput
from llm.core.types import LLMRequest, ToolDefinition, request_with
from llm.core.vendor import CachePoint, VendorPart

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm.core.messages import ToolCall
    from llm.core.types import CacheScope

_VERSION = 1
_SORTED = orjson.OPT_SORT_KEYS
_OF_LATE = 1024  # questions whose names are remembered
_SHORT = 1024  # bytes of a question that is

_DECIDES_NOTHING = frozenset({
    "_request_id", "_order_id", "user", "priority", "timeout", "metadata", "cache", "call", "stream", "stream_options",
    "continue_stream",
})  # fmt: skip

_EXACT_FLOATS = 2.0**53


def compute_request_hash(
    request: LLMRequest | Mapping[str, Any], *, scope: CacheScope = "shared", user: str | None = None
) -> str:
    """Return the name of the question that this request asks.

    Two requests have the same name when the same answer serves both. The order of a mapping never matters, the order
    of a list always does. Who asks, how urgently, for how long, with which notes and whether streamed is left out.

    Args:
        request: A request, or its mapping: OpenAI's form with the names of `LLMRequest`; names beyond those are
            vendor fields, as in `extra`.
        scope: `user` keeps the questions of tenants apart.
        user: The tenant; None takes the request's own. Requests without a tenant share among themselves.

    Returns:
        64 lower-case hexadecimal digits: a SHA-256. The same in every process and on every version of Python.

    Raises:
        LLMInvalidRequestError: Something in it has no JSON form, or the scope is unknown; names it.
    """
    return cache_key(request, provider=None, scope=scope, user=user)


def cache_key(
    request: LLMRequest | Mapping[str, Any], *, provider: str | None, scope: CacheScope, user: str | None
) -> str:
    """Return the name under which the answer of one provider is kept: `compute_request_hash`, and who answered.

    Args:
        request: As there.
        provider: Section of the configuration that answers; None for no one in particular.
        scope: As there.
        user: As there.

    Raises:
        LLMInvalidRequestError: As there.
    """
    try:
        decides = _of_request(request) if isinstance(request, LLMRequest) else _of_mapping(request)
    except RecursionError:
        raise LLMInvalidRequestError("the request is nested too deeply or contains itself; pass plain values") from None
    decides["v"] = _VERSION
    if provider is not None:
        decides["provider"] = provider
    if scope != "shared":
        decides["tenant"] = [_tenant(request, scope, user)]
    return _hashed(decides)


def conversation_key(request: LLMRequest, *, provider: str, scope: CacheScope, vectors: str) -> str:
    """Return the name of all that a request is but for the text of its last message, which is left out.

    Requests of one name ask the same model the same way, after the same turns, for the same tenant, whatever the
    scope; so their last texts alone decide whether they ask the same.

    Args:
        request: A request whose last message is a text.
        provider: Section of the configuration.
        scope: How its answer is shared, so that answers for all and for one do not mix.
        vectors: Model by whose vectors the texts are compared.

    Raises:
        LLMInvalidRequestError: Something in it has no JSON form.
    """
    *before, last = request.messages
    blank = Message(last.role, "", name=last.name)
    asked = cache_key(
        request_with(request, messages=(*before, blank)), provider=provider, scope="user", user=request.user
    )
    return _hashed({"v": _VERSION, "asked": asked, "scope": scope, "vectors": vectors})


def _of_request(request: LLMRequest) -> dict[str, Any]:
    decides: dict[str, Any] = {}
    if request.embed is None:
        decides["messages"] = [_message(message) for message in request.messages]
    _note_options(request, decides)
    if request.extra and (extra := _extra(request.extra)):
        decides["extra"] = extra
    return decides


def _of_mapping(request: Mapping[str, Any]) -> dict[str, Any]:
    decides: dict[str, Any] = {}
    further: dict[str, Any] = {}
    for name, value in request.items():
        if name == "messages":
            decides["messages"] = _messages(value)
        elif (form := _OPTIONS.get(name)) is not None:
            if value is not None:
                decides[name] = form(value)
        elif name != "extra":
            further[name] = value
    if extra := _extra(request.get("extra")) | _extra(further):
        decides["extra"] = extra
    return decides


def _extra(extra: object) -> dict[str, Any]:
    if not extra:
        return {}
    if not isinstance(extra, Mapping):
        raise LLMInvalidRequestError(f"extra is {type(extra).__name__}; expected a mapping of vendor fields")
    fields = cast("Mapping[object, object]", extra).items()
    return {_name(name): _plain(value) for name, value in fields if name not in _DECIDES_NOTHING}


def _tenant(request: LLMRequest | Mapping[str, Any], scope: object, user: str | None) -> str | None:
    if scope != "user":
        raise LLMInvalidRequestError(f"scope is {scope!r}; expected 'shared' or 'user'")
    if user is not None:
        return user
    return request.user if isinstance(request, LLMRequest) else request.get("user")


def _messages(messages: object) -> Any:  # noqa: ANN401 - JSON
    if isinstance(messages, str):
        return [_message(Message(MessageRole.USER, messages))]
    if isinstance(messages, (Message, Mapping)):
        return [_message_or_plain(cast("object", messages))]
    if isinstance(messages, Iterable):
        return [_message_or_plain(message) for message in cast("Iterable[object]", messages)]
    return _plain(messages)


# A mapping that is no message is still hashed as it stands: the provider refuses it, this function need not.
def _message_or_plain(message: object) -> Any:  # noqa: ANN401 - JSON
    try:
        return _message(message if isinstance(message, Message) else read_message(message))
    except LLMInvalidRequestError:
        return _plain(message)


def _message(message: Message) -> list[Any]:
    content, calls = message.content, message.tool_calls
    turn = [
        message.role._value_,  # which is at hand; `value`, as JSON would take it, is computed
        # A mark for the vendor's cache decides nothing about the answer.
        content if isinstance(content, str) else [_part(part) for part in content if not isinstance(part, CachePoint)],
        message.name,
        [_call(call) for call in calls] if calls else [],
        message.tool_call_id,
    ]
    return [*turn, "error"] if message.is_error else turn


def _call(call: ToolCall) -> list[str]:
    kind = ["custom"] if call.custom else []
    signed = [] if call.signature is None else ["signature", call.signature]
    return [call.id, call.name, call.arguments, *kind, *signed]


def _part(part: TextPart | ImagePart | DocumentPart | AudioPart | ThinkingPart | VendorPart) -> list[Any]:
    match part:
        case TextPart():
            return ["refusal" if part.refusal else "text", part.text]
        case ImagePart():
            return ["image", part.url, _digest(part.data), part.media_type, part.detail, *_given(part.file_id)]
        case DocumentPart():
            further = _given(part.context, part.citations, part.file_id)
            return ["document", part.url, _digest(part.data), part.media_type, part.title, *further]
        case AudioPart():
            return ["audio", _digest(part.data), part.format]
        case ThinkingPart():
            return ["thinking", part.text, part.signature, part.redacted, *_given(part.id, part.before, part.details)]
        case VendorPart():
            return ["vendor", _plain(part.block)]


def _given(*fields: object) -> tuple[object, ...]:
    """Return fields that came later, nothing where none is given: so what is kept keeps its name."""
    return fields if any(field is not None for field in fields) else ()


def _digest(data: bytes | None) -> str | None:
    return None if data is None else hashlib.sha256(data).hexdigest()


def _embed(embed: object) -> Any:  # noqa: ANN401 - JSON
    if isinstance(embed, EmbeddingInput):
        return {"texts": embed.texts, "dimensions": embed.dimensions}
    return _plain(embed)


def _stop(stop: object) -> Any:  # noqa: ANN401 - JSON
    return [stop] if isinstance(stop, str) else _plain(stop)


def _tools(tools: object) -> Any:  # noqa: ANN401 - JSON
    return [_tool(tool) for tool in cast("list[object]", tools)] if isinstance(tools, (list, tuple)) else _plain(tools)


def _tool(tool: object) -> Any:  # noqa: ANN401 - JSON
    if not isinstance(tool, ToolDefinition):
        return _plain(tool)
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.parameters}
    if tool.description:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return _plain({"type": "function", "function": function})


def _model_class(model: object) -> Any:  # noqa: ANN401 - JSON
    return _plain(shape_of(model).schema if isinstance(model, type) else model)


def _plain(value: object) -> Any:  # noqa: ANN401 - JSON
    """Bring what a caller wrote into one form; keys that begin with NUL are ours, and a caller's are doubled."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return {_name(key): _plain(element) for key, element in items}
    if isinstance(value, (list, tuple)):
        return [_plain(element) for element in cast("list[object]", value)]
    if isinstance(value, (bytes, bytearray)):
        return {"\0bytes": _digest(bytes(value))}
    if isinstance(value, ToolDefinition):
        return _tool(value)
    raise LLMInvalidRequestError(f"a {type(value).__name__} in the request has no JSON form; pass JSON values")


def _number(value: float) -> Any:  # noqa: ANN401 - JSON
    # As RFC 8785 has it: 1 and 1.0 are one number. What JSON lacks (nan, inf) is told apart by its name.
    if value.is_integer() and abs(value) < _EXACT_FLOATS:
        return int(value)
    return value if abs(value) < float("inf") else {"\0float": repr(value)}


def _name(key: object) -> str:
    if not isinstance(key, str):
        raise LLMInvalidRequestError(f"a mapping in the request has the key {key!r}; expected text")
    return f"\0{key}" if key.startswith("\0") else key


def _hashed(tree: dict[str, Any]) -> str:
    try:
        canonical = orjson.dumps(tree, option=_SORTED)
    except TypeError:  # integers of more than 64 bits, halves of surrogate pairs, very deep nesting
        canonical = _written(tree)
    return _name_of_late(canonical) if len(canonical) <= _SHORT else hashlib.sha256(canonical).hexdigest()


@lru_cache(_OF_LATE)
def _name_of_late(canonical: bytes) -> str:
    # What the cache answers was asked before, and to find its name again takes a quarter of hashing it.
    return hashlib.sha256(canonical).hexdigest()


def _written(tree: dict[str, Any]) -> bytes:
    try:
        return json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise LLMInvalidRequestError(f"the request has no JSON form: {error}") from None


_OPTIONS: dict[str, Callable[[Any], Any]] = {
    "model": _plain,
    "temperature": _plain,
    "top_p": _plain,
    "max_tokens": _plain,
    "stop": _stop,
    "seed": _plain,
    "tools": _tools,
    "tool_choice": _plain,
    "response_format": _plain,
    "response_model": _model_class,
    "reasoning_effort": _plain,
    "embed": _embed,
}


_CANONICAL = frozenset({"model", "max_tokens", "seed", "reasoning_effort"})
"""Options that a request has as texts and whole numbers: their own canonical form."""


def _noting_options() -> Callable[[LLMRequest, dict[str, Any]], None]:
    """Return a function that notes the options that a request gives in a mapping, in their canonical form.

    Written as source and compiled: every look-up comes here, and a loop over the options takes twice as long.
    """
    space: dict[str, Any] = {f"form_{name}": form for name, form in _OPTIONS.items()}
    forms = {name: "value" if name in _CANONICAL else f"form_{name}(value)" for name in _OPTIONS}
    lines = [
        f"    if (value := request.{name}) is not None: decides[{name!r}] = {form}" for name, form in forms.items()
    ]
    exec("\n".join(["def note(request, decides):", *lines]), space)  # noqa: S102 - of our own names only
    made: Callable[[LLMRequest, dict[str, Any]], None] = space["note"]
    return made


_note_options = _noting_options()
