"""Rates and percentiles of the last seconds, from counts that only grow."""

from __future__ import annotations

from collections import Counter, deque
from itertools import accumulate
from math import ceil
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm.core.measured import Measured

SECONDS: Final = 10.0
"""How far back the rates look."""


class Totals(NamedTuple):
    """Counts since the manager opened.

    Attributes:
        answered: Calls that were, those by the cache included.
        failed: Calls that brought no answer.
        cancelled: Calls whose caller left.
        input: Tokens of prompts.
        output: Tokens of answers.
        durations: How many answered calls took so many seconds.
    """

    answered: int
    failed: int
    cancelled: int
    input: int
    output: int
    durations: Mapping[float, int]


class Rates(NamedTuple):
    """What the last seconds came to.

    Attributes:
        calls: Calls that ended, per second.
        failures: Those that brought no answer, per second.
        input: Tokens of prompts per second.
        output: Tokens of answers per second.
        p50: Seconds that half of the answered calls did not exceed; None where there were none.
        p95: The same of 95 in 100.
        success: Share of the calls that were answered, those cancelled left out; None where there were none.
    """

    calls: float = 0.0
    failures: float = 0.0
    input: float = 0.0
    output: float = 0.0
    p50: float | None = None
    p95: float | None = None
    success: float | None = None


def totals(measured: Measured) -> Totals:
    """Return the counts of all models together."""
    durations: Counter[float] = Counter()
    calls: Counter[str] = Counter()
    for model in measured.models:
        calls.update(model.calls)
        for spread in model.durations.values():
            durations.update(dict(zip(spread.middles, spread.counts, strict=True)))
    return Totals(
        answered=calls["answered"] + calls["cached"],
        failed=calls["failed"],
        cancelled=calls["cancelled"],
        input=sum(model.usage.input_tokens for model in measured.models),
        output=sum(model.usage.output_tokens for model in measured.models),
        durations=durations,
    )


class Window:
    """The counts of the last seconds."""

    def __init__(self) -> None:
        """Start with none."""
        self._seen: deque[tuple[float, Totals]] = deque()

    def clear(self) -> None:
        """Forget all: what comes next is the first."""
        self._seen.clear()

    def add(self, now: float, newest: Totals) -> Rates:
        """Take the counts of now, and return what came since those of ten seconds ago, or since the first."""
        seen = self._seen
        seen.append((now, newest))
        while len(seen) > 1 and seen[1][0] <= now - SECONDS:
            seen.popleft()
        at, oldest = seen[0]
        return _between(oldest, newest, now - at)


def _between(old: Totals, new: Totals, seconds: float) -> Rates:
    if seconds <= 0.0:
        return Rates()
    answered, failed = new.answered - old.answered, new.failed - old.failed
    lately = sorted((took, number - old.durations.get(took, 0)) for took, number in new.durations.items())
    return Rates(
        calls=(answered + failed + new.cancelled - old.cancelled) / seconds,
        failures=failed / seconds,
        input=(new.input - old.input) / seconds,
        output=(new.output - old.output) / seconds,
        p50=_percentile(lately, 0.5),
        p95=_percentile(lately, 0.95),
        success=answered / (answered + failed) if answered + failed else None,
    )


def _percentile(lately: list[tuple[float, int]], share: float) -> float | None:
    """Return the seconds that at least `share` of the durations do not exceed; None without any."""
    so_far = list(accumulate(number for _, number in lately))
    wanted = max(1, ceil(share * so_far[-1])) if so_far else 1
    return next((took for (took, _), reached in zip(lately, so_far, strict=True) if reached >= wanted), None)
