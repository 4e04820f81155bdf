"""A request as the body of a chat completion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, assert_never

from llm.core.exceptions import LLMInvalidRequestError
from llm.core.messages import AudioPart, DocumentPart, ImagePart, MessageRole, TextPart, ThinkingPart, signed
from llm.core.types import ToolDefinition
from llm.core.vendor import CachePoint, VendorPart
from llm.providers.wire import base64_text, cache_control, data_url, dump, model_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm.core.messages import Message, Part, ToolCall
    from llm.core.types import LLMRequest


class Flavor(NamedTuple):
    """In what the servers that speak this dialect differ.

    Attributes:
        limit: Name of the field for the most tokens. OpenAI's own models think, and know only
            `max_completion_tokens`; most others know only `max_tokens`.
        developer: Whether there is a role of that name; else such a turn is a system's.
        reasoning: Whether the effort stands in an object `reasoning`, as OpenRouter's does.
        document_url: Whether documents are taken by address.
        refusals: Whether a refusal goes back as one; else it is text.
        cache_control: Whether blocks carry Anthropic's marks for the prompt cache, as OpenRouter hands them on.
        seed: Name of the field for the seed.
        names: Whether a turn may carry its speaker's name; else it is left out.
        asks_usage: Whether a stream is asked for its usage; else it tells it unasked.
        thoughts: Name of the field in which an assistant's turn has its thoughts back; None: they are left out.
        signatures: Whether calls of tools go back with their signatures; else without.
    """

    limit: str = "max_tokens"
    developer: bool = False
    reasoning: bool = False
    document_url: bool = False
    cache_control: bool = False
    refusals: bool = False
    seed: str = "seed"
    names: bool = True
    asks_usage: bool = True
    thoughts: str | None = None
    signatures: bool = False


def choices_of(extra: Mapping[str, Any]) -> int:
    """Return how many choices the vendor's fields ask for: `n`, or 1."""
    n: object = extra.get("n")
    return n if isinstance(n, int) and n > 0 else 1


def write_body(request: LLMRequest, flavor: Flavor, *, stream: bool) -> bytes:
    """Return the JSON of a request.

    Raises:
        LLMInvalidRequestError: It cannot be expressed; names the field.
    """
    body = body_of(request, flavor, stream=stream)
    if request.extra:
        _put_extra(body, request.extra)
    return dump(body)


def body_of(request: LLMRequest, flavor: Flavor, *, stream: bool) -> dict[str, Any]:
    """Return the fields of a request, without `extra`.

    Raises:
        LLMInvalidRequestError: It cannot be expressed; names the field.
    """
    body: dict[str, Any] = {
        "model": model_of(request),
        "messages": [_message(message, flavor, at) for at, message in enumerate(request.messages)],
    }
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.max_tokens is not None:
        body[flavor.limit] = request.max_tokens
    if request.stop is not None:
        body["stop"] = request.stop
    if request.seed is not None:
        body[flavor.seed] = request.seed
    if request.reasoning_effort is not None:
        _put_effort(body, request.reasoning_effort, flavor)
    _put_tools(body, request)
    if request.response_format is not None:
        body["response_format"] = _response_format(request.response_format)
    if stream:
        body["stream"] = True
        if flavor.asks_usage:
            body["stream_options"] = {"include_usage": True}
    return body


def _put_extra(body: dict[str, Any], extra: Mapping[str, Any]) -> None:
    asked = body.get("stream_options")
    body.update(extra)
    if asked and isinstance(extra.get("stream_options"), dict):  # further options do not take the usage away
        body["stream_options"] = {**asked, **extra["stream_options"]}


def _put_effort(body: dict[str, Any], effort: str, flavor: Flavor) -> None:
    if flavor.reasoning:
        body["reasoning"] = {"effort": effort}
    else:
        body["reasoning_effort"] = effort


def _put_tools(body: dict[str, Any], request: LLMRequest) -> None:
    if request.tools:
        body["tools"] = [_tool(tool) if isinstance(tool, ToolDefinition) else tool for tool in request.tools]
    choice = request.tool_choice
    if choice is None:
        return
    if isinstance(choice, str) and choice not in _CHOICES:
        kind = "custom" if choice in map(_custom_name, request.tools or ()) else "function"
        choice = {"type": kind, kind: {"name": choice}}
    body["tool_choice"] = choice


_CHOICES: Final = frozenset({"auto", "none", "required"})


def _custom_name(tool: ToolDefinition | Mapping[str, Any]) -> str | None:
    match tool:
        case {"type": "custom", "custom": {"name": str(name)}}:
            return name
        case _:
            return None


