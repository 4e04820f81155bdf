"""A gateway in front of a `MockUpstream`."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from llm.core.manager import LLMManager
from llm.gateway.entry import Entry
from llm.testing import MockUpstream
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    Gateways = Callable[..., AbstractAsyncContextManager[Any]]


@pytest.fixture
def serving(gateway: Gateways) -> Gateways:
    """Starts both: `async with serving(up, options={…}, **configuration) as it`; `up`, which is running, may be left out."""

    @asynccontextmanager
    async def serve(
        up: MockUpstream | None = None,
        *,
        section: dict[str, Any] | None = None,
        **config: Any,  # noqa: ANN401 - a configuration
    ) -> AsyncIterator[Any]:
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
        held: Where it is set, the client takes nothing until it is set free.
    """

    def __init__(self) -> None:
        self.status: int | None = None
        self.accepted: str | None = None
        self.code: int | None = None
        self.taken = asyncio.Event()
        self.taken.set()
        self.sent = 0
        self._heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._waiting: list[dict[str, Any]] = []

    async def say(self, **message: Any) -> None:  # noqa: ANN401 - JSON
        """Send a message."""
        await self.say_text(orjson.dumps(message).decode())

    async def say_text(self, text: str | bytes) -> None:
        """Send what may be no message."""
        kind = "text" if isinstance(text, str) else "bytes"
        await self._said.put({"type": "websocket.receive", kind: text})

    async def leave(self) -> None:
        """Go."""
        await self._said.put({"type": "websocket.disconnect", "code": 1005})

    async def hear(self) -> dict[str, Any]:
        """Return the next message; an end of the connection is a message too."""
        async with SystemClock().timeout(5):
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
        return await self._said.get()

    async def send(self, message: Any) -> None:  # noqa: ANN401 - as ASGI has it
        """As ASGI's."""
        self.sent += 1
        await self.taken.wait()
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
        self._said.put_nowait({"type": "websocket.disconnect", "code": code})


class Inside:
    """A gateway without a server, and who asks it."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.manager = entry.desk.manager

    @asynccontextmanager
    async def line(
        self, path: str, *, key: str | None = None, subprotocols: str = "graphql-transport-ws", **headers: str
    ) -> AsyncIterator[Line]:
        """Open a WebSocket; what it says first is heard as `accepted` or `closed`."""
        scope = {
            "type": "websocket",
            "path": path,
            "headers": _headers(key, headers),
            "subprotocols": subprotocols.split(","),
            "extensions": {"websocket.http.response": {}},
        }
        line = Line()
        await line._said.put({"type": "websocket.connect"})
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

        async def send(message: Any) -> None:  # noqa: ANN401 - as ASGI has it
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
        **config: Any,  # noqa: ANN401 - a configuration
    ) -> AsyncIterator[Inside]:
        async with up or MockUpstream() as upstream:
            told = {"base_url": upstream.base_url, "api_keys": ["k1"], "models": ["gpt-4o-mini"], **(section or {})}
            async with LLMManager.open({"providers": {"openai": told}, **config}) as manager:
                yield Inside(Entry(manager))

    return start
