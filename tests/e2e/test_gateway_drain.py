"""SIGTERM: new calls are refused, open streams may finish, and at the deadline what is left is ended with an error.

`manifold serve` in front of a vendor that takes its time.
"""

# ruff: noqa: ANN401 - ASGI's messages, and doubles whose kind a test knows

from __future__ import annotations

import json
import os
import re
import signal
import socket
from contextlib import ExitStack, closing, suppress
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest
from tests.held import HeldTime
from tests.patience import PATIENCE
from websockets import ConnectionClosed, Subprotocol
from websockets.sync.client import connect

from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Forking = Callable[..., Any]

CLOCK = SystemClock()
TEXT = "one " * 400
ASK = {"model": "m", "max_tokens": 1000, "messages": [{"role": "user", "content": TEXT}]}
ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": ASK,
    "/v1/messages": ASK,
    "/v1/responses": {"model": "m", "input": TEXT},
    "/v1/generate": {"model": "m", "prompt": TEXT},
}
WHOLE = {  # how a stream ends that is whole
    "/v1/chat/completions": b"data: [DONE]",
    "/v1/messages": b"event: message_stop",
    "/v1/responses": b"event: response.completed",
    "/v1/generate": b'"done":true',
}
ENDED = {  # and one that the gateway ends
    "/v1/chat/completions": rb'data: {"error":',
    "/v1/messages": rb"event: error\ndata: {\"type\":\"error\"",
    "/v1/responses": rb"event: (error|response\.failed)",
    "/v1/generate": rb'data: {"error":',
}


