"""Several processes that share keys, and the server that counts what they send."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.limits.bound import bound_s
from benchmarks.limits.scenario import Scenario
from benchmarks.limits.server import Tally
from benchmarks.programs import first_line, program

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
        more: What else is configured of the limits.
        beside: Is told of the processes as they go, and may end one.
    """

    scenario: Scenario
    url: str
    processes: int = 4
    times: float = 1.0
    more: dict[str, Any] = field(default_factory=dict[str, Any])
    beside: Callable[[list[subprocess.Popen[str]]], None] | None = None


@dataclass(slots=True)
class Outcome:
    """What came of it.

    Attributes:
        answered: Jobs with their own answer.
        failed: Jobs without one, by the name of the error.
        finish_s: Seconds from the start of all to the last answer.
        cpu_s: CPU seconds of each process that ended by itself.
        stores: What each of those saw of the limits' store.
        tally: What the server saw.
    """

    tally: Tally
    answered: int = 0
    failed: dict[str, int] = field(default_factory=dict[str, int])
    finish_s: float = 0.0
    cpu_s: list[float] = field(default_factory=list[float])
    stores: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


def run(plan: Plan) -> Outcome:
    """Start server and processes, let all go at once, and wait for the last answer."""
    scenario = plan.scenario
    outcome = Outcome(Tally(0, 0, 0))
    with ExitStack() as programs:
        server = programs.enter_context(
            program(
                sys.executable,
                "benchmarks.limits.socket_server",
                scenario.name,
                str(scenario.seed),
                str(plan.times),
                str(len(scenario.jobs)),
            )
        )
        base_url = first_line(server)
        workers = [
            programs.enter_context(program(sys.executable, "benchmarks.shared.worker")) for _ in range(plan.processes)
        ]
        for number, worker in enumerate(workers):
            _tell(worker, _work(plan, base_url, number))
        for worker in workers:
            first_line(worker)
        started = time.perf_counter()
        readers = [threading.Thread(target=_read, args=(worker, outcome, started)) for worker in workers]
        for worker, reader in zip(workers, readers, strict=True):
            _tell(worker, {"go": True})
            reader.start()
        if plan.beside is not None:
            plan.beside(workers)
        for reader in readers:
            reader.join(_PATIENCE * bound_s(scenario) + _GRACE_S)
        said, _ = server.communicate("", timeout=_GRACE_S)
        outcome.tally = Tally(**json.loads(said))
    return outcome


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
        "more": plan.more,
        "jobs": [
            {"tag": job.tag, "prompt": job.prompt, "max_tokens": job.max_tokens}
            for job in scenario.jobs[number :: plan.processes]
        ],
    }


def _tell(process: subprocess.Popen[str], line: dict[str, Any]) -> None:
    if process.stdin is not None:
        process.stdin.write(json.dumps(line) + "\n")
        process.stdin.flush()


def _read(process: subprocess.Popen[str], outcome: Outcome, started: float) -> None:
    """Take in what a process says until it ends."""
    for line in process.stdout or ():
        said = json.loads(line)
        if said.get("right"):
            outcome.answered += 1
            outcome.finish_s = max(outcome.finish_s, time.perf_counter() - started)
        elif "tag" in said:
            error = said.get("error", "another answer")
            outcome.failed[error] = outcome.failed.get(error, 0) + 1
        else:
            outcome.cpu_s.append(said["cpu"])
            outcome.stores.append(said["store"])
