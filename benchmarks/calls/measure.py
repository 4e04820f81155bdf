"""Calls of all ways, in turns, so that all see the same machine; what is heavy stays in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, TypeAlias

from benchmarks.programs import OTHER_PYTHON, ROOT, first_line, program
from benchmarks.redis_server import redis_server

from .figures import AT_ONCE as OF_TARGETS
from .figures import Cost, Figures, Imports, Memory, Piece
from .shape import (
    ALL_LIMITS,
    ALONE,
    BARE,
    DIALECTS,
    FOLDER,
    GROUPS,
    KEY_LIMITS,
    LITELLM,
    MANY,
    ON_OURS,
    REDIS,
    SDK,
    VENDOR,
    Shape,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from .figures import Part
    from .shape import Group

AT_ONCE: Final = (1, 32, MANY)
HELD: Final = MANY
"""How many streams are held open to see what each takes."""
_HELD_SLOWLY: Final = 100
"""The same of litellm's."""
_HELD_WAYS: Final[dict[Group, tuple[str, ...]]] = {
    "manifold": (BARE, ALONE, KEY_LIMITS, ALL_LIMITS),
    "vendors": (VENDOR,),
    "litellm_peer": (LITELLM,),
}
_STATM: Final = Path("/proc/self/statm")
_BARE_IMPORTS: Final = "asyncio, json, ssl"
_FEWER_ROUNDS: Final = 5
"""Many calls at once even each other out, so they need fewer rounds."""
_MORE_ROUNDS: Final = 8
"""A turn is a tenth of a second, in which a machine may do other things, too: what has targets needs many."""
_MORE_OF_STREAMS: Final = 3
"""The same of streams, whose turns are longer."""
_SLOWER: Final = {SDK: 4, VENDOR: 4, ON_OURS: 4, LITELLM: 16}
"""Ways that cost many times a bare call make fewer calls in a turn: each is longer."""
_SLOWEST: Final = 3
"""The part of the rounds that is litellm's."""
_LEAST_PAIRS: Final = 5

