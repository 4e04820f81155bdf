"""What this process knows of an account's log, and what it has yet to write there."""

from __future__ import annotations

import hashlib
import re
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import orjson

from llm.limits.ledger import BEGINNING, Entry, Gone, Position, Read, Settled, Standing, Taken, Waiting

from .events import decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm.limits.ledger import Ask, Event

    from .link import Message

_PLAIN: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,100}")
_KEPT: Final = 100_000  # events
_AT_ONCE: Final = 500  # events
_NOTHING_ASKED: Final = ("", "", 0)


def key_of(account: str) -> str:
    """Return what all names of the account's keys begin with: braces keep them together in one slot of a cluster."""
    if _PLAIN.fullmatch(account):
        return f"{{llm:{account}}}"
    return f"{{llm:#{hashlib.sha256(account.encode(errors='surrogatepass')).hexdigest()[:40]}}}"


class Book:
    """One account, as this process sees it.

    Attributes:
        account: Its name.
        key: What the names of its keys begin with.
        upto: How far this process has read.
        more: Whether there was more than the last answer could bring.
        running: Names of this process' calls that run.
        waiting: What this process stands in line for; None where it does not.
        alive: How many processes use the account.
        void: Number up to which this process' asks are not to be heard any more.
    """

    def __init__(self, account: str, process: str, skipped: Callable[[str], None]) -> None:
        """Know nothing; `skipped` is told of entries that are none of ours."""
        self.account: str = account
        self.key: str = key_of(account)
        self.upto: Position = BEGINNING
        self.more: bool = False
        self.running: set[str] = set()
        self.waiting: Waiting | None = None
        self.alive: int = 1
        self.void: int = 0
        self._process = process
        self._skipped = skipped
        self._keys = tuple(f"{self.key}:{name}" for name in ("log", "alive", "line", "state"))
        self._queue: deque[Event] = deque(maxlen=_KEPT)
        self._sent: list[Event] = []
        self._owing = False  # a Standing, for all to see
        self._revived = False

    @property
    def holds(self) -> bool:
        """Whether others must know that this process lives."""
        return self.waiting is not None or bool(self.running)

    @property
    def queued(self) -> int:
        """How many events are to be written."""
        return len(self._queue)

    def put(self, event: Event) -> None:
        """Keep the event until it is written; of too many, the oldest are lost."""
        self._queue.append(event)
        match event:
            case Taken(call):
                self.running.add(call)
            case Settled(call):
                self.running.discard(call)
            case Waiting():
                self.waiting = event
            case Gone(dead):
                self.waiting = None
                if dead:
                    self.running.clear()
            case _:
                pass

    def asking(self, ask: Ask, number: int) -> Message:
        """Return the message of an ask."""
        event = encode(self._process, Taken(ask.call, ask.charge))[1]
        return self._keys, ("read", self._process, ask.after, orjson.dumps([*ask.room]), event, number)

    def reading(self, after: Position) -> Message:
        """Return the message that only reads."""
        return self._keys, ("read", self._process, after, *_NOTHING_ASKED)

    def writing(self) -> Message:
        """Return the message that writes what is queued; where nothing is, it says that this process lives."""
        words: list[str | bytes | int] = ["write", self._process, self.upto, self.void]
        while self._queue and len(self._sent) < _AT_ONCE:
            event = self._queue.popleft()
            self._sent.append(event)
            words.extend(encode(self._process, event, logged=self._owing))
            self._owing &= not isinstance(event, Standing)
        return self._keys, tuple(words)

    def wrote(self, answer: list[Any]) -> bool:
        """Know that it was heard; returns whether something happened for which this process is first in line."""
        told = any(isinstance(event, Waiting | Gone) for event in self._sent)
        self._sent.clear()
        missed, revived, self.alive = answer
        if revived:
            self._revived = True
            if not told:
                self._stand_anew()
        return bool(missed)

    def unsent(self) -> None:
        """Know that it may not have been heard: all that was sent is to be written again."""
        self._queue.extendleft(reversed(self._sent))
        self._owing |= any(isinstance(event, Standing) for event in self._sent)
        self._sent.clear()

    def read(self, answer: list[bytes], call: str | None) -> Read:
        """Return what the log said to an ask of that call, or to a reading."""
        *numbers, clock, reached = answer[0].decode().split(" ")
        taken, afresh, wait, wanted, revived, self.alive, more, known = map(int, numbers)
        now = _milliseconds(clock)
        entries = self._ground(answer[1 : 1 + known], now) if known else []
        for at in range(1 + known, len(answer), 2):
            entry = self._entry(answer[at].decode(), answer[at + 1], now)
            if entry is not None:
                entries.append(entry)
        if taken and call is not None:
            self.running.add(call)
            if any(isinstance(event, Waiting) for event in (*self._sent, *self._queue)):
                self.put(Gone())  # it stood in line anew while this was under way, and who takes leaves
            self.waiting = None
        if afresh or revived:
            self._stand_anew()
        declared_dead = (self._revived or bool(revived)) and bool(self.running - {call})
        self._revived = False
        self._owing |= bool(afresh) or declared_dead
        self.upto, self.more = reached, bool(more)
        return Read(bool(taken), entries, reached, bool(afresh) or declared_dead, wait / 1000, bool(wanted))

    def _stand_anew(self) -> None:
        """Stand in line again, where the log knows nothing of it any more."""
        if self.waiting is not None:
            self.put(self.waiting)

    def _entry(self, at: Position, data: bytes, now: int) -> Entry | None:
        found = decode(data)
        if found is None:
            self._skipped(self.account)
            return None
        return Entry(at, max(0, now - _milliseconds(at)) / 1000, *found)

    def _ground(self, ground: list[bytes], now: int) -> list[Entry]:
        upto, told, *events = ground
        entries: list[Entry] = []
        for data in events:
            entry = self._entry(upto.decode(), data, now)
            if entry is not None:
                age = max(0, now - int(told)) / 1000 if isinstance(entry.event, Standing) else 0.0
                entries.append(entry._replace(age=age))
        return entries


def _milliseconds(at: Position) -> int:
    return int(at.partition("-")[0])
