"""Tables of what was measured: on the terminal, and in a file for the README."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.tables import Grid

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from .run import Outcome
    from .sockets import SocketOutcome


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
    _virtual(outcomes).show()


def show_compared(outcomes: Iterable[SocketOutcome]) -> None:
    """Print what the clients did over sockets."""
    _sockets(outcomes).show()


def write(folder: Path, outcomes: Iterable[Outcome], compared: Sequence[SocketOutcome], *, made: str) -> None:
    """Write the tables into `limits.md` in a folder, with how they were made, and a place for each picture."""
    parts = ["# Filling rate limits", made]
    if compared:
        parts += [_SOCKETS_SAY, "![Finish time and refusals of each client](limits-clients.png)"]
        parts.append(_sockets(compared).markdown())
    parts += [_VIRTUAL_SAY, "![Finish time in each scenario](limits-scenarios.png)", _virtual(outcomes).markdown()]
    parts.append("![How full each key is over time](limits-saturation.png)")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "limits.md").write_text("\n\n".join(parts) + "\n")


def _virtual(outcomes: Iterable[Outcome]) -> Grid:
    """Put all seeds of a case into one row."""
    cases: dict[tuple[str, str, str], list[Outcome]] = {}
    for outcome in outcomes:
        cases.setdefault((outcome.variation, outcome.host, outcome.scenario), []).append(outcome)
    seeds = dict.fromkeys(str(outcome.seed) for same in cases.values() for outcome in same)
    title = f"600 jobs, virtual clock: the worst of seeds {', '.join(seeds)}"
    return Grid(title, _VIRTUAL, [_row(same) for same in cases.values()], _WORDS)


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


def _sockets(outcomes: Iterable[SocketOutcome]) -> Grid:
    rows = [_row_compared(outcome) for outcome in outcomes]
    return Grid("600 jobs over sockets, in real time", _SOCKETS, rows, _WORDS)


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
