"""`manifold serve` as a process: how it starts, what it refuses, and what signals do. The real program runs."""

# ruff: noqa: ANN401 - ASGI's messages, and doubles whose kind a test knows

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
from contextlib import closing
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest
from tests.patience import PATIENCE

from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Forking = Callable[..., Any]

CLOCK = SystemClock()
CONFIG = "providers: {openai: {base_url: 'http://127.0.0.1:9/v1', api_keys: [k1], models: [gpt-4o-mini]}}\n"
KEYS = 'gateway: {api_keys: {alice: {key_hash: "sha256:%s"}}}\n' % ("0f" * 32)


def written(folder: Path, text: str = CONFIG) -> Path:
    (folder / "llm.yaml").write_text(text, encoding="utf-8")
    return folder


def until(true: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Wait for something that another process does."""
    due = CLOCK.now() + seconds
    while not (found := true()):
        assert CLOCK.now() < due
        Event().wait(0.005)
    return found


def said(folder: Path) -> str:
    return (folder / ".stderr").read_text(encoding="utf-8")


def port_of(folder: Path) -> int:
    """Return where it listens, once it says so."""
    return int(until(lambda: re.search(r"listening on http://127\.0\.0\.1:(\d+);", said(folder))).group(1))


def ask(port: int, path: str, method: str = "GET") -> tuple[int, Any]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def serving(forking: Forking, folder: Path, *words: str, during: Callable[[int, int], object], **options: Any) -> Any:
    """Run it, and do something with its port and its process while it serves."""

    def act(pid: int) -> None:
        during(port_of(folder), pid)

    return forking(folder, "serve", "--port", "0", *words, during=act, **options)


def test_it_says_where_it_listens_what_it_serves_and_who_may_call(forking: Forking, tmp_path: Path) -> None:
    def look(port: int, pid: int) -> None:
        assert ask(port, "/v1/health")[1]["model"] == "gpt-4o-mini"
        os.kill(pid, signal.SIGTERM)

    ended = serving(forking, written(tmp_path), during=look)
    assert (ended.status, ended.out) == (143, "")
    first, *lines = ended.err.splitlines()
    assert re.fullmatch(
        r"listening on (http://127\.0\.0\.1:\d+); providers: openai; no keys: this machine alone may call; "
        r"dashboard at \1/dashboard, docs at \1/docs",
        first,
    )
    told = [json.loads(line) for line in lines]
    assert [(line["path"], line["status"]) for line in told] == [("/v1/health", 200)]


def test_with_nothing_configured_it_serves_the_model_on_this_machine_to_this_machine(
    forking: Forking, tmp_path: Path
) -> None:
    def look(port: int, pid: int) -> None:
        status, health = ask(port, "/v1/health")  # before the model was loaded
        assert (status, health["model"], health["providers"]) == (200, "smollm2-135m", {"local": "healthy"})
        os.kill(pid, signal.SIGINT)

    ended = serving(forking, tmp_path, during=look)
    assert ended.status == 130
    assert "providers: local; no keys" in ended.err


def test_keys_are_counted_and_quiet_is_quiet(forking: Forking, tmp_path: Path) -> None:
    ended = serving(forking, written(tmp_path, CONFIG + KEYS), during=lambda _, pid: os.kill(pid, signal.SIGINT))
    assert "; 1 gateway key; dashboard at" in ended.err
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]

    def end(pid: int) -> None:
        until(lambda: listens(port))
        os.kill(pid, signal.SIGINT)

    ended = forking(tmp_path, "serve", "--port", str(port), "--quiet", during=end, variables={"LOG_LEVEL": "error"})
    assert (ended.status, ended.out, ended.err) == (130, "", "")


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def test_options_go_before_the_environment_and_that_before_the_file(forking: Forking, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("HOST=127.0.0.2\nPORT=1\n", encoding="utf-8")
    written(tmp_path, CONFIG + "gateway: {host: 127.0.0.3}\n")

    def end(pid: int) -> None:
        until(lambda: "listening on http://127.0.0.2:" in said(tmp_path))
        os.kill(pid, signal.SIGINT)

    assert forking(tmp_path, "serve", "--port", "0", during=end).status == 130


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "gateway.example.org"])  # noqa: S104 - to be refused
def test_a_host_other_than_loopback_without_keys_is_refused_with_2(forking: Forking, tmp_path: Path, host: str) -> None:
    ended = forking(written(tmp_path), "serve", "--host", host, "--port", "0")
    assert (ended.status, ended.out) == (2, "")
    assert "manifold keys create NAME" in ended.err
    assert len(ended.err.splitlines()) == 1


def test_a_port_that_is_taken_is_a_2_that_says_what_to_do(forking: Forking, tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        ended = forking(written(tmp_path), "serve", "--port", str(taken.getsockname()[1]))
    assert (ended.status, ended.out) == (2, "")
    assert "another program listens there" in ended.err


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_manager_that_cannot_be_opened_is_a_2_and_nobody_listens(
    forking: Forking, tmp_path: Path, workers: str
) -> None:
    written(tmp_path, "providers: {odd: {type: nonsense, models: [m]}}\n")
    ended = forking(tmp_path, "serve", "--port", "0", "--workers", workers)
    assert ended.status == 2
    assert "nonsense" in ended.err
    assert "listening" not in ended.err
    assert "Traceback" not in ended.err


# --- signals ------------------------------------------------------------------------------------------------------


def test_a_second_signal_ends_it_at_once(forking: Forking, tmp_path: Path, vendor: Any) -> None:
    with vendor(service=60.0) as up:
        config = CONFIG.replace("http://127.0.0.1:9/v1", up.base_url)

        def insist(port: int, pid: int) -> None:
            with closing(socket.create_connection(("127.0.0.1", port), PATIENCE)) as raw:
                body = b'{"messages": [{"role": "user", "content": "Hi"}]}'
                head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
                raw.sendall(head.encode() + body)
                until(lambda: up.active)
                os.kill(pid, signal.SIGTERM)
                until(lambda: not listens(port))
                began = CLOCK.now()
                os.kill(pid, signal.SIGTERM)
                assert raw.recv(1) == b""
                assert CLOCK.now() - began < PATIENCE  # and not after the minute of the answer, or half of one to drain

        assert serving(forking, written(tmp_path, config), during=insist).status == 143


def test_sighup_reads_the_configuration_again_and_a_bad_one_changes_nothing(forking: Forking, tmp_path: Path) -> None:
    def models(port: int) -> list[str]:
        return [model["id"] for model in ask(port, "/v1/models")[1]["data"]]

    def change(port: int, pid: int) -> None:
        assert models(port) == ["gpt-4o-mini"]
        written(tmp_path, CONFIG.replace("gpt-4o-mini", "gpt-4o"))
        os.kill(pid, signal.SIGHUP)
        until(lambda: models(port) == ["gpt-4o"])
        written(tmp_path, CONFIG.replace("gpt-4o-mini", "gpt-5") + "retry: {max_attempts: many}\n")
        os.kill(pid, signal.SIGHUP)
        until(lambda: "stays in force" in said(tmp_path))
        assert models(port) == ["gpt-4o"]
        os.kill(pid, signal.SIGTERM)

    ended = serving(forking, written(tmp_path), during=change)
    assert ended.status == 143
    told = [json.loads(line) for line in ended.err.splitlines()[1:]]
    messages = [line["message"] for line in told if "message" in line]
    assert messages[0] == "the configuration was read again, and is in force"
    assert "retry.max_attempts" in messages[1]


def test_a_file_that_is_watched_is_read_again_by_itself(forking: Forking, tmp_path: Path) -> None:
    def change(port: int, pid: int) -> None:
        written(tmp_path, "watch: true\n" + CONFIG.replace("gpt-4o-mini", "gpt-4o"))
        until(lambda: ask(port, "/v1/models")[1]["data"][0]["id"] == "gpt-4o")
        os.kill(pid, signal.SIGTERM)

    assert serving(forking, written(tmp_path, "watch: true\n" + CONFIG), during=change).status == 143
