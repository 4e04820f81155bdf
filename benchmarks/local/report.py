"""Tables of what was measured: on the terminal, and on a page."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from benchmarks.tables import Grid

from .figures import MOST
from .shape import ENGINES, NEW, OURS

if TYPE_CHECKING:
    from pathlib import Path

    from .figures import Figures, Promise, Turn

PICTURE: Final = "local.png"
_SAY: Final = f"""SmolLM2-135M, always the likeliest token, {NEW} new ones to every prompt: the model's folder names no
end token, so all answers are as long as that. Prompts of 47 to 310 tokens, evenly spread, shuffled by a seed; all come
at the same moment. In each round all engines take their turns with the same prompts, another one first each time, and
no prompt comes twice to an engine. Figures are medians over the rounds; a ratio is taken within a round, so that a slow
moment hits both, then the median. Each engine runs in a process of its own and is warm; while another has its turn it
waits. Tokens per second count all generated tokens until the last answer's end; `first` is the time to the first piece
of text, of the median request and of the slowest; a gap lies between two pieces of one answer; MiB is the most that the
process which runs the model had resident, weights and cache included.

`InferenceEngine` is ours, its public streams; the three lines under it take away, one after the other, what makes it
quick: guesses from the text so far, matrices in sixteen bits, layers in few operations. Naive `generate` answers one
request after the other (at 16 and more in the first round alone), a static batch pads all to the longest. `transformers
serve` runs with continuous batching, batches of 512 tokens and room in its cache for twice what comes, llama.cpp's
server with a slot for each request; both are asked over HTTP. All but llama.cpp's Q8_0, which rounds them to eight
bits, compute with the same weights in bf16, and threads of torch wait without spinning in all engines that have them;
llama.cpp is as it comes."""
_PROMISES: Final = """The first token: the median of three prefixes. Each engine in a fresh process; the long prompt
comes 0.3 s after the stream was asked for."""
_WORDS: Final = ("engine", "against", "what", "target")


def show(figures: Figures) -> None:
    """Print all tables."""
    for grid in _grids(figures):
        grid.show()
    for line in _failures(figures):
        sys.stdout.write(f"{line}\n")


def write(folder: Path, figures: Figures) -> None:
    """Write the tables into `local.md` in a folder, with how they were made, and a place for the picture."""
    parts = ["# The model on the box", figures.made, _SAY]
    if any(target.ratio is not None for target in figures.targets()):
        parts.append(f"![Tokens per second of ours in multiples of each other engine's]({PICTURE})")
    parts += [grid.markdown() for grid in _grids(figures)]
    if figures.promises:
        parts.append(_PROMISES)
    if failures := _failures(figures):
        parts.append("\n".join(f"- {line}" for line in failures))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "local.md").write_text("\n\n".join(filter(None, parts)) + "\n", encoding="utf-8")


def _failures(figures: Figures) -> list[str]:
    return [f"{engine} has no figures, or no more: {why}" for engine, why in figures.failed.items()]


def _grids(figures: Figures) -> list[Grid]:
    grids = [_targets(figures), *(_engines(figures, at_once) for at_once in figures.counts), _promises(figures)]
    return [grid for grid in grids if grid.rows]


def _targets(figures: Figures) -> Grid:
    rows = [
        (
            target.against,
            str(target.at_once),
            "failed" if target.ratio is None else f"{target.ratio:.2f}",
            "" if target.least is None else f"{target.least:.1f}",
            target.word,
        )
        for target in figures.targets()
    ]
    head = ("against", "at once", "times as fast", "at least", "target")
    return Grid("Tokens per second of ours over another engine's", head, rows, _WORDS)


def _engines(figures: Figures, at_once: int) -> Grid:
    rows = [_row(engine, figures.middle(engine, at_once), figures.failed) for engine in ENGINES.values()]
    head = ("engine", "tokens/s", "first, s", "max", "gap, ms", "p99", "max", "MiB")
    return Grid(f"{at_once} at once", head, [row for row in rows if row], _WORDS)


def _row(engine: str, turn: Turn | None, failed: dict[str, str]) -> list[str]:
    if turn is None:
        return [engine, "failed", *[""] * 6] if engine in failed else []
    return [
        engine,
        f"{turn.tokens_s:.1f}",
        *(f"{seconds:.2f}" for seconds in turn.first),
        *(f"{seconds * 1e3:.0f}" for seconds in turn.gaps),
        f"{turn.peak / 2**20:.0f}" if turn.peak else "",
    ]


def _promises(figures: Figures) -> Grid:
    rows = [
        (promise.what, promise.engine, _value(promise), _most(promise), promise.word) for promise in figures.promises
    ]
    return Grid("Other promises", ("what", "engine", "measured", "at most", "target"), rows, _WORDS)


def _value(promise: Promise) -> str:
    return "failed" if promise.value is None else f"{promise.value:.2f}"


def _most(promise: Promise) -> str:
    return f"{MOST[promise.what]:.2f}" if promise.engine == OURS else ""
