"""The calls of late that did not go straight through, for who asks why."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from llm.core.decisions import Noted, in_words

if TYPE_CHECKING:
    from llm.core.call import Call
    from llm.core.types import LLMRequest, LLMResponse
    from llm.utils.clock import Clock

_MOST: Final = 100


@dataclass(frozen=True, slots=True)
class _Entry:
    number: int
    provider: str
    model: str | None
    user: str | None
    key: str | None
    started: float  # monotonic seconds
    wall: float  # the same, since 1970
    seconds: float
    outcome: str
    error: str | None
    decisions: Noted


class Journal:
    """The last 100 calls that waited, were repeated, fell back or brought no answer.

    Those that went straight through cost a look. It holds neither content nor an error's words, and puts the decisions
    into words only as they are asked for.
    """

    def __init__(self, clock: Clock) -> None:
        """Start empty."""
        self._clock = clock
        self._entries: deque[_Entry] = deque(maxlen=_MOST)

    def observer(self, provider: str) -> ProviderJournal:
        """Return the `CallObserver` of one provider's chains."""
        return ProviderJournal(self, provider)

    def ended(
        self, provider: str, call: Call, request: LLMRequest, key: str | None, error: BaseException | None
    ) -> None:
        """Keep a call that ended."""
        now = self._clock.now()
        self._entries.append(
            _Entry(
                number=call.number,
                provider=provider,
                model=request.model,
                user=call.user,
                key=key,
                started=call.started,
                wall=self._clock.wall() - (now - call.started),
                seconds=now - call.started,
                outcome=_outcome(error),
                error=None if error is None else type(error).__name__,
                decisions=call.decisions,
            )
        )

    def snapshot(self) -> list[dict[str, Any]]:
        """Return what `get_status()["calls"]` shows, oldest first: JSON values.

        `started` is in seconds since 1970 (UTC), `seconds` how long the call took, and a decision's `at` the seconds
        from the call's start to it.
        """
        return [_shown(entry) for entry in self._entries.copy()]


class ProviderJournal:
    """Hears of the calls of one provider."""

    def __init__(self, journal: Journal, provider: str) -> None:
        """Write into `journal`."""
        self._write = partial(journal.ended, provider)

    def call_ended(
        self, call: Call, request: LLMRequest, response: LLMResponse | None, error: BaseException | None
    ) -> None:
        """Keep the call, unless it went straight through."""
        if error is not None or call.waited or call.moves or call.sends > 1:
            key = getattr(error if response is None else response, "key", None)
            self._write(call, request, key, error)


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return "answered"
    return "cancelled" if isinstance(error, asyncio.CancelledError | GeneratorExit) else "failed"


def _shown(entry: _Entry) -> dict[str, Any]:
    return {
        "number": entry.number,
        "provider": entry.provider,
        "model": entry.model,
        "user": entry.user,
        "key": entry.key,
        "started": round(entry.wall, 3),
        "seconds": round(entry.seconds, 6),
        "outcome": entry.outcome,
        "error": entry.error,
        "log": [
            {"at": round(decision.at - entry.started, 6), "event": decision.event, "detail": decision.detail}
            for decision in in_words(entry.decisions)
        ],
    }
