"""GraphQL over a WebSocket, as the protocol `graphql-transport-ws` has it.

Source: https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md
"""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from llm.core.exceptions import LLMAuthenticationError, LLMInvalidRequestError, LLMRateLimitError
from llm.gateway.codes import SWITCHED_OFF, written_failure
from llm.gateway.sockets import MOST_OPERATIONS, Socket, going_away

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from llm.core.exceptions import LLMException
    from llm.gateway.exchange import Exchange, Receive, Scope, Send
    from llm.gateway.sockets import Host
    from llm.utils.clock import Timer

    from .operations import Operations

INIT_TIMEOUT: Final = 10.0
"""Seconds that a client has to say who it is."""

_BAD_MESSAGE: Final = 4400
_UNAUTHORIZED: Final = 4401
_FORBIDDEN: Final = 4403
_ANOTHER_PROTOCOL: Final = 4406
_INIT_TOO_LATE: Final = 4408
_RUNS_ALREADY: Final = 4409
_INIT_TWICE: Final = 4429
_KEYS: Final = (b"authorization", b"x-api-key")
_LONGEST_ID: Final = 128
_LONGEST_FIRST: Final = 65_536
_LONGEST_REASON: Final = 100
"""Characters; a close frame has room for 123 bytes."""


class GraphQLSocket(Socket):
    """A socket of `/graphql`.

    Who opens it may have sent the key in the headers, or sends it in the payload of `connection_init`, under the same
    names, as browsers must. It is looked at again for each operation, so that one taken out of the configuration ends.
    """

    endpoint: ClassVar[str] = "/graphql"
    protocol: ClassVar[str | None] = "graphql-transport-ws"

    def __init__(self, operations: Operations, host: Host, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a connection that is not accepted yet."""
        super().__init__(host, scope, receive, send)
        self._operations = operations
        self._asked_in = False
        self._known = False
        self._init: Timer | None = None

    @property
    def longest(self) -> int:
        """Bytes of a message; who has not said yet who it is has little to say."""
        return super().longest if self._known else _LONGEST_FIRST

    async def opened(self) -> None:
        """Give it some time to say who it is; close where it speaks another protocol."""
        if self.agreed is None:
            await self.close(_ANOTHER_PROTOCOL, "Subprotocol not acceptable")
        else:
            self._init = self._clock.call_later(INIT_TIMEOUT, self._too_late)

    def left(self) -> None:
        """Take the timer back."""
        if self._init is not None:
            self._init.cancel()

    async def heard(self, message: dict[str, Any]) -> None:
        """Act on a message of the protocol."""
        match message:
            case {"type": "connection_init"}:
                await self._ask_in(message.get("payload"))
            case {"type": "ping"}:
                await self.send({"type": "pong"})
            case {"type": "pong"}:
                pass
            case {"type": "subscribe", "id": str(name), "payload": dict()} if 0 < len(name) <= _LONGEST_ID:
                await self._subscribe(name, message["payload"])
            case {"type": "complete", "id": str(name)}:
                self.end(name)
            case _:
                await self.close(_BAD_MESSAGE, "expected a message of graphql-transport-ws")

    async def misheard(self, error: LLMException) -> None:
        """Close: the protocol has no answer to what is no message."""
        await self.close(_BAD_MESSAGE, error.message[:_LONGEST_REASON])

    async def failed(self, name: Hashable, exchange: Exchange, error: LLMException) -> None:
        """Tell it under the operation's id; where the key is good no more, close."""
        if is_about_the_key(error):
            await self.close(_FORBIDDEN, "Forbidden")
        else:
            failure = written_failure(error, exchange.request_id.decode())
            await self.send({"id": name, "type": "error", "payload": [failure]})

    async def _ask_in(self, payload: object) -> None:
        if self._asked_in:
            await self.close(_INIT_TWICE, "Too many initialisation requests")
            return
        self._asked_in = True
        self.left()
        self.headers = _with_keys(self.headers, payload)
        try:
            self.host.caller(self.headers)
        except LLMAuthenticationError:
            await self.close(_FORBIDDEN, "Forbidden")
            return
        self._known = True
        await self.send({"type": "connection_ack"})

    async def _subscribe(self, name: str, payload: dict[str, Any]) -> None:
        if not self._known:
            await self.close(_UNAUTHORIZED, "Unauthorized")
        elif self.runs(name):
            await self.close(_RUNS_ALREADY, f"Subscriber for {name} already exists"[:_LONGEST_REASON])
        elif (wrong := self._wrong()) is not None:
            failure = written_failure(wrong, self.next_id().decode())
            await self.send({"id": name, "type": "error", "payload": [failure]})
        else:
            self.begin(name, partial(self._run, name, payload))

    def _wrong(self) -> LLMException | None:
        if self.leaving:
            return going_away()
        if not self.host.desk.manager.config.features.graphql:
            return LLMInvalidRequestError(SWITCHED_OFF, status=404)
        if self.full:
            return LLMRateLimitError(
                f"this connection has {MOST_OPERATIONS} operations running, which is the most; wait for the end of "
                "one, or open another connection",
                scope="user",
            )
        return None

    async def _run(self, name: str, payload: dict[str, Any], exchange: Exchange) -> None:
        failed: Any = None
        async with aclosing(self._operations.pieces(self.host.desk, exchange, payload)) as results:
            async for result in results:
                if result.failed:
                    failed = result.payload["errors"]
                    break
                await self.send({"id": name, "type": "next", "payload": result.payload})
        if self.is_last_word(name):
            last = {"type": "complete"} if failed is None else {"type": "error", "payload": failed}
            await self.send({"id": name, **last})

    def _too_late(self) -> None:
        self.close_soon(_INIT_TOO_LATE, "Connection initialisation timeout")


def is_about_the_key(error: LLMException) -> bool:
    """Return whether it is the caller's own key that is refused, for everything."""
    return isinstance(error, LLMAuthenticationError) and error.provider is None and not error.model_only


def _with_keys(headers: Sequence[tuple[bytes, bytes]], payload: object) -> Sequence[tuple[bytes, bytes]]:
    """Return headers in which keys of a payload stand in place of those that were there."""
    if not isinstance(payload, dict):
        return headers
    given = cast("dict[str, object]", payload)
    keys = [
        (key, value.encode())
        for name, value in given.items()
        if isinstance(value, str) and (key := name.lower().encode()) in _KEYS
    ]
    return [*(header for header in headers if header[0] not in _KEYS), *keys] if keys else headers
