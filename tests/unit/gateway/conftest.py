"""A gateway under a real server, in front of a vendor in the test's own loop."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import uvicorn

from llm import LLMManager
from llm.gateway.entry import Entry
from llm.testing import MockUpstream
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    Serving = Callable[..., AbstractAsyncContextManager["Gateway"]]


class Gateway:
    """A gateway that serves, and who asks it."""

    def __init__(self, entry: Entry, up: MockUpstream, url: str, session: aiohttp.ClientSession) -> None:
        self.entry = entry
        self.up = up
        self.url = url
        self.session = session

    async def ask(self, method: str, path: str, body: object = None, **options: object) -> tuple[int, Any, Any]:
        """Return status, JSON and headers of an answer."""
        if body is not None:
            options["json"] = body
        async with self.session.request(method, self.url + path, **options) as answer:
            try:
                return answer.status, await answer.json(content_type=None), answer.headers
            except ValueError:
                return answer.status, await answer.text(), answer.headers

    async def events(self, path: str, body: object, **options: object) -> list[str]:
        """Return the events of a stream."""
        async with self.session.post(self.url + path, json=body, **options) as answer:
            assert answer.status == 200, await answer.text()
            assert answer.headers["content-type"].startswith("text/event-stream")
            return [event for event in (await answer.text()).split("\n\n") if event]


@asynccontextmanager
async def _serving(*, up: MockUpstream | None = None, **config: Any) -> AsyncIterator[Gateway]:
    async with up or MockUpstream() as upstream:
        kind = "anthropic" if not upstream.base_url.endswith("/v1") else "openai"
        section = {"base_url": upstream.base_url, "api_keys": ["k1"], "models": ["gpt-4o-mini"]}
        providers = {kind: section | config.pop("section", {})}
        async with LLMManager.open({"providers": providers} | config) as manager:
            entry = Entry(manager)
            settings = uvicorn.Config(entry, port=0, log_config=None, http="httptools", lifespan="off")
            server = uvicorn.Server(settings)
            async with asyncio.TaskGroup() as group:
                task = group.create_task(server.serve())
                while not server.started:
                    assert not task.done()
                    await SystemClock().sleep(0.005)
                port = server.servers[0].sockets[0].getsockname()[1]
                async with aiohttp.ClientSession() as session:
                    yield Gateway(entry, upstream, f"http://127.0.0.1:{port}", session)
                server.should_exit = True


@pytest.fixture
def serving() -> Serving:
    """Starts a gateway: `async with serving(up=…, section=…, **configuration) as gateway`."""
    return _serving
