"""Tables of what was measured: on the terminal, and in a file for the README."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from os import cpu_count, getloadavg
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table

from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from .run import Outcome
    from .sockets import SocketOutcome


@dataclass(frozen=True, slots=True)
class _Table:
    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]


_VIRTUAL: Final = ("scenario", "host", "besides", "finish s", "x bound", "refused", "missing", "CPU s", "target")
_SOCKETS_SAY: Final = """## Beside other clients, over sockets

600 jobs, submitted at once, for four keys of one server that refills continuously: the limits let them end in about
half a minute at the earliest. Each client runs alone, in a process of its own; after three times the least possible
time it is stopped. litellm's router has 32 callers for each key, who repeat what it gives up after a random pause that
doubles up to 8 s; the openai SDK has a client for each key, 32 requests at once on each, and its own retries as they
come, after which it gives a job up. Missing jobs have no answer. So short a run weighs a client's last seconds more
than a long one."""
_VIRTUAL_SAY: Final = """## All scenarios, on a virtual clock

The limits let the jobs end in about two minutes at the earliest, and the client is told them, but not how the server
counts. `vendor`: by its address the server is the vendor's own. `unknown`: it is any other, and the client learns."""
_WORDS: Final = ("scenario", "host", "besides", "client", "target")
_SOCKETS: Final = ("scenario", "client", "finish s", "x bound", "refused", "missing", "CPU s")


def show(outcomes: Iterable[Outcome]) -> None:
    """Print what the SDK did on the virtual clock."""
    _print(_virtual(outcomes))


def show_compared(outcomes: Iterable[SocketOutcome]) -> None:
    """Print what the clients did over sockets."""
    _print(_sockets(outcomes))


def write(folder: Path, outcomes: Iterable[Outcome], compared: Sequence[SocketOutcome], *, made: str) -> None:
    """Write the tables into `limits.md` in a folder, with how they were made, and a place for each picture."""
    parts = ["# Filling rate limits", made]
    if compared:
        parts += [_SOCKETS_SAY, "![Finish time and refusals of each client](limits-clients.png)"]
        parts.append(_markdown(_sockets(compared)))
    parts += [_VIRTUAL_SAY, "![Finish time in each scenario](limits-scenarios.png)", _markdown(_virtual(outcomes))]
    parts.append("![How full each key is over time](limits-saturation.png)")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "limits.md").write_text("\n\n".join(parts) + "\n")


def made() -> str:
    """Return where and when something is measured: day, machine, Python, and how busy the machine is already."""
    day = datetime.fromtimestamp(SystemClock().wall(), UTC).date()
    return (
        f"Measured on {day} with `python -m benchmarks.limits`: {cpu_count()} cores ({platform.machine()}), "
        f"{platform.python_implementation()} {platform.python_version()}, {platform.system()}; "
        f"load average when it began: {getloadavg()[0]:.1f}."
    )


def _virtual(outcomes: Iterable[Outcome]) -> _Table:
    """Put all seeds of a case into one row."""
    cases: dict[tuple[str, str, str], list[Outcome]] = {}
    for outcome in outcomes:
        cases.setdefault((outcome.variation, outcome.host, outcome.scenario), []).append(outcome)
    seeds = dict.fromkeys(str(outcome.seed) for same in cases.values() for outcome in same)
    title = f"600 jobs, virtual clock: the worst of seeds {', '.join(seeds)}"
    return _Table(title, _VIRTUAL, [_row(same) for same in cases.values()])


def _row(same: list[Outcome]) -> tuple[str, ...]:
    first = same[0]
    return (
        first.scenario,
        first.host,
        "" if first.variation == "plain" else first.variation,
        f"{max(outcome.finish_s for outcome in same):.1f}",
        f"{max(outcome.ratio for outcome in same):.3f}",
        str(max(outcome.tally.refused for outcome in same)),
        str(sum(outcome.jobs - outcome.answered for outcome in same)),
        f"{max(outcome.cpu_s for outcome in same):.2f}",
        "met" if all(outcome.met for outcome in same) else "missed",
    )


def _sockets(outcomes: Iterable[SocketOutcome]) -> _Table:
    return _Table("600 jobs over sockets, in real time", _SOCKETS, [_row_compared(outcome) for outcome in outcomes])


def _row_compared(outcome: SocketOutcome) -> tuple[str, ...]:
    result = outcome.result
    whole = result.answered == outcome.jobs
    return (
        outcome.scenario,
        outcome.client,
        f"{result.finish_s:.1f}" if whole else "stopped" if result.stopped else "gave up",
        f"{outcome.ratio:.2f}" if whole else f"> {outcome.ratio:.2f}" if result.stopped else "",
        str(outcome.tally.refused),
        str(outcome.jobs - result.answered),
        f"{result.cpu_s:.2f}",
    )


def _print(table: _Table) -> None:
    shown = Table(title=table.title, box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in table.head:
        number = name not in _WORDS
        shown.add_column(name, no_wrap=True, justify="right" if number else "left")
    for row in table.rows:
        shown.add_row(*row, style="red" if row[-1] == "missed" else None)
    Console().print(shown)


def _markdown(table: _Table) -> str:
    rule = tuple("---" if name in _WORDS else "---:" for name in table.head)
    lines = [table.head, rule, *table.rows]
    return "\n".join([f"{table.title}:", "", *(f"| {' | '.join(line)} |" for line in lines)])
