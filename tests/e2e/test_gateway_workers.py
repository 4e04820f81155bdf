"""`manifold serve --workers`: several processes on one port, and one that looks after them."""

# ruff: noqa: ANN401 - ASGI's messages, and doubles whose kind a test knows

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families

from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable

    Forking = Callable[..., Any]

CLOCK = SystemClock()
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}]})


def until(true: Callable[[], Any], seconds: float = 60.0) -> Any:
    due = CLOCK.now() + seconds
    while not (found := true()):
        assert CLOCK.now() < due
        Event().wait(0.01)
    return found


def serving(
    forking: Forking,
    folder: Path,
    during: Callable[[int, int], object],
    base_url: str = "http://127.0.0.1:9/v1",
    **more: Any,
) -> Any:
    """Run two workers, and do something with their port and their parent."""
    section = {"type": "openai", "base_url": base_url, "api_keys": ["k1"], "models": ["m"]}
    (folder / "llm.yaml").write_text(json.dumps({"providers": {"up": section}, **more}), encoding="utf-8")

    def act(pid: int) -> None:
        found = until(lambda: re.search(r"listening on \S+:(\d+);", (folder / ".stderr").read_text()))
        until(lambda: len(children(pid)) == 2)
        during(int(found.group(1)), pid)

    ended = forking(folder, "serve", "--port", "0", "--workers", "2", during=act)
    assert "Traceback" not in ended.err, ended.err
    return ended


def children(pid: int) -> list[int]:
    """Return the processes that another one started and that have not ended."""
    found: list[int] = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            number, _, rest = stat.read_text().partition(" (")
            state, parent = rest.rpartition(") ")[2].split()[:2]
            if int(parent) == pid and state != "Z":
                found.append(int(number))
    return found


def ask(port: int, path: str = "/livez", body: str | None = None) -> tuple[int, str]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET" if body is None else "POST", path, body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    return False


def test_a_worker_that_dies_is_started_again_and_signals_reach_all(forking: Forking, tmp_path: Path) -> None:
    def act(port: int, pid: int) -> None:
        first, second = sorted(children(pid))
        os.kill(first, signal.SIGKILL)
        workers = until(lambda: (now := children(pid)) and first not in now and len(now) == 2 and now)
        assert second in workers
        config = (tmp_path / "llm.yaml").read_text(encoding="utf-8")
        (tmp_path / "llm.yaml").write_text(config.replace('["m"]', '["n"]'), encoding="utf-8")
        os.kill(pid, signal.SIGHUP)  # which harms no worker that has just begun
        until(lambda: all('"id":"n"' in ask(port, "/v1/models")[1] for _ in range(20)))
        assert set(children(pid)) == set(workers)
        os.kill(pid, signal.SIGTERM)
        until(lambda: not any(alive(worker) for worker in workers))

    ended = serving(forking, tmp_path, act)
    assert ended.status == 143
    assert re.search(r"worker \d+ ended with status -9; another one starts in 0\.5 seconds", ended.err)


def test_ctrl_c_ends_all_and_a_second_signal_kills_them(forking: Forking, tmp_path: Path, vendor: Any) -> None:
    def act(_: int, pid: int) -> None:
        os.kill(pid, signal.SIGINT)

    assert serving(forking, tmp_path, act).status == 130

    def insist(port: int, pid: int) -> None:
        with closing(socket.create_connection(("127.0.0.1", port), 5)) as raw:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(BODY)}\r\n\r\n"
            raw.sendall((head + BODY).encode())
            until(lambda: up.active)
            os.kill(pid, signal.SIGTERM)
            until(lambda: len(children(pid)) == 1)
            os.kill(pid, signal.SIGTERM)
            assert raw.recv(1) == b""

    with vendor(service=60.0) as up:
        assert serving(forking, tmp_path, insist, up.base_url).status == 143


def test_after_sigterm_to_the_whole_group_what_runs_may_finish(forking: Forking, tmp_path: Path, vendor: Any) -> None:
    def act(port: int, pid: int) -> None:
        with closing(socket.create_connection(("127.0.0.1", port), 5)) as raw:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(BODY)}\r\n\r\n"
            raw.sendall((head + BODY).encode())
            until(lambda: up.active)
            for each in (*children(pid), pid):
                os.kill(each, signal.SIGTERM)
            answer = b"".join(iter(lambda: raw.recv(65536), b""))
            assert answer.startswith(b"HTTP/1.1 200 ")

    with vendor(service=0.7) as up:
        assert serving(forking, tmp_path, act, up.base_url).status == 143


