"""The calls of late, for who asks why: those that did not go straight through, and while somebody watches, all."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from llm.core.decisions import Noted, in_words

if TYPE_CHECKING:
    from llm.core.call import Call
    from llm.core.types import LLMRequest, LLMResponse, TokenUsage
    from llm.utils.clock import Clock

_MOST: Final = 100
_MOST_PLAIN: Final = 20  # of those that nobody has looked at yet


_Noticed: TypeAlias = tuple[Any, ...]
"""An `_Entry` before somebody reads it."""


class _Entry(NamedTuple):
    turn: int
    number: int
    provider: str
    model: str | None
    user: str | None
    key: str | None
    started: float  # monotonic seconds
    ended: float
    waited: float  # seconds in the queue
    sends: int
    error: type[BaseException] | None
    usage: TokenUsage | None
    cached: bool
    decisions: Noted


class Journal:
    """The last 100 calls that waited, were repeated, fell back or brought no answer.

    Those that went straight through cost a look, and are kept while somebody watches: the last 20. It holds neither
    content nor an error's words, and puts the decisions into words only as they are asked for.

    Attributes:
        watched: Whether somebody watches.
    """

    def __init__(self, clock: Clock) -> None:
        """Start empty."""
        self.watched: bool = False
        self._clock = clock
        self._turns = count(1)
        self._entries: deque[_Noticed] = deque(maxlen=_MOST)
        self._plain: deque[_Noticed] = deque(maxlen=_MOST_PLAIN)

    def observer(self, provider: str) -> ProviderJournal:
        """Return the `CallObserver` of one provider's chains."""
        return ProviderJournal(self, provider)

    def watch(self, *, plain: bool) -> None:
        """Keep calls that go straight through, too, or no longer."""
        self.watched = plain
        if not plain:
            self._plain.clear()

    def ended(  # noqa: PLR0913 - what is known of a call at its end
        self,
        provider: str,
        call: Call,
        request: LLMRequest,
        response: LLMResponse | None,
        error: BaseException | None,
        *,
        plain: bool,
    ) -> None:
        """Keep a call that ended; `plain`: it went straight through."""
        # A tuple alone, since each call of a busy gateway comes here while somebody watches.
        found = (
            next(self._turns),
            call.number,
            provider,
            request.model,
            call.user,
            getattr(error if response is None else response, "key", None),
            call.started,
            self._clock.now(),
            call.queue_seconds,
            call.sends,
            None if error is None else type(error),
            None if response is None else response.usage,
            response is not None and response.cached,
            call.decisions,
        )
        (self._plain if plain else self._entries).append(found)

    def snapshot(self) -> list[dict[str, Any]]:
        """Return what `get_status()["calls"]` shows, oldest first: JSON values.

        `started` is in seconds since 1970 (UTC), `seconds` how long the call took, and a decision's `at` the seconds
        from the call's start to it.
        """
        wall = self._since_1970()
        return [_shown(_Entry._make(found), wall) for found in self._entries.copy()]

    def latest(self, after: int, most: int) -> list[dict[str, Any]]:
        """Return the newest of those that ended after the one of this `turn`, oldest first: JSON values.

        Those that did not go straight through go first where there are more than `most`. To what `snapshot` tells are
        added the `turn`, seconds `waited` in the queue, `sends`, `tokens` (of the prompt and of the answer), `cached`;
        a decision is its time, event and detail.
        """
        told = [entry for entry in map(_Entry._make, self._entries.copy()) if entry.turn > after][-most:]
        plain = [entry for entry in map(_Entry._make, self._plain.copy()) if entry.turn > after]
        told += plain[max(0, len(plain) - (most - len(told))) :]
        wall = self._since_1970()
        return [_shown_in_full(entry, wall) for entry in sorted(told, key=lambda entry: entry.turn)]

    def _since_1970(self) -> float:
        """Return what makes seconds since 1970 of monotonic ones."""
        return self._clock.wall() - self._clock.now()


class ProviderJournal:
    """Hears of the calls of one provider."""

    def __init__(self, journal: Journal, provider: str) -> None:
        """Write into `journal`."""
        self._journal = journal
        self._write = partial(journal.ended, provider)

    def call_ended(
        self, call: Call, request: LLMRequest, response: LLMResponse | None, error: BaseException | None
    ) -> None:
        """Keep the call; one that went straight through only while somebody watches."""
        if error is not None or call.waited or call.moves or call.sends > 1:
            self._write(call, request, response, error, plain=False)
        elif self._journal.watched:
            self._write(call, request, response, error, plain=True)


def _outcome(error: type[BaseException] | None) -> str:
    if error is None:
        return "answered"
    return "cancelled" if issubclass(error, asyncio.CancelledError | GeneratorExit) else "failed"


def _shown(entry: _Entry, wall: float) -> dict[str, Any]:
    log = [
        {"at": round(decision.at - entry.started, 6), "event": decision.event, "detail": decision.detail}
        for decision in in_words(entry.decisions)
    ]
    return {**_told(entry, wall), "log": log}


def _shown_in_full(entry: _Entry, wall: float) -> dict[str, Any]:
    log = [
        (round(decision.at - entry.started, 4), decision.event, decision.detail)
        for decision in in_words(entry.decisions)
    ]
    usage = entry.usage
    return {
        **_told(entry, wall),
        "turn": entry.turn,
        "waited": round(entry.waited, 6),
        "sends": entry.sends,
        "tokens": None if usage is None else (usage.input_tokens, usage.output_tokens),
        "cached": entry.cached,
        "log": log,
    }


def _told(entry: _Entry, wall: float) -> dict[str, Any]:
    return {
        "number": entry.number,
        "provider": entry.provider,
        "model": entry.model,
        "user": entry.user,
        "key": entry.key,
        "started": round(wall + entry.started, 3),
        "seconds": round(entry.ended - entry.started, 6),
        "outcome": _outcome(entry.error),
        "error": None if entry.error is None else entry.error.__name__,
    }
