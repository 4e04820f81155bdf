"""The decision log of a call as its attempts, its waits, and what else was decided."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from llm.core.decisions import Decision, in_words

if TYPE_CHECKING:
    from llm.core.call import Call
    from llm.core.decisions import Noted

_PLAIN: Final = frozenset({"ticketed", "closed", "paid", "sent", "unsent", "answering", "ended"})
_REFUSED: Final = "LLMRateLimitError"
_TOO_MANY: Final = 429


@dataclass(slots=True)
class Attempt:
    """One send.

    Attributes:
        number: From 1.
        started: Monotonic seconds at which it was sent.
        ended: Monotonic seconds at which its lease went back.
        key: Fingerprint of its key.
        waited: Seconds that it had waited for the key.
        error: Name of the failure; None where there was none, and where it was cut off.
        status: HTTP status of the failure, where it had one.
    """

    number: int
    started: float
    ended: float
    key: str
    waited: float = 0.0
    error: str | None = None
    status: int | None = None


@dataclass(slots=True)
class Story:
    """What a call's log tells, as far as it goes back.

    Attributes:
        attempts: Its sends, in their order.
        waited: Seconds that it stood in a queue, all its waits together.
        others: What was decided beside the sends: waits, moves to another target, what layers note.
    """

    attempts: list[Attempt] = field(default_factory=list[Attempt])
    waited: float = 0.0
    others: tuple[Decision, ...] = ()


def story_of(call: Call, now: float) -> Story:
    """Read the log of a call that ends `now`, in monotonic seconds; what has no end in it ends then, too."""
    reader = _Reader(now)
    for at, event, detail in call.decisions:
        reader.read(at, event, detail)
    reader.leave_queue(now)
    story = reader.story
    lost = max(0, call.sends - len(story.attempts))  # the log forgets the oldest
    for attempt in story.attempts:
        attempt.number += lost
    story.others = in_words(reader.others)
    return story


class _Reader:
    def __init__(self, now: float) -> None:
        self.story = Story()
        self.others: Noted = []
        self._now = now
        self._key = ""
        self._queued: float | None = None
        self._waited = 0.0
        self._open: Attempt | None = None

    def read(self, at: float, event: str, detail: Any) -> None:  # noqa: ANN401 - a detail is of the kind of its event
        match event:
            case "queued":
                self._queued = at
            case "withdrawn" | "ended":
                self.leave_queue(at)
            case "paid":
                self._waited = self.leave_queue(at)
                self._key = detail
            case "sent":
                self._open = Attempt(len(self.story.attempts) + 1, at, self._now, self._key, self._waited)
                self.story.attempts.append(self._open)
            case _:
                pass
        if not self._of_attempt(at, event, detail) and event not in _PLAIN:
            self.others.append((at, event, detail))

    def leave_queue(self, at: float) -> float:
        since, self._queued = self._queued, None
        waited = 0.0 if since is None else at - since
        self.story.waited += waited
        return waited

    def _of_attempt(self, at: float, event: str, detail: Any) -> bool:  # noqa: ANN401 - a detail is of the kind of its event
        attempt = self._open
        if attempt is None:
            return False
        match event:
            case "failed":
                _, attempt.error, attempt.status = detail
            case "refused":
                attempt.error, attempt.status = _REFUSED, _TOO_MANY
            case "settled" | "refunded":
                attempt.ended, self._open = at, None
            case _:
                return False
        return True