def test_workers_end_with_their_parent(forking: Forking, tmp_path: Path) -> None:
    left: list[int] = []

    def act(port: int, pid: int) -> None:
        assert ask(port)[0] == 200
        left.extend(children(pid))
        os.kill(pid, signal.SIGKILL)

    assert serving(forking, tmp_path, act).status == -signal.SIGKILL
    assert len(left) == 2
    until(lambda: not any(alive(worker) for worker in left))


def test_without_a_store_each_worker_takes_its_part_of_the_limits_and_it_says_so(
    forking: Forking, tmp_path: Path, vendor: Any
) -> None:
    with vendor() as up:
        statuses = asked_of_two(forking, tmp_path, up.base_url, {"global": {"requests_per_day": 4}})
        assert 2 <= statuses.count(200) <= 4
        assert set(statuses) == {200, 429}
        assert len(up.requests) == statuses.count(200)
    assert "each worker takes 1/2 of every limit" in (tmp_path / ".stderr").read_text()


def test_with_a_store_the_workers_share_the_limits_whole(
    forking: Forking, tmp_path: Path, vendor: Any, redis_server: Any
) -> None:
    with vendor() as up, redis_server() as store:
        limits = {"store": "redis", "url": store.url, "global": {"requests_per_day": 5}}
        statuses = asked_of_two(forking, tmp_path, up.base_url, limits)
        assert statuses.count(200) == len(up.requests) == 5
        assert set(statuses) == {200, 429}
    assert "each worker takes" not in (tmp_path / ".stderr").read_text()


def test_a_scrape_of_any_worker_tells_of_all(forking: Forking, tmp_path: Path, vendor: Any) -> None:
    def told(port: int, name: str) -> Counter[str]:
        """Return what each worker told of something, by its place."""
        families = text_string_to_metric_families(ask(port, "/v1/metrics")[1])
        found: Counter[str] = Counter()
        for sample in (each for family in families for each in family.samples if each.name == name):
            found[sample.labels["worker"]] += int(sample.value)
        return found

    def act(port: int, pid: int) -> None:
        until(lambda: told(port, "llm_gateway_worker_answered") == {"0": 1, "1": 1})
        assert {ask(port, "/v1/chat/completions", BODY)[0] for _ in range(24)} == {200}
        calls = until(lambda: (now := told(port, "llm_calls_total")).total() == 24 and now)
        assert set(calls) == {"0", "1"}
        away = min(children(pid))
        os.kill(away, signal.SIGSTOP)
        assert sorted(told(port, "llm_gateway_worker_answered").values()) == [0, 1]
        os.kill(away, signal.SIGKILL)
        until(lambda: told(port, "llm_gateway_worker_answered") == {"0": 1, "1": 1})
        os.kill(pid, signal.SIGTERM)

    with vendor() as up:
        assert serving(forking, tmp_path, act, up.base_url).status == 143


def asked_of_two(forking: Forking, folder: Path, base_url: str, limits: dict[str, Any]) -> list[int]:
    statuses: list[int] = []

    def act(port: int, pid: int) -> None:
        statuses.extend(ask(port, "/v1/chat/completions", BODY)[0] for _ in range(24))
        os.kill(pid, signal.SIGTERM)

    assert serving(forking, folder, act, base_url, limits=limits).status == 143
    return statuses


def test_a_limit_that_cannot_be_divided_is_refused_with_2(forking: Forking, tmp_path: Path) -> None:
    section = {"api_keys": ["k1"], "models": ["m"], "rate_limits": {"requests_per_minute": 1}}
    (tmp_path / "llm.yaml").write_text(json.dumps({"providers": {"openai": section}}), encoding="utf-8")
    ended = forking(tmp_path, "serve", "--port", "0", "--workers", "2")
    assert ended.status == 2
    assert "providers.openai.rate_limits[0].requests_per_minute: 1 cannot be divided among 2 processes" in ended.err
