"""What a run came to: counted as it goes, told at any time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm.core.types import EmbeddingResponse, LLMResponse, TokenUsage

if TYPE_CHECKING:
    from .values import Outcome, ResponseWrapper


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run over a file came to.

    Attributes:
        rows: Rows that were met in the input, those of earlier runs included.
        answered: Rows that this run answered.
        failed: Rows that this run has in the errors file.
        skipped: Rows that an earlier run had finished.
        usage: Tokens of this run's answers.
        cost: US dollars of this run's answers; None where the price of one is unknown.
        cache_hits: Answers that the cache gave.
        seconds: Seconds from the start to the end, or to when it was asked for.
        errors: How many rows failed, by the name of the exception, or the code of a row that holds no request.
        unmet: Rows that the files had finished and the input does not have; known once the input is read to its end.
    """

    rows: int
    answered: int
    failed: int
    skipped: int
    usage: TokenUsage
    cost: float | None
    cache_hits: int
    seconds: float
    errors: Mapping[str, int]
    unmet: int = 0


class Tally:
    """Counts of a run, also of one that was cancelled or stopped.

    Attributes:
        rows: Rows that were met.
        answered: Rows that were answered.
        failed: Rows that were not.
        skipped: Rows that were finished before.
        cost: US dollars; None where the price of an answer is unknown.
        cache_hits: Answers that the cache gave.
        errors: How many rows failed, by kind.
        unmet: Rows that the files had finished and the input does not have.
    """

    def __init__(self) -> None:
        """Start at nothing."""
        self.rows: int = 0
        self.answered: int = 0
        self.failed: int = 0
        self.skipped: int = 0
        self.cost: float | None = 0.0
        self.cache_hits: int = 0
        self.errors: Counter[str] = Counter()
        self.unmet: int = 0
        self._input = self._output = self._cached = self._reasoning = 0
        self._started = self._ended = 0.0

    @property
    def usage(self) -> TokenUsage:
        """Tokens of all answers."""
        return TokenUsage(self._input, self._output, self._cached, self._reasoning)

    @property
    def seconds(self) -> float:
        """Seconds from `start` to the last `tick`."""
        return self._ended - self._started

    def start(self, now: float) -> None:
        """Begin, at `now` monotonic seconds."""
        self._started = self._ended = now

    def tick(self, now: float) -> None:
        """Know how late it is."""
        self._ended = now

    def finished(self, wrapper: ResponseWrapper, kind: str, now: float) -> None:
        """Count a row that has come to its end; `kind` names the failure of one that failed."""
        response = wrapper.response
        if response is None:
            self._fail(kind, now)
        else:
            self._answer(response.usage, response.cost, was_cached(response), now)

    def ended(self, outcome: Outcome, now: float) -> None:
        """Count what a row came to."""
        if outcome.kind is None:
            self._answer(outcome.usage, outcome.cost, outcome.cached, now)
        else:
            self._fail(outcome.kind, now)

    def _fail(self, kind: str, now: float) -> None:
        self._ended = now
        self.failed += 1
        self.errors[kind] += 1

    def _answer(self, usage: TokenUsage, cost: float | None, cached: bool, now: float) -> None:  # noqa: FBT001 - as an outcome has it
        self._ended = now
        self.answered += 1
        self._input += usage.input_tokens
        self._output += usage.output_tokens
        self._cached += usage.cached_input_tokens
        self._reasoning += usage.reasoning_tokens
        self.cost = None if self.cost is None or cost is None else self.cost + cost
        self.cache_hits += cached

    def summary(self) -> Summary:
        """Return what came so far."""
        return Summary(
            rows=self.rows,
            answered=self.answered,
            failed=self.failed,
            skipped=self.skipped,
            usage=self.usage,
            cost=self.cost,
            cache_hits=self.cache_hits,
            seconds=self.seconds,
            errors=dict(self.errors),
            unmet=self.unmet,
        )


def was_cached(response: LLMResponse | EmbeddingResponse) -> bool:
    """Return whether the cache gave an answer; of vectors, where no key made them and they cost nothing."""
    if isinstance(response, LLMResponse):
        return response.cached
    return response.key is None and response.cost == 0.0