def _tool(tool: ToolDefinition) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.parameters}
    if tool.description:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _response_format(wanted: str | Mapping[str, Any]) -> Mapping[str, Any]:
    return {"type": wanted} if isinstance(wanted, str) else wanted


_ROLES: Final = {role: role.value for role in MessageRole}


def _message(message: Message, flavor: Flavor, at: int) -> dict[str, Any]:
    role = message.role
    if role is MessageRole.DEVELOPER and not flavor.developer:
        role = MessageRole.SYSTEM
    content = message.content
    wire: dict[str, Any] = {
        "role": _ROLES[role],
        "content": content if isinstance(content, str) else _content(content, role, flavor, at),
    }
    if message.name is not None and flavor.names:
        wire["name"] = message.name
    if message.tool_calls:
        wire["tool_calls"] = [_tool_call(call, flavor) for call in message.tool_calls]
        wire["content"] = wire["content"] or None
    if role is MessageRole.TOOL:
        if not message.tool_call_id:
            raise LLMInvalidRequestError(
                f"messages[{at}] is a tool's turn without tool_call_id; name the call it answers"
            )
        wire["tool_call_id"] = message.tool_call_id
    elif flavor.thoughts is not None and role is MessageRole.ASSISTANT:
        thoughts = _thoughts(message)
        if thoughts or message.tool_calls:  # a call may come without a thought, and the field is wanted all the same
            wire[flavor.thoughts] = thoughts
    return wire


def _thoughts(message: Message) -> str:
    if isinstance(message.content, str):
        return ""
    return "".join([part.text for part in message.content if isinstance(part, ThinkingPart)])


def _tool_call(call: ToolCall, flavor: Flavor) -> dict[str, Any]:
    if call.custom:
        return {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": call.arguments}}
    wire = {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
    return wire if call.signature is None or not flavor.signatures else {**wire, **signed(call.signature)}


def _content(parts: tuple[Part, ...], role: MessageRole, flavor: Flavor, at: int) -> str | list[dict[str, Any]]:
    if flavor.cache_control and any(isinstance(part, CachePoint) for part in parts):
        return _marked(parts, flavor, at)
    spoken = [part for part in parts if not isinstance(part, (ThinkingPart, CachePoint))]
    if role is not MessageRole.USER:
        # Only text may stand in the other roles, and a plain string is what every server takes.
        texts = [part for part in spoken if isinstance(part, TextPart)]
        if len(texts) == len(spoken) and not (flavor.refusals and any(part.refusal for part in texts)):
            return "".join([part.text for part in texts])
    return [_part(part, flavor, at) for part in spoken]


def _marked(parts: tuple[Part, ...], flavor: Flavor, at: int) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    for part in parts:
        if not isinstance(part, (ThinkingPart, CachePoint)):
            blocks.append(_part(part, flavor, at))
        elif isinstance(part, CachePoint) and blocks:
            blocks[-1]["cache_control"] = cache_control(part)
    return blocks


def _part(
    part: TextPart | ImagePart | DocumentPart | AudioPart | VendorPart, flavor: Flavor, at: int
) -> dict[str, Any]:
    match part:
        case TextPart():
            kind = "refusal" if part.refusal and flavor.refusals else "text"
            return {"type": kind, kind: part.text}
        case ImagePart():
            return {"type": "image_url", "image_url": _image(part, at)}
        case DocumentPart():
            return {"type": "file", "file": _document(part, flavor, at)}
        case AudioPart():
            return {"type": "input_audio", "input_audio": {"data": base64_text(part.data), "format": part.format}}
        case VendorPart():
            return dict(part.block)
    assert_never(part)


def _image(part: ImagePart, at: int) -> dict[str, Any]:
    if part.file_id is not None:
        raise LLMInvalidRequestError(
            f"messages[{at}] has an image by its file_id, which this dialect does not take; pass its url, or its data"
        )
    image: dict[str, Any] = {"url": part.url if part.data is None else data_url(part.data, part.media_type)}
    if part.detail is not None:
        image["detail"] = part.detail
    return image


def _document(part: DocumentPart, flavor: Flavor, at: int) -> dict[str, Any]:
    if part.file_id is not None:
        return {"file_id": part.file_id}
    if part.data is not None:
        data = data_url(part.data, part.media_type)
    elif part.url is not None and (flavor.document_url or part.url.startswith("data:")):
        data = part.url
    else:
        raise LLMInvalidRequestError(
            f"messages[{at}] has a document by its url, which this dialect does not take; pass its data and media_type"
        )
    return {"filename": part.title or "document", "file_data": data}
