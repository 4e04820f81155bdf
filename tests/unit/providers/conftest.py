from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import orjson
import pytest
from aiohttp import web
from tests.patience import PATIENCE

from llm.core.protocols import ProviderSettings
from llm.providers.direct.transport import DirectTransport
from llm.utils.clock import SystemClock
from llm.utils.redact import Secret

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
WIRE = Path(__file__).parents[2] / "wire"


class Server:
    """A real server on 127.0.0.1 whose answers the test writes."""

    def __init__(self) -> None:
        self.url = ""
        self.bodies: list[Any] = []
        self.requests: list[web.Request] = []
        self.answer: Handler | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        body = await request.read()
        self.bodies.append(orjson.loads(body) if body else None)
        assert self.answer is not None
        return await self.answer(request)

    def says(self, body: bytes, *, status: int = 200, type: str = "application/json", **headers: str) -> None:  # noqa: A002 - the type of a body
        named = {name.replace("_", "-"): value for name, value in headers.items()}

        async def answer(_: web.Request) -> web.StreamResponse:
            return web.Response(body=body, status=status, headers={"content-type": type, **named})

        self.answer = answer

    def streams(self, *pieces: bytes, cut: bool = False, type: str = "text/event-stream") -> None:  # noqa: A002 - the type of a body
        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"content-type": type})
            await response.prepare(request)
            for piece in pieces:
                await response.write(piece)
            if cut:
                assert request.transport is not None
                request.transport.abort()
            return response

        self.answer = answer


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.url = f"http://{host}:{port}"
    yield server
    await runner.cleanup()


@pytest.fixture
async def transport() -> AsyncIterator[DirectTransport]:
    transport = DirectTransport(connect_timeout=3 * PATIENCE, trust_env=False)
    yield transport
    await transport.close()


@pytest.fixture
def key() -> Secret:
    return Secret("sk-test-0123456789abcdef")


@pytest.fixture
def settings(server: Server, transport: DirectTransport, key: Secret) -> ProviderSettings:
    return ProviderSettings(
        name="section", models=("m",), clock=SystemClock(), transport=transport, key=key, base_url=server.url
    )


@pytest.fixture
def wire() -> Callable[[str], bytes]:
    return lambda name: (WIRE / name).read_bytes()
