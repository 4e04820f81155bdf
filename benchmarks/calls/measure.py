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
from typing import TYPE_CHECKING, Final, TypeAlias

from benchmarks.programs import OTHER_PYTHON, ROOT, first_line, program

from .figures import Cost, Imports, Memory
from .shape import ALL_LIMITS, ALONE, BARE, DIALECTS, GROUPS, KEY_LIMITS, LITELLM, VENDOR, Shape

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    from .shape import Group

AT_ONCE: Final = (1, 32, 1000)
HELD: Final = 1000
"""How many streams are held open to see what each takes."""
_HELD_WAYS: Final[dict[Group, tuple[str, ...]]] = {
    "manifold": (BARE, ALONE, KEY_LIMITS, ALL_LIMITS),
    "vendors": (VENDOR,),
    "litellm_peer": (LITELLM,),
}
_STATM: Final = Path("/proc/self/statm")
_BARE_IMPORTS: Final = "asyncio, json, ssl"
_FEWER: Final = 5
"""Many calls at once even each other out, so they need fewer rounds."""

Tell: TypeAlias = Callable[[str], object]
"""Hears what comes next, before it is measured."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes:
        rounds: How often each way has its turn; fewer at 1,000 at once.
        calls: How many calls make a turn, where they are not streams; at least those at once.
        at_once: How many calls at the same time.
    """

    rounds: int
    calls: int
    at_once: tuple[int, ...] = AT_ONCE

    def shapes(self, *, streamed: bool) -> list[Shape]:
        """Return what is called."""
        return [Shape(dialect, streamed, at_once) for dialect, at_once in product(DIALECTS, self.at_once)]

    def rounds_of(self, shape: Shape) -> int:
        """Return how many rounds a shape has."""
        return max(1, self.rounds // _FEWER) if shape.at_once >= AT_ONCE[-1] else self.rounds

    def calls_of(self, shape: Shape) -> int:
        """Return how many calls a turn has: of streams, two each or those at once, for each has 200 chunks."""
        return max(2, shape.at_once) if shape.streamed else max(self.calls, shape.at_once)

    def turns(self, *, streamed: bool) -> int:
        """Return how many rounds there are, of all shapes together."""
        return sum(self.rounds_of(shape) for shape in self.shapes(streamed=streamed))


@contextmanager
def server() -> Generator[str]:
    """Run the server; gives its address, without `/v1`."""
    with program(sys.executable, f"{__package__}.server") as process:
        yield f"http://127.0.0.1:{first_line(process)}"


def groups() -> list[Group]:
    """Return the groups of ways whose environment is there."""
    return [group for group in GROUPS if group != "litellm_peer" or OTHER_PYTHON.exists()]


def costs(root: str, plan: Plan, *, streamed: bool, tell: Tell) -> list[Cost]:
    """Return what each way costs for each shape; `tell` hears of every round."""
    with ExitStack() as stack:
        workers: dict[Group, Worker] = {group: stack.enter_context(_worker(group)) for group in groups()}
        return [
            cost for shape in plan.shapes(streamed=streamed) for cost in _of_shape(workers, root, shape, plan, tell)
        ]


def memory(root: str, tell: Tell) -> list[Memory]:
    """Return what a stream of each way takes that stands in its middle; each way has a process of its own."""
    found: list[Memory] = []
    for dialect in DIALECTS if _STATM.exists() else ():
        shape = Shape(dialect, streamed=True, at_once=HELD)
        for group, way in _held_ways():
            tell(f"{HELD:,} open streams, {dialect}: {way}")
            with _worker(group) as worker:
                found.append(Memory(way, dialect, worker(way, f"{root}/hold", shape, 0)))
    return found


def held() -> int:
    """Return how many measurements `memory` makes."""
    return len(DIALECTS) * len(_held_ways()) if _STATM.exists() else 0


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


def _of_shape(workers: dict[Group, Worker], root: str, shape: Shape, plan: Plan, tell: Tell) -> Iterable[Cost]:
    found: dict[tuple[Group, str], list[float]] = {(group, way): [] for group in workers for way in GROUPS[group]}
    for turn in range(plan.rounds_of(shape)):
        tell(f"{shape.dialect}, {'streams' if shape.streamed else 'calls'}, {shape.at_once:,} at once")
        for group, worker in workers.items():
            for way in in_turn(GROUPS[group], turn):
                found[group, way].append(worker(way, root, shape, plan.calls_of(shape)))
    first = next(iter(workers))
    for (group, way), us in found.items():
        if way != BARE or group == first:  # the others' bare calls are only what theirs are compared with
            yield Cost(way, shape, us, found[group, BARE])


def _held_ways() -> list[tuple[Group, str]]:
    return [(group, way) for group in groups() for way in _HELD_WAYS[group]]


@contextmanager
def _worker(group: Group) -> Generator[Worker]:
    python = str(OTHER_PYTHON) if group == "litellm_peer" else sys.executable
    with program(python, f"{__package__}.worker", group) as process:

        def ask(way: str, root: str, shape: Shape, calls: int) -> float:
            if process.stdin is None:
                raise RuntimeError("the process was started without a pipe to it")
            turn = {"way": way, "root": root, "shape": asdict(shape), "calls": calls}
            process.stdin.write(json.dumps(turn) + "\n")
            process.stdin.flush()
            answer = first_line(process)
            if not answer:
                raise RuntimeError(f"{way!r} failed for {shape}; its own words are above")
            return float(answer)

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
