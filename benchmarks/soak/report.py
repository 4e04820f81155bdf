"""What happened, as tables on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.tables import Grid

if TYPE_CHECKING:
    from collections import Counter

    from .run import Report

_WORDS = ("what",)


def show(report: Report) -> None:
    """Print what a soak came to."""
    calls = report.calls.total()
    Grid(f"{calls:,} calls in {report.seconds:.0f} seconds", _HEAD, _rows(report.calls, calls), _WORDS).show()
    answers = report.outcomes.total()
    Grid(f"{answers:,} answers, by status", _HEAD, _rows(report.outcomes, answers), _WORDS).show()
    faults = _rows(report.faults, report.requests)
    Grid(f"{report.requests:,} requests at the vendors, of which these met a fault", _HEAD, faults, _WORDS).show()
    memory = [f"{each / 2**20:.1f} MiB" for each in (report.memory or [0])]
    rows = [
        ("reloads", f"{report.reloads:,}"),
        ("memory: at first, in the middle, at the end", " → ".join((memory[0], memory[len(memory) // 2], memory[-1]))),
    ]
    Grid("The rest", ("what", "number"), rows, _WORDS).show()
    for line in report.broken[:_SHOWN]:
        print("BROKEN", line)  # noqa: T201 - a report
    if len(report.broken) > _SHOWN:
        print(f"… and {len(report.broken) - _SHOWN} more")  # noqa: T201


_HEAD = ("what", "number", "share")
_SHOWN = 40


def _rows(counted: Counter[str], of: int) -> list[tuple[str, str, str]]:
    return [(name, f"{count:,}", f"{count / of:.2%}") for name, count in counted.most_common()]
