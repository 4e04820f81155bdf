"""A gateway in front of a `MockUpstream`; and its server alone, in front of an application of the test's own."""

# ruff: noqa: ANN401, ARG002 - ASGI's messages, and applications that look at some of them

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from tests.patience import PATIENCE, until

from llm.core.manager import LLMManager
from llm.gateway.entry import Entry
from llm.gateway.guards import Guards
from llm.gateway.server import GatewayServer
from llm.testing import MockUpstream
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager

    Gateways = Callable[..., AbstractAsyncContextManager[Any]]


@pytest.fixture
def serving(gateway: Gateways) -> Gateways:
    """Starts both: `async with serving(up, options={…}, **configuration) as it`; `up`, which runs, may be left out."""

    @asynccontextmanager
    async def serve(
        up: MockUpstream | None = None,
        *,
        section: dict[str, Any] | None = None,
        **config: Any,
    ) -> AsyncGenerator[Any]:
        async with nullcontext(up) if up is not None else MockUpstream() as upstream:
            kind = "openai" if upstream.base_url.endswith("/v1") else "anthropic"
            told = {"base_url": upstream.base_url, "api_keys": ["k1"], "models": ["gpt-4o-mini"], **(section or {})}
            options = config.pop("options", {})
            async with gateway({"providers": {kind: told}, **config}, **options) as it:
                yield it

    return serve


class Line:
    """A WebSocket without a network, and what came on it.

    Attributes:
        status: HTTP status of a handshake that was refused; None before, and where it was not.
        accepted: The subprotocol of the one that was not.
        code: The close code, once it was closed.
        taken: Whether the client takes what is sent; where it is cleared, a message waits.
        gone: Whether sending fails.
        sent: Messages that were sent, or tried.
    """

    def __init__(self) -> None:
        self.status: int | None = None
        self.accepted: str | None = None
        self.code: int | None = None
        self.taken = asyncio.Event()
        self.taken.set()
        self.gone = False
        self.sent = 0
        self._heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._waiting: list[dict[str, Any]] = []

    async def say(self, **message: Any) -> None:
        """Send a message."""
        await self.say_text(orjson.dumps(message).decode())

    async def say_text(self, text: str | bytes) -> None:
        """Send what may be no message."""
        kind = "text" if isinstance(text, str) else "bytes"
        await self.said.put({"type": "websocket.receive", kind: text})

    async def leave(self) -> None:
        """Go."""
        await self.said.put({"type": "websocket.disconnect", "code": 1005})

    async def hear(self) -> dict[str, Any]:
        """Return the next message; an end of the connection is a message too."""
        async with SystemClock().timeout(PATIENCE):
            return await self._heard.get()

    async def answer(self, name: object) -> list[dict[str, Any]]:
        """Return the rest of an operation's messages; those of others wait."""
        mine: list[dict[str, Any]] = []
        while not mine or mine[-1]["type"] in {"chunk", "next"}:
            place = next((place for place, told in enumerate(self._waiting) if told.get("id") == name), None)
            if place is None:
                self._waiting.append(await self.hear())
            else:
                mine.append(self._waiting.pop(place))
        return [{key: value for key, value in message.items() if key != "id"} for message in mine]

    async def closed(self) -> int | None:
        """Return the close code, once it is closed."""
        while self.code is None:
            await self.hear()
        return self.code

    async def receive(self) -> dict[str, Any]:
        """As ASGI's."""
        return await self.said.get()

    async def send(self, message: Any) -> None:
        """As ASGI's."""
        self.sent += 1
        await self.taken.wait()
        if self.gone:
            raise OSError
        match message:
            case {"type": "websocket.accept", "subprotocol": protocol}:
                self.accepted = protocol
                self._heard.put_nowait({"type": "accepted"})
            case {"type": "websocket.send", "text": text}:
                self._heard.put_nowait(orjson.loads(text))
            case {"type": "websocket.close", "code": code}:
                self._end(code)
            case {"type": "websocket.http.response.start", "status": status}:
                self.status = status
            case _:
                self._end(1006)

    def _end(self, code: int) -> None:
        self.code = code
        self._heard.put_nowait({"type": "closed", "code": code})
        self.said.put_nowait({"type": "websocket.disconnect", "code": code})


