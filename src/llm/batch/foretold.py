"""What a dry run tells of a batch: the numbers, and beside them what bounds it and what is not known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from llm.core.types import TokenUsage
from llm.limits.rehearsal import Brake

from .planning import ASSUMED_ANSWER, ASSUMED_SECONDS, Basis

_MOST_KEYS: Final = 3  # that a sentence names
_MUCH: Final = 1.05


@dataclass(frozen=True, slots=True)
class ModelForecast:
    """What would be sent to one model.

    Attributes:
        rows: Rows that it would be asked.
        input_tokens: Of their prompts.
        output_tokens: Of the answers, as in `Forecast`.
        cost: US dollars; None where the price is unknown.
    """

    rows: int
    input_tokens: int
    output_tokens: int
    cost: float | None


class ModelTally:
    """What was counted of one model so far.

    Attributes:
        cost: US dollars; what has no known price counts as nothing.
    """

    def __init__(self) -> None:
        """Start with nothing."""
        self.cost: float = 0.0
        self._rows = 0
        self._usage = TokenUsage()
        self._priced = True

    def add(self, usage: TokenUsage, cost: float | None) -> None:
        """Count a row; its cost in US dollars is None where the price is unknown."""
        self._rows += 1
        self._usage += usage
        self.cost += cost or 0.0
        self._priced = self._priced and cost is not None

    def value(self) -> ModelForecast:
        """Return what would be sent."""
        cost = self.cost if self._priced else None
        return ModelForecast(self._rows, self._usage.input_tokens, self._usage.output_tokens, cost)

    def saved(self) -> Saved:
        """Return it as what is not sent."""
        return Saved(self._rows, self._usage.input_tokens, self._usage.output_tokens, self.cost)


def by_name(models: Mapping[tuple[str, str], ModelTally]) -> dict[str, ModelForecast]:
    """Return what is sent to each provider's model, by the model's name; `provider/model` where several have it."""
    times = Counter(model for _, model in models)
    return {
        model if times[model] == 1 else f"{provider}/{model}": counted.value()
        for (provider, model), counted in models.items()
    }


@dataclass(frozen=True, slots=True)
class Saved:
    """What the cache would save.

    Attributes:
        calls: Rows that it would answer.
        input_tokens: Of their prompts.
        output_tokens: Of their answers, as in `Forecast`.
        cost: US dollars; what has no known price counts as nothing.
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a batch would take.

    Of every row that is still to do one of three things holds: it is invalid, the cache answers it, or it is sent.
    Tokens and cost are of what is sent.

    Attributes:
        rows: Rows that are still to do.
        invalid_rows: Those that cannot be sent: they hold no request, or one that no key ever takes.
        cache_hits: Those that the cache would answer, rows of the same question in this file included.
        input_tokens: Of the prompts.
        output_tokens: Of the answers: as many as those of the model had so far, else as many as `max_tokens` allows,
            else an assumption; `bases` counts which.
        cost: US dollars of these tokens; what has no known price counts as nothing, and is in `unpriced`.
        seconds: How long the limits make it take at best: with answers as short as may be expected, and with limits
            counted in buckets where it is not known how.
        models: What is sent to each model, by its name; `provider/model` where several providers have it.
        seconds_at_most: The same with answers as long as `output_tokens` reckons with, and in windows.
        finished_rows: Rows that an earlier run has done; in none of the other numbers.
        invalid: How many rows are invalid, by the code of what is wrong.
        saved: What the cache would save.
        brakes: What would keep calls waiting, that which does for longest first.
        refused_after: Rows after which a limit per day or in dollars is used up, so that this is not done in one run;
            `seconds` reaches to when it is renewed. None where all can be sent.
        bases: For how many of the rows that are sent the length of the answer was known from where.
        unpriced: Models whose price is unknown.
        latency_known: Whether earlier answers tell how long one takes; next to nothing is assumed where not.
        semantic_cache: Whether a semantic cache is on, whose hits cannot be foretold.
    """

    rows: int
    invalid_rows: int
    cache_hits: int
    input_tokens: int
    output_tokens: int
    cost: float
    seconds: float
    models: Mapping[str, ModelForecast]
    seconds_at_most: float = 0.0
    finished_rows: int = 0
    invalid: Mapping[str, int] = field(default_factory=dict[str, int])
    saved: Saved = Saved()
    brakes: tuple[Brake, ...] = ()
    refused_after: int | None = None
    bases: Mapping[Basis, int] = field(default_factory=dict["Basis", int])
    unpriced: tuple[str, ...] = ()
    latency_known: bool = False
    semantic_cache: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the eight numbers of `--json`."""
        return {
            "rows": self.rows,
            "invalid_rows": self.invalid_rows,
            "cache_hits": self.cache_hits,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cost": self.cost,
            "seconds": round(self.seconds, 3),
            "models": {
                name: {
                    "rows": model.rows,
                    "input_tokens": model.input_tokens,
                    "output_tokens": model.output_tokens,
                    "cost": model.cost,
                }
                for name, model in self.models.items()
            },
        }

    def notes(self) -> list[str]:
        """Return what to know beside the numbers, a sentence each."""
        notes = [*self._notes_on_time(), *self._notes_on_tokens()]
        if self.semantic_cache:
            notes.append("What the semantic cache would answer cannot be foretold, and is not counted.")
        return notes

    def _notes_on_time(self) -> Iterator[str]:
        sent = self.rows - self.invalid_rows - self.cache_hits
        for brake in self.brakes:
            if brake.refuses:
                yield (
                    f"{_named(brake)} is used up after {self.refused_after:,} of the {sent:,} rows to send, so one run "
                    "cannot do it all; the time reaches to when it is renewed."
                )
        limited = self.brakes and self.brakes[0].level is not None
        if limited or (self.brakes and self.latency_known):
            yield f"The time is bounded by {_named(self.brakes[0])}."
        if sent and not limited and not self.latency_known:
            yield (
                f"No limit bounds it, and how long an answer takes is not known: {ASSUMED_SECONDS:g} seconds are "
                "assumed, so expect it to take longer."
            )
        if self.seconds_at_most > _MUCH * self.seconds:
            most = f"{self.seconds_at_most:,.0f} seconds"
            yield f"It may take up to {most}: with answers as long as is reckoned with, and limits counted in windows."

    def _notes_on_tokens(self) -> Iterator[str]:
        bounded, assumed = self.bases.get("max_tokens", 0), self.bases.get("assumed", 0)
        if bounded:
            yield f"{bounded} rows are reckoned with answers as long as max_tokens allows; shorter ones cost less."
        if assumed:
            yield (
                f"{assumed} rows have no max_tokens, and no answers of their model were seen: {ASSUMED_ANSWER} tokens "
                "are assumed, or as many as the message has that is answered."
            )
        if self.unpriced:
            names = ", ".join(self.unpriced)
            yield f"The price of {names} is unknown and counts as nothing; state it under `prices:`."


def _named(brake: Brake) -> str:
    if brake.level is None:
        return "the number of calls at once (concurrency)"
    if not brake.keys:
        return f"{brake.limit} (level {brake.level})"
    keys = sorted(brake.keys)
    more = f" and {len(keys) - _MOST_KEYS} more keys" if len(keys) > _MOST_KEYS else ""
    return f"{brake.limit} of {', '.join(keys[:_MOST_KEYS])}{more}"
