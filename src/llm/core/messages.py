"""Messages and their parts, as frozen values, and the reading of `{"role": …, "content": …}` mappings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, cast

from llm.utils.frozen import maker, quick

from .exceptions import LLMInvalidRequestError
from .vendor import CachePoint, VendorPart, read_cache_control

if TYPE_CHECKING:
    from collections.abc import Iterable


class MessageRole(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class TextPart:
    """A piece of text.

    Attributes:
        text: The text.
        refusal: Whether a model said it to refuse an answer; it goes back so where the provider keeps refusals apart.
    """

    text: str
    refusal: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no text."""
        _check_kind("TextPart.text", self.text, str)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePart:
    """An image, by address, by its bytes, or by a file at the provider.

    Attributes:
        url: Where the provider fetches it; `data:` addresses too.
        data: The image's bytes; needs `media_type`.
        media_type: MIME type, such as `image/png`.
        detail: OpenAI's `low`, `high` or `auto`.
        file_id: The provider's name of a file that was uploaded there before.

    Raises:
        LLMInvalidRequestError: Not exactly one of `url`, `data` and `file_id`, or `data` without `media_type`.
    """

    url: str | None = None
    data: bytes | None = None
    media_type: str | None = None
    detail: str | None = None
    file_id: str | None = None

    def __post_init__(self) -> None:
        """Refuse what no provider can read."""
        _one_source("ImagePart", self)


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentPart:
    """A document, such as a PDF, by address, by its bytes, or by a file at the provider.

    Attributes:
        url: Where the provider fetches it.
        data: The document's bytes; needs `media_type`.
        media_type: MIME type, such as `application/pdf`.
        title: Name shown to the model.
        file_id: The provider's name of a file that was uploaded there before.
        context: What the model should know of it, and never cites (Anthropic).
        citations: Whether the answer cites it (Anthropic); None: as the provider does by itself.

    Raises:
        LLMInvalidRequestError: Not exactly one of `url`, `data` and `file_id`, or `data` without `media_type`.
    """

    url: str | None = None
    data: bytes | None = None
    media_type: str | None = None
    title: str | None = None
    file_id: str | None = None
    context: str | None = None
    citations: bool | None = None

    def __post_init__(self) -> None:
        """Refuse what no provider can read."""
        _one_source("DocumentPart", self)


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioPart:
    """Recorded speech or sound.

    Attributes:
        data: The recording's bytes.
        format: `wav` or `mp3`.
    """

    data: bytes
    format: str

    def __post_init__(self) -> None:
        """Refuse what no provider can read."""
        _check_kind("AudioPart.data", self.data, bytes)
        _check_kind("AudioPart.format", self.format, str)


@dataclass(frozen=True, slots=True)
class ThinkingPart:
    """What a model thought before it answered; handed back unchanged in the next turn.

    Attributes:
        text: The thought; empty where the provider hides it.
        signature: The provider's proof that the thought is its own (Anthropic).
        redacted: The provider's encrypted form of a hidden thought (Anthropic, OpenAI's Responses API).
        id: The provider's name of the thought (OpenAI's Responses API); parts that have one in common are one thought.
            In a stream it comes with a part's first piece.
        before: Id of the tool call that the thought led to, in the thought's last part; None: it led to the text.
    """

    text: str
    signature: str | None = None
    redacted: str | None = None
    id: str | None = None
    before: str | None = None
    details: str | None = None

    def __post_init__(self) -> None:
        """Refuse what is no text."""
        _check_kind("ThinkingPart.text", self.text, str)


