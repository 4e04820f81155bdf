"""What calls and attempts came to, counted as they end."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from llm.core.stream import at_end
from llm.core.types import TokenUsage

from .histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm.core.call import Call, Spent
    from llm.core.protocols import CallNext
    from llm.core.stream import LLMResult
    from llm.core.types import LLMRequest, LLMResponse
    from llm.utils.clock import Clock

    Price: TypeAlias = Callable[[str, TokenUsage], float | None]
    """From a model and its tokens to US dollars; None where the price is unknown."""

_CANCELLED: Final = (asyncio.CancelledError, GeneratorExit)
_MOST_NAMES: Final = 10_000  # of models, users, keys; what names come beyond that is counted together
_OTHERS: Final = "(others)"


class _Tally:
    __slots__ = ("cached_input", "cost", "errors", "input", "output", "priced", "requests", "seconds")

    def __init__(self) -> None:
        self.requests = 0
        self.input = 0
        self.output = 0
        self.cached_input = 0
        self.cost = 0.0
        self.priced = False
        self.errors: defaultdict[str, int] = defaultdict(int)
        self.seconds = Histogram()

    def spend(self, usage: TokenUsage | Spent, cost: float | None) -> None:
        self.input += usage.input_tokens
        self.output += usage.output_tokens
        self.cached_input += usage.cached_input_tokens
        if cost is not None:
            self.cost += cost
            self.priced = True

    def merge(self, other: _Tally) -> None:
        self.input += other.input
        self.output += other.output
        self.cached_input += other.cached_input
        self.cost += other.cost
        self.seconds.merge(other.seconds)

    def tokens(self) -> dict[str, int]:
        total = self.input + self.output
        return {"input": self.input, "output": self.output, "total": total, "cached_input": self.cached_input}


def _named(tallies: dict[str, _Tally], name: str) -> _Tally:
    tally = tallies.get(name)
    if tally is None:
        # In one step, because a stream that is freed meanwhile is counted from here, too.
        tally = tallies.setdefault(name if len(tallies) < _MOST_NAMES else _OTHERS, _Tally())
    return tally


class Metrics:
    """The counts of one manager, from as many event loops as it is used in.

    Whole calls make the totals, tokens, latency, models and users; attempts make the keys. A call counts under the
    model that it asked for, once it was sent or the cache answered it. Latency is that of answered calls, the cache's
    answers included.
    """

    def __init__(self, cache_misses: Callable[[], int] = int) -> None:
        """Start at zero; `cache_misses` returns how many calls the cache was asked in vain, which only it knows."""
        self._cache_misses = cache_misses
        # Reentrant: the collector may free a stream, and so end its call, while a count is under way.
        self._lock = threading.RLock()
        self._total = 0
        self._failed = 0
        self._cancelled = 0
        self._errors: defaultdict[str, int] = defaultdict(int)
        self._retries = 0
        self._hits = 0
        self._tokens_saved = 0
        self._cost_saved = 0.0
        self._models: dict[str, _Tally] = {}
        self._users: dict[str, _Tally] = {}
        self._keys: dict[str, _Tally] = {}

    def called(self, call: Call, model: str, *, error: BaseException | None = None) -> None:
        """Count a call that brought no answer, with what answers that did not do have taken."""
        with self._lock:
            user = self._begin(call)
            if isinstance(error, _CANCELLED):
                self._cancelled += 1
            else:
                self._failed += 1
                self._errors[type(error).__name__] += 1
            if call.sends:
                tally = _named(self._models, model)
                tally.requests += 1
                if call.spent is not None:
                    tally.spend(call.spent, call.spent.cost)
                    if user is not None:
                        user.spend(call.spent, call.spent.cost)

    def answered(self, call: Call, model: str, response: LLMResponse, saved: float | None = None) -> None:
        """Count a call that was answered; `saved` is what it would have cost without the cache, in US dollars."""
        with self._lock:
            user = self._begin(call)
            tally = _named(self._models, model)
            tally.requests += 1
            tally.seconds.add(response.latency)
            if response.cached:
                self._hits += 1
                self._tokens_saved += response.usage.total_tokens
                self._cost_saved += saved or 0.0
                return
            tally.spend(response.usage, response.cost)
            if user is not None:
                user.spend(response.usage, response.cost)

    def attempted(self, key: str, seconds: float, usage: TokenUsage, error: BaseException | None) -> None:
        """Count an attempt on a key, by its fingerprint."""
        with self._lock:
            tally = _named(self._keys, key)
            tally.requests += 1
            if error is None:
                tally.spend(usage, None)
                tally.seconds.add(seconds)
            else:
                tally.errors[type(error).__name__] += 1

    def snapshot(self) -> dict[str, Any]:
        """Return what `get_status()["metrics"]` shows: JSON values, seconds, tokens and US dollars."""
        with self._lock:
            models = self._models.copy()
            everything = _Tally()
            for tally in models.values():
                everything.merge(tally)
            return {
                "total_requests": self._total,
                "successful_requests": self._total - self._failed - self._cancelled,
                "failed_requests": self._failed,
                "cancelled_requests": self._cancelled,
                "retries": self._retries,
                "tokens": everything.tokens(),
                "latency": everything.seconds.snapshot(),
                "errors": dict(self._errors),
                "models": {name: _of_model(tally) for name, tally in models.items()},
                "keys": {name: _of_key(tally) for name, tally in self._keys.copy().items()},
                "cache": self._cache(),
                "cost": everything.cost,
            }

    def users(self) -> dict[str, dict[str, Any]]:
        """Return requests, tokens and US dollars of each user, for `get_status()["users"]`."""
        with self._lock:
            return {
                name: {"requests": tally.requests, "tokens": tally.input + tally.output, "cost": tally.cost}
                for name, tally in self._users.copy().items()
            }

    def _begin(self, call: Call) -> _Tally | None:
        self._total += 1
        if call.sends > 1:
            self._retries += call.sends - 1
        if call.user is None:
            return None
        user = _named(self._users, call.user)
        user.requests += 1
        return user

    def _cache(self) -> dict[str, float]:
        misses = self._cache_misses()
        asked = self._hits + misses
        return {
            "hits": self._hits,
            "misses": misses,
            "hit_ratio": self._hits / asked if asked else 0.0,
            "tokens_saved": self._tokens_saved,
            "cost_saved": self._cost_saved,
        }


def _of_model(tally: _Tally) -> dict[str, Any]:
    return {
        "requests": tally.requests,
        "tokens": tally.tokens(),
        "cost": tally.cost if tally.priced else None,
        "latency": tally.seconds.snapshot(),
    }


def _of_key(tally: _Tally) -> dict[str, Any]:
    return {
        "requests": tally.requests,
        "errors": dict(tally.errors),
        "tokens": tally.tokens(),
        "latency": tally.seconds.snapshot(),
    }


def _unpriced(model: str, usage: TokenUsage) -> float | None:  # noqa: ARG001 - a `Price`
    return None


class MetricsMiddleware:
    """Counts attempts where it stands in a chain, and hears of whole calls as a `CallObserver`."""

    def __init__(self, metrics: Metrics, clock: Clock, *, price: Price = _unpriced) -> None:
        """Count into `metrics`; `price` tells what an answer from the cache has saved."""
        self._metrics = metrics
        self._now = clock.now
        self._price = price

    async def __call__(self, request: LLMRequest, call_next: CallNext) -> LLMResult:
        """Pass on, and count the attempt when it has ended."""
        call = request.call
        attempt = partial(self._attempted, call, call.sends if call is not None else 0, self._now())
        try:
            result = await call_next(request)
        except BaseException as error:
            attempt(None, error)
            raise
        return at_end(result, attempt)

    def call_ended(
        self, call: Call, request: LLMRequest, response: LLMResponse | None, error: BaseException | None
    ) -> None:
        """Count the call."""
        if response is None or error is not None:
            self._metrics.called(call, request.model or "", error=error)
            return
        saved = self._price(response.model, response.usage) if response.cached else None
        self._metrics.answered(call, request.model or response.model, response, saved)

    def _attempted(
        self, call: Call | None, sends: int, started: float, response: LLMResponse | None, error: BaseException | None
    ) -> None:
        if response is not None:
            key = None if response.cached else response.key
        elif call is None or call.sends == sends:  # nothing was sent, so no key was used
            key = None
        else:
            key = getattr(error, "key", None) or _last_key(call)
        if key is not None:
            usage = TokenUsage() if response is None else response.usage
            self._metrics.attempted(key, self._now() - started, usage, error)


def _last_key(call: Call) -> str | None:
    # An attempt that was cut off brings no response and no error of ours, but the log has the key that was paid on.
    return next((decision.detail for decision in reversed(call.log) if decision.event == "paid"), None)