Tell: TypeAlias = Callable[[str], object]
"""Hears what comes next, before it is measured."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes:
        rounds: How often each way has its turn at most; fewer where turns are long, and where they agree early.
        calls: How many calls make a turn, where they are not streams; at least those at once.
        at_once: How many calls at the same time.
    """

    rounds: int
    calls: int
    at_once: tuple[int, ...] = AT_ONCE

    def pieces(self, parts: Sequence[Part]) -> list[Piece]:
        """Return what is measured for some parts, in order."""
        return [
            Piece(part, shape)
            for part in parts
            for shape in (self._shapes(streamed=part == "streams") if part in {"calls", "streams"} else [None])
        ]

    def rounds_of(self, shape: Shape, group: Group = "manifold") -> int:
        """Return how many rounds a shape has at most: more where the targets hold, fewer where turns are long."""
        rounds = self.rounds
        if shape.at_once >= MANY:
            rounds //= _FEWER_ROUNDS
        elif shape.streamed and shape.at_once == 1:
            rounds //= 2
        elif group == "manifold" and shape.at_once == OF_TARGETS:
            rounds *= _MORE_OF_STREAMS if shape.streamed else _MORE_ROUNDS
        return max(1, rounds // _SLOWEST if group == "litellm_peer" else rounds)

    def calls_of(self, shape: Shape, way: str = BARE) -> int:
        """Return how many calls a turn has: of streams, two or those at once, for each has many chunks."""
        return max(2 if shape.streamed else self.calls // _SLOWER.get(way, 1), shape.at_once)

    def _shapes(self, *, streamed: bool) -> list[Shape]:
        return [Shape(dialect, streamed, at_once) for dialect, at_once in product(DIALECTS, self.at_once)]


class TurnFailedError(Exception):
    """A way did not do what was asked of it; the text says why."""


def measure(plan: Plan, pieces: Sequence[Piece], tell: Tell) -> Iterator[Figures]:
    """Measure piece by piece, in order; gives what each has, as soon as it is measured. `tell` hears of every turn."""
    with ExitStack() as stack:
        root = stack.enter_context(server())
        workers = Workers(stack)
        for piece in pieces:
            if piece.shape is not None:
                yield Figures(_costs(workers, root, piece.shape, plan, tell))
            elif piece.part == "memory":
                yield Figures(memory=memory(root, tell))
            else:
                yield Figures(imports=imports(max(_LEAST_PAIRS, plan.rounds), tell))


@contextmanager
def server() -> Generator[str]:
    """Run the server; gives its address, without `/v1`."""
    with program(sys.executable, f"{__package__}.server") as process:
        yield f"http://127.0.0.1:{first_line(process)}"


def groups() -> list[Group]:
    """Return the groups of ways whose environment is there."""
    return [group for group in GROUPS if group != "litellm_peer" or OTHER_PYTHON.exists()]


class Workers:
    """The processes that make calls, one for each group, started when they are first needed."""

    def __init__(self, stack: ExitStack) -> None:
        """Have all that is started end with `stack`."""
        self._stack = stack
        self._started: dict[Group, Worker] = {}

    def __getitem__(self, group: Group) -> Worker:
        """Return the worker of a group."""
        if group not in self._started:
            environment = self._caches() if group == "manifold" else {}
            self._started[group] = self._stack.enter_context(_worker(group, environment))
        return self._started[group]

    def _caches(self) -> dict[str, str]:
        """Return where caches may keep answers: in a folder, and in a server if there is one."""
        environment = {FOLDER: self._stack.enter_context(TemporaryDirectory())}
        server = self._stack.enter_context(redis_server())
        return environment if server is None else {**environment, REDIS: server.url}


def memory(root: str, tell: Tell) -> list[Memory]:
    """Return what a stream of each way takes that stands in its middle; each way has a process of its own."""
    found: list[Memory] = []
    for dialect in DIALECTS if _STATM.exists() else ():
        for group in groups():
            at_once = _HELD_SLOWLY if group == "litellm_peer" else HELD
            for way in _HELD_WAYS[group]:
                tell(f"{at_once:,} open streams, {dialect}: {way}")
                with _worker(group) as worker:
                    shape = Shape(dialect, streamed=True, at_once=at_once)
                    try:
                        found.append(Memory(way, dialect, worker(way, f"{root}/hold", shape, 0)))
                    except TurnFailedError as error:
                        found.append(Memory(way, dialect, 0, str(error)))
    return found


def imports(pairs: int, tell: Tell) -> Imports:
    """Return what imports cost in fresh processes, in turns; the first pair, which may compile, is thrown away."""
    found = Imports()
    for number in range(pairs + 1):
        tell("import llm")
        bare, ours = _import(_BARE_IMPORTS), _import("llm")
        if number:
            found.bare.append(bare)
            found.ours.append(ours)
    return found


def in_turn(names: Sequence[str], turn: int) -> list[str]:
    """Return all names, another one first each turn: whoever is first finds other caches than the last."""
    first = turn % len(names)
    return [*names[first:], *names[:first]]


Worker: TypeAlias = Callable[[str, str, Shape, int], float]
"""Takes a way, the server's address, a shape and how many calls, none: to hold them open; returns the cost of each."""


def _costs(workers: Workers, root: str, shape: Shape, plan: Plan, tell: Tell) -> list[Cost]:
    """Return what each way costs for a shape: a group has rounds until all its medians are settled."""
    found: dict[Group, dict[str, Cost]] = {
        group: {way: Cost(way, shape, [], []) for way in GROUPS[group]} for group in groups()
    }
    for turn in range(plan.rounds_of(shape)):
        for group, costs in found.items():

            def cost_of(way: str, worker: Worker = workers[group], number: int = turn + 1) -> float:
                tell(f"{shape}: round {number}, {way}")
                return worker(way, root + shape.path, shape, plan.calls_of(shape, way))

            if turn < plan.rounds_of(shape, group) and not all(cost.settled for cost in costs.values()):
                found[group] = one_round(costs, turn, cost_of)
    first = next(iter(found))
    # the others' bare calls are only what theirs are compared with
    return [cost for group, costs in found.items() for way, cost in costs.items() if way != BARE or group == first]


def one_round(costs: dict[str, Cost], turn: int, cost_of: Callable[[str], float]) -> dict[str, Cost]:
    """Return the costs of a group with one more round; a way that fails has no figures, and no turn any more.

    Each way's turn follows one of bare calls, and all are compared with the median of those: how fast a machine is
    changes within seconds, and one turn says little of it. Where they fail there is nothing to compare with, so all do.
    """
    us: dict[str, float] = {}
    bare: list[float] = []
    failed = {way: cost.failed for way, cost in costs.items()}
    left = [way for way in costs if way != BARE and not failed[way]]
    if not left:
        return costs
    for way in in_turn(left, turn):
        try:
            bare.append(cost_of(BARE))
        except TurnFailedError as error:
            why = f"bare calls failed: {error}"
            return {way: Cost(way, cost.shape, [], [], why) for way, cost in costs.items()}
        try:
            us[way] = cost_of(way)
        except TurnFailedError as error:
            failed[way] = str(error)
    us[BARE] = median(bare)
    return {
        way: Cost(way, cost.shape, [], [], failed[way])
        if failed[way]
        else Cost(way, cost.shape, [*cost.us, us[way]], [*cost.bare, us[BARE]])
        for way, cost in costs.items()
    }


@contextmanager
def _worker(group: Group, environment: dict[str, str] | None = None) -> Generator[Worker]:
    python = str(OTHER_PYTHON) if group == "litellm_peer" else sys.executable
    with program(python, f"{__package__}.worker", group, environment=environment) as process:

        def ask(way: str, root: str, shape: Shape, calls: int) -> float:
            if process.stdin is None:
                raise RuntimeError("the process was started without a pipe to it")
            turn = {"way": way, "root": root, "shape": asdict(shape), "calls": calls}
            process.stdin.write(json.dumps(turn) + "\n")
            process.stdin.flush()
            answer = first_line(process)
            if not answer:
                raise RuntimeError(f"the process of {way!r} ended at {shape}; its own words are above")
            told = json.loads(answer)
            if "failed" in told:
                raise TurnFailedError(told["failed"])
            return float(told["each"])

        yield ask


def _import(names: str) -> float:
    code = f"import time; t = time.process_time(); import {names}; print((time.process_time() - t) * 1e3)"
    path = os.pathsep.join(filter(None, ("src", os.environ.get("PYTHONPATH"))))
    done = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(done.stdout)
