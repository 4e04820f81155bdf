"""What calls and attempts came to, counted as they end."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from llm.core.measured import Measured
from llm.core.stream import at_end
from llm.core.types import LLMResponse

from .lots import MANY, Waiting, in_lots
from .tally import KeyTally, ModelTally, Tally, key_measures, model_measures

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm.core.call import Call
    from llm.core.protocols import CallNext
    from llm.core.stream import LLMResult
    from llm.core.types import LLMRequest, TokenUsage
    from llm.utils.clock import Clock

    Price: TypeAlias = Callable[[str, TokenUsage], float | None]
    """From a model and its tokens to US dollars; None where the price is unknown."""

_logger = logging.getLogger("llm.client")
_CANCELLED: Final = (asyncio.CancelledError, GeneratorExit)
_MOST_NAMES: Final = 10_000  # of users, of keys; what names come beyond that is counted together
_MOST_MODELS: Final = 1_000  # each is many lines for whoever reads all of it every few seconds
_OTHERS: Final = "(others)"

_Name = TypeVar("_Name")
_Tally = TypeVar("_Tally", bound=Tally)


class _Tallies(dict[_Name, _Tally]):
    """Tallies by name, each made when it is first asked for; names beyond a bound have one together."""

    def __init__(self, make: Callable[[], _Tally], most: int, others: Callable[[_Name], _Name]) -> None:
        super().__init__()
        self._make = make
        self._most = most
        self._others = others

    def __missing__(self, name: _Name) -> _Tally:
        # Adds in one step, because a stream that is freed meanwhile is counted from here, too.
        return self.setdefault(name if len(self) < self._most else self._others(name), self._make())


class Metrics:
    """The counts of one manager, from as many event loops as it is used in.

    Whole calls make the totals, tokens, latency, models and users; attempts make the keys. A call counts under the
    model that it asked for, once it waited for a key, was sent, or the cache answered it. Latency is that of answered
    calls, the cache's answers included; that of a key is from the sending of an attempt.
    """

    def __init__(self, cache_misses: Callable[[], int] = int) -> None:
        """Start at zero; `cache_misses` returns how many calls the cache was asked in vain, which only it knows."""
        self._cache_misses = cache_misses
        # Reentrant: the collector may free a stream, and so end its call, while a count is under way.
        self._lock = threading.RLock()
        self._hits: deque[tuple[str, str, str | None, Price, str, TokenUsage, float, float | None]] = deque()
        self._attempts: Waiting[tuple[str, str]] = deque()
        self._answers: Waiting[tuple[str, str, str | None]] = deque()
        self._models = _Tallies[tuple[str, str], ModelTally](ModelTally, _MOST_MODELS, lambda name: (name[0], _OTHERS))
        self._keys = _Tallies[tuple[str, str], KeyTally](KeyTally, _MOST_NAMES, lambda name: (name[0], _OTHERS))
        self._users = _Tallies[str, Tally](Tally, _MOST_NAMES, lambda _: _OTHERS)

    def called(self, call: Call, provider: str, model: str, *, error: BaseException | None = None) -> None:
        """Count a call that brought no answer, with what answers that did not do have taken."""
        with self._lock:
            known = call.waited or call.sends > 0  # else the model may be any word
            tally = self._models[provider, model if known else ""]
            tally.requests += known
            tally.way(call)
            if isinstance(error, _CANCELLED):
                tally.cancelled += 1
            else:
                tally.failed += 1
                tally.errors[type(error).__name__] += 1
            user = None if call.user is None else self._users[call.user]
            if user is not None:
                user.requests += 1
            if call.spent is not None:
                for spender in (tally,) if user is None else (tally, user):
                    spender.spend(call.spent, call.spent.cost)

    def answered(
        self, call: Call, provider: str, model: str, response: LLMResponse, saved: float | None = None
    ) -> None:
        """Count a call that was answered; `saved` is what it would have cost without the cache, in US dollars."""
        if call.sends == 1 and not (call.waited or response.cached) and call.answering_at is None:
            self._answers.append(((provider, model, call.user), response.usage, response.cost, response.latency))
            if len(self._answers) >= MANY:
                self._settle()
            return
        with self._lock:
            tally = self._models[provider, model]
            tally.requests += 1
            if call.sends or call.waited:
                tally.way(call)
            user = None if call.user is None else self._users[call.user]
            if user is not None:
                user.requests += 1
            if response.cached:
                tally.hit(response.usage, response.latency, response.original_latency, saved)
                return
            tally.answered += 1
            tally.seconds.add(response.latency)
            tally.spend(response.usage, response.cost)
            tally.pace(call, response)
            if user is not None:
                user.spend(response.usage, response.cost)

    def hit(self, call: Call, provider: str, model: str, response: LLMResponse, price: Price) -> None:
        """Count a call that the cache answered at once: when there are many, or somebody asks, which takes half."""
        usage, latency, original = response.usage, response.latency, response.original_latency
        self._hits.append((provider, model, call.user, price, response.model, usage, latency, original))
        if len(self._hits) >= MANY:
            self._settle()

    def _settle(self) -> None:
        with self._lock:
            for names, lot in in_lots(self._attempts).items():
                self._keys[names].take(lot)
            for (provider, model, user), lot in in_lots(self._answers).items():
                self._models[provider, model].take(lot)
                if user is not None:
                    self._users[user].add(lot)
            while True:
                try:
                    provider, model, user, price, answered_by, usage, latency, original = self._hits.popleft()
                except IndexError:  # not looked for before: a signal's handler may count what was there then
                    return
                try:
                    saved = price(answered_by, usage)
                except Exception:
                    _logger.exception("the price of an answer of the cache failed; the call itself did not")
                    saved = None
                tally = self._models[provider, model]
                tally.requests += 1
                if user is not None:
                    self._users[user].requests += 1
                tally.hit(usage, latency, original, saved)

    def attempted(self, provider: str, key: str, seconds: float, usage: TokenUsage) -> None:
        """Count an attempt on a key, by its fingerprint, that was answered."""
        self._attempts.append(((provider, key), usage, None, seconds))
        if len(self._attempts) >= MANY:
            self._settle()

    def attempted_in_vain(self, provider: str, key: str, error: BaseException) -> None:
        """Count an attempt on a key, by its fingerprint, that failed."""
        with self._lock:
            tally = self._keys[provider, key]
            tally.requests += 1
            tally.errors[type(error).__name__] += 1

    def snapshot(self) -> dict[str, Any]:
        """Return what `get_status()["metrics"]` shows: JSON values, seconds, tokens and US dollars."""
        with self._lock:
            self._settle()
            everything, models = ModelTally(), dict[str, ModelTally]()
            for (_, model), tally in self._models.copy().items():
                everything.join(tally)
                if tally.requests:
                    models.setdefault(model, ModelTally()).join(tally)
            keys: dict[str, KeyTally] = {}
            for (_, key), attempts in self._keys.copy().items():
                keys.setdefault(key, KeyTally()).merge(attempts)
            return {
                "total_requests": sum(everything.outcomes().values()),
                "successful_requests": everything.answered + everything.cached,
                "failed_requests": everything.failed,
                "cancelled_requests": everything.cancelled,
                "retries": everything.retries,
                "tokens": everything.tokens(),
                "latency": everything.latency(),
                "errors": dict(everything.errors),
                "models": {name: tally.shown() for name, tally in models.items()},
                "keys": {name: tally.shown() for name, tally in keys.items()},
                "cache": self._cache(everything),
                "cost": everything.cost,
            }

    def models(self) -> dict[str, dict[str, Any]]:
        """Return what `get_status()["models"]` shows, by `provider/model`: how calls ended, and how fast they were."""
        with self._lock:
            self._settle()
            return {
                f"{provider}/{model}" if model else provider: tally.shown_in_full()
                for (provider, model), tally in self._models.copy().items()
            }

    def measured(self) -> Measured:
        """Return the counts as values, by provider and model, and by provider and key."""
        with self._lock:
            self._settle()
            return Measured(
                [model_measures(*names, tally) for names, tally in self._models.copy().items()],
                [key_measures(*names, tally) for names, tally in self._keys.copy().items()],
            )

    def users(self) -> dict[str, dict[str, Any]]:
        """Return requests, tokens and US dollars of each user, for `get_status()["users"]`."""
        with self._lock:
            self._settle()
            return {
                name: {"requests": tally.requests, "tokens": tally.input + tally.output, "cost": tally.cost}
                for name, tally in self._users.copy().items()
            }

    def _cache(self, everything: ModelTally) -> dict[str, float]:
        hits, misses = everything.cached, self._cache_misses()
        asked = hits + misses
        return {
            "hits": hits,
            "misses": misses,
            "hit_ratio": hits / asked if asked else 0.0,
            "tokens_saved": everything.tokens_saved,
            "cost_saved": everything.cost_saved,
            "seconds_saved": everything.seconds_saved,
        }


def _unpriced(model: str, usage: TokenUsage) -> float | None:  # noqa: ARG001 - a `Price`
    return None


class MetricsMiddleware:
    """Counts attempts where it stands in a chain, and hears of whole calls as a `CallObserver`."""

    def __init__(self, metrics: Metrics, clock: Clock, *, provider: str = "", price: Price = _unpriced) -> None:
        """Count into `metrics`.

        Args:
            metrics: The counts of the manager.
            clock: Its time.
            provider: Section of the configuration whose chain this is.
            price: Tells what an answer from the cache has saved.
        """
        self._metrics = metrics
        self._provider = provider
        self._now = clock.now
        self._price = price

    async def __call__(self, request: LLMRequest, call_next: CallNext) -> LLMResult:
        """Pass on, and count the attempt when it has ended."""
        call = request.call
        if call is None:  # nothing is sent without one
            return await call_next(request)
        sends = call.sends
        try:
            result = await call_next(request)
        except BaseException as error:
            self._attempted(call, sends, None, error)
            raise
        if type(result) is not LLMResponse:
            return at_end(result, partial(self._attempted, call, sends))
        self._answered(call, result)  # as `at_end` does, in half the steps
        return result

    def call_ended(
        self, call: Call, request: LLMRequest, response: LLMResponse | None, error: BaseException | None
    ) -> None:
        """Count the call."""
        if response is None or error is not None:
            self._metrics.called(call, self._provider, request.model or "", error=error)
            return
        provider, model = self._provider, request.model or response.model
        if response.provider and response.provider != provider:  # somebody else answered in its place
            provider, model = response.provider, response.model
        if response.cached and not (call.sends or call.waited):
            self._metrics.hit(call, provider, model, response, self._price)
            return
        saved = self._price(response.model, response.usage) if response.cached else None
        self._metrics.answered(call, provider, model, response, saved)

    def _attempted(self, call: Call, sends: int, response: LLMResponse | None, error: BaseException | None) -> None:
        if error is None:
            if response is not None:
                self._answered(call, response)
        elif call.sends > sends:  # else nothing was sent, so no key was used
            key = getattr(error, "key", None) or _last_key(call)
            if key is not None:
                self._metrics.attempted_in_vain(self._provider, key, error)

    def _answered(self, call: Call, response: LLMResponse) -> None:
        key, sent = response.key, call.sent_at
        if key is not None and sent is not None and not response.cached:
            self._metrics.attempted(self._provider, key, self._now() - sent, response.usage)


def _last_key(call: Call) -> str | None:
    # An attempt that was cut off brings no response and no error of ours, but the log has the key that was paid on.
    return next((decision.detail for decision in reversed(call.log) if decision.event == "paid"), None)
