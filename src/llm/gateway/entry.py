"""The gateway's one ASGI application: a request finds its route by one look-up, and an error its dialect."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Final

from llm.core.exceptions import (
    LLMException,
    LLMInvalidRequestError,
    LLMPoolExhaustedError,
)

from .caller import ANYONE
from .desk import Desk, Route
from .exchange import LEFT, Exchange
from .faults import ANTHROPIC, NATIVE, OPENAI
from .routes import chat, health

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from llm.core.manager import LLMManager

    from .caller import Caller
    from .exchange import Receive, Scope, Send
    from .faults import Dialect

    Socket = Callable[[Scope, Receive, Send], Awaitable[None]]

_logger = logging.getLogger("llm.gateway")

ROUTES: Final[Mapping[tuple[str, str], Route]] = {
    ("GET", "/v1/health"): Route(health.health, NATIVE, "/v1/health", public=True),
    ("GET", "/livez"): Route(health.live, NATIVE, "/livez", public=True),
    ("GET", "/readyz"): Route(health.ready, NATIVE, "/readyz", public=True),
    ("POST", "/v1/chat/completions"): Route(chat.complete, OPENAI, "/v1/chat/completions"),
}
_NATIVE: Final = ("/v1/generate", "/v1/health", "/v1/metrics")


class Entry:
    """The gateway as an ASGI application.

    Attributes:
        desk: What its routes work with.
        routes: What a method at a path leads to; more may be put in before it serves.
        sockets: What a path leads to for WebSockets; each takes the scope and the channels, and refuses by itself.
        running: Requests that are being answered.
    """

    def __init__(self, manager: LLMManager) -> None:
        """Serve `manager`, which somebody else opened and closes."""
        self.desk: Desk = Desk(manager)
        self.routes: dict[tuple[str, str], Route] = dict(ROUTES)
        self.sockets: dict[str, Socket] = {}
        self.running: set[Exchange] = set()

    @property
    def draining(self) -> bool:
        """Whether it takes no new calls; the server says so."""
        return self.desk.draining

    @draining.setter
    def draining(self, draining: bool) -> None:
        self.desk.draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or serve one WebSocket; follow the server through its life."""
        kind: str = scope["type"]
        if kind == "http":
            await self._answer(scope, receive, send)
        elif kind == "websocket":
            await self._serve(scope, receive, send)
        else:
            await _live(receive, send)

    def end_all(self) -> None:
        """End what still runs: streams by an event that says so, all else with a 503."""
        error = _draining()
        for exchange in tuple(self.running):
            exchange.end(error)

    def caller(self, headers: Sequence[tuple[bytes, bytes]]) -> Caller:
        """Return who sent a request with these headers, their names in lower case.

        Raises:
            LLMAuthenticationError: Nobody who may.
        """
        del headers
        return ANYONE

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        desk = self.desk
        route = self.routes.get((scope["method"], scope["path"])) or self._other(scope["method"], scope["path"])
        most = desk.manager.config.gateway.max_body_bytes
        exchange = Exchange(scope, receive, send, started=desk.clock.now(), most=most)
        exchange.task = asyncio.current_task()
        self.running.add(exchange)
        try:
            await self._run(route, exchange)
        finally:
            self.running.discard(exchange)

    async def _run(self, route: Route, exchange: Exchange) -> None:
        try:
            if not route.public:
                if self.desk.draining:
                    raise _draining()
                exchange.caller = self.caller(exchange.scope["headers"])
            await route.handle(self.desk, exchange)
        except LLMException as error:
            await _refuse(exchange, route.dialect, error)
        except asyncio.CancelledError:
            if exchange.ending is None:
                left: Callable[[], bool] | None = exchange.scope.get("llm.left")
                exchange.status = exchange.status or LEFT
                if left is None or not left():
                    raise
                return
            if exchange.task is not None:
                exchange.task.uncancel()
            await _refuse(exchange, route.dialect, exchange.ending)
        except Exception as error:
            _logger.exception("a request failed by a fault of the gateway's own")
            exchange.error = error
            failure = LLMException("the gateway failed; its log has more under this request's id")
            await _refuse(exchange, route.dialect, failure)

    def _other(self, method: str, path: str) -> Route:
        """Return what answers a method at a path that are in no table."""
        methods = {known for known, there in self.routes if there == path}
        if not methods:
            return Route(_not_there, _dialect_of(path), "other", public=True)
        if method == "HEAD" and "GET" in methods:
            return self.routes["GET", path]
        if "GET" in methods:
            methods.add("HEAD")
        allowed = ", ".join(sorted({*methods, "OPTIONS"}))
        handle = _options if method == "OPTIONS" else _not_allowed
        return Route(partial(handle, allowed), _dialect_of(path), path, public=True)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = self.sockets.get(scope["path"])
        if socket is None or self.draining:
            await receive()
            await send({"type": "websocket.close", "code": 1001 if socket is not None else 1000})
            return
        await socket(scope, receive, send)


async def _refuse(exchange: Exchange, dialect: Dialect, error: LLMException) -> None:
    """Tell of a failure, where no answer has begun."""
    exchange.error = exchange.error or error
    refusal = dialect.refusal(error, exchange.request_id)
    if exchange.status == 0:
        await exchange.answer(refusal.status, refusal.body, refusal.headers)


async def _not_there(_: Desk, exchange: Exchange) -> None:
    await exchange.body()
    raise LLMInvalidRequestError("there is nothing at this address; /docs lists what there is", status=404)


async def _not_allowed(allowed: str, _: Desk, exchange: Exchange) -> None:
    exchange.more.append((b"allow", allowed.encode()))
    raise LLMInvalidRequestError(
        f"{exchange.scope['method'][:20]} is no method of this address; use one of {allowed}", status=405
    )


async def _options(allowed: str, _: Desk, exchange: Exchange) -> None:
    exchange.more.append((b"allow", allowed.encode()))
    await exchange.answer(204, b"", ())


def _draining() -> LLMException:
    return LLMPoolExhaustedError("the gateway is shutting down; ask again, it or another one")


def _dialect_of(path: str) -> Dialect:
    if path.startswith("/v1/messages"):
        return ANTHROPIC
    return NATIVE if not path.startswith("/v1/") or path in _NATIVE else OPENAI


async def _live(receive: Receive, send: Send) -> None:
    """Go through a server's life; the manager is opened and closed by whoever made it."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
