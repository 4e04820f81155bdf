"""What the rows of a run came to so far: counted where they end, read from anywhere."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Final, TypeAlias

from llm.core.types import TokenUsage
from llm.utils.clock import Clock, SystemClock

from .rate import RECENT, Outlook, Window

_LOG: Final = logging.getLogger("llm.progress")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is, at one moment.

    Attributes:
        total: Rows of the input, the skipped ones among them; None where nobody has counted.
        answered: Rows that have their answer, of this run.
        failed: Rows that ended without one, of this run.
        skipped: Rows that an earlier run had ended.
        in_flight: Rows that are being asked now.
        elapsed: Seconds since the run began.
        rows_per_second: Rows that end, over about the last 30 seconds.
        overall_rows_per_second: The same over the whole run.
        input_tokens_per_second: Tokens of prompts, over about the last 30 seconds.
        output_tokens_per_second: Tokens of answers, over about the last 30 seconds.
        usage: Tokens of all answers together.
        cache_hits: Rows that were answered from the cache.
        cost: US dollars so far, of the rows whose price is known.
        unpriced: Answered rows whose price is not known.
        expected_cost: US dollars at the end, if the rows left cost what those so far did; None where that is unknown.
        errors: Failed rows by the name of their error.
        saturation: How full each key's limits are, 0 to 1.
        seconds_left: Seconds until the end at the recent rate; None where nobody can know yet, or during a pause.
        waiting: Why the run waits; None where it does not.
    """

    total: int | None = None
    answered: int = 0
    failed: int = 0
    skipped: int = 0
    in_flight: int = 0
    elapsed: float = 0.0
    rows_per_second: float = 0.0
    overall_rows_per_second: float = 0.0
    input_tokens_per_second: float = 0.0
    output_tokens_per_second: float = 0.0
    usage: TokenUsage = field(default_factory=TokenUsage)
    cache_hits: int = 0
    cost: float = 0.0
    unpriced: int = 0
    expected_cost: float | None = None
    errors: Mapping[str, int] = field(default_factory=dict[str, int])
    saturation: Mapping[str, float] = field(default_factory=dict[str, float])
    seconds_left: float | None = None
    waiting: str | None = None

    @property
    def done(self) -> int:
        """Rows of which nothing is left to do."""
        return self.answered + self.failed + self.skipped

    @property
    def share(self) -> float | None:
        """The part of the rows that is done, 0 to 1; None where nobody has counted."""
        if self.total is None:
            return None
        return min(1.0, self.done / self.total) if self.total else 1.0

    @property
    def cache_ratio(self) -> float:
        """The part of the answers that came from the cache, 0 to 1."""
        return self.cache_hits / self.answered if self.answered else 0.0


OnUpdate: TypeAlias = Callable[[Progress], object]


