"""Tables of what was simulated and measured: on the terminal, and on a page."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from benchmarks.tables import Grid

from .simulate import TARGET

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .cost import Cost
    from .simulate import Outcome

_FINISH: Final = (
    "accounts", "workers", "jobs", "seed", "finish s", "bound s", "x bound", "refused", "missing", "CPU ms a job",
    "target",
)  # fmt: skip
_COST: Final = ("accounts", "CPU us a decision", "x the first", "logarithm, x the first")
_SAY: Final = f"""The real queue and the real limits (`llm.limits`), one key for each account, on a virtual clock.
Accounts differ by ten times; each worker draws the next job once its last is answered. The server keeps books of its
own, from the vendor's side, and refuses what they do not allow. `x bound` is the finish time over the soonest that
arithmetic allows; at most {TARGET:.2f} is asked for, and at most 5 refusals of 600 requests. CPU is that of queue,
workers, clock and server together."""
_COST_SAY: Final = """## One decision

All accounts are full, and as many calls wait as there are accounts. A decision is who goes next, as an answer gives its
tokens back or as time has made room; the call's record and the event loop are in it. All sizes are measured in turns,
block by block; the median of all blocks. Up to 32 keys are asked each; more stand on a ladder."""


def show(outcomes: Sequence[Outcome], costs: Sequence[Cost]) -> None:
    """Print the tables."""
    _finish(outcomes).show()
    if costs:
        _costs(costs).show()


def write(folder: Path, outcomes: Sequence[Outcome], costs: Sequence[Cost], *, made: str) -> None:
    """Write the tables into `scale.md` in a folder, with how they were made, and a place for the picture."""
    parts = ["# A thousand accounts", made, _SAY]
    parts += ["![Finish time and cost of a decision by number of accounts](scale.png)", _finish(outcomes).markdown()]
    if costs:
        parts += [_COST_SAY, _costs(costs).markdown()]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scale.md").write_text("\n\n".join(parts) + "\n")


def _finish(outcomes: Sequence[Outcome]) -> Grid:
    return Grid("Finish time on a virtual clock", _FINISH, [_row(outcome) for outcome in outcomes], ("target",))


def _row(outcome: Outcome) -> tuple[str, ...]:
    return (
        f"{outcome.accounts:,}",
        f"{outcome.workers:,}",
        f"{outcome.jobs:,}",
        str(outcome.seed),
        f"{outcome.finish_s:.1f}",
        f"{outcome.bound_s:.1f}",
        f"{outcome.ratio:.3f}",
        str(outcome.refused),
        str(outcome.jobs - outcome.answered),
        f"{1e3 * outcome.cpu_s / outcome.jobs:.2f}",
        "met" if outcome.met else "missed",
    )


def _costs(costs: Sequence[Cost]) -> Grid:
    first = costs[0]
    rows = [
        (
            f"{cost.accounts:,}",
            f"{1e6 * cost.cpu_s:.0f}",
            f"{cost.cpu_s / first.cpu_s:.2f}",
            f"{math.log(cost.accounts) / math.log(first.accounts):.2f}",
        )
        for cost in costs
    ]
    return Grid("CPU of one decision", _COST, rows, ())