Part: TypeAlias = TextPart | ImagePart | DocumentPart | AudioPart | ThinkingPart | CachePoint | VendorPart


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's wish to have a tool called.

    Attributes:
        id: The provider's name of this call; the tool's answer carries it as `tool_call_id`.
        name: Tool to call.
        arguments: JSON text of the arguments, as the model wrote it.
        custom: Whether the tool takes free text; `arguments` is that text then, and no JSON.
        signature: The provider's seal on the thought behind the call, which it wants back; None where it sends none.
    """

    id: str
    name: str
    arguments: str
    custom: bool = False
    signature: str | None = None

    def __post_init__(self) -> None:
        """Refuse what is no text, arguments that are an object too."""
        _check_kind("ToolCall.id", self.id, str)
        _check_kind("ToolCall.name", self.name, str)
        _check_kind("ToolCall.arguments", self.arguments, str)


@quick
@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: Who speaks; text such as `"user"` is taken too.
        content: Text, or parts.
        name: The speaker's or the tool's name.
        tool_calls: Calls that an assistant's turn asked for.
        tool_call_id: Which call a tool's turn answers.
        is_error: Whether a tool's turn tells of a failure (Anthropic).

    Raises:
        LLMInvalidRequestError: An unknown role, or content that is neither text nor parts.
    """

    role: MessageRole
    content: str | tuple[Part, ...] = ""
    name: str | None = field(default=None, kw_only=True)
    tool_calls: tuple[ToolCall, ...] = field(default=(), kw_only=True)
    tool_call_id: str | None = field(default=None, kw_only=True)
    is_error: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        """Bring role and sequences into their one form."""
        if type(self.role) is not MessageRole:
            object.__setattr__(self, "role", _role(self.role))
        if not isinstance(self.content, str):
            object.__setattr__(self, "content", _parts(self.content))
        if type(self.tool_calls) is not tuple:
            object.__setattr__(self, "tool_calls", _tool_calls(self.tool_calls))
        if self.is_error is not False and cast("object", self.is_error) is not True:
            raise _invalid("is_error", self.is_error, "True or False")

    @property
    def text(self) -> str:
        """All text of the content, without images, documents and thoughts."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, TextPart))


MessageLike: TypeAlias = "Message | Mapping[str, Any]"
MessagesLike: TypeAlias = "str | MessageLike | Iterable[MessageLike]"


def are_read(messages: object) -> TypeGuard[tuple[Message, ...]]:
    """Return whether they are what `read_messages` returns."""
    several = cast("tuple[object, ...]", messages)
    return type(messages) is tuple and bool(several) and all(type(message) is Message for message in several)


def read_messages(messages: MessagesLike) -> tuple[Message, ...]:
    """Read what callers pass as messages: text, one message, or a sequence of messages and mappings.

    Raises:
        LLMInvalidRequestError: Nothing in it, or an element that is no message; says which and why.
    """
    if isinstance(messages, str):
        if not messages:
            raise LLMInvalidRequestError("messages is an empty text; pass what the model should answer")
        return (_make_message(_USER, messages),)
    try:
        several = cast("Iterable[object]", (messages,) if _is_one(messages) else messages)
        read = tuple(m if isinstance(m, Message) else read_message(m, at=i) for i, m in enumerate(several))
    except TypeError:
        raise _invalid("messages", messages, "a text, Message objects or role/content mappings") from None
    if not read:
        raise LLMInvalidRequestError("messages is empty; pass at least one message")
    return read


_make_message = maker(Message, reads={})
_USER = MessageRole.USER  # here once, for a look at an enum's member takes as long as a call of a function
_FIELDS = frozenset({"role", "content", "name", "tool_calls", "tool_call_id", "is_error"})


def read_message(message: object, *, at: int = 0) -> Message:
    """Read one mapping in OpenAI's form; `at` is its place, for the error.

    Raises:
        LLMInvalidRequestError: A field is missing, unknown or of the wrong kind; says which.
    """
    fields = cast("Mapping[str, Any]", message) if _is_one(message) else None
    if not fields:
        raise _invalid(f"messages[{at}]", message, 'a Message or {"role": …, "content": …}')
    if unknown := sorted(fields.keys() - _FIELDS):
        known = ", ".join(sorted(_FIELDS))
        raise LLMInvalidRequestError(f"messages[{at}] has the unknown field {unknown[0]!r}; known are {known}")
    if "role" not in fields:
        raise LLMInvalidRequestError(f"messages[{at}] has no role; add one of {', '.join(MessageRole)}")
    try:
        content = fields.get("content")
        return Message(
            fields["role"],
            "" if content is None else content,
            name=fields.get("name"),
            tool_calls=_tool_calls(fields.get("tool_calls")),
            tool_call_id=fields.get("tool_call_id"),
            is_error=fields.get("is_error", False),
        )
    except LLMInvalidRequestError as error:
        raise LLMInvalidRequestError(f"messages[{at}]: {error.message}") from None


def _is_one(given: object) -> bool:
    return isinstance(given, (Message, Mapping))


def _role(role: object) -> MessageRole:
    try:
        return MessageRole(str(role))
    except ValueError:
        raise _invalid("role", role, f"one of {', '.join(MessageRole)}", show=isinstance(role, str)) from None


def _parts(content: object) -> tuple[Part, ...]:
    if not isinstance(content, (list, tuple)):
        raise _invalid("content", content, "text or a list of parts")
    read: list[Part] = []
    for part in cast("Iterable[object]", content):
        if isinstance(part, _PARTS):
            read.append(part)
            continue
        read.append(_part(part))
        if isinstance(part, Mapping) and (mark := cast("Mapping[str, object]", part).get("cache_control")) is not None:
            read.append(read_cache_control(mark))
    return tuple(read)


_PARTS = (TextPart, ImagePart, DocumentPart, AudioPart, ThinkingPart, CachePoint, VendorPart)


def _part(part: object) -> Part:
    if isinstance(part, str):
        return TextPart(part)
    match part:
        case {"type": "text", "text": str(text)}:
            return TextPart(text)
        case {"type": "image_url", "image_url": {"url": str(url), "detail": str(detail)}}:
            return ImagePart(url=url, detail=detail)
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            return ImagePart(url=url)
        case {"type": "image_url", "image_url": str(url)}:
            return ImagePart(url=url)
        case {"type": str(kind)}:
            raise LLMInvalidRequestError(
                f"content part of type {kind!r} is not read from mappings; pass TextPart, ImagePart, DocumentPart, "
                "AudioPart or ThinkingPart, or VendorPart for a block in the provider's own form"
            )
        case _:
            raise _invalid("content part", part, 'a part such as TextPart("…") or {"type": "text", "text": …}')


def _tool_calls(calls: object) -> tuple[ToolCall, ...]:
    if calls is None:
        return ()
    if not isinstance(calls, (list, tuple)):
        raise _invalid("tool_calls", calls, "a list of ToolCalls")
    return tuple(map(_tool_call, cast("Iterable[object]", calls)))


def _tool_call(call: object) -> ToolCall:
    match call:
        case ToolCall():
            return call
        case {"id": str(id_), "function": {"name": str(name), "arguments": str(arguments)}}:
            return ToolCall(id_, name, arguments, signature=signature_of(call))
        case {"id": str(id_), "custom": {"name": str(name), "input": str(text)}}:
            return ToolCall(id_, name, text, custom=True)
        case _:
            raise _invalid("tool_calls", call, 'ToolCall or {"id": …, "function": {"name": …, "arguments": …}}')


def signature_of(call: object) -> str | None:
    """Return what a tool call in OpenAI's form has of a signature, where Gemini's compatible endpoint puts it.

    Source: https://ai.google.dev/gemini-api/docs/thought-signatures
    """
    match call:
        case {"extra_content": {"google": {"thought_signature": str(signature)}}} if signature:
            return signature
        case _:
            return None


def signed(signature: str) -> dict[str, Any]:
    """Return the field that `signature_of` reads."""
    return {"extra_content": {"google": {"thought_signature": signature}}}


def _one_source(name: str, part: ImagePart | DocumentPart) -> None:
    if (part.url is not None) + (part.data is not None) + (part.file_id is not None) != 1:
        raise LLMInvalidRequestError(f"{name} needs exactly one of url, data and file_id")
    for field_, value, kind in (("data", part.data, bytes), ("url", part.url, str), ("file_id", part.file_id, str)):
        if value is not None:
            _check_kind(f"{name}.{field_}", value, kind)
    if part.data is not None and not part.media_type:
        raise LLMInvalidRequestError(f"{name} with data needs its media_type, such as 'image/png'")


def _check_kind(field: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise _invalid(field, value, "text" if kind is str else kind.__name__)


def _invalid(field: str, value: object, expected: str, *, show: bool = False) -> LLMInvalidRequestError:
    # Values stay out of messages: they may be content.
    got = repr(value) if show else type(value).__name__
    return LLMInvalidRequestError(f"{field} is {got}; expected {expected}")