def until(true: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    due = CLOCK.now() + seconds
    while not (found := true()):
        assert CLOCK.now() < due
        Event().wait(0.005)
    return found


class Client:
    """A connection to the gateway."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)

    def ask(self, path: str, body: dict[str, Any] | None = None) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        self.socket.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)

    def until(self, ending: bytes) -> bytes:
        data = b""
        while ending not in data:
            more = self.socket.recv(65536)
            assert more, data
            data += more
        return data

    def rest(self) -> bytes:
        return b"".join(iter(lambda: self.socket.recv(65536), b""))


def serving(
    forking: Forking, folder: Path, up: Any, drain: float, during: Callable[[int, Callable[[], None]], object]
) -> tuple[Any, float]:
    """Run it while something is done with its port and a way to end it; return how it ended, and how long after."""
    section = {"type": "openai", "base_url": up.base_url, "api_keys": ["k1"], "models": ["m"]}
    (folder / "llm.yaml").write_text(json.dumps({"providers": {"up": section}, "gateway": {"drain": drain}}))
    signalled: list[float] = []

    def act(pid: int) -> None:
        said = folder / ".stderr"
        port = until(lambda: re.search(r"listening on http://127\.0\.0\.1:(\d+);", said.read_text())).group(1)

        def end() -> None:
            signalled.append(CLOCK.now())
            os.kill(pid, signal.SIGTERM)

        during(int(port), end)

    ended = forking(folder, "serve", "--port", "0", during=act)
    return ended, CLOCK.now() - signalled[0]


def test_after_sigterm_new_calls_are_refused_and_what_runs_may_finish(
    forking: Forking, tmp_path: Path, vendor: Any
) -> None:
    def act(port: int, end: Callable[[], None]) -> None:
        with ExitStack() as stack:
            streams = {path: Client(port) for path in ASKED}
            unary, kept, late, probe = (Client(port) for _ in range(4))
            for client in (*streams.values(), unary, kept, late, probe):
                stack.enter_context(closing(client.socket))
            for path, client in streams.items():
                client.ask(path, {**ASKED[path], "stream": True})
            unary.ask("/v1/chat/completions", ASK)
            kept.ask("/livez")
            kept.until(b'"ok"}')
            for each in (late, probe):
                each.socket.sendall(b"POST /v1" if each is late else b"GET /readyz HTTP/1.1\r\n")
            until(lambda: up.active == len(ASKED) + 1)
            held.go_on(0.5)
            end()
            until(lambda: not listens(port))
            assert kept.rest() == b""  # at rest, it is closed: whoever kept it opens another, elsewhere
            late.socket.sendall(b"/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\n{}")
            refused = late.rest()
            assert refused.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nretry-after: " in refused
            assert b"\r\nconnection: close\r\n" in refused
            probe.socket.sendall(b"Host: 127.0.0.1\r\n\r\n")
            assert probe.rest().startswith(b"HTTP/1.1 503 ")
            held.go_on(0.5)
            for path, client in streams.items():
                assert WHOLE[path] in client.rest()
            assert TEXT.encode() in unary.rest()

    held = HeldTime()
    with vendor(service=1.0, clock=held) as up:
        ended, seconds = serving(forking, tmp_path, up, 60.0, act)
    assert ended.status == 143
    assert seconds < PATIENCE  # and not after the minute that it might take
    assert len(up.requests) == len(ASKED) + 1


@pytest.mark.parametrize("drain", [0.0, 0.3])
def test_at_the_deadline_streams_end_with_their_dialects_error_event_and_calls_with_a_503(
    forking: Forking, tmp_path: Path, vendor: Any, drain: float
) -> None:
    def act(port: int, end: Callable[[], None]) -> None:
        with ExitStack() as stack:
            streams = {path: Client(port) for path in ASKED}
            unary = Client(port)
            for client in (*streams.values(), unary):
                stack.enter_context(closing(client.socket))
            for path, client in streams.items():
                client.ask(path, {**ASKED[path], "stream": True})
                client.until(b"one")
            unary.ask("/v1/chat/completions", ASK)
            until(lambda: up.active == len(ASKED) + 1)
            end()
            for path, client in streams.items():
                told = client.rest()
                assert re.search(ENDED[path], told), told
                assert WHOLE[path] not in told
                assert told.endswith(b"0\r\n\r\n")
            assert unary.rest().startswith(b"HTTP/1.1 503 ")

    with vendor(service=60.0) as up:
        ended, seconds = serving(forking, tmp_path, up, drain, act)
        until(lambda: not up.active)
    assert ended.status == 143
    assert drain <= seconds < PATIENCE  # and not after the minute of the answers


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("in_time", [True, False])
def test_at_sigterm_sockets_end_with_what_runs_on_them_or_with_its_error_and_are_closed_to_come_back(
    forking: Forking, tmp_path: Path, vendor: Any, *, in_time: bool
) -> None:
    query = 'subscription { completion(input: {prompt: "%s"}) { content } }' % TEXT  # noqa: UP031 - braces
    ends: list[str] = []

    def act(port: int, end: Callable[[], None]) -> None:
        base = f"ws://127.0.0.1:{port}"
        with (
            connect(f"{base}/v1/stream") as stream,
            connect(f"{base}/graphql", subprotocols=[Subprotocol("graphql-transport-ws")]) as graphql,
            connect(f"{base}/v1/stream") as idle,
        ):
            stream.send(json.dumps({"id": "1", "model": "m", "prompt": TEXT}))
            graphql.send('{"type": "connection_init"}')
            graphql.recv(PATIENCE)
            graphql.send(json.dumps({"id": "1", "type": "subscribe", "payload": {"query": query}}))
            until(lambda: up.active == 2)
            held.go_on(0.5)
            end()
            assert closed(idle) == ([], 1012)
            if in_time:
                held.go_on(0.5)
            for socket_ in (stream, graphql):
                told, code = closed(socket_)
                ends.append(told[-1]["type"])
                assert code == 1012

    held = HeldTime()
    with vendor(service=1.0, clock=held) as up:
        ended, seconds = serving(forking, tmp_path, up, 60.0 if in_time else 0.3, act)
        until(lambda: not up.active)
    assert ended.status == 143
    assert ends == (["done", "complete"] if in_time else ["error", "error"])
    assert seconds < PATIENCE


def closed(socket_: Any) -> tuple[list[dict[str, Any]], int]:
    """Return what still comes, and the code of the close."""
    told: list[dict[str, Any]] = []
    with suppress(ConnectionClosed):
        while True:
            told.append(json.loads(socket_.recv(PATIENCE)))
    return told, socket_.close_code
