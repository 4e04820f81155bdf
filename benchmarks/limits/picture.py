"""Pictures of what was measured; a program of its own, for it needs matplotlib: figures as JSON on stdin.

Colours: Okabe and Ito's, which the colour-blind can tell apart; shapes and words say the same again.
"""

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

_BLUE: Final = "#0072B2"
_ORANGE: Final = "#E69F00"
_GREEN: Final = "#009E73"
_RED: Final = "#D55E00"
_GREY: Final = "#6E6E6E"
_PALE: Final = "#E4E4E4"
_KEYS: Final = (_BLUE, _ORANGE, _GREEN, _RED)
_WIDE: Final = 8.6  # inches: a README's width
_DPI: Final = 200


def main(folder: Path, told: dict[str, list[_Row]]) -> None:
    """Draw into a folder what the figures are there for."""
    mpl.rcParams.update({"font.size": 10, "axes.edgecolor": _GREY, "font.family": "DejaVu Sans"})
    folder.mkdir(parents=True, exist_ok=True)
    if told["virtual"]:
        _scenarios(told["virtual"]).savefig(folder / "limits-scenarios.png")
        _saturation(_one_to_watch(told["virtual"])).savefig(folder / "limits-saturation.png")
    if told["sockets"]:
        _clients(told["sockets"]).savefig(folder / "limits-clients.png")


def _scenarios(rows: list[_Row]) -> Figure:
    """A dot for each seed of each scenario: finish time over the bound."""
    plain = [row for row in rows if row["variation"] == "plain"]
    names = list(dict.fromkeys(row["scenario"] for row in plain))
    figure = Figure(figsize=(_WIDE, 0.7 + 0.5 * len(names) + 0.6), dpi=_DPI, layout="constrained")
    axes = figure.subplots(1, 1, squeeze=False)[0][0]
    for place, name in enumerate(names):
        most = 1.10 if name == "window" else 1.05
        axes.plot(
            [most, most], [place - 0.35, place + 0.35], color=_RED, linewidth=2.0, label="" if place else "target"
        )
    for host, lift, marker, color in (("vendor", -0.14, "o", _BLUE), ("unknown", 0.14, "D", _ORANGE)):
        mine = [row for row in plain if row["host"] == host]
        axes.plot(
            [row["ratio"] for row in mine],
            [names.index(row["scenario"]) + lift for row in mine],
            color=color,
            marker=marker,
            linestyle="none",
            markersize=6.5,
            label={"vendor": "the vendor's own host", "unknown": "a host whose way to count has to be learned"}[host],
        )
    axes.axvline(1.0, color="black", linewidth=1.5)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    farthest = max(row["ratio"] for row in plain)
    axes.set_xlim(0.98, max(farthest, 1.1) + 0.02)
    axes.set_xlabel("finish time as a multiple of the least possible (black line); a mark for each seed")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    _plain(axes)
    return figure


def _clients(rows: list[_Row]) -> Figure:
    """Bars for each client: finish time over the bound, and refusals."""
    scenarios = list(dict.fromkeys(row["scenario"] for row in rows))
    figure = Figure(figsize=(_WIDE, 0.8 + 1.75 * len(scenarios)), dpi=_DPI, layout="constrained")
    panels = figure.subplots(len(scenarios), 2, squeeze=False, sharey=True, width_ratios=[1.25, 1.0])
    widest = 1.32 * max(row["ratio"] for row in rows)
    most = 1.22 * max(10, *(row["tally"]["refused"] for row in rows))
    for (time, refusals), name in zip(panels, scenarios, strict=True):
        mine = [row for row in rows if row["scenario"] == name]
        _finish_bars(time, mine)
        _refusal_bars(refusals, mine)
        time.set_title(f"{name} keys", loc="left", fontsize=11)
        time.set_xlim(0, widest)
        refusals.set_xlim(0, most)
        time.set_yticks(range(len(mine)), [row["client"] for row in mine])
    panels[0][0].invert_yaxis()  # of all panels, for they share it: the first client on top
    panels[-1][0].set_xlabel("finish time / least possible")
    panels[-1][1].set_xlabel("refused requests (HTTP 429)")
    return figure


def _finish_bars(axes: Axes, rows: list[_Row]) -> None:
    for place, row in enumerate(rows):
        answered, jobs = row["result"]["answered"], row["jobs"]
        whole = answered == jobs
        color = _BLUE if place == 0 else _GREY
        axes.barh(
            [place],
            [row["ratio"]],
            height=0.62,
            color=color if whole else _PALE,
            hatch=None if whole else "////",
            edgecolor=color,
        )
        ending = "stopped" if row["result"]["stopped"] else "gave up"
        words = f"{row['ratio']:.2f}" if whole else f"{answered} of {jobs}, {ending}"
        axes.text(row["ratio"] + 0.03, place, words, va="center")
    axes.axvline(1.0, color="black", linewidth=1.5)
    _plain(axes)


def _refusal_bars(axes: Axes, rows: list[_Row]) -> None:
    refused = [row["tally"]["refused"] for row in rows]
    axes.barh(range(len(rows)), refused, height=0.62, color=[_BLUE, *[_GREY] * (len(rows) - 1)])
    for place, count in enumerate(refused):
        axes.text(count, place, f" {count}", va="center")
    _plain(axes)


def _one_to_watch(rows: list[_Row]) -> _Row:
    plain = [row for row in rows if row["variation"] == "plain"]
    return next((row for row in plain if row["scenario"] == "unequal"), plain[0] if plain else rows[0])


def _saturation(row: _Row) -> Figure:
    """How full each key's fullest limit was, over time."""
    keys = row["saturation"]
    figure = Figure(figsize=(_WIDE, 0.9 + 0.85 * len(keys)), dpi=_DPI, layout="constrained")
    panels = figure.subplots(len(keys), 1, squeeze=False, sharex=True, sharey=True)
    for number, ((axes,), history) in enumerate(zip(panels, keys, strict=True)):
        seconds = list(range(len(history)))
        percent = [100 * share for share in history]
        axes.fill_between(seconds, percent, color=_KEYS[number % 4], alpha=0.25, linewidth=0)
        axes.plot(seconds, percent, color=_KEYS[number % 4], linewidth=1.6)
        axes.axvline(row["bound_s"], color="black", linewidth=1.5)
        axes.set_ylim(0, 108)
        axes.set_yticks([0, 50, 100], ["0 %", "50 %", "100 %"])
        axes.set_xlim(0, 1.01 * max(len(history), row["bound_s"]))
        axes.set_ylabel(f"key {number + 1}")
        _plain(axes)
    panels[0][0].set_title(
        f"scenario {row['scenario']}, seed {row['seed']}: how much of its fullest limit each key has used",
        loc="left",
        fontsize=11,
    )
    panels[-1][0].set_xlabel(
        f"seconds after all jobs were submitted; black line: the least possible, {row['bound_s']:.0f} s"
    )
    return figure


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=True, axis="x", color=_PALE, linewidth=0.8)
    axes.set_axisbelow(True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.load(sys.stdin))
