"""What happened, as tables on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.tables import Grid

if TYPE_CHECKING:
    from collections import Counter

    from .fallback import Fallen
    from .run import Report
    from .sweep import Sweep

_WORDS = ("what", "promise")


def show(report: Report) -> None:
    """Print what the calls of a run came to."""
    outcomes = _rows(report.outcomes, report.calls)
    Grid(f"{report.calls:,} calls in {report.seconds:.0f} seconds, for their callers", _HEAD, outcomes, _WORDS).show()
    faults = _rows(report.faults, report.requests)
    Grid(f"{report.requests:,} requests at the vendors, of which these met a fault", _HEAD, faults, _WORDS).show()
    rows = [
        ("attempts sent, by the decision logs", f"{report.sent:,}"),
        ("of these cut off before they arrived", f"{report.lost_on_the_way:,}"),
        ("calls with more decisions than a log holds", f"{report.cut:,}"),
        ("reloads", f"{report.reloads:,}"),
        ("bad configurations refused", f"{report.refused_reloads:,}"),
        ("blocks of memory, after the first wave and the last", f"{report.blocks[0]:,} → {report.blocks[-1]:,}"),
    ]
    Grid("The rest", ("what", "number"), rows, _WORDS).show()
    broken(report.broken)


def show_fallen(fallen: Fallen) -> None:
    """Print what fallback came to."""
    rows = [
        ("calls", f"{fallen.calls:,}"),
        ("requests that failed at the first provider", f"{fallen.failed / fallen.requests:.1%}"),
        ("answered by the other", f"{fallen.others:,}"),
        ("answered", f"{fallen.answered / fallen.calls:.3%}"),
    ]
    Grid("One provider fails, another one takes over", ("what", "number"), rows, _WORDS).show()
    broken(fallen.broken)


def show_sweep(sweep: Sweep) -> None:
    """Print where secrets were looked for."""
    rows = [(name, f"{count:,}") for name, count in sweep.searched.items()]
    Grid(f"Planted secrets, looked for after {sweep.calls:,} calls at DEBUG", ("what", "texts"), rows, _WORDS).show()
    broken(sweep.found)


def broken(promises: list[str]) -> None:
    """Print the promises that were not kept."""
    for line in promises:
        print("BROKEN", line)  # noqa: T201 - a report


_HEAD = ("what", "number", "share")


def _rows(counted: Counter[str], of: int) -> list[tuple[str, str, str]]:
    return [(name, f"{count:,}", f"{count / of:.2%}") for name, count in counted.most_common()]
