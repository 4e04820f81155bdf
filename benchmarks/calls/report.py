"""Tables of what was measured: on the terminal, and on a page."""

from __future__ import annotations

from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from benchmarks.tables import Grid

from .figures import targets
from .shape import DIALECTS, Shape

if TYPE_CHECKING:
    from pathlib import Path

    from .figures import Cost, Figures

_SAY: Final = """CPU time of one call, or of one chunk of a stream of 200, its part of the call included; and the same
in multiples of a bare call that the same process made in the same round: the median over the rounds. The server is a
process of its own and answers at once; a stream's events come a millisecond apart, each in a write of its own. All
calls send the same prompt. Clients are as they come, with retries off: a fresh one for each turn, its connections
opened before the clock starts. `the vendor's own client` is `openai` or `anthropic`; litellm runs in an environment of
its own and brings an older `openai`. A bare stream splits events by hand and reads each as JSON."""
_MEMORY_SAY: Final = """1,000 streams stand in their middle, 100 chunks read: what resident memory they add, each. Every
way has a fresh process, which has read a stream before."""
_WORDS: Final = ("way", "what", "dialect", "target")


def show(figures: Figures) -> None:
    """Print all tables."""
    for grid in _grids(figures):
        grid.show()


def write(folder: Path, figures: Figures, *, made: str) -> None:
    """Write the tables into `calls.md` in a folder, with how they were made, and a place for each picture."""
    parts = ["# What calls cost", made, _SAY]
    if figures.costs:
        parts.append("![CPU time at 32 at once, in multiples of a bare call](calls-cpu.png)")
    parts += [grid.markdown() for grid in _grids(figures)]
    if figures.memory:
        parts += [_MEMORY_SAY, "![Memory of an open stream](calls-memory.png)"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "calls.md").write_text("\n\n".join(parts) + "\n")


def as_json(figures: Figures) -> dict[str, Any]:
    """Return all figures, ratios and targets included, as JSON has them."""
    return {
        "costs": [{**asdict(cost), "ratio": cost.ratio} for cost in figures.costs],
        "memory": [asdict(memory) for memory in figures.memory],
        "imports": asdict(figures.imports),
        "targets": [{**asdict(target), "met": target.met} for target in targets(figures)],
    }


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
    pairs = [(f"{median(at[count].us):.1f}", f"{at[count].ratio:.2f}") for count in counts]
    return [cell for pair in pairs for cell in pair]


def _memory(figures: Figures) -> Grid:
    rows = [(memory.way, memory.dialect, f"{memory.bytes_each / 1024:.1f}") for memory in figures.memory]
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
        (target.name, f"{target.value:.2f}", f"{target.most:.2f}", "met" if target.met else "missed")
        for target in targets(figures)
    ]
    return Grid("Targets, x bare, at 32 at once", ("what", "measured", "at most", "target"), rows, _WORDS)
