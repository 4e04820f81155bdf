"""The gateway's routes, asked of a running `manifold serve`. Its depth has suites of its own."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUTES = {
    "/v1/health": "GET",
    "/livez": "GET",
    "/readyz": "GET",
    "/v1/metrics": "GET",
    "/v1/models": "GET",
    "/v1/generate": "POST",
    "/v1/chat/completions": "POST",
    "/v1/completions": "POST",
    "/v1/embeddings": "POST",
    "/v1/responses": "POST",
    "/v1/messages": "POST",
    "/v1/messages/count_tokens": "POST",
    "/graphql": "POST",
    "/docs": "GET",
    "/redoc": "GET",
}
METRICS = [
    "llm_gateway_requests_total",
    "llm_gateway_request_duration_seconds",
    "llm_gateway_tokens_generated_total",
    "llm_gateway_generation_duration_seconds",
    "llm_gateway_active_requests",
    "llm_gateway_model_info",
]
CONFIG = "providers: {openai: {base_url: 'http://127.0.0.1:9/v1', api_keys: [k1], models: [gpt-4o-mini]}}\n"


@pytest.fixture(scope="module")
def port(shell: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a gateway of this module's own, whose upstream is not there."""
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "llm.yaml").write_text(CONFIG, encoding="utf-8")
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        free: int = taken.getsockname()[1]
    program = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "llm", "serve", "--port", str(free)],
        cwd=folder,
        env=shell,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert answers(program, free)
        yield free
    finally:
        program.terminate()
        program.wait(40)


def answers(program: subprocess.Popen[bytes], port: int) -> bool:
    """Return whether the program listens, before it ends and within ten seconds."""
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            try:
                program.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
            return False
        return True
    return False


def ask(port: int, method: str, path: str, body: object = None) -> tuple[int, str]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request(method, path, json.dumps(body) if body is not None else None)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


@pytest.mark.parametrize(("path", "method"), ROUTES.items())
def test_a_route_is_there(port: int, path: str, method: str) -> None:
    assert ask(port, method, path, {} if method == "POST" else None)[0] not in {404, 405, 501}


@pytest.mark.parametrize("path", ["/graphql", "/v1/stream"])
def test_a_web_socket_is_there(port: int, path: str) -> None:
    head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    protocol = "Sec-WebSocket-Protocol: graphql-transport-ws\r\n" if path == "/graphql" else ""
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall((head + key + protocol + "\r\n").encode())
        assert connection.recv(64).startswith(b"HTTP/1.1 101")


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_has_its_name(port: int, name: str) -> None:
    assert name in ask(port, "GET", "/v1/metrics")[1]


def test_the_dashboard_is_a_page(port: int) -> None:
    status, page = ask(port, "GET", "/dashboard")
    assert status == 200
    assert "<html" in page.lower()
