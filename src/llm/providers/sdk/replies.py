"""Answers of a platform in the form that the dialect reads."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from llm.core.exceptions import LLMConnectionError
from llm.providers.direct.fields import Fields

from .frames import FrameError, Frames, told

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm.core.protocols import Reply

_FRAMED: Final = "application/vnd.amazon.eventstream"


class Relayed:
    """A `Reply` that stands for another."""

    __slots__ = ("_reply", "headers", "status")

    def __init__(self, reply: Reply) -> None:
        """Stand for `reply`."""
        self._reply = reply
        self.status: int = reply.status
        self.headers: Mapping[str, str] = reply.headers

    async def read(self) -> bytes:
        """Return the whole body."""
        return await self._reply.read()

    async def chunk(self) -> bytes:
        """Return the next bytes as they come; empty at the orderly end of the body."""
        return await self._reply.chunk()

    def waiting(self) -> bool:
        """Return whether bytes wait to be read."""
        return self._reply.waiting()

    def close(self) -> None:
        """Close it."""
        self._reply.close()


class Reached(Relayed):
    """A platform that has no list of models was asked for it: that it answers so tells that it is there."""

    __slots__ = ()

    def __init__(self, reply: Reply) -> None:
        """Stand for the answer that there is no such page."""
        super().__init__(reply)
        self.status = HTTPStatus.OK


class BedrockReply(Relayed):
    """An answer of Bedrock's as Anthropic would give it: streams as server-sent events, failures with a type."""

    __slots__ = ("_frames",)

    def __init__(self, reply: Reply) -> None:
        """Stand for Bedrock's answer."""
        super().__init__(reply)
        self._frames: Frames | None = None
        if reply.headers.get("content-type", "").startswith(_FRAMED):
            self._frames = Frames()
            raw = {name.lower().encode(): value.encode("latin-1") for name, value in reply.headers.items()}
            self.headers = Fields({**raw, b"content-type": b"text/event-stream"})

    async def read(self) -> bytes:
        """Return the whole body.

        Raises:
            LLMConnectionError: It broke off.
            LLMServerError: It is larger than any answer may be.
        """
        body = await self._reply.read()
        if self.status < HTTPStatus.BAD_REQUEST:
            return body
        return told(body, self.headers.get("x-amzn-errortype", ""))

    async def chunk(self) -> bytes:
        """Return the next events as they come; empty at the orderly end of the body.

        Raises:
            LLMConnectionError: It broke off, makes no sense, or `close` was called.
        """
        while True:
            data = await self._reply.chunk()
            if self._frames is None or not data:
                return data
            if events := self._events(self._frames, data):
                return events

    def _events(self, frames: Frames, data: bytes) -> bytes:
        try:
            return frames.feed(data)
        except FrameError as error:
            reason = str(error)
        self.close()
        raise LLMConnectionError(f"the answer cannot be unpacked: {reason}; it can be sent again", sent=True)
