"""`manifold serve` against clients that mean it no good: slow ones, large ones, many."""

# ruff: noqa: ANN401 - ASGI's messages, and doubles whose kind a test knows

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import signal
import socket
from contextlib import AsyncExitStack, ExitStack, closing
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest
from tests.patience import PATIENCE, until
from tests.steps import counted

from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    Forking = Callable[..., Any]
    Gateways = Callable[..., AbstractAsyncContextManager[Any]]

CLOCK = SystemClock()
# Time-outs that no client here meets, however busy the machine is; tests of them have short ones.
GATEWAY = {"header_timeout": 60, "body_timeout": 60, "max_body_bytes": 1000, "max_connections": 1100}
CONFIG: dict[str, Any] = {
    "providers": {"openai": {"base_url": "http://127.0.0.1:9/v1", "api_keys": ["k1"], "models": ["gpt-4o-mini"]}},
}
HEAD = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"


def serving(forking: Forking, folder: Path, during: Callable[[int, int], object], **gateway: float) -> Any:
    """Run it, do something with its port and its process, and end it."""
    config = {**CONFIG, "gateway": {**GATEWAY, **gateway}}
    (folder / "llm.yaml").write_text(json.dumps(config), encoding="utf-8")

    def act(pid: int) -> None:
        due = CLOCK.now() + PATIENCE
        while (found := re.search(r"listening on \S+:(\d+);", (folder / ".stderr").read_text())) is None:
            assert CLOCK.now() < due
            Event().wait(0.005)
        during(int(found.group(1)), pid)
        os.kill(pid, signal.SIGTERM)

    ended = forking(folder, "serve", "--port", "0", during=act)
    assert ended.status == 143, ended.err
    return ended


def told(raw: socket.socket) -> bytes:
    return b"".join(iter(lambda: raw.recv(65536), b""))


def test_connections_with_slow_or_missing_heads_or_bodies_are_closed_in_time(forking: Forking, tmp_path: Path) -> None:
    sent = {
        "nothing": "",
        "a part of a head": HEAD,
        "a body that is not there": f"{HEAD}Content-Length: 10\r\n\r\n",
        "a part of a body": f"{HEAD}Content-Length: 10\r\n\r\n{{",
        "a part of a chunk": f"{HEAD}Transfer-Encoding: chunked\r\n\r\n5\r\n{{",
    }

    def act(port: int, _: int) -> None:
        with ExitStack() as stack:
            slow = {name: stack.enter_context(closing(socket.create_connection(("127.0.0.1", port)))) for name in sent}
            for name, raw in slow.items():
                raw.settimeout(PATIENCE)
                raw.sendall(sent[name].encode())
            for name, raw in slow.items():
                assert told(raw).startswith(b"HTTP/1.1 408 "), name

    ended = serving(forking, tmp_path, act, header_timeout=0.2, body_timeout=0.2)
    assert "gpt" not in ended.err.partition("\n")[2]


def test_beside_a_thousand_idle_connections_others_are_served_and_these_are_closed(
    forking: Forking, tmp_path: Path
) -> None:
    def act(port: int, _: int) -> None:
        with ExitStack() as stack:
            idle = [
                stack.enter_context(closing(socket.create_connection(("127.0.0.1", port), PATIENCE)))
                for _ in range(1000)
            ]
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
                for _ in range(100):
                    connection.request("GET", "/livez")
                    assert connection.getresponse().read() == b'{"status":"ok"}'
            for raw in idle:
                assert told(raw).startswith(b"HTTP/1.1 408 ")

    serving(forking, tmp_path, act, header_timeout=2.0)


async def test_a_request_takes_as_many_steps_beside_hundreds_of_idle_connections_as_alone(gateway: Gateways) -> None:
    async with AsyncExitStack() as stack:
        it = await stack.enter_async_context(gateway({**CONFIG, "gateway": GATEWAY}))
        it.server._timer.cancel()  # once a second it looks at all connections, however slow the machine is

        async def steps() -> int:
            with counted() as so_far:
                for _ in range(50):
                    assert await it.ask("GET", "/livez")
            return so_far.count

        await steps()  # what is made for the first one
        alone = await steps()
        idle = [await asyncio.open_connection("127.0.0.1", int(it.url.rpartition(":")[2])) for _ in range(900)]
        for _, writer in idle:
            stack.callback(writer.transport.abort)
        await until(lambda: len(it.server.state.watched) == 901)
        assert await steps() < 1.2 * alone


@pytest.mark.parametrize("how", ["Content-Length: 1001\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n3e9\r\n"])
def test_too_large_a_body_is_answered_413_before_it_is_read_declared_or_in_chunks(
    forking: Forking, tmp_path: Path, how: str
) -> None:
    def act(port: int, _: int) -> None:
        with closing(socket.create_connection(("127.0.0.1", port), PATIENCE)) as raw:
            raw.sendall((HEAD + how).encode())
            if "chunked" in how:
                raw.sendall(b"x" * 1001)
            answer = told(raw)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"gateway.max_body_bytes" in answer
        assert ask_metrics(port, "413") == 1

    serving(forking, tmp_path, act)


def ask_metrics(port: int, status: str) -> float:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        connection.request("GET", "/v1/metrics")
        page = connection.getresponse().read().decode()
    found = re.search(rf'llm_gateway_requests_total{{status="{status}"}} (\S+)', page)
    return 0.0 if found is None else float(found.group(1))


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (f"GET /{'a' * 9000} HTTP/1.1\r\nHost: h\r\n\r\n", 414),
        (f"GET / HTTP/1.1\r\nHost: h\r\nx: {'a' * 70_000}\r\n\r\n", 431),
        ("GET / HTTP/1.1\r\nHost: h\r\n" + "x: y\r\n" * 200 + "\r\n", 431),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ],
)
def test_heads_and_paths_have_limits_too(forking: Forking, tmp_path: Path, head: str, status: int) -> None:
    def act(port: int, _: int) -> None:
        with closing(socket.create_connection(("127.0.0.1", port), PATIENCE)) as raw:
            raw.sendall(head.encode())
            assert told(raw).startswith(f"HTTP/1.1 {status} ".encode())

    serving(forking, tmp_path, act)
