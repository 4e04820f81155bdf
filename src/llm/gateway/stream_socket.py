"""`/v1/stream`: bodies of `/v1/generate` and `/v1/chat/completions` in, their answers in pieces out, several at once.

A message in has an `id` of the client's choice, a text or a whole number, which its answer carries: `chunk`s, then one
`done` or one `error`, and nothing after. `{"id": …, "type": "cancel"}` ends an answer: its `done` has the finish reason
`cancelled`. A cancel for what does not run, or not any more, is not answered. What is no message is answered by an
`error` whose `id` is null, and costs nothing else.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias, TypeGuard

from llm.core.exceptions import LLMInvalidRequestError
from llm.providers.endpoints.streaming import Streaming
from llm.providers.serving.openai_read import read_request
from llm.providers.serving.openai_write import write_piece

from .faults import native
from .native import read_generate, write_usage
from .sockets import MOST_OPERATIONS, Socket, going_away

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from llm.core.exceptions import LLMException
    from llm.core.types import LLMRequest, StreamChunk

    from .exchange import Exchange

Id: TypeAlias = str | int

_LONGEST_ID: Final = 128


class StreamSocket(Socket):
    """A socket of `/v1/stream`."""

    endpoint: ClassVar[str] = "/v1/stream"

    async def heard(self, message: dict[str, Any]) -> None:
        """Start an answer, or end one."""
        name: object = message.pop("id", None)
        kind: object = message.pop("type", None)
        if not _is_id(name):
            await self.misheard(
                LLMInvalidRequestError("id: expected a text of 1 to 128 characters, or a whole number", status=400)
            )
        elif kind == "cancel":
            await self._cancel(name)
        elif (wrong := self._wrong(name, kind)) is not None:
            await self._refuse(name, wrong)
        else:
            self.begin(name, partial(self._answer, name, message))

    async def misheard(self, error: LLMException) -> None:
        """Tell what is wrong, of no id."""
        await self._refuse(None, error)

    async def failed(self, name: Hashable, exchange: Exchange, error: LLMException) -> None:
        """Tell it under the answer's id, a limit with what is left of it."""
        limits = {header.decode(): value.decode() for header, value in exchange.more}
        await self._refuse(name, error, limits)

    def _wrong(self, name: Id, kind: object) -> LLMException | None:
        if kind is not None:
            return LLMInvalidRequestError("type: expected cancel, or none in a body that is to be answered", status=400)
        if self.leaving:
            return going_away()
        if self.runs(name):
            return LLMInvalidRequestError("id: expected one that no running answer has", status=400)
        if self.full:
            return LLMInvalidRequestError(
                f"this connection has {MOST_OPERATIONS} answers running, which is the most; wait for the end of one, "
                "or open another connection",
                status=429,
            )
        return None

    async def _cancel(self, name: Id) -> None:
        if self.runs(name):
            self.end(name)
            await self.send({"id": name, "type": "done", "finish_reason": "cancelled", "usage": None})

    async def _answer(self, name: Id, body: dict[str, Any], exchange: Exchange) -> None:
        async with Streaming(self.host.desk, exchange, self._request(body, exchange)) as chunks:
            async for chunk in chunks:
                if piece := _written(chunk):
                    await self.send({"id": name, "type": "chunk", **piece})
            response = await chunks.response()
        if self.is_last_word(name):
            await self.send(
                {
                    "id": name,
                    "type": "done",
                    "finish_reason": response.finish_reason,
                    "model": response.model,
                    "provider": response.provider,
                    "cached": response.cached,
                    "usage": write_usage(response.usage),
                }
            )

    def _request(self, body: dict[str, Any], exchange: Exchange) -> LLMRequest:
        if ("prompt" in body) == ("messages" in body):
            raise LLMInvalidRequestError(
                "expected a body of /v1/generate, with prompt, or of /v1/chat/completions, with messages", status=400
            )
        body["stream"] = True
        if "prompt" not in body:
            return read_request(body)
        desk = self.host.desk
        return desk.asking.continuing(exchange.caller, read_generate(body, desk.defaults))

    async def _refuse(
        self, name: Hashable | None, error: LLMException, limits: Mapping[str, str] | None = None
    ) -> None:
        told: dict[str, Any] = dict(native(error))
        if error.retry_after is not None:
            told["retry_after"] = error.retry_after
        if limits:
            told["limits"] = limits
        await self.send({"id": name, "type": "error", "error": told})


def _is_id(name: object) -> TypeGuard[Id]:
    if isinstance(name, str):
        return 0 < len(name) <= _LONGEST_ID
    return isinstance(name, int) and not isinstance(name, bool)


def _written(chunk: StreamChunk) -> dict[str, Any]:
    piece: dict[str, Any] = {}
    if chunk.content:
        piece["text"] = chunk.content
    if chunk.tool_calls:
        piece["tool_calls"] = [write_piece(part) for part in chunk.tool_calls]
    if chunk.thinking is not None and chunk.thinking.text:
        piece["reasoning_content"] = chunk.thinking.text
    if piece and chunk.index:
        piece["index"] = chunk.index
    return piece