class Inside:
    """A gateway without a server, and who asks it."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.manager = entry.desk.manager

    @asynccontextmanager
    async def line(
        self, path: str, *, key: str | None = None, subprotocols: str = "graphql-transport-ws", **headers: str
    ) -> AsyncGenerator[Line]:
        """Open a WebSocket; what it says first is heard as `accepted` or `closed`."""
        scope: dict[str, Any] = {
            "type": "websocket",
            "path": path,
            "headers": _headers(key, headers),
            "subprotocols": subprotocols.split(","),
            "extensions": {"websocket.http.response": {}},
        }
        line = Line()
        await line.said.put({"type": "websocket.connect"})
        async with asyncio.TaskGroup() as group:
            group.create_task(self.entry(scope, line.receive, line.send))
            assert (await line.hear())["type"] in {"accepted", "closed"}
            yield line
            line.taken.set()
            await line.leave()

    async def ask(
        self, method: str, path: str, body: object = None, *, key: str | None = None, **headers: str
    ) -> tuple[int, Any, dict[bytes, bytes]]:
        """Return status, JSON and headers of an answer."""
        named = _headers(key, {"content-type": "application/json", **headers})
        told: list[Any] = []
        data = body if isinstance(body, bytes) else orjson.dumps(body)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": data}

        async def send(message: Any) -> None:
            told.append(message)

        await self.entry({"type": "http", "method": method, "path": path, "headers": named}, receive, send)
        return told[0]["status"], orjson.loads(told[1]["body"]), dict(told[0]["headers"])


def _headers(key: str | None, headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    named = [(b"host", b"127.0.0.1:8000")]
    if key is not None:
        named.append((b"authorization", b"Bearer " + key.encode()))
    return [*named, *[(name.lower().replace("_", "-").encode(), value.encode()) for name, value in headers.items()]]


@pytest.fixture
def inside() -> Gateways:
    """Starts a gateway without a server: `async with inside(up, section=…, **configuration) as it`."""

    @asynccontextmanager
    async def start(
        up: MockUpstream | None = None,
        *,
        section: dict[str, Any] | None = None,
        **config: Any,
    ) -> AsyncGenerator[Inside]:
        async with up or MockUpstream() as upstream:
            told = {"base_url": upstream.base_url, "api_keys": ["k1"], "models": ["gpt-4o-mini"], **(section or {})}
            async with LLMManager.open({"providers": {"openai": told}, **config}) as manager:
                yield Inside(Entry(manager))

    return start


class Small:
    """An application whose paths say how it behaves."""

    def __init__(self) -> None:
        self.draining = False
        self.ended = False
        self.asked: list[Any] = []
        self.bodies: list[bytes] = []
        self.left: list[bool] = []
        self.written = 0
        self.go_on = asyncio.Event()

    def end_all(self) -> None:
        self.ended = True

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append(scope)
        try:
            await getattr(self, scope["path"].strip("/") or "echo")(scope, receive, send)
        except asyncio.CancelledError:
            self.left.append(scope["llm.left"]())
            raise

    async def echo(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            assert message["type"] == "http.request"
            body += message["body"]
            more = message["more_body"]
        self.bodies.append(body)
        await self.answer(send, body)

    async def answer(self, send: Any, body: bytes, *headers: tuple[bytes, bytes]) -> None:
        head = [(b"content-length", b"%d" % len(body)), *headers]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})

    async def early(self, scope: Any, receive: Any, send: Any) -> None:
        await self.answer(send, b"early")

    async def wait(self, scope: Any, receive: Any, send: Any) -> None:
        await self.go_on.wait()
        await self.answer(send, b"late")

    async def forever(self, scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    async def pieces(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"one", b"", b"two"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await self.go_on.wait()
        await send({"type": "http.response.body", "body": b"three"})

    async def flood(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            self.written += 65536

    async def boom(self, scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError("a secret")

    async def nothing(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer nothing."""

    async def half(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})

    async def longer(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
        await send({"type": "http.response.body", "body": b"two"})

    async def split(self, scope: Any, receive: Any, send: Any) -> None:
        await self.answer(send, b"", (b"x-evil", b"a\r\nset-cookie: b"))

    async def twice(self, scope: Any, receive: Any, send: Any) -> None:
        await self.answer(send, b"once")
        await self.answer(send, b"twice")

    async def empty(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def after(self, scope: Any, receive: Any, send: Any) -> None:
        await self.answer(send, b"", (b"connection", b"close"), (b"transfer-encoding", b"chunked"))
        assert (await receive())["type"] == "http.disconnect"
        await self.go_on.wait()

    async def socket(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            match message["text"]:
                case "flood":
                    while True:
                        await send({"type": "websocket.send", "text": "x" * 65536})
                        self.written += 65536
                case "boom":
                    raise ZeroDivisionError
                case "bye":
                    await send({"type": "websocket.close"})
                    return
                case "forever":
                    await asyncio.Event().wait()
                case text:
                    await send({"type": "websocket.send", "text": text})


@dataclass
class Raw:
    """A connection whose every byte is the test's."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, *pieces: bytes | str) -> None:
        self.writer.write(b"".join(piece if isinstance(piece, bytes) else piece.encode() for piece in pieces))

    async def until(self, ending: bytes, seconds: float = PATIENCE) -> bytes:
        """Return what comes up to and with some bytes."""
        async with SystemClock().timeout(seconds):
            return await self.reader.readuntil(ending)

    async def rest(self, seconds: float = PATIENCE) -> bytes:
        """Return what comes until the other side ends the connection."""
        async with SystemClock().timeout(seconds):
            return await self.reader.read()

    async def answer(self) -> tuple[int, bytes, bytes]:
        """Return status, head and body of an answer of stated length."""
        head = await self.until(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        async with SystemClock().timeout(PATIENCE):
            body = await self.reader.readexactly(int(lengths[0].split(b":")[1]) if lengths else 0)
        return int(head.split()[1]), head, body

    def leave(self) -> None:
        self.writer.transport.abort()


# What a test does not bound takes longer than it waits, so that it is not taken for what it does.
_UNBOUND: dict[str, Any] = {"header_timeout": 60.0, "body_timeout": 60.0}


@dataclass
class Bare:
    """A server of ours in front of any application."""

    server: GatewayServer
    app: Any
    port: int
    served: asyncio.Task[None]
    refused: list[int]
    guards: Guards
    opened: list[Raw] = field(default_factory=list[Raw])

    def bound(self, **bounds: Any) -> None:
        """Put other bounds in force, for what comes from now on."""
        self.guards = self.server.state.guards = Guards(**_UNBOUND | bounds)

    async def open(self, *pieces: bytes | str) -> Raw:
        raw = Raw(*await asyncio.open_connection("127.0.0.1", self.port))
        self.opened.append(raw)
        raw.send(*pieces)
        return raw

    @property
    def connections(self) -> int:
        return len(self.server.state.watched)

    async def until(self, true: Callable[[], object], seconds: float = PATIENCE) -> None:
        await until(true, seconds=seconds)


@asynccontextmanager
async def _bare(app: Any = None, **bounds: Any) -> AsyncGenerator[Bare]:
    app = app or Small()
    refused: list[int] = []
    guards = Guards(**_UNBOUND | bounds)
    bare: Bare | None = None
    server = GatewayServer(app, lambda: guards if bare is None else bare.guards, refused=refused.append)
    listening = socket.create_server(("127.0.0.1", 0))
    served = asyncio.create_task(server.serve([listening]))
    bare = Bare(server, app, listening.getsockname()[1], served, refused, guards)
    await bare.until(lambda: server.started)
    try:
        yield bare
    finally:
        server.stop(0.0)
        await served
        for raw in bare.opened:
            raw.leave()
            with suppress(ConnectionError):
                await raw.writer.wait_closed()
        assert not server.state.watched
        assert not server.state.tasks


@pytest.fixture
def bare() -> Callable[..., AbstractAsyncContextManager[Bare]]:
    """Starts a server of ours: `async with bare(app, header_timeout=0.1, …) as server`."""
    return _bare
