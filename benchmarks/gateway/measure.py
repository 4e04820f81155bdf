"""Turns of all ways, one after the other and again, so that all see the same machine; each server has its process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from benchmarks.programs import OTHER_PYTHON, ROOT, first_line, program
from llm.utils.clock import SystemClock

from .load import KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

BARE: Final = "bare Starlette"
GATEWAY: Final = "manifold serve"
LITELLM: Final = "litellm's proxy"
_SLOWER: Final = {LITELLM: 20}
"""Makes so many times fewer requests in a turn."""

_TICK: Final = os.sysconf("SC_CLK_TCK")
_START: Final = 60.0  # seconds
_CONFIG: Final = """
global: {{middleware: [rate_limit, retry, logging, metrics]}}
limits: {{users: {{default: {{requests_per_minute: 100000000, tokens_per_day: 100000000000}}}}}}
providers:
  openai:
    base_url: {upstream}
    api_keys: [k1, k2, k3, k4]
    models: [gpt-4o-mini]
    rate_limits: {{requests_per_minute: 100000000, tokens_per_minute: 100000000000}}
gateway: {{api_keys: {{bench: {{key: {key}, user: bench, models: ["*"]}}}}}}
"""
_LITELLM: Final = """
model_list:
  - {{model_name: gpt-4o-mini, litellm_params: {{model: openai/gpt-4o-mini, api_base: "{upstream}", api_key: k1}}}}
general_settings: {{master_key: {key}}}
"""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn of a way came to.

    Attributes:
        per_second: Requests per second.
        cpu: Seconds of CPU that the server's process took for each request.
        p50: Seconds in which half of the requests were answered.
        p99: Seconds in which 99 of 100 were.
    """

    per_second: float
    cpu: float
    p50: float
    p99: float


@dataclass(slots=True)
class Measured:
    """The turns of each way.

    Attributes:
        turns: By way, in the order in which they were.
    """

    turns: dict[str, list[Turn]] = field(default_factory=dict[str, list[Turn]])

    def of(self, way: str, name: str) -> float:
        """Return the median of a way's turns."""
        found: list[float] = [getattr(turn, name) for turn in self.turns[way]]
        return median(found)

    def beside(self, way: str, other: str, name: str) -> float:
        """Return the median of what a way's turns came to beside those of another, each beside its neighbour."""
        pairs = zip(self.turns[way], self.turns[other], strict=True)
        found: list[float] = [getattr(one, name) / getattr(two, name) for one, two in pairs]
        return median(found)


def measure(rounds: int, requests: int, connections: int, tell: Callable[[str], object]) -> Measured:
    """Measure, `rounds` turns of each way; `tell` hears what comes next."""
    measured = Measured()
    with TemporaryDirectory() as folder, program(sys.executable, "benchmarks.calls.server") as upstream:
        address = f"http://127.0.0.1:{first_line(upstream)}/v1"
        servers = _servers(address, Path(folder))
        with _running(servers) as running:
            for _ in range(rounds + 1):  # the first warms up
                for way, (port, pid) in running.items():
                    tell(way)
                    turn = _turn(port, pid, max(connections, requests // _SLOWER.get(way, 1)), connections)
                    measured.turns.setdefault(way, []).append(turn)
    for turns in measured.turns.values():
        del turns[0]
    return measured


def _servers(upstream: str, folder: Path) -> dict[str, list[str]]:
    """Return how each way is started; its port comes behind."""
    config, other = folder / "llm.yaml", folder / "litellm.yaml"
    config.write_text(_CONFIG.format(upstream=upstream, key=KEY), encoding="utf-8")
    other.write_text(_LITELLM.format(upstream=upstream, key=KEY), encoding="utf-8")
    servers = {
        BARE: [sys.executable, "-m", "benchmarks.gateway.bare", upstream],
        GATEWAY: [sys.executable, "-m", "llm", "serve", "--config", str(config), "--port"],
    }
    if _has_litellm():
        start = "from litellm import run_server; run_server()"
        options = ["--config", str(other), "--host", "127.0.0.1", "--port"]
        servers[LITELLM] = [str(OTHER_PYTHON), "-c", start, *options]
    return servers


def _has_litellm() -> bool:
    if not OTHER_PYTHON.exists():
        return False
    command = [str(OTHER_PYTHON), "-c", "import litellm.proxy.proxy_server"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603 - our own environment


@contextmanager
def _running(servers: dict[str, list[str]]) -> Generator[dict[str, tuple[int, int]]]:
    """Run servers; gives the port and the process of each. Their logs are written, and read by nobody."""
    path = os.pathsep.join(filter(None, ("src", os.environ.get("PYTHONPATH"))))
    begun: dict[str, tuple[int, subprocess.Popen[bytes]]] = {}
    try:
        for way, command in servers.items():
            port = _free_port()
            begun[way] = (
                port,
                subprocess.Popen(  # noqa: S603 - our own programs
                    [*command, str(port)],
                    cwd=ROOT,
                    env={**os.environ, "PYTHONPATH": path},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                ),
            )
        for way, (port, process) in begun.items():
            _await(way, port, process)
        yield {way: (port, process.pid) for way, (port, process) in begun.items()}
    finally:
        for _, process in begun.values():
            process.kill()
            process.wait()


def _free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port: int = taken.getsockname()[1]
    return port


def _await(way: str, port: int, process: subprocess.Popen[bytes]) -> None:
    """Return when a server listens.

    Raises:
        RuntimeError: It ended before, or takes too long.
    """
    now = SystemClock().now
    end = now() + _START
    while now() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            _wait_a_moment(process)
        else:
            return
    raise RuntimeError(f"{way} does not listen; run it by hand to see why")


def _wait_a_moment(process: subprocess.Popen[bytes]) -> None:
    """Wait a moment, or until a process has ended."""
    try:
        process.wait(0.1)
    except subprocess.TimeoutExpired:
        return


def _turn(port: int, pid: int, requests: int, connections: int) -> Turn:
    before = _cpu(pid)
    with program(sys.executable, "benchmarks.gateway.load", str(port), str(requests), str(connections)) as load:
        told = json.loads(load.communicate()[0])
    spent = _cpu(pid) - before
    percent = quantiles(told["each"], n=100)
    return Turn(requests / told["seconds"], spent / requests, percent[49], percent[98])


def _cpu(pid: int) -> float:
    """Return the seconds of CPU that a process took so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK
