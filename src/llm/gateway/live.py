"""What joins GraphQL and the sockets to the gateway: who may open a connection, and which are open."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import orjson

from llm.core.exceptions import LLMAuthenticationError, LLMException, LLMInvalidRequestError
from llm.providers.endpoints.faults import Refusal

from .codes import SWITCHED_OFF, written_failure
from .cors import Origins
from .desk import Route
from .exchange import Exchange
from .faults import NATIVE
from .logs import tell_request
from .sockets import going_away
from .stream_socket import StreamSocket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .desk import Desk
    from .exchange import Receive, Scope, Send
    from .sockets import Host, Socket

    Served = Callable[[Scope, Receive, Send], Awaitable[None]]

_DEFAULT_PORTS: Final = {b"http": b":80", b"https": b":443"}


class GraphQLDialect:
    """GraphQL's envelope."""

    def refusal(self, error: LLMException, request_id: bytes) -> Refusal:
        """As in `Dialect`."""
        plain = NATIVE.refusal(error, request_id)
        body = {"errors": [written_failure(error, request_id.decode())]}
        return Refusal(plain.status, plain.headers, orjson.dumps(body))


GRAPHQL: Final = GraphQLDialect()


class Live:
    """GraphQL over HTTP, and all WebSockets.

    Attributes:
        routes: What it answers over HTTP.
        sockets: What it serves as WebSockets.
        open: Connections.
    """

    def __init__(self, host: Host) -> None:
        """Serve for `host`; GraphQL is loaded when it is first asked for, or by `warm`."""
        self._host = host
        self._graphql: Any = None
        self.routes: dict[tuple[str, str], Route] = {("POST", "/graphql"): Route(self.graphql, GRAPHQL, "/graphql")}
        self.sockets: dict[str, Served] = {"/graphql": self.graphql_socket, "/v1/stream": self.stream_socket}
        self.open: set[Socket] = set()

    def warm(self) -> None:
        """Load GraphQL, which takes a part of a second; may run in a thread."""
        if self._graphql is None:
            self._graphql = import_module("llm.gateway.graphql.door").Door()

    def drain(self) -> None:
        """Start no more operations, and close each connection when what runs on it has ended."""
        for socket in tuple(self.open):
            socket.drain()

    async def graphql(self, desk: Desk, exchange: Exchange) -> None:
        """Answer `POST /graphql`.

        Raises:
            LLMInvalidRequestError: GraphQL is switched off, or the body is no operation.
        """
        self._check_switch()
        await self._load()
        await self._graphql.respond(desk, exchange)

    async def graphql_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a WebSocket of `/graphql`, which tells by its first message who opened it."""
        await receive()
        try:
            self._check_origin(scope)
            self._check_switch()
        except LLMException as error:
            await refuse(self._host.desk, scope, receive, send, error, "/graphql")
            return
        await self._load()
        await self._run(self._graphql.socket(self._host, scope, receive, send))

    async def stream_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a WebSocket of `/v1/stream`, whose headers tell who opens it."""
        await receive()
        try:
            self._check_origin(scope)
            self._host.caller(scope["headers"])
        except LLMException as error:
            await refuse(self._host.desk, scope, receive, send, error, StreamSocket.endpoint)
            return
        await self._run(StreamSocket(self._host, scope, receive, send))

    async def _run(self, socket: Socket) -> None:
        self.open.add(socket)
        try:
            await socket.run()
        finally:
            self.open.discard(socket)

    async def _load(self) -> None:
        if self._graphql is None:
            await asyncio.to_thread(self.warm)

    def _check_switch(self) -> None:
        if not self._host.desk.manager.config.features.graphql:
            raise LLMInvalidRequestError(SWITCHED_OFF, status=404)

    def _check_origin(self, scope: Scope) -> None:
        """Refuse a web page of another origin that is not named; browsers let any page open a WebSocket."""
        if self._host.desk.draining:
            raise going_away()
        headers = dict(scope["headers"])
        origin: bytes | None = headers.get(b"origin")
        if origin is None or _is_same(origin, headers.get(b"host", b"")):
            return
        if origin not in Origins(self._host.desk.manager.config.gateway.cors_origins):
            raise LLMAuthenticationError(
                "a web page of this origin may not open a WebSocket here; name it in gateway.cors_origins",
                model_only=True,
            )


def _is_same(origin: bytes, host: bytes) -> bool:
    scheme, _, place = origin.lower().partition(b"://")
    port = _DEFAULT_PORTS.get(scheme)
    return port is not None and place.removesuffix(port) == host.lower().removesuffix(port)


async def refuse(  # noqa: PLR0913, PLR0917 - ASGI's three, and what is told
    desk: Desk, scope: Scope, receive: Receive, send: Send, error: LLMException, endpoint: str
) -> None:
    """Answer a connection that is not accepted: by HTTP where the server can, else by its end; it is a request too."""
    now = desk.clock.now()
    exchange = Exchange({**scope, "method": "WS"}, receive, send, started=now, most=0)
    refusal = NATIVE.refusal(error, exchange.request_id)
    exchange.error, exchange.status = error, refusal.status
    try:
        if "websocket.http.response" in (scope.get("extensions") or {}):
            headers = [*refusal.headers, (b"x-request-id", exchange.request_id)]
            await send({"type": "websocket.http.response.start", "status": refusal.status, "headers": headers})
            await send({"type": "websocket.http.response.body", "body": refusal.body})
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
    finally:
        seconds = desk.clock.now() - now
        desk.counts.ended(exchange, endpoint, seconds)
        tell_request(exchange, seconds=seconds, wall=desk.clock.wall())
