"""`manifold serve` against clients that mean it no good: slow ones, large ones, many."""

# ruff: noqa: ANN401 - ASGI's messages, and doubles whose kind a test knows

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
from contextlib import ExitStack, closing
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest

from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Forking = Callable[..., Any]

CLOCK = SystemClock()
SECONDS = 0.2  # header_timeout and body_timeout
LATEST = 1.2
GATEWAY = {"header_timeout": SECONDS, "body_timeout": SECONDS, "max_body_bytes": 1000, "max_connections": 1100}
CONFIG: dict[str, Any] = {
    "providers": {"openai": {"base_url": "http://127.0.0.1:9/v1", "api_keys": ["k1"], "models": ["gpt-4o-mini"]}},
    "gateway": GATEWAY,
}
HEAD = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"


def serving(
    forking: Forking, folder: Path, during: Callable[[int], object], config: dict[str, Any] | None = None
) -> Any:
    """Run it, do something with its port, and end it."""
    (folder / "llm.yaml").write_text(json.dumps(config or CONFIG), encoding="utf-8")

    def act(pid: int) -> None:
        due = CLOCK.now() + 10.0
        while (found := re.search(r"listening on \S+:(\d+);", (folder / ".stderr").read_text())) is None:
            assert CLOCK.now() < due
            Event().wait(0.005)
        during(int(found.group(1)))
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

    def act(port: int) -> None:
        with ExitStack() as stack:
            began = CLOCK.now()
            slow = {name: stack.enter_context(closing(socket.create_connection(("127.0.0.1", port)))) for name in sent}
            for name, raw in slow.items():
                raw.settimeout(10)
                raw.sendall(sent[name].encode())
            for name, raw in slow.items():
                assert told(raw).startswith(b"HTTP/1.1 408 "), name
            assert CLOCK.now() - began < LATEST

    ended = serving(forking, tmp_path, act)
    assert "gpt" not in ended.err.partition("\n")[2]


def test_a_thousand_idle_connections_do_not_slow_the_others_and_are_closed(forking: Forking, tmp_path: Path) -> None:
    def asked(port: int) -> float:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
            began = CLOCK.now()
            for _ in range(100):
                connection.request("GET", "/livez")
                assert connection.getresponse().read() == b'{"status":"ok"}'
            return CLOCK.now() - began

    def act(port: int) -> None:
        alone = min(asked(port) for _ in range(12))
        with ExitStack() as stack:
            idle = [
                stack.enter_context(closing(socket.create_connection(("127.0.0.1", port), 10))) for _ in range(1000)
            ]
            beside = min(asked(port) for _ in range(12))
            for raw in idle:
                assert told(raw).startswith(b"HTTP/1.1 408 ")
        assert beside < 2 * alone, f"{beside:.3f} s beside them, {alone:.3f} s without"

    slower = {**CONFIG, "gateway": {**GATEWAY, "header_timeout": 2.0}}
    serving(forking, tmp_path, act, slower)


@pytest.mark.parametrize("how", ["Content-Length: 1001\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n3e9\r\n"])
def test_too_large_a_body_is_answered_413_before_it_is_read_declared_or_in_chunks(
    forking: Forking, tmp_path: Path, how: str
) -> None:
    def act(port: int) -> None:
        with closing(socket.create_connection(("127.0.0.1", port), 10)) as raw:
            raw.sendall((HEAD + how).encode())
            if "chunked" in how:
                raw.sendall(b"x" * 1001)
            answer = told(raw)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"gateway.max_body_bytes" in answer
        assert ask_metrics(port, "413") == 1

    serving(forking, tmp_path, act)


def ask_metrics(port: int, status: str) -> float:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
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
    def act(port: int) -> None:
        with closing(socket.create_connection(("127.0.0.1", port), 10)) as raw:
            raw.sendall(head.encode())
            assert told(raw).startswith(f"HTTP/1.1 {status} ".encode())

    serving(forking, tmp_path, act)
