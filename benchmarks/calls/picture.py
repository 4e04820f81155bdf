"""Pictures of what was measured; a program of its own, for it needs matplotlib: figures as JSON on stdin."""

from __future__ import annotations

import json
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
_GREY: Final = "#6E6E6E"
_PALE: Final = "#E4E4E4"
_WIDE: Final = 8.6  # inches: a README's width
_DPI: Final = 200
_MARKS: Final = {"openai": ("o", _BLUE, -0.16), "anthropic": ("D", _ORANGE, 0.16)}


def main(folder: Path, told: dict[str, list[_Row]]) -> None:
    """Draw into a folder what the figures are there for."""
    mpl.rcParams.update({"font.size": 10, "axes.edgecolor": _GREY, "font.family": "DejaVu Sans"})
    folder.mkdir(parents=True, exist_ok=True)
    at_32 = [row for row in told["costs"] if row["shape"]["at_once"] == 32 and not row["failed"]]
    held = [row for row in told["memory"] if not row["failed"]]
    if at_32:
        _cpu(at_32).savefig(folder / "calls-cpu.png")
    if held:
        _memory(held).savefig(folder / "calls-memory.png")


def _cpu(rows: list[_Row]) -> Figure:
    """A mark for each way and dialect: a call in one panel, a chunk in another."""
    kinds = sorted({row["shape"]["streamed"] for row in rows})
    ways = list(dict.fromkeys(row["way"] for row in rows))
    figure = Figure(figsize=(_WIDE, 1.2 + 0.42 * len(ways) * len(kinds)), dpi=_DPI, layout="constrained")
    panels = figure.subplots(len(kinds), 1, squeeze=False, sharex=True)
    for (axes,), streamed in zip(panels, kinds, strict=True):
        mine = [row for row in rows if row["shape"]["streamed"] == streamed]
        _marks(axes, ways, [(row["way"], row["shape"]["dialect"], row["ratio"]) for row in mine], "{:.2f}")
        axes.set_xscale("log")
        axes.axvline(1.0, color="black", linewidth=1.5)
        axes.set_title("a streamed chunk" if streamed else "a call", loc="left", fontsize=11)
    panels[0][0].legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False)
    panels[-1][0].set_xlabel("CPU at 32 at once, in multiples of bare aiohttp (black line); logarithmic")
    return figure


def _memory(rows: list[_Row]) -> Figure:
    """A mark for each way and dialect: KiB of an open stream."""
    ways = list(dict.fromkeys(row["way"] for row in rows))
    figure = Figure(figsize=(_WIDE, 1.3 + 0.42 * len(ways)), dpi=_DPI, layout="constrained")
    axes = figure.subplots(1, 1, squeeze=False)[0][0]
    _marks(axes, ways, [(row["way"], row["dialect"], row["bytes_each"] / 1024) for row in rows], "{:.0f}")
    axes.set_xlim(0, 1.12 * max(row["bytes_each"] for row in rows) / 1024)
    axes.set_xlabel("KiB of resident memory for each of 1,000 open streams")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False)
    return figure


def _marks(axes: Axes, ways: list[str], rows: list[tuple[str, str, float]], words: str) -> None:
    for dialect, (marker, color, lift) in _MARKS.items():
        mine = [(value, ways.index(way) + lift) for way, whose, value in rows if whose == dialect]
        axes.plot(
            [value for value, _ in mine],
            [place for _, place in mine],
            color=color,
            marker=marker,
            linestyle="none",
            markersize=6.0,
            label=dialect,
        )
        for value, place in mine:
            axes.text(value, place, f"   {words.format(value)}", va="center", color=color, fontsize=8)
    axes.set_yticks(range(len(ways)), ways)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=True, axis="x", color=_PALE, linewidth=0.8)
    axes.set_axisbelow(True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.load(sys.stdin))
