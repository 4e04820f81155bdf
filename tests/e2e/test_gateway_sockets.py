"""The gateway's WebSockets over real connections: `/v1/stream`, and what they need of the server."""

from __future__ import annotations

import asyncio
from socket import SHUT_RDWR
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from tests.patience import PATIENCE, until

from llm.testing import MockUpstream

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    Gateways = Callable[..., AbstractAsyncContextManager[Any]]

ENDLESS = "one two three four five six seven eight nine ten " * 20
KEYS = {"alice": {"key": "gw-alice-0123456789"}}
MANY = 50


def config(up: MockUpstream, **more: object) -> dict[str, Any]:
    section = {"base_url": up.base_url, "api_keys": ["k1"], "models": ["gpt-4o-mini"]}
    return {"providers": {"openai": section}, **more}


async def answer(socket: aiohttp.ClientWebSocketResponse) -> tuple[str, dict[str, Any]]:
    """Return the text of the one answer that runs, and its last message."""
    text = ""
    while (told := await socket.receive_json(timeout=PATIENCE))["type"] == "chunk":
        text += told["text"]
    return text, told


async def test_an_answer_is_streamed_over_a_real_connection(gateway: Gateways) -> None:
    async with (
        MockUpstream() as up,
        gateway(config(up)) as it,
        it.session.ws_connect(f"{it.url}/v1/stream") as socket,
    ):
        await socket.send_json({"id": 1, "messages": [{"role": "user", "content": "hello there my friend"}]})
        text, done = await answer(socket)
    assert (text, done["type"], done["usage"]["output_tokens"]) == ("hello there my friend", "done", 6)


async def test_without_a_key_the_handshake_is_answered_by_a_401_that_says_why(gateway: Gateways) -> None:
    async with MockUpstream() as up, gateway(config(up, gateway={"api_keys": KEYS})) as it:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await it.session.ws_connect(f"{it.url}/v1/stream")
        assert refused.value.status == 401
        headers = {"x-api-key": "gw-alice-0123456789"}
        async with it.session.ws_connect(f"{it.url}/v1/stream", headers=headers) as socket:
            await socket.send_json({"id": 1, "prompt": "hi"})
            assert (await answer(socket))[0] == "hi"


@pytest.mark.parametrize("politely", [True, False])
async def test_a_client_that_goes_ends_its_upstream_calls(gateway: Gateways, *, politely: bool) -> None:
    async with MockUpstream(service=2 * PATIENCE) as up, gateway(config(up)) as it:
        socket = await it.session.ws_connect(f"{it.url}/v1/stream")
        await socket.send_json({"id": 1, "prompt": ENDLESS})
        await socket.send_json({"id": 2, "prompt": ENDLESS})
        await until(lambda: up.active == 2)
        if politely:
            await socket.close()
        else:
            socket.get_extra_info("socket").shutdown(SHUT_RDWR)
        await until(lambda: up.active == 0 and not it.entry.live.open)


async def test_too_large_a_message_ends_the_connection_before_it_is_read(gateway: Gateways) -> None:
    async with (
        MockUpstream() as up,
        gateway(config(up, gateway={"max_body_bytes": 4096})) as it,
        it.session.ws_connect(f"{it.url}/v1/stream") as socket,
    ):
        await socket.send_str("x" * 1_000_000)
        assert (await socket.receive(timeout=PATIENCE)).type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED}
        assert socket.close_code == 1009


async def test_many_connections_stream_side_by_side(gateway: Gateways) -> None:
    async with MockUpstream() as up, gateway(config(up)) as it:

        async def one(number: int) -> str:
            async with it.session.ws_connect(f"{it.url}/v1/stream") as socket:
                await socket.send_json({"id": number, "prompt": f"hello there {number}"})
                return (await answer(socket))[0]

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(number)) for number in range(MANY)]
        assert [task.result() for task in tasks] == [f"hello there {number}" for number in range(MANY)]


async def test_as_the_server_stops_what_runs_is_told_so_and_the_connection_closed(gateway: Gateways) -> None:
    async with (
        MockUpstream(service=2 * PATIENCE) as up,
        gateway(config(up)) as it,
        it.session.ws_connect(f"{it.url}/v1/stream") as socket,
        it.session.ws_connect(f"{it.url}/v1/stream") as idle,
    ):
        await socket.send_json({"id": 1, "prompt": ENDLESS})
        await socket.receive_json(timeout=PATIENCE)
        it.server.stop(0.3)
        assert (await idle.receive(timeout=PATIENCE)).type is aiohttp.WSMsgType.CLOSE
        assert idle.close_code == 1012
        _, told = await answer(socket)
        assert (told["type"], told["error"]["type"]) == ("error", "overloaded")
        assert (await socket.receive(timeout=PATIENCE)).type is aiohttp.WSMsgType.CLOSE
        assert socket.close_code == 1012
        await until(lambda: up.active == 0)
