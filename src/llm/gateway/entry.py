"""The gateway's one ASGI application: a request finds its route by one look-up, and an error its dialect."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from llm.core.exceptions import (
    LLMException,
    LLMInvalidRequestError,
    LLMRateLimitError,
)
from llm.providers.endpoints import models
from llm.providers.endpoints.table import ADDRESSES, MODELS

from .auth import Keyring
from .cors import Origins
from .desk import Desk, Route
from .exchange import LEFT, ClientLeftError, Exchange
from .faults import ANTHROPIC, NATIVE, OPENAI
from .live import Live, refuse
from .logs import tell_fault, tell_request
from .native import Defaults
from .routes import generate, health, metrics, pages
from .routes.dashboard import Dashboard
from .sending import send, served
from .sockets import going_away

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence

    from llm.core.config import GatewayConfig
    from llm.core.manager import LLMManager
    from llm.providers.endpoints.caller import Caller

    from .exchange import Receive, Scope, Send
    from .faults import Dialect

    Socket = Callable[[Scope, Receive, Send], Awaitable[None]]

_PREFIX: Final = "/v1"

ROUTES: Final[Mapping[tuple[str, str], Route]] = {
    ("GET", "/v1/health"): Route(health.health, NATIVE, "/v1/health", public=True),
    ("GET", "/livez"): Route(health.live, NATIVE, "/livez", public=True),
    ("GET", "/readyz"): Route(health.ready, NATIVE, "/readyz", public=True),
    ("GET", "/v1/metrics"): Route(metrics.metrics, NATIVE, "/v1/metrics"),
    ("POST", "/v1/generate"): Route(generate.generate, NATIVE, "/v1/generate"),
    **{
        (method, _PREFIX + path): Route(
            served(address.endpoint), ANTHROPIC if address.anthropic else OPENAI, _PREFIX + path
        )
        for (method, path), address in ADDRESSES.items()
    },
    **{("GET", path): Route(handle, NATIVE, path) for path, handle in pages.handlers().items()},
}
_OF_A_MODEL: Final = f"{_PREFIX}{MODELS}/"


async def _tell_model(desk: Desk, exchange: Exchange) -> None:
    await send(exchange, models.model(desk, exchange, exchange.scope["path"].removeprefix(_OF_A_MODEL)))


_MODEL: Final = Route(_tell_model, OPENAI, _OF_A_MODEL + "{model}")
_OF_BOTH: Final = frozenset({_PREFIX + MODELS, _MODEL.endpoint})
_NATIVE: Final = ("/v1/generate", "/v1/health", "/v1/metrics")


class Entry:
    """The gateway as an ASGI application.

    Attributes:
        desk: What its routes work with.
        routes: What a method at a path leads to; more may be put in before it serves.
        sockets: What a path leads to for WebSockets; each takes the scope and the channels, and refuses by itself.
        live: GraphQL, and the WebSockets that are open.
        dashboard: The page that shows how it does, and its streams.
        running: Requests that are being answered.
    """

    def __init__(self, manager: LLMManager, *, max_length: int | None = None, temperature: float | None = None) -> None:
        """Serve `manager`, which somebody else opened and closes.

        `max_length` and `temperature` are what `/v1/generate` takes where a body says nothing.
        """
        self.desk: Desk = Desk(manager, Defaults(max_length, temperature))
        self.live: Live = Live(self)
        self.dashboard: Dashboard = Dashboard(self)
        self.routes: dict[tuple[str, str], Route] = {**ROUTES, **self.live.routes, **self.dashboard.routes}
        self.sockets: dict[str, Socket] = dict(self.live.sockets)
        self.running: set[Exchange] = set()
        self._config: GatewayConfig = manager.config.gateway
        self._keyring = Keyring(self._config, self.desk.clock)
        self._origins: Origins | None = Origins(self._config.cors_origins) if self._config.cors_origins else None

    @property
    def draining(self) -> bool:
        """Whether it takes no new calls; the server says so."""
        return self.desk.draining

    @draining.setter
    def draining(self, draining: bool) -> None:
        self.desk.draining = draining
        if draining:
            self.live.drain()
            self.dashboard.drain()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """Answer one request, or serve one WebSocket; follow the server through its life."""
        kind: str = scope["type"]
        if kind == "http":
            return self._answer(scope, receive, send)
        if kind == "websocket":
            return self._serve(scope, receive, send)
        return _live(receive, send)

    def end_all(self) -> None:
        """End what still runs: streams by an event that says so, all else with a 503."""
        error = going_away()
        for exchange in tuple(self.running):
            exchange.end(error)

    def caller(self, headers: Sequence[tuple[bytes, bytes]]) -> Caller:
        """Return who sent a request with these headers, their names in lower case.

        Raises:
            LLMAuthenticationError: Nobody who may.
        """
        return self._newest().caller(headers)

    def _newest(self) -> Keyring:
        config = self.desk.manager.config.gateway
        if config is not self._config:  # the manager was reloaded
            self._take(config)
        return self._keyring

    def _take(self, config: GatewayConfig) -> None:
        self._config = config
        self._keyring = Keyring(config, self.desk.clock)
        self._origins = Origins(config.cors_origins) if config.cors_origins else None

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        desk = self.desk
        started = desk.clock.now()
        method, path = scope["method"], scope["path"]
        route = self.routes.get((method, path)) or self._other(method, path)
        keyring = self._newest()
        exchange = Exchange(scope, receive, send, started=started, most=self._config.max_body_bytes)
        exchange.task = scope.get("llm.task") or asyncio.current_task()
        self.running.add(exchange)
        desk.counts.active += 1
        try:
            if self._origins is not None:
                exchange.more.extend(self._origins.headers(scope["headers"]))
            await self._run(route, exchange, keyring)
        finally:
            self.running.discard(exchange)
            desk.counts.active -= 1
            seconds = desk.clock.now() - started
            desk.counts.ended(exchange, route.endpoint, seconds)
            tell_request(exchange, seconds=seconds, wall=desk.clock.wall())

    async def _run(self, route: Route, exchange: Exchange, keyring: Keyring) -> None:
        dialect = route.dialect
        of_anthropic = route.endpoint in _OF_BOTH and exchange.header(b"anthropic-version") is not None
        if dialect is ANTHROPIC or of_anthropic:
            dialect, exchange.anthropic = ANTHROPIC, True
            exchange.more.append((b"request-id", exchange.request_id))
        try:
            if not route.public:
                exchange.caller = keyring.caller(exchange.scope["headers"])
                if self.desk.draining:
                    exchange.more.append((b"connection", b"close"))
                    raise going_away()  # noqa: TRY301 - one place tells of all failures
            await route.handle(self.desk, exchange)
        except LLMException as error:
            if isinstance(error, LLMRateLimitError):
                exchange.more.extend(self.desk.limits(exchange))
            await _refuse(exchange, dialect, error)
        except asyncio.CancelledError as error:
            await _cancelled(exchange, dialect, error)
        except ClientLeftError as error:
            exchange.error, exchange.status = error, exchange.status or LEFT
        except Exception as error:  # noqa: BLE001 - whatever was not foreseen
            tell_fault(error, exchange)
            exchange.error = error
            failure = LLMException("the gateway failed; its log has more under this request's id")
            await _refuse(exchange, dialect, failure)

    def _other(self, method: str, path: str) -> Route:
        """Return what answers a method at a path that are in no table."""
        methods = {known for known, there in self.routes if there == path}
        if path.startswith(_OF_A_MODEL):
            if method == "GET":
                return _MODEL
            methods.add("GET")
        if not methods:
            return Route(_not_there, _dialect_of(path), "other", public=True)
        if method == "HEAD" and "GET" in methods:
            return self.routes.get(("GET", path), _MODEL)
        if "GET" in methods:
            methods.add("HEAD")
        allowed = ", ".join(sorted({*methods, "OPTIONS"}))
        handle = self._options if method == "OPTIONS" else _not_allowed
        return Route(partial(handle, allowed), _dialect_of(path), _endpoint_of(path), public=True)

    async def _options(self, allowed: str, _: Desk, exchange: Exchange) -> None:
        asked = None if self._origins is None else self._origins.preflight(exchange.scope["headers"])
        if asked is not None:
            exchange.more = []  # a preflight's answer has the headers that are meant for it, and no others
            await exchange.answer(asked[0], b"", [header for header in asked[1] if header[0] != b"content-length"])
            return
        exchange.more.append((b"allow", allowed.encode()))
        await exchange.answer(204, b"", ())

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = self.sockets.get(scope["path"])
        if socket is None:
            await receive()
            await refuse(self.desk, scope, receive, send, _nothing(), "other")
            return
        await socket(scope, receive, send)


async def _refuse(exchange: Exchange, dialect: Dialect, error: LLMException) -> None:
    """Tell of a failure, where no answer has begun."""
    exchange.error = exchange.error or error
    exchange.provider = exchange.provider or error.provider
    refusal = dialect.refusal(error, exchange.request_id)
    if exchange.status == 0:
        await exchange.answer(refusal.status, refusal.body, refusal.headers)


async def _not_there(_: Desk, __: Exchange) -> None:
    raise _nothing()  # and nothing of the body is read, for who sends it may be anybody


def _nothing() -> LLMException:
    return LLMInvalidRequestError("there is nothing at this address; /docs lists what there is", status=404)


async def _not_allowed(allowed: str, _: Desk, exchange: Exchange) -> None:
    exchange.more.append((b"allow", allowed.encode()))
    raise LLMInvalidRequestError(
        f"{exchange.scope['method'][:20]} is no method of this address; use one of {allowed}", status=405
    )


async def _cancelled(exchange: Exchange, dialect: Dialect, error: asyncio.CancelledError) -> None:
    """Tell why the server ended a request; be quiet where its client left.

    Raises:
        CancelledError: It is somebody else's.
    """
    if exchange.ending is None:
        exchange.error, exchange.status = error, exchange.status or LEFT
        if not _left(exchange.scope):
            raise error
        return
    if exchange.task is not None:
        exchange.task.uncancel()
    exchange.more.append((b"connection", b"close"))
    await _refuse(exchange, dialect, exchange.ending)


def _left(scope: Scope) -> bool:
    left: Callable[[], bool] | None = scope.get("llm.left")
    return left is not None and left()


def _endpoint_of(path: str) -> str:
    return _MODEL.endpoint if path.startswith(_OF_A_MODEL) else path


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
