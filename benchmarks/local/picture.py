"""Picture of what was measured; a program of its own, for it needs matplotlib: figures as JSON on stdin."""

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

# Okabe and Ito's colours, which the colour-blind can tell apart; words say the same again.
_BLUE: Final = "#0072B2"
_RED: Final = "#D55E00"
_GREY: Final = "#6E6E6E"
_PALE: Final = "#E4E4E4"
_WIDE: Final = 8.6  # inches: a README's width
_DPI: Final = 200


def main(folder: Path, told: dict[str, list[_Row]]) -> None:
    """Draw into a folder how ours stands against each engine, where it was measured beside any."""
    rows = [row for row in told["targets"] if row["ratio"] is not None]
    if not rows:
        return
    mpl.rcParams.update({"font.size": 10, "axes.edgecolor": _GREY, "font.family": "DejaVu Sans"})
    folder.mkdir(parents=True, exist_ok=True)
    _ratios(rows).savefig(folder / "local.png")


def _ratios(rows: list[_Row]) -> Figure:
    """A panel for each engine: a bar for each number of requests at once, and a line where its target is."""
    engines = list(dict.fromkeys(row["against"] for row in rows))
    figure = Figure(figsize=(_WIDE, 0.6 + 1.45 * len(engines)), dpi=_DPI, layout="constrained")
    panels = figure.subplots(len(engines), 1, squeeze=False)
    for (axes,), engine in zip(panels, engines, strict=True):
        _panel(axes, [row for row in rows if row["against"] == engine])
        axes.set_title(f"against {engine}", loc="left", fontsize=11)
    panels[-1][0].set_xlabel("tokens per second of ours over the other's; black line: as fast; red: target")
    return figure


def _panel(axes: Axes, rows: list[_Row]) -> None:
    places = list(range(len(rows)))
    axes.barh(places, [row["ratio"] for row in rows], height=0.62, color=_BLUE)
    farthest = max(max(row["ratio"], row["least"] or 0) for row in rows)
    for place, row in zip(places, rows, strict=True):
        axes.text(row["ratio"], place, f" {row['ratio']:.2f}", va="center", color=_BLUE, fontsize=8)
        if row["least"] is not None:
            axes.plot([row["least"]] * 2, [place - 0.42, place + 0.42], color=_RED, linewidth=2.5)
    axes.axvline(1.0, color="black", linewidth=1.2)
    axes.set_xlim(0, 1.12 * max(farthest, 1.0))
    axes.set_yticks(places, [f"{row['at_once']} at once" for row in rows])
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=True, axis="x", color=_PALE, linewidth=0.8)
    axes.set_axisbelow(True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.load(sys.stdin))
