"""Bedrock's own wire format: its binary frames as server-sent events, its failures by Anthropic's types.

Sources: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ResponseStream.html,
https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html
"""

from __future__ import annotations

import struct
from base64 import b64decode
from typing import TYPE_CHECKING, Any, Final, cast

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping

_TYPES: Final = {
    "accessdenied": "permission_error",
    "expiredtoken": "authentication_error",
    "incompletesignature": "authentication_error",
    "internalfailure": "api_error",
    "internalserver": "api_error",
    "invalidclienttokenid": "authentication_error",
    "invalidsignature": "authentication_error",
    "missingauthenticationtoken": "authentication_error",
    "modelerror": "api_error",
    "modelnotready": "overloaded_error",
    "modelstreamerror": "api_error",
    "modeltimeout": "timeout_error",
    "resourcenotfound": "not_found_error",
    "servicequotaexceeded": "rate_limit_error",
    "serviceunavailable": "overloaded_error",
    "throttling": "rate_limit_error",
    "unrecognizedclient": "authentication_error",
    "validation": "invalid_request_error",
}


class FrameError(ValueError):
    """What came is no frame."""


class Frames:
    """Reads a stream's frames as they come."""

    def __init__(self) -> None:
        """Begin a stream."""
        from botocore.eventstream import EventStreamBuffer, ParserError

        self._buffer = EventStreamBuffer()
        self._broken = ParserError

    def feed(self, data: bytes) -> bytes:
        """Take what came, and return the server-sent events that are whole now.

        Raises:
            FrameError: It is no frame.
        """
        self._buffer.add_data(data)
        try:
            frames = [(frame.headers, frame.payload) for frame in self._buffer]
        except (self._broken, LookupError, ValueError, struct.error) as error:
            raise FrameError(f"what came is no frame of events ({type(error).__name__})") from None
        return b"".join([_event(headers, payload) for headers, payload in frames])


def told(body: bytes, code: str) -> bytes:
    """Return the body of a failure in Anthropic's form; `code` is AWS's name of it, with or without more behind it."""
    said = _object(body)
    if "error" in said:
        return body
    message = said.get("message") or said.get("Message") or ""
    kind = _type(code.partition(":")[0])
    return orjson.dumps({"type": "error", "error": {"type": kind, "message": message}})


def _event(headers: Mapping[str, object], payload: bytes) -> bytes:
    match headers.get(":message-type"):
        case "event":
            data = _bytes(_mapping(_json(payload)))
        case "exception":
            data = told(payload, str(headers.get(":exception-type")))
        case _:
            data = told(orjson.dumps({"message": str(headers.get(":error-message"))}), str(headers.get(":error-code")))
    kind = _mapping(_json(data)).get("type") if data else None
    return b"event: %b\ndata: %b\n\n" % (str(kind).encode(), data) if kind else b""


def _bytes(said: dict[str, Any]) -> bytes:
    try:
        # Line ends would end the event's line; in JSON they stand between its parts only.
        return b64decode(said.get("bytes", ""), validate=True).replace(b"\n", b" ").replace(b"\r", b" ")
    except (TypeError, ValueError):
        raise FrameError("a frame holds no bytes") from None


def _json(data: bytes) -> object:
    try:
        read: object = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise FrameError("a frame holds no JSON") from None  # passed over, a piece of the answer would be missing
    return read


def _object(data: bytes) -> dict[str, Any]:
    try:
        return _mapping(_json(data))
    except FrameError:
        return {}


def _mapping(read: object) -> dict[str, Any]:
    return cast("dict[str, Any]", read) if type(read) is dict else {}


def _type(code: str) -> str | None:
    # `ThrottlingException`, `throttlingException` and `Throttling` are one.
    return _TYPES.get(code.lower().removesuffix("exception"))
