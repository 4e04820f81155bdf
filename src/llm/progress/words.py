"""Progress in words and figures: what a terminal, a log and a notebook all show."""

from __future__ import annotations

import heapq
from math import floor, log10
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .tracker import Progress

_ERRORS: Final = 4  # kinds that are named
_SMALL: Final = 0.01  # US dollars
_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
# Whatever a name holds, it moves no cursor, breaks no line and turns no text around.
_CONTROLS: Final = dict.fromkeys([*range(32), *range(127, 160), *range(0x2028, 0x202F), *range(0x2066, 0x206A)], " ")


class Fact(NamedTuple):
    """One line of what is known."""

    label: str
    text: str


class Key(NamedTuple):
    """How full a key's limits are, 0 to 1."""

    name: str
    saturation: float


def clean(text: str) -> str:
    """Return the text in one line, without what would control a terminal."""
    return text.translate(_CONTROLS)


def dollars(amount: float) -> str:
    """Return US dollars: `$1,204.50`, and of less than a cent the first two figures, `$0.0041`."""
    if amount >= _SMALL or amount <= 0:
        return f"${amount:,.2f}"
    return f"${amount:.{1 - floor(log10(amount))}f}"


def duration(seconds: float) -> str:
    """Return a time in its two largest units: `41 s`, `12 min`, `2 h 5 min`, `3 d 4 h`."""
    whole = round(seconds)
    if whole < 2 * _MINUTE:
        return f"{whole} s"
    if whole < _HOUR - _MINUTE // 2:
        return f"{round(whole / _MINUTE)} min"
    large, small, unit = ("d", "h", _DAY) if whole >= 2 * _DAY else ("h", "min", _HOUR)
    step = _HOUR if unit == _DAY else _MINUTE
    first, second = divmod(round(whole / step), unit // step)
    return f"{first} {large} {second} {small}" if second else f"{first} {large}"


def speed(rows_per_second: float) -> str:
    """Return a rate of rows, of a minute where less than one a second ends."""
    if rows_per_second >= 1 or not rows_per_second:
        return f"{rows_per_second:,.1f} rows/s"
    return f"{rows_per_second * 60:.1f} rows/min"


def percent(share: float) -> str:
    """Return a share from 0 to 1, rounded down: what is not done is not 100 %."""
    return f"{int(share * 100 + 1e-9)} %"


def rows(progress: Progress) -> str:
    """Return how many rows are done, of how many."""
    if progress.total is None or progress.share is None:
        return f"{progress.done:,} rows"
    return f"{progress.done:,} of {progress.total:,} rows ({percent(progress.share)})"


def cost(progress: Progress, *, ended: bool) -> str:
    """Return the cost so far and the expected one; nothing where all is free, or no price is known."""
    if not progress.cost:
        return ""
    if progress.unpriced:
        return f"at least {dollars(progress.cost)}"
    if ended or progress.expected_cost is None:
        return dollars(progress.cost)
    return f"{dollars(progress.cost)} of about {dollars(progress.expected_cost)}"


def errors(kinds: Mapping[str, int]) -> str:
    """Return the kinds of failure, the most frequent first."""
    ranked = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{clean(kind)} {number:,}" for kind, number in ranked[:_ERRORS]]
    more = len(ranked) - len(named)
    return ", ".join([*named, f"and {more:,} more kinds"] if more else named)


def line(progress: Progress, *, ended: bool = False) -> str:
    """Return it all in one line, for a log."""
    usage = progress.usage
    if ended:
        pace = f"{duration(progress.elapsed)}, {speed(progress.overall_rows_per_second)}"
        tokens = f"{usage.input_tokens:,} tokens in, {usage.output_tokens:,} out"
    else:
        pace = speed(progress.rows_per_second)
        tokens = f"{progress.input_tokens_per_second:,.0f} tokens/s in, {progress.output_tokens_per_second:,.0f} out"
    parts = [
        f"{rows(progress)} in {pace}" if ended else f"{rows(progress)}, {pace}",
        tokens if usage.total_tokens else "",
        f"{percent(progress.cache_ratio)} cached" if progress.cache_hits else "",
        cost(progress, ended=ended),
        _failed(progress, ended=ended),
        "" if ended or progress.seconds_left is None else f"{duration(progress.seconds_left)} left",
        "" if ended or progress.waiting is None else f"waiting: {clean(progress.waiting)}",
    ]
    return ", ".join(filter(None, parts))


def facts(progress: Progress, *, ended: bool = False) -> list[Fact]:
    """Return it in several lines, without the rows done and the keys."""
    usage = progress.usage
    told = {
        "rate": _pace(progress, ended=ended),
        "tokens": _tokens(progress, ended=ended) if usage.total_tokens else "",
        "cache": f"{percent(progress.cache_ratio)} ({progress.cache_hits:,} rows)" if progress.cache_hits else "",
        "cost": cost(progress, ended=ended),
        "failed": f"{progress.failed:,}: {errors(progress.errors)}" if progress.failed else "",
        "waiting": "" if ended or progress.waiting is None else clean(progress.waiting),
    }
    return [Fact(label, text) for label, text in told.items() if text]


def busiest(saturation: Mapping[str, float], most: int) -> tuple[list[Key], int]:
    """Return the fullest keys, at most so many, and how many there are besides; never only one besides.

    They stay in the order of `saturation`, so that a display keeps them in their places.
    """
    if len(saturation) == most + 1:
        most -= 1
    chosen = set(heapq.nlargest(most, saturation, key=saturation.__getitem__))
    keys = [Key(clean(name), min(1.0, max(0.0, full))) for name, full in saturation.items() if name in chosen]
    return keys, len(saturation) - len(keys)


def _failed(progress: Progress, *, ended: bool) -> str:
    if not progress.failed:
        return ""
    return f"{progress.failed:,} failed ({errors(progress.errors)})" if ended else f"{progress.failed:,} failed"


def _pace(progress: Progress, *, ended: bool) -> str:
    spent = duration(progress.elapsed)
    if ended:
        parts = [f"{speed(progress.overall_rows_per_second)} in {spent}"]
    else:
        left = "" if progress.seconds_left is None else f"{duration(progress.seconds_left)} left"
        running = f"{progress.in_flight:,} running" if progress.in_flight else ""
        parts = [speed(progress.rows_per_second), left, f"{spent} so far", running]
    before = f"{progress.skipped:,} done before" if progress.skipped else ""
    return ", ".join(filter(None, [*parts, before]))


def _tokens(progress: Progress, *, ended: bool) -> str:
    whole = f"{progress.usage.input_tokens:,} in, {progress.usage.output_tokens:,} out"
    if ended:
        return whole
    return f"{progress.input_tokens_per_second:,.0f}/s in, {progress.output_tokens_per_second:,.0f}/s out; {whole}"
