"""Reading the fields of a body that somebody else wrote, with errors that name the field."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, TypeGuard

from llm.core.exceptions import LLMInvalidRequestError


def is_mapping(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Return whether `value` is a JSON object."""
    return isinstance(value, Mapping)


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Return whether `value` is a JSON array."""
    return isinstance(value, list)


def wrong(field: str, expected: str) -> LLMInvalidRequestError:
    """Return the error of a field that is not what it must be; the value stays out, for it may be content."""
    return LLMInvalidRequestError(f"{field}: expected {expected}", status=400)


def objects(value: object, field: str) -> list[Mapping[str, Any]]:
    """Return a field that must be a list of objects.

    Raises:
        LLMInvalidRequestError: It is not, or an element is not.
    """
    if not is_list(value):
        raise wrong(field, "a list of objects")
    if all([type(element) is dict for element in value]):
        return value
    return [an_object(element, f"{field}[{place}]") for place, element in enumerate(value)]


def an_object(value: object, field: str) -> Mapping[str, Any]:
    """Return a field that must be an object.

    Raises:
        LLMInvalidRequestError: It is not.
    """
    if not is_mapping(value):
        raise wrong(field, "an object")
    return value


def messages_of(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the body's messages.

    Raises:
        LLMInvalidRequestError: They are missing, none, or no objects.
    """
    messages = objects(body.get("messages"), "messages")
    if not messages:
        raise wrong("messages", "one message or more")
    return messages


def text_of(value: object, field: str) -> str:
    """Return a field that must be text.

    Raises:
        LLMInvalidRequestError: It is not.
    """
    if not isinstance(value, str):
        raise wrong(field, "text")
    return value


def bytes_of(value: object, field: str) -> bytes:
    """Return the bytes of a field in base64.

    Raises:
        LLMInvalidRequestError: It is no base64.
    """
    try:
        return base64.b64decode(text_of(value, field), validate=True)
    except binascii.Error:
        raise wrong(field, "base64") from None


def data_url(url: str, field: str) -> tuple[str, bytes] | None:
    """Return media type and bytes of a `data:` address; None for another address.

    Raises:
        LLMInvalidRequestError: It is one, and not in base64.
    """
    if not url.startswith("data:"):
        return None
    head, _, data = url.removeprefix("data:").partition(",")
    kind, _, encoding = head.rpartition(";")
    if encoding != "base64" or not kind:
        raise wrong(field, "data:TYPE;base64,… or another address")
    return kind, bytes_of(data, field)


def request_fields(body: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of `body` that are in `known`, under the names that `LLMRequest` has for them; None is absent.

    The others are the caller's to put into `extra`, so that they reach the next provider unread.
    """
    return {known[name]: value for name, value in body.items() if name in known and value is not None}
