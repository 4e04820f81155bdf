"""The same work through several clients, over sockets and in real time; each of them and its server a process."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.programs import OTHER_PYTHON, first_line, program

from .bound import bound_s
from .clients.work import Result, Task, Work
from .generate import generate
from .server import Tally

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable, Iterator, Sequence

    from .scenario import Scenario

_TIMES: Final = 1 / 4  # of the usual two minutes
SCENARIOS: Final = ("equal", "unequal")
"""Those that are compared: they can be made short, as a window of a minute cannot."""

_PATIENCE: Final = 3.0  # times the bound
_GRACE_S: Final = 60.0  # to start and to end
_SERVER: Final = "benchmarks.limits.socket_server"
_CLIENTS: Final = "benchmarks.limits.clients"


@dataclass(frozen=True, slots=True)
class Client:
    """A client to compare.

    Attributes:
        name: What the table calls it.
        python: The interpreter that has it.
        arguments: Its module, and what that takes.
    """

    name: str
    python: str
    arguments: tuple[str, ...]


CLIENTS: Final = (
    Client("llm-manifold", sys.executable, (f"{_CLIENTS}.manifold",)),
    Client("litellm, simple-shuffle", str(OTHER_PYTHON), (f"{_CLIENTS}.litellm_router", "simple-shuffle")),
    Client("litellm, usage-based-v2", str(OTHER_PYTHON), (f"{_CLIENTS}.litellm_router", "usage-based-routing-v2")),
    Client("openai SDK, semaphores", sys.executable, (f"{_CLIENTS}.openai_sdk",)),
)


@dataclass(frozen=True, slots=True)
class SocketOutcome:
    """What came of a run.

    Attributes:
        client: Its name.
        scenario: The scenario's name.
        jobs: How many there were.
        result: What the client tells.
        tally: What the server saw.
        bound_s: The least that is possible, in seconds.
    """

    client: str
    scenario: str
    jobs: int
    result: Result
    tally: Tally
    bound_s: float

    @property
    def ratio(self) -> float:
        """Time over the bound: until the last answer, or until it was stopped."""
        return self.result.finish_s / self.bound_s


def compare(names: Iterable[str], seed: int, clients: Sequence[Client] = CLIENTS) -> Iterator[SocketOutcome]:
    """Run every client on every scenario, one after the other; those that are not installed are left out."""
    for name in names:
        scenario = generate(name, seed, times=_TIMES)
        for client in clients:
            if Path(client.python).exists():
                yield _run(client, scenario)


def _run(client: Client, scenario: Scenario) -> SocketOutcome:
    bound = bound_s(scenario)
    with program(sys.executable, _SERVER, scenario.name, str(scenario.seed), str(_TIMES)) as server:
        work = _work(scenario, first_line(server), _PATIENCE * bound)
        with program(client.python, *client.arguments) as client_process:
            told = _talk(client_process, json.dumps(asdict(work)), work.seconds + _GRACE_S)
        seen = _talk(server, "", _GRACE_S)
    return SocketOutcome(client.name, scenario.name, len(scenario.jobs), Result(**told), Tally(**seen), bound)


def _work(scenario: Scenario, base_url: str, seconds: float) -> Work:
    groups = [scenario.groups[key] for key in scenario.keys]
    limits = [scenario.limits[group].stated() for group in groups]
    tasks = [Task(job.tag, job.prompt, job.max_tokens) for job in scenario.jobs]
    return Work(base_url, scenario.model, list(scenario.keys), groups, limits, seconds, tasks)


def _talk(process: subprocess.Popen[str], text: str, seconds: float) -> dict[str, Any]:
    said, _ = process.communicate(text, timeout=seconds)
    answer: dict[str, Any] = json.loads(said)
    return answer
