"""Where the cache's layer keeps answers: a backend that may fail, what is on its way to it, and what was read of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm.cache.answer import Answer
from llm.cache.base import Peeking
from llm.utils.redact import redact

from .freshness import Found

if TYPE_CHECKING:
    from llm.cache.base import CacheBackend
    from llm.core.types import LLMRequest
    from llm.utils.clock import Clock

    from .freshness import Use
    from .hold import Hold, Spawn

_logger = logging.getLogger("llm.cache")
_LOG_EVERY = 60.0  # seconds between two lines about a broken backend
_MOST_DECODED = 16_777_216  # bytes, of answers that are held as values too


@dataclass(slots=True)
class CacheStats:
    """What the cache did for one provider.

    Attributes:
        hits: Calls that a kept answer served.
        misses: Calls for which none was there.
        stored: Answers that were kept.
        followers: Calls that the answer to an identical call served, while that was on its way, here or elsewhere.
        stale: Calls that were given what was over its time; hits, or misses where asking failed.
        errors: How often the backend failed, or an entry could not be read or written.
    """

    hits: int = 0
    misses: int = 0
    stored: int = 0
    followers: int = 0
    stale: int = 0
    errors: int = 0

    @property
    def hit_ratio(self) -> float:
        """Share of the calls that were answered without asking the provider, 0 to 1."""
        served = self.hits + self.followers
        return served / (served + self.misses) if served else 0.0


class Shelf:
    """The answers of one provider in a backend; whatever that does, no method raises.

    Attributes:
        at_once: Whether the backend can say without waiting what it has.
    """

    def __init__(self, backend: CacheBackend, *, provider: str, clock: Clock, spawn: Spawn, stats: CacheStats) -> None:
        """Keep answers of `provider`; `spawn` runs what must be finished before the manager has closed."""
        self._backend = backend
        self._provider = provider
        self._clock = clock
        self._spawn = spawn
        self._stats = stats
        # On their way to the backend, and found already; each with the monotonic second in which it came.
        self._unwritten: dict[str, tuple[Answer, float]] = {}
        self._logged_at = -_LOG_EVERY
        self._peek = backend.peek if isinstance(backend, Peeking) else None
        self.at_once: bool = self._peek is not None
        # Beside the bytes that are kept, so that an answer that is given often is read once.
        self._decoded: dict[str, tuple[bytes, Answer]] = {}
        self._decoded_bytes = 0

    def at_hand(self, use: Use) -> Answer | None:
        """Return what is there at once and not over its time; None where it must be read."""
        key = use.key
        if self._unwritten and (written := self._unwritten.get(key)) is not None:
            return written[0]
        try:
            entry = None if self._peek is None else self._peek(key)
            answer = None if entry is None else self._readable(key, entry.value)
        except Exception:  # noqa: BLE001 - the chain meets it again, and counts it
            return None
        return None if answer is None or entry is None or use.rules.over(answer, entry) >= 0.0 else answer

    async def read(self, use: Use) -> Found | None:
        """Return what is there, however old; nothing where the backend fails."""
        if (written := self._unwritten.get(use.key)) is not None:
            return Found(written[0], self._clock.now() - written[1])
        try:
            entry = await self._backend.get(use.key)
        except Exception as error:  # noqa: BLE001 - whatever it is, the call goes on
            self.trouble("reading", error)
            return None
        if entry is None:
            return None
        answer = self._readable(use.key, entry.value)
        if answer is None:
            self.trouble("reading", ValueError("an entry is damaged, or of another version"))
            return None
        return Found(answer, entry.age, use.rules.over(answer, entry))

    def _readable(self, key: str, value: bytes) -> Answer | None:
        known = self._decoded.get(key)
        if known is not None and known[0] is value:  # the very bytes that were read before
            return known[1]
        answer = Answer.decode(value)
        if answer is not None and self._peek is not None and len(value) < _MOST_DECODED:
            self._decoded_bytes += len(value)
            if self._decoded_bytes > _MOST_DECODED:  # what is asked for again is read again
                self._decoded.clear()
                self._decoded_bytes = len(value)
            self._decoded[key] = (value, answer)
        return answer

    def keep(self, use: Use, request: LLMRequest, answer: Answer, hold: Hold | None) -> None:
        """Keep the answer to a request soon, unless it may not be kept; once it is there, `hold` is given back."""
        response = answer.response
        if response.provider not in {"", self._provider}:
            return
        if any(choice.finish_reason == "content_filter" for choice in response.choices):
            return
        entry = self._unwritten[use.key] = (answer, self._clock.now())
        if hold is not None:
            hold.writing = True
        tags: tuple[str, ...] = (f"provider:{self._provider}", f"model:{request.model or ''}")
        if use.rules.scope == "user":
            tags = (*tags, f"user:{request.user or ''}")
        self._spawn(self._write(use, tags, entry, hold))

    async def _write(self, use: Use, tags: tuple[str, ...], entry: tuple[Answer, float], hold: Hold | None) -> None:
        try:
            if self._unwritten.get(use.key) is not entry:
                return  # forgotten, or replaced, since
            ttl = use.rules.ttl + use.rules.beyond
            await self._backend.put(use.key, entry[0].encode(), ttl=ttl, tags=tags)
            self._stats.stored += 1
            if use.key not in self._unwritten:  # forgotten meanwhile
                await self._backend.delete(use.key)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller has its answer
            self.trouble("writing", error)
        finally:
            if self._unwritten.get(use.key) is entry:
                del self._unwritten[use.key]
            if hold is not None:
                hold.let_go()

    def trouble(self, doing: str, error: Exception) -> None:
        """Count a failure of the backend, and log it now and then."""
        self._stats.errors += 1
        now = self._clock.now()
        if now - self._logged_at >= _LOG_EVERY:
            self._logged_at = now
            _logger.warning(
                "the cache of %s failed while %s (%s: %s); calls go on without it, %d failures so far",
                self._provider, doing, type(error).__name__, redact(str(error)), self._stats.errors,
            )  # fmt: skip

    async def forget(self, key: str) -> None:
        """Remove an answer."""
        self._unwritten.pop(key, None)
        try:
            await self._backend.delete(key)
        except Exception as error:  # noqa: BLE001 - whatever it is, the call goes on
            self.trouble("removing an answer", error)
