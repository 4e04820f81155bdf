"""Tables of what was measured: on the terminal, and on a page."""

from __future__ import annotations

import sys
from statistics import median
from typing import TYPE_CHECKING, Final

from benchmarks.tables import Grid

from .figures import AT_ONCE, targets
from .shape import DIALECTS, Shape

if TYPE_CHECKING:
    from pathlib import Path

    from .figures import Cost, Figures

_SAY: Final = """CPU time of one call, or of one chunk of a stream of 200 (of 20 at 1,000 at once), its part of the call
included; and the same in multiples of a bare call that the same process made in the same round, where bare turns stand
between all others: the median over the rounds, which end as soon as all medians are known to 2 %, with a chance of 95
in a hundred. The server is a process of its own and answers at once; a stream's events come a millisecond apart, each
in a write of its own. All calls send the same prompt; those that a cache answers, as many prompts as there are calls
at once, and disk and Redis have no memory in front of them. Clients are as they come, with retries off: a fresh one
for each turn, its connections opened before the clock starts. `the vendor's own client` is `openai` or `anthropic`;
litellm runs in an environment of its own and brings an older `openai`. A bare stream splits events by hand and reads
each as JSON. What failed has no figure; why, is below its table."""
_MEMORY_SAY: Final = """1,000 streams (100 of litellm's) stand in their middle, 100 chunks read: what resident memory
they add, each. Every way has a fresh process, which has read a stream before."""
_WORDS: Final = ("way", "what", "dialect", "target")


def show(figures: Figures) -> None:
    """Print all tables."""
    for grid in _grids(figures):
        grid.show()
    for line in [*_failures(figures), *_incomplete(figures)]:
        sys.stdout.write(f"{line}\n")


def write(folder: Path, figures: Figures) -> None:
    """Write the tables into `calls.md` in a folder, with how they were made, and a place for each picture."""
    parts = ["# What calls cost", *_incomplete(figures), *_made(figures), _SAY]
    if any(cost.shape.at_once == AT_ONCE for cost in figures.costs):
        parts.append("![CPU time at 32 at once, in multiples of a bare call](calls-cpu.png)")
    parts += [grid.markdown() for grid in _grids(figures)]
    if failures := _failures(figures):
        parts.append("\n".join(f"- {line}" for line in failures))
    if figures.memory:
        parts += [_MEMORY_SAY, "![Memory of an open stream](calls-memory.png)"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "calls.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _made(figures: Figures) -> list[str]:
    """Return how it was measured; where not all pieces were measured alike, with which were."""
    pieces: dict[str, list[str]] = {}
    for piece, how in figures.made.items():
        pieces.setdefault(how, []).append(piece)
    return list(pieces) if len(pieces) == 1 else [f"{how} So: {'; '.join(names)}." for how, names in pieces.items()]


def _incomplete(figures: Figures) -> list[str]:
    return [f"**Incomplete**: it was stopped before {'; '.join(figures.missing)}."] if figures.missing else []


def _failures(figures: Figures) -> list[str]:
    """Return why there is no figure, a line for each way and reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for cost in figures.costs:
        found.setdefault((cost.way, cost.failed), []).append(str(cost.shape))
    for memory in figures.memory:
        found.setdefault((memory.way, memory.failed), []).append(f"open streams, {memory.dialect}")
    return [f"{way} failed: {why} ({'; '.join(where)})" for (way, why), where in found.items() if why]


def _grids(figures: Figures) -> list[Grid]:
    grids = [_costs(figures, dialect=dialect, streamed=streamed) for streamed in (False, True) for dialect in DIALECTS]
    return [grid for grid in (*grids, _memory(figures), _imports(figures), _targets(figures)) if grid.rows]


def _costs(figures: Figures, *, dialect: str, streamed: bool) -> Grid:
    mine = [cost for cost in figures.costs if (cost.shape.dialect, cost.shape.streamed) == (dialect, streamed)]
    counts = sorted({cost.shape.at_once for cost in mine})
    head = ["way", *(name for count in counts for name in (f"µs at {count:,}", "x bare"))]
    what = "a streamed chunk" if streamed else "a call"
    by_way: dict[str, dict[Shape, Cost]] = {}
    for cost in mine:
        by_way.setdefault(cost.way, {})[cost.shape] = cost
    rows = [[way, *_cells(list(costs.values()), counts)] for way, costs in by_way.items()]
    return Grid(f"CPU of {what}, {dialect}", head, rows, _WORDS)


def _cells(costs: list[Cost], counts: list[int]) -> list[str]:
    at = {cost.shape.at_once: cost for cost in costs}
    return [cell for count in counts for cell in _pair(at.get(count))]


def _pair(cost: Cost | None) -> tuple[str, str]:
    if cost is None:
        return "", ""
    return ("failed", "") if cost.failed else (f"{median(cost.us):.1f}", f"{cost.ratio:.2f}")


def _memory(figures: Figures) -> Grid:
    rows = [
        (memory.way, memory.dialect, "failed" if memory.failed else f"{memory.bytes_each / 1024:.1f}")
        for memory in figures.memory
    ]
    return Grid("Memory of an open stream", ("way", "dialect", "KiB"), rows, _WORDS)


def _imports(figures: Figures) -> Grid:
    found = figures.imports
    rows: list[tuple[str, str, str]] = []
    if found.ours:
        rows = [
            ("import asyncio, json, ssl", f"{median(found.bare):.1f}", "1.00"),
            ("import llm", f"{median(found.ours):.1f}", f"{found.ratio:.2f}"),
        ]
    return Grid("CPU of an import, in a fresh process", ("what", "ms", "x bare"), rows, _WORDS)


def _targets(figures: Figures) -> Grid:
    rows = [
        (
            target.name,
            "failed" if target.value is None else f"{target.value:.2f}",
            f"{target.most:.2f}",
            "met" if target.met else "missed",
        )
        for target in targets(figures)
    ]
    return Grid("Targets, x bare, at 32 at once", ("what", "measured", "at most", "target"), rows, _WORDS)
