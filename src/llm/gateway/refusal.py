"""Answers that the server gives by itself, before any route is asked."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final, NamedTuple

import orjson

_KINDS: Final = {
    408: "timeout_error",
    413: "request_too_large",
    500: "api_error",
    503: "overloaded_error",
}
_RETRY_AFTER: Final = {408: 1, 503: 1}


class Refusal(NamedTuple):
    """A request that is not served, and why: a sentence for its sender."""

    status: int
    why: str

    def response(self) -> bytes:
        """Return the whole response, after which the connection ends.

        Its body is an error in all dialects at once: clients of OpenAI's, Anthropic's and our own read it.
        """
        kind = _KINDS.get(self.status, "invalid_request_error")
        error = {"type": kind, "message": self.why, "code": None, "param": None}
        body = orjson.dumps({"type": "error", "error": error})
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            *([f"retry-after: {_RETRY_AFTER[self.status]}"] if self.status in _RETRY_AFTER else []),
            "connection: close",
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body
