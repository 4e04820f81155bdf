from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from llm.providers.sdk.replies import BedrockReply, Reached

if TYPE_CHECKING:
    from llm.core.protocols import Reply


import_module("botocore.eventstream")  # loaded as the client of Bedrock is made, never in the loop


class Given:
    """A reply whose pieces are there."""

    def __init__(self, *pieces: bytes, status: int = 200, **headers: str) -> None:
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.closed = False
        self._pieces = [*pieces]

    async def read(self) -> bytes:
        return b"".join(self._pieces)

    async def chunk(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    def waiting(self) -> bool:
        return bool(self._pieces)

    def close(self) -> None:
        self.closed = True


async def test_what_stands_for_a_reply_is_one_in_all_it_does() -> None:
    given = Given(b"a", b"b", status=404, content_type="text/html")
    reply: Reply = Reached(given)
    assert (reply.status, reply.headers["content-type"], reply.waiting()) == (200, "text/html", True)
    assert await reply.read() == b"ab"
    assert [await reply.chunk(), await reply.chunk(), await reply.chunk()] == [b"a", b"b", b""]
    assert not reply.waiting()
    reply.close()
    assert given.closed


async def test_what_does_not_come_in_frames_comes_as_it_is() -> None:
    reply = BedrockReply(Given(b"data: {}\n\n", content_type="text/event-stream"))
    assert [await reply.chunk(), await reply.chunk()] == [b"data: {}\n\n", b""]


async def test_the_head_of_a_framed_answer_is_kept_but_for_its_type() -> None:
    framed = "application/vnd.amazon.eventstream"
    reply = BedrockReply(Given(b"\0", b"\0", content_type=framed, X_Request_Id="r"))
    assert (reply.headers["Content-Type"], reply.headers["x-request-id"]) == ("text/event-stream", "r")
    assert await reply.chunk() == b""
