"""A picture of what was simulated; a program of its own, for it needs matplotlib: figures as JSON on stdin."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Row: TypeAlias = "dict[str, Any]"

# Okabe and Ito's colours, which the colour-blind can tell apart; shapes and words say the same again.
_BLUE: Final = "#0072B2"
_ORANGE: Final = "#E69F00"
_RED: Final = "#D55E00"
_GREY: Final = "#6E6E6E"
_PALE: Final = "#E4E4E4"
_WIDE: Final = 8.6  # inches: a README's width
_DPI: Final = 200
_TARGET: Final = 1.10


def main(folder: Path, told: dict[str, list[_Row]]) -> None:
    """Draw `scale.png` into a folder."""
    mpl.rcParams.update({"font.size": 10, "axes.edgecolor": _GREY, "font.family": "DejaVu Sans"})
    folder.mkdir(parents=True, exist_ok=True)
    panels = 2 if told["cost"] else 1
    figure = Figure(figsize=(_WIDE, 3.2), dpi=_DPI, layout="constrained")
    drawn = figure.subplots(1, panels, squeeze=False)[0]
    _finish(drawn[0], told["finish"])
    if told["cost"]:
        _cost(drawn[1], told["cost"])
    figure.savefig(folder / "scale.png")


def _finish(axes: Axes, rows: list[_Row]) -> None:
    accounts = sorted({row["accounts"] for row in rows})
    ends = [accounts[0], accounts[-1]]
    axes.plot(ends, [1.0, 1.0], color="black", linewidth=1.5, label="least possible")
    axes.plot(ends, [_TARGET, _TARGET], color=_RED, linewidth=2.0, label="target")
    axes.plot(
        [row["accounts"] for row in rows],
        [row["ratio"] for row in rows],
        color=_BLUE,
        marker="o",
        linestyle="none",
        label="simulated",
    )
    axes.set_ylim(0.98, max(1.18, 0.06 + max(row["ratio"] for row in rows)))
    axes.set_title("finish time / least possible", loc="left", fontsize=11)
    _by_accounts(axes, accounts)
    axes.legend(loc="upper left", frameon=False, ncols=2)


def _cost(axes: Axes, rows: list[_Row]) -> None:
    accounts = [row["accounts"] for row in rows]
    micros = [1e6 * row["cpu_s"] for row in rows]
    last = next((place for place, count in enumerate(accounts) if count >= 100), 0)
    scale = micros[last] / math.log(accounts[last])
    axes.plot(accounts, micros, color=_BLUE, marker="o", label="measured")
    axes.plot(
        accounts[last:],
        [scale * math.log(count) for count in accounts[last:]],
        color=_ORANGE,
        linestyle="--",
        label="as the logarithm grows",
    )
    axes.set_ylim(0, 1.3 * max(micros))
    axes.set_title("CPU of one decision, microseconds", loc="left", fontsize=11)
    _by_accounts(axes, accounts)
    axes.legend(loc="upper left", frameon=False)


def _by_accounts(axes: Axes, accounts: list[int]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(accounts, [f"{count:,}" for count in accounts])
    axes.tick_params(axis="x", which="minor", length=0, labelsize=0)
    axes.set_xlabel("accounts, and as many workers")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, axis="y", color=_PALE, linewidth=0.8)
    axes.set_axisbelow(True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.load(sys.stdin))
