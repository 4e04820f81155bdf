"""The bare handler: Starlette, one warm aiohttp session, the same JSON in and out, and nothing else."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from benchmarks.calls.server import allow_many_files
from llm.gateway.listening import bind

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from starlette.requests import Request


def app(upstream: str) -> Starlette:
    """Return the application that asks `upstream`."""
    headers = {"authorization": "Bearer k1", "content-type": "application/json"}
    kept: dict[str, aiohttp.ClientSession] = {}

    @asynccontextmanager
    async def life(_: Starlette) -> AsyncGenerator[None]:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
            kept["session"] = session
            yield

    async def complete(request: Request) -> Response:
        body: Any = orjson.loads(await request.body())
        data = orjson.dumps(body)
        if body.get("stream"):
            return StreamingResponse(pieces(data), media_type="text/event-stream")
        async with kept["session"].post(f"{upstream}/chat/completions", data=data, headers=headers) as answer:
            told = orjson.loads(await answer.read())
        return Response(orjson.dumps(told), media_type="application/json")

    async def pieces(data: bytes) -> AsyncIterator[bytes]:
        async with kept["session"].post(f"{upstream}/chat/completions", data=data, headers=headers) as answer:
            async for piece in answer.content.iter_any():
                yield piece

    return Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"])], lifespan=life)


if __name__ == "__main__":
    allow_many_files()
    listening = bind("127.0.0.1", int(sys.argv[2]))  # as the gateway's own sockets are
    config = uvicorn.Config(app(sys.argv[1]), log_level="warning", access_log=False)
    uvicorn.Server(config).run(listening)