class ProgressTracker:
    """Counts what rows come to, and tells it.

    Rows are counted from any thread. `snapshot()` gives the state from any thread.
    """

    saturation: Callable[[], Mapping[str, float]] | None = None
    """How full each key's limits are, 0 to 1, by the key's name; asked once a snapshot. None where nobody says."""

    def __init__(self, on_update: OnUpdate | None = None, *, every: float = 1.0, clock: Clock | None = None) -> None:
        """Call `on_update` with the `Progress` as rows end, at most once in `every` seconds, and once at the end.

        It is called where the row was counted, so it should be quick. What it raises is logged once and harms no row.
        """
        self._on_update = on_update
        self._every = every
        self._clock = clock or SystemClock()
        self._lock = Lock()
        self._due = float("-inf") if on_update else float("inf")
        self._told_failure = False
        self._forget()

    def _forget(self) -> None:
        self._total: int | None = None
        self._answered = self._failed = self._skipped = self._in_flight = 0
        self._input = self._output = self._cached_input = self._reasoning = 0
        self._hits = self._unpriced = 0
        self._cost = 0.0
        self._errors: dict[str, int] = {}
        self._waiting: str | None = None
        self._began: float | None = None
        self._ended: float | None = None
        self._paused = 0.0
        self._paused_since: float | None = None
        self._start(self._clock.now())

    def begin(self, total: int | None, skipped: int = 0) -> None:
        """Start the run's time. Called again it corrects the two numbers, and the time runs on.

        After `finish` it is another run, and all is counted from nothing.

        Args:
            total: Rows of the input, the skipped ones among them; None where nobody has counted.
            skipped: Rows that an earlier run has ended.
        """
        with self._lock:
            if self._ended is not None:
                self._forget()
            self._total = total
            self._skipped = skipped
            if self._began is None:
                self._began = self._clock.now()
                self._start(self._began)

    def answered(self, usage: TokenUsage, cost: float | None, *, cached: bool) -> None:
        """Count a row that has its answer.

        Args:
            usage: Its tokens.
            cost: Its price in US dollars; None where that is not known.
            cached: Whether it came from the cache, which costs nothing.
        """
        now = self._clock.now()
        with self._lock:
            self._answered += 1
            self._input += usage.input_tokens
            self._output += usage.output_tokens
            self._cached_input += usage.cached_input_tokens
            self._reasoning += usage.reasoning_tokens
            if cached:
                self._hits += 1
            elif cost is None:
                self._unpriced += 1
            if cost is not None:
                self._cost += cost
            self._count(now, usage.input_tokens, usage.output_tokens)
        if now >= self._due:
            self._tell(now)

    def failed(self, kind: str) -> None:
        """Count a row that ended without an answer, by the name of its error."""
        now = self._clock.now()
        with self._lock:
            self._failed += 1
            self._errors[kind] = self._errors.get(kind, 0) + 1
            self._count(now, 0, 0)
        if now >= self._due:
            self._tell(now)

    def waiting(self, why: str | None) -> None:
        """Say why nothing goes on, in a few words; None when it does again. Time until then is no time of work."""
        now = self._clock.now()
        with self._lock:
            self._waiting = why
            if why is None:
                self._resume(now)
            elif self._paused_since is None:
                self._paused_since = now
        if now >= self._due:
            self._tell(now)

    def running(self, rows: int) -> None:
        """Say how many rows are being asked now."""
        self._in_flight = rows

    def finish(self) -> None:
        """Stop the run's time, and tell `on_update` the last state."""
        with self._lock:
            self._ended = self._clock.now()
        self._tell(self._ended)

    def snapshot(self) -> Progress:
        """Return the state now."""
        saturation = self._saturation()
        with self._lock:
            now = self._clock.now() if self._ended is None else self._ended
            rows, read, written = self._recent.rates(now, RECENT)
            elapsed = 0.0 if self._began is None else now - self._began
            return Progress(
                total=self._total,
                answered=self._answered,
                failed=self._failed,
                skipped=self._skipped,
                in_flight=self._in_flight,
                elapsed=elapsed,
                rows_per_second=rows,
                overall_rows_per_second=(self._answered + self._failed) / elapsed if elapsed else 0.0,
                input_tokens_per_second=read,
                output_tokens_per_second=written,
                usage=TokenUsage(self._input, self._output, self._cached_input, self._reasoning),
                cache_hits=self._hits,
                cost=self._cost,
                unpriced=self._unpriced,
                expected_cost=self._expected_cost(),
                errors=dict(self._errors),
                saturation=saturation,
                seconds_left=self._seconds_left(now),
                waiting=self._waiting,
            )

    def _start(self, now: float) -> None:
        self._recent = Window(now, slots=int(RECENT), width=1.0)
        self._outlook = Outlook(now)

    def _count(self, now: float, input_tokens: int, output_tokens: int) -> None:
        if self._paused_since is not None:  # a row that ended is no pause
            self._resume(now)
        self._recent.add(now, input_tokens, output_tokens)
        self._outlook.add(now - self._paused, 0, 0)

    def _resume(self, now: float) -> None:
        if self._paused_since is not None:
            self._paused += now - self._paused_since
            self._paused_since = None

    def _left(self) -> int | None:
        return None if self._total is None else max(0, self._total - self._answered - self._failed - self._skipped)

    def _expected_cost(self) -> float | None:
        left, done = self._left(), self._answered + self._failed
        if left is None or not done or self._unpriced:
            return None
        return self._cost * (1 + left / done)

    def _seconds_left(self, now: float) -> float | None:
        left = self._left()
        if left is None or self._paused_since is not None:
            return None
        done = self._answered + self._failed
        return self._outlook.seconds_left(now - self._paused, done=done, in_flight=self._in_flight, left=left)

    def _saturation(self) -> Mapping[str, float]:
        if self.saturation is None:
            return {}
        try:
            return dict(self.saturation())
        except Exception:  # noqa: BLE001 - read beside the loop that changes it, and only to be looked at
            return {}

    def _tell(self, now: float) -> None:
        if self._on_update is None:
            return
        self._due = now + self._every
        try:
            self._on_update(self.snapshot())
        except Exception:  # noqa: BLE001 - whatever it is, a row is worth more
            if not self._told_failure:
                self._told_failure = True
                _LOG.exception("what is called with the progress failed; the run goes on, and this is said once")
