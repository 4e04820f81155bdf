"""What is counted of one user, of one key, and of one model at one provider; whoever counts holds the lock."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from llm.core.measured import KeyMeasures, ModelMeasures
from llm.core.types import TokenUsage

from .histogram import Histogram

if TYPE_CHECKING:
    from llm.core.call import Call
    from llm.core.measured import Outcome
    from llm.core.spent import Spent
    from llm.core.types import LLMResponse


class Tally:
    """Requests, tokens and US dollars: what is counted of a user."""

    __slots__ = ("cached_input", "cost", "input", "output", "priced", "requests")

    def __init__(self) -> None:
        """Start at zero."""
        self.requests: int = 0
        self.input: int = 0
        self.output: int = 0
        self.cached_input: int = 0
        self.cost: float = 0.0
        self.priced: bool = False

    def spend(self, usage: TokenUsage | Spent, cost: float | None) -> None:
        """Count an answer's tokens and US dollars; None where the price is unknown."""
        self.input += usage.input_tokens
        self.output += usage.output_tokens
        self.cached_input += usage.cached_input_tokens
        if cost is not None:
            self.cost += cost
            self.priced = True

    def add(self, other: Tally) -> None:
        """Count what another has counted of these."""
        self.requests += other.requests
        self.input += other.input
        self.output += other.output
        self.cached_input += other.cached_input
        self.cost += other.cost
        self.priced = self.priced or other.priced

    def tokens(self) -> dict[str, int]:
        """Return the tokens as the status shows them."""
        total = self.input + self.output
        return {"input": self.input, "output": self.output, "total": total, "cached_input": self.cached_input}


class Lot(Tally):
    """Answers that waited to be counted together, with the seconds of each."""

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        """Start with none."""
        super().__init__()
        self.seconds: list[float] = []


class KeyTally(Tally):
    """Attempts on a key; the seconds are those of the answered ones."""

    __slots__ = ("errors", "seconds")

    def __init__(self) -> None:
        """Start at zero."""
        super().__init__()
        self.errors: defaultdict[str, int] = defaultdict(int)
        self.seconds: Histogram = Histogram()

    def take(self, lot: Lot) -> None:
        """Count answers that waited for it."""
        self.add(lot)
        self.seconds.extend(lot.seconds)

    def merge(self, other: KeyTally) -> None:
        """Count what another has counted."""
        self.add(other)
        self.seconds.merge(other.seconds)
        for name, count in other.errors.copy().items():
            self.errors[name] += count

    def shown(self) -> dict[str, Any]:
        """Return what the status shows of a key."""
        return {
            "requests": self.requests,
            "errors": dict(self.errors),
            "tokens": self.tokens(),
            "latency": self.seconds.snapshot(),
        }


