"""Several processes that share keys, and the server that counts what they send."""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from benchmarks.limits.bound import bound_s
from benchmarks.limits.scenario import Scenario
from benchmarks.limits.server import Tally
from benchmarks.programs import first_line, program

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Sequence

_PATIENCE: Final = 3.0  # times the bound
_GRACE_S: Final = 60.0  # to start and to end


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done.

    Attributes:
        scenario: Its jobs, and the limits of the keys.
        url: The limits' store.
        processes: How many processes do the jobs, each its part of them.
        times: What the scenario was generated with; 0 for a stored one.
    """

    scenario: Scenario
    url: str
    processes: int = 4
    times: float = 0.0


@dataclass(slots=True)
class Result:
    """What came of the processes.

    Attributes:
        answered: Jobs with their own answer.
        failed: Jobs without one, by the name of the error.
        finish_s: Seconds from the start of all to the last answer.
        cpu_s: CPU seconds of each process that ended by itself.
        stores: What each of those saw of the limits' store.
    """

    answered: list[str] = field(default_factory=list[str])
    failed: dict[str, int] = field(default_factory=dict[str, int])
    finish_s: float = 0.0
    cpu_s: list[float] = field(default_factory=list[float])
    stores: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


Workers: TypeAlias = "list[subprocess.Popen[str]]"


def run(plan: Plan, beside: Callable[[Workers], None] = lambda _: None) -> tuple[Result, Tally]:
    """Start all, let them go at once, and wait for the last answer; returns what the server saw, too.

    `beside` is told of the processes as they go, and may end one.
    """
    scenario = plan.scenario
    arguments = (scenario.name, str(scenario.seed), str(plan.times), str(len(scenario.jobs)))
    with program(sys.executable, "benchmarks.limits.socket_server", *arguments) as server:
        base_url = first_line(server)
        works = [_work(plan, base_url, number) for number in range(plan.processes)]
        result = send(works, _PATIENCE * bound_s(scenario) + _GRACE_S, beside=beside)
        said, _ = server.communicate("", timeout=_GRACE_S)
    return result, Tally(**json.loads(said))


def send(
    works: Sequence[dict[str, Any]],
    seconds: float,
    *,
    ready: Callable[[], None] = lambda: None,
    beside: Callable[[Workers], None] = lambda _: None,
) -> Result:
    """Have a process do each of these works, all from the same moment on.

    Args:
        works: What `worker` reads.
        seconds: When to give up.
        ready: Is called when all are ready.
        beside: Is told of the processes as they go, and may end one.
    """
    result = Result()
    with ExitStack() as programs:
        workers = [programs.enter_context(program(sys.executable, "benchmarks.shared.worker")) for _ in works]
        for worker, work in zip(workers, works, strict=True):
            _tell(worker, work)
        for worker in workers:
            first_line(worker)
        ready()
        started = time.perf_counter()
        readers = [threading.Thread(target=_read, args=(worker, result, started), daemon=True) for worker in workers]
        for worker, reader in zip(workers, readers, strict=True):
            _tell(worker, {"go": True})
            reader.start()
        beside(workers)
        for reader in readers:
            reader.join(max(0.0, started + seconds - time.perf_counter()))
    return result


def _work(plan: Plan, base_url: str, number: int) -> dict[str, Any]:
    scenario = plan.scenario
    groups = [scenario.groups[key] for key in scenario.keys]
    return {
        "base_url": base_url,
        "url": plan.url,
        "model": scenario.model,
        "keys": list(scenario.keys),
        "groups": groups,
        "limits": [scenario.limits[group].stated() for group in groups],
        "jobs": [
            {"tag": job.tag, "prompt": job.prompt, "max_tokens": job.max_tokens}
            for job in scenario.jobs[number :: plan.processes]
        ],
    }


def _tell(process: subprocess.Popen[str], line: dict[str, Any]) -> None:
    if process.stdin is not None:
        process.stdin.write(json.dumps(line) + "\n")
        process.stdin.flush()


def _read(process: subprocess.Popen[str], result: Result, started: float) -> None:
    """Take in what a process says until it ends."""
    for line in process.stdout or ():
        said = json.loads(line)
        if said.get("right"):
            result.answered.append(said["tag"])
            result.finish_s = max(result.finish_s, time.perf_counter() - started)
        elif "tag" in said:
            error = said.get("error", "another answer")
            result.failed[error] = result.failed.get(error, 0) + 1
        else:
            result.cpu_s.append(said["cpu"])
            result.stores.append(said["store"])
