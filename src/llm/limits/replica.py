"""One process's copy of an account that several share, and how far it has read what the others wrote."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from llm.core.call import Charge

from .base import FREE, Binding
from .ledger import BEGINNING, Gone, Resting, Room, Running, Settled, Standing, Taken, Waiting
from .pace import Pace
from .per_call import PerCall
from .taken import crowd, hear, tell

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .base import Holds, Limit, Unit
    from .ledger import Entry, Position, Read
    from .memory import Account

_NOTHING: Final = Charge(requests=0)
_DOUBTED: Final = 20.0  # seconds: who lives has told by then, in a log that began anew, which calls run
_MANY: Final = 1000  # calls that ended, which the log may name a second time
_SOON: Final = 0.001  # seconds: an answer of the store is on its way
_UNITS: Final[tuple[Unit, ...]] = ("input_tokens", "output_tokens", "total_tokens", "cost", "requests")


class Replica:
    """An account's copy: its limits with all that was taken, in the order of the log.

    What this process asks for is *kept* until the answer is there: it is not taken before all that the log puts before
    it. What it took itself is in the log, too, and is skipped there.

    Attributes:
        name: The account's name in the store.
        account: The copy.
        position: How far it has read.
        process: This process's name in the log.
        epoch: How often the log began anew.
        rests_until: Monotonic seconds until which the store is not asked.
        read_at: Monotonic seconds of the last news; `-inf` before the first.
        alone: Whether the store is lost: nobody is in line, and nothing is heard.
        parts: By how many processes the room is divided meanwhile; 1 for all of it.
    """

    __slots__ = (
        "_asked", "_crowded", "_doubted", "_ended", "_kept", "_line", "_mine", "_others", "_own", "_shadows",
        "account", "alone", "epoch", "name", "parts", "position", "process", "read_at", "rests_until",
    )  # fmt: skip

    def __init__(self, name: str, account: Account, process: str) -> None:
        """Know nothing of the others yet; `process` is this one's name in the log."""
        self.name: str = name
        self.account: Account = account
        self.position: Position = BEGINNING
        self.epoch: int = 0
        self.read_at: float = -math.inf
        self.rests_until: float = -math.inf
        self.alone: bool = False
        self.parts: int = 1
        self.process: str = process
        self._kept: dict[str, Charge] = {}
        self._asked = _NOTHING
        self._crowded = -1
        self._mine: dict[str, Holds] = {}
        self._own: dict[str, tuple[Charge, Holds]] = {}
        self._others: dict[str, tuple[str, Charge, Holds]] = {}
        self._doubted: dict[str, float] = {}  # calls that this log has no entry of, and until when they count
        self._ended: dict[str, None] = {}
        self._line: dict[str, Waiting] = {}
        self._shadows: dict[str, tuple[Holds, int]] = {}

    # --- what the log says --------------------------------------------------------------------------------------------

    def apply(self, read: Read, now: float, epoch: int) -> list[Limit]:
        """Bring the copy up to date; returns the limits to which something was given back.

        `epoch` is the copy's as the store was asked: of several answers that tell of a new log the first counts.
        """
        if read.afresh and epoch == self.epoch:
            self.epoch += 1
            self.position = BEGINNING
            self._line.clear()
            self._doubted = dict.fromkeys(self._others, now + _DOUBTED)
        elif epoch != self.epoch and not read.afresh:
            return []  # of a log that is no more
        returned, known = False, _order(self.position)
        for entry in read.entries:
            if _order(entry.at) > known:
                returned |= self._follow(entry, now)
                if not isinstance(entry.event, Standing):  # which may come before what it did not know yet
                    self.position = entry.at
        if _order(read.upto) > _order(self.position):
            self.position = read.upto
        self.read_at = now
        for call in [call for call, until in self._doubted.items() if until <= now]:
            self._free_places(self._end(call), now)
            returned = True
        return list(self.account.limits) if returned else []

    def _follow(self, entry: Entry, now: float) -> bool:
        """Do what an entry says; return whether it gives something back."""
        at, event, own = now - entry.age, entry.event, entry.process == self.process
        match event:
            case Taken():
                self._line.pop(entry.process, None)
                self._follow_taking(entry.process, event, now if own else at)
                return True  # who waited behind it may be the first now
            case Waiting():
                self._line[entry.process] = event
            case Gone():
                self._line.pop(entry.process, None)
                if event.dead:
                    self._bury(entry.process, at)
                return True
            case Settled() if not own:
                for limit, hold in self._end(event.call):
                    limit.settle(at, hold, event.used[limit.place])
                return True
            case Resting() if not own:
                self.account.cooling_until = max(self.account.cooling_until, at + event.seconds)
            case Standing() if not own:
                self._level(event, now, entry.age)
                return self._own_up(entry.process, event, now)
            case _:
                pass
        return False

    def _level(self, told: Standing, now: float, age: float) -> None:
        """Take what another process knows to be taken; where it read further, it also knows what runs."""
        for limit in self.account.limits:
            hear(limit, now, told.taken.get(limit.name, ()), age)
        if _order(told.upto) > _order(self.position):
            self.position = told.upto
            running = {running.call: running for running in told.running if running.process != self.process}
            for call in self._others.keys() - running.keys():
                self._free_places(self._end(call), now)
            for call in running.keys() - self._others.keys() - self._ended.keys():
                self._follow_running(running[call], now)
                self._doubted[call] = math.inf

    def _own_up(self, process: str, told: Standing, now: float) -> bool:
        """Believe a process which of its calls run; returns whether some do no more, of which the end was lost."""
        running = {running.call: running for running in told.running if running.process == process}
        for call in running.keys() - self._ended.keys():
            self._doubted.pop(call, None)
            if call not in self._others:
                self._follow_running(running[call], now)
        lost = [call for call in self._doubted if call not in running and self._others[call][0] == process]
        for call in lost:
            self._free_places(self._end(call), now)
        return bool(lost)

    def _follow_running(self, running: Running, now: float) -> None:
        call, process, charge = running
        self._others[call] = process, charge, self._take(charge, now, timed=False)

    def _end(self, call: str) -> Holds:
        """Return what a call of another process holds, which ended; nothing the second time."""
        self._doubted.pop(call, None)
        self._ended[call] = None
        if len(self._ended) > _MANY:
            del self._ended[next(iter(self._ended))]
        return self._others.pop(call, ("", _NOTHING, []))[2]

    def _follow_taking(self, process: str, event: Taken, at: float) -> None:
        if process != self.process:
            if event.call not in self._others and event.call not in self._ended:
                self._others[event.call] = (process, event.charge, self._take(event.charge, at))
        elif event.call in self._kept:
            self.drop(event.call)
            self._mine[event.call] = self._take(event.charge, at)

    def _bury(self, process: str, at: float) -> None:
        """Give back the places of a process that is no more; its tokens may have been sent, and stay taken."""
        for call in [call for call, (owner, _, _) in self._others.items() if owner == process]:
            self._free_places(self._end(call), at)

    def _free_places(self, holds: Holds, at: float) -> None:
        for limit, hold in holds:
            if not limit.timed:
                limit.settle(at, hold, 0.0)

    # --- what this process takes --------------------------------------------------------------------------------------

    def keep(self, call: str, charge: Charge) -> None:
        """Hold an amount back that the store is being asked for."""
        self._kept[call] = charge
        self._asked = _sum((self._asked, charge))

    def drop(self, call: str) -> None:
        """Hold it back no more: the store said no, or nothing."""
        charge = self._kept.pop(call, None)
        if charge is not None:
            self._asked = _less(self._asked, charge) if self._kept else _NOTHING

    def confirmed(self, call: str, charge: Charge, now: float) -> Holds:
        """Return what was taken for a call whose entry is in the log, of which all was applied."""
        holds = self._mine.pop(call, None)
        if holds is None:
            self.drop(call)
            holds = self._take(charge, now)
        self._own[call] = charge, holds
        return holds

    def take(self, call: str, charge: Charge, now: float) -> Holds:
        """Take without the store, and as much again for each other process where the room is divided."""
        holds = self._take(charge, now)
        self._own[call] = charge, holds
        more = self.parts - 1
        if more:
            shadows: Holds = [
                (limit, limit.take(now, more * charge[limit.place]))
                for limit in self.account.limits
                if not isinstance(limit, PerCall | Pace)
            ]
            self._shadows[call] = (shadows, more)
        return holds

    def settle(self, call: str, used: Charge, now: float) -> None:
        """Know that a call of ours ended, and correct what was taken for others beside it."""
        self._own.pop(call, None)
        shadows, more = self._shadows.get(call, ((), 0))
        for limit, hold in shadows:
            limit.settle(now, hold, more * used[limit.place])

    def rejoin(self, now: float) -> None:
        """Count by the log again: what was taken for others they have written themselves."""
        self.alone, self.parts = False, 1
        for shadows, _ in self._shadows.values():
            for limit, hold in shadows:
                limit.settle(now, hold, 0.0)
        self._shadows.clear()

    def inherit(self, process: str) -> None:
        """Go on as another process, as a fork does: what was its own so far is another's."""
        for call, (charge, holds) in self._own.items():
            self._others[call] = self.process, charge, holds
        self._own.clear()
        self._kept.clear()
        self._asked = _NOTHING
        self.process = process

    def _take(self, charge: Charge, at: float, *, timed: bool = True) -> Holds:
        if self._crowded != self.account.version:
            self._crowded = self.account.version
            for limit in self.account.limits:
                crowd(limit)
        limits = [limit for limit in self.account.limits if timed or not limit.timed]
        return [(limit, limit.take(at, charge[limit.place])) for limit in limits]

    # --- what is free -------------------------------------------------------------------------------------------------

    def bound(self, charge: Charge, now: float, priority: int = 0) -> Binding:
        """Return what a charge waits for: the limits, what is being asked for, and those who stand in line before."""
        kept = self._asked
        before = _NOTHING if self.alone else self._before(priority)
        rest = self.rests_until - now
        found = Binding(rest) if rest > 0.0 and not self.alone else FREE
        for limit in self.account.limits:
            each = self._wait(limit, charge, now, kept, before)
            if each.seconds > found.seconds:
                found = each
        return found

    def room(self, charge: Charge, now: float, priority: int = 0) -> Room:
        """Return the least that is free over all limits, by unit, for a charge that could be taken here.

        What is being asked for is not taken off: the log has it before what asks with this room.
        """
        before = self._before(priority)
        room = dict.fromkeys((*_UNITS, "running"), math.inf)
        for limit in self.account.limits:
            free = limit.free(now)
            if not limit.refuses:
                free -= before[limit.place]
            # A limit may let a charge go that is a little larger, such as one that asks for all of it.
            free = max(free, charge[limit.place] + self._asked[limit.place])
            unit = limit.unit if limit.timed else "running"
            room[unit] = min(room[unit], free)
        return Room(**room)

    def standing(self, now: float) -> Standing:
        """Return what is known to be taken of each limit."""
        taken = {limit.name: tell(limit, now) for limit in self.account.limits}
        others = [known for known in self._others.items() if self._doubted.get(known[0], math.inf) == math.inf]
        running = [Running(call, process, charge) for call, (process, charge, _) in others]
        running += [Running(call, self.process, charge) for call, (charge, _) in self._own.items()]
        return Standing({name: told for name, told in taken.items() if told}, running, self.position)

    @property
    def stands(self) -> Waiting | None:
        """For what this process stands in line, as far as it was read; None where it does not."""
        return self._line.get(self.process)

    def _before(self, priority: int) -> Charge:
        """Return what those wait for who stand in line before a call of ours."""
        charges: list[Charge] = []
        own = self.process in self._line
        for process, waiting in self._line.items():
            if process == self.process:
                own = False
            elif waiting.priority > priority or (waiting.priority == priority and (own or not self.stands)):
                charges.append(waiting.charge)
        return _sum(charges)

    def _wait(self, limit: Limit, charge: Charge, now: float, kept: Charge, before: Charge) -> Binding:
        amount = charge[limit.place]
        asked = kept[limit.place]
        if isinstance(limit, PerCall) or amount > limit.capacity:
            return Binding(limit.wait(now, amount), limit)
        if isinstance(limit, Pace) and asked:
            return Binding(_SOON)
        if limit.refuses:  # those before would be refused as well
            seconds = limit.wait(now, amount)
            if seconds <= 0.0 and asked and amount + asked > limit.free(now):
                return Binding(_SOON)
            return Binding(seconds, limit)
        wanted = amount * self.parts + asked + before[limit.place]
        seconds = limit.wait(now, min(wanted, limit.capacity))
        over = 0.0 if self.parts > 1 else wanted - limit.capacity
        if over > 0.0:
            seconds = max(_SOON, seconds + over * getattr(limit, "period", 0.0) / limit.capacity)
        return Binding(seconds, limit)


def _order(position: Position) -> tuple[int, ...]:
    return tuple(map(int, position.split("-")))


def _sum(charges: Iterable[Charge]) -> Charge:
    total = _NOTHING
    for one in charges:
        total = Charge(
            total.input_tokens + one.input_tokens,
            total.output_tokens + one.output_tokens,
            total.total_tokens + one.total_tokens,
            total.cost + one.cost,
            total.requests + one.requests,
        )
    return total


def _less(total: Charge, one: Charge) -> Charge:
    return Charge(
        total.input_tokens - one.input_tokens,
        total.output_tokens - one.output_tokens,
        total.total_tokens - one.total_tokens,
        total.cost - one.cost,
        total.requests - one.requests,
    )