class ModelTally(KeyTally):
    """Calls of a model; `seconds` leaves out those that the cache answered."""

    __slots__ = (
        "answered", "cached", "cancelled", "cost_saved", "failed", "first_token", "hit_seconds", "retries",
        "seconds_saved", "streamed", "streaming", "tokens_saved", "unwaited", "waits",
    )  # fmt: skip

    def __init__(self) -> None:
        """Start at zero."""
        super().__init__()
        self.answered: int = 0
        self.cached: int = 0
        self.failed: int = 0
        self.cancelled: int = 0
        self.retries: int = 0
        self.hit_seconds: Histogram = Histogram()
        self.first_token: Histogram = Histogram()
        self.waits: Histogram = Histogram()
        self.unwaited: int = 0
        self.streamed: int = 0  # tokens of answers that came as streams
        self.streaming: float = 0.0  # seconds of those, from the first chunk to the end
        self.tokens_saved: int = 0
        self.cost_saved: float = 0.0
        self.seconds_saved: float = 0.0

    def take(self, lot: Lot) -> None:
        """Count answers that waited for it, of calls that were sent once, did not wait and were no streams."""
        super().take(lot)
        self.answered += lot.requests
        self.unwaited += lot.requests

    def way(self, call: Call) -> None:
        """Count what a call went through, however it ended."""
        if call.sends > 1:
            self.retries += call.sends - 1
        if call.waited:
            self.waits.add(call.queue_seconds)
        elif call.sends:
            self.unwaited += 1
        if call.answering_at is not None and call.sent_at is not None:
            self.first_token.add(max(0.0, call.answering_at - call.sent_at))

    def hit(self, usage: TokenUsage, latency: float, original: float | None, saved: float | None) -> None:
        """Count an answer of the cache, which would have cost so many US dollars without it, and seconds at first."""
        self.cached += 1
        self.hit_seconds.add(latency)
        self.tokens_saved += usage.input_tokens + usage.output_tokens
        self.cost_saved += saved or 0.0
        if original is not None and original > latency:
            self.seconds_saved += original - latency

    def pace(self, call: Call, response: LLMResponse) -> None:
        """Count how fast an answer came, where it came as a stream of which the tokens are known."""
        if call.answering_at is None or not response.usage.output_tokens:
            return
        seconds = call.started + response.latency - call.answering_at
        if seconds > 0.0:
            self.streamed += response.usage.output_tokens
            self.streaming += seconds

    def join(self, other: ModelTally) -> None:
        """Count what another has counted, its calls as well."""
        self.merge(other)
        self.answered += other.answered
        self.cached += other.cached
        self.failed += other.failed
        self.cancelled += other.cancelled
        self.retries += other.retries
        self.hit_seconds.merge(other.hit_seconds)
        self.first_token.merge(other.first_token)
        self.waits.merge(other.waits)
        self.unwaited += other.unwaited
        self.streamed += other.streamed
        self.streaming += other.streaming
        self.tokens_saved += other.tokens_saved
        self.cost_saved += other.cost_saved
        self.seconds_saved += other.seconds_saved

    def outcomes(self) -> dict[Outcome, int]:
        """Return how many calls ended in each way."""
        return {
            "answered": self.answered,
            "cached": self.cached,
            "failed": self.failed,
            "cancelled": self.cancelled,
        }

    def latency(self) -> dict[str, float]:
        """Return the seconds of all answered calls, those of the cache included, as the status shows them."""
        both = Histogram()
        both.merge(self.seconds)
        both.merge(self.hit_seconds)
        return both.snapshot()

    def queue_wait(self) -> Histogram:
        """Return the seconds in the queue, of all calls that had or wanted a key."""
        everybody = Histogram()
        everybody.merge(self.waits)
        everybody.add_many(0.0, self.unwaited)
        return everybody

    def tokens_per_second(self) -> float:
        """Return the output tokens of streams per second from their first chunk on; 0 without any."""
        return self.streamed / self.streaming if self.streaming > 0.0 else 0.0

    def shown(self) -> dict[str, Any]:
        """Return what the status shows of a model."""
        return {
            "requests": self.requests,
            "tokens": self.tokens(),
            "cost": self.cost if self.priced else None,
            "latency": self.latency(),
        }

    def shown_in_full(self) -> dict[str, Any]:
        """Return what the status shows of a model at one provider."""
        return {
            "calls": self.outcomes(),
            "errors": dict(self.errors),
            "retries": self.retries,
            **{name: value for name, value in self.shown().items() if name != "requests"},
            "first_token": self.first_token.snapshot(),
            "queue_wait": self.queue_wait().snapshot(),
            "tokens_per_second": self.tokens_per_second(),
            "saved": {"tokens": self.tokens_saved, "cost": self.cost_saved},
        }


def key_measures(provider: str, key: str, tally: KeyTally) -> KeyMeasures:
    """Return as a value what was counted of a key."""
    return KeyMeasures(provider, key, tally.requests, dict(tally.errors))


def model_measures(provider: str, model: str, tally: ModelTally) -> ModelMeasures:
    """Return as a value what was counted of a model."""
    return ModelMeasures(
        provider=provider,
        model=model,
        calls=tally.outcomes(),
        errors=dict(tally.errors),
        retries=tally.retries,
        usage=TokenUsage(tally.input, tally.output, tally.cached_input),
        cost=tally.cost,
        durations={"answered": tally.seconds.spread(), "cached": tally.hit_seconds.spread()},
        first_token=tally.first_token.spread(),
        queue_wait=tally.queue_wait().spread(),
        streamed_tokens=tally.streamed,
        streaming_seconds=tally.streaming,
        tokens_saved=tally.tokens_saved,
        cost_saved=tally.cost_saved,
    )
