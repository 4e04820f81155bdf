"""Turns of all engines, one after the other, so that all see the same machine; each runs in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from benchmarks.programs import first_line, program

from .figures import Figures, turn_of
from .prompts import LONGEST, prompts
from .shape import AT_ONCE, ENGINES, NAIVE, NEW, Answer, Request, Room

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Generator, Iterator, Sequence

    from .shape import Files

_SLOW_FROM: Final = 16
"""From so many requests at once on, those that wait for each other tell nothing new in further rounds."""
_WARM_TOKENS: Final = 8
_ENVIRONMENT: Final = {"OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
"""For all engines on torch alike: threads that wait leave the core to others. And nothing asks the network."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes:
        rounds: How often each engine has its turn.
        at_once: How many requests at the same time.
        engines: Names.
        tokens: Of each answer.
    """

    rounds: int = 3
    at_once: tuple[int, ...] = AT_ONCE
    engines: tuple[str, ...] = tuple(ENGINES.values())
    tokens: int = NEW

    @property
    def room(self) -> Room:
        """What engines are set up for."""
        return Room(max(self.at_once), -(-(LONGEST + self.tokens) // 256) * 256)

    def turns(self) -> Iterator[tuple[int, int, str]]:
        """Give round, number of requests and engine, in order; another engine is first each time."""
        for number in range(self.rounds):
            for place, at_once in enumerate(self.at_once):
                for engine in in_turn(self.engines, number + place):
                    if not (engine == NAIVE and at_once >= _SLOW_FROM and number):
                        yield number, at_once, engine


class FailedError(Exception):
    """An engine does not start, or did not do what was asked of it; the text says why."""


Worker: TypeAlias = "Callable[[dict[str, Any]], dict[str, Any]]"
"""Has an engine take a turn and returns what came of it; raises `FailedError`."""
Tell: TypeAlias = "Callable[[str], object]"
"""Hears what comes next, before it is measured."""


def measure(plan: Plan, files: Files, tell: Tell) -> Iterator[Figures]:
    """Give the figures again and again, with one more turn each time."""
    figures = Figures()
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for engine in plan.engines:
            tell(f"{engine}: starts")
            try:
                workers[engine] = stack.enter_context(started(engine, files, plan.room))
                warm_up(workers[engine])
            except FailedError as error:
                figures = figures.with_failure(engine, str(error))
        for number, at_once, engine in plan.turns():
            if engine in figures.failed:
                continue
            tell(f"round {number + 1}, {at_once} at once: {engine}")
            asked = [Request(text, plan.tokens) for text in prompts(at_once, seed=f"{number} {at_once}")]
            try:
                answers, told = answers_of(workers[engine], asked)
                figures = figures.with_turn(turn_of(engine, number, answers, told["peak"]))
            except FailedError as error:
                figures = figures.with_failure(engine, f"{error} ({at_once} at once)")
            yield figures
    yield figures


def in_turn(names: Sequence[str], turn: int) -> list[str]:
    """Return all names, another one first each turn."""
    first = turn % len(names)
    return [*names[first:], *names[:first]]


def answers_of(worker: Worker, requests: Sequence[Request]) -> tuple[list[Answer], dict[str, Any]]:
    """Return the answers to requests, and all that was told with them.

    Raises:
        FailedError: There are none, or not whole ones.
    """
    told = worker({"requests": [asdict(request) for request in requests]})
    return [Answer(**answer) for answer in told["answers"]], told


def warm_up(worker: Worker) -> None:
    """Have what is made at the first request made, for one and for several at once."""
    for count in (1, 2):
        answers_of(worker, [Request(text, _WARM_TOKENS) for text in prompts(count, seed=f"warm {count}")])


@contextmanager
def started(engine: str, files: Files, room: Room) -> Generator[Worker]:
    """Run an engine's process, and what that starts in turn.

    Raises:
        FailedError: It does not start.
    """
    told = json.dumps({"files": {name: str(file) for name, file in asdict(files).items()}, "room": asdict(room)})
    with program(sys.executable, f"{__package__}.worker", engine, told, environment=_ENVIRONMENT) as process:
        try:
            _answer(process)

            def ask(turn: dict[str, Any]) -> dict[str, Any]:
                if process.stdin is None:
                    raise RuntimeError("the process was started without a pipe to it")
                process.stdin.write(json.dumps(turn) + "\n")
                process.stdin.flush()
                return _answer(process)

            yield ask
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # servers too: they are in its group


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    line = first_line(process)
    if not line:
        raise FailedError("its process ended; its own words are above")
    told: dict[str, Any] = json.loads(line)
    if "failed" in told:
        raise FailedError(told["failed"])
    return told
