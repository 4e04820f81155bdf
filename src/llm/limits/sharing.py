"""What one manager knows of limits that several processes share: its copies of the accounts, and the store's log.

The shell around the copies: it asks, reads and writes, tells the queues what changed, and says what holds while the
store is lost.
"""

from __future__ import annotations

import asyncio
import math
import os
from itertools import count
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .ledger import Ask, Gone, Settled, StoreLostError, Taken, Waiting
from .loss import Loss
from .memory import AccountBook
from .replica import Replica

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from llm.core.call import Charge
    from llm.utils.clock import Clock, Timer

    from .base import Holds
    from .ledger import Event, Ledger, Read
    from .loss import OnLoss
    from .memory import Account

_PAUSE: Final = 0.02  # seconds until the store is asked again that said no for no reason that the copy knows
_TELL: Final = 1.0  # second between two tellings of what is taken of an account
_LOOK: Final = 0.25  # seconds after which news are read though none were heard of, while somebody waits


class Question(NamedTuple):
    """What the store is asked for a call, as these copies stand.

    Attributes:
        call: The call's name in the log.
        charge: What it would take.
        replicas: The copies of the accounts that it would pay.
        epochs: Which log each of them follows.
        asks: The question for each.
    """

    call: str
    charge: Charge
    replicas: Sequence[Replica]
    epochs: Sequence[int]
    asks: Sequence[Ask]


class Asked(NamedTuple):
    """A call that is in the log now.

    Attributes:
        call: Its name there.
        holds: What was taken for it here.
    """

    call: str
    holds: Holds


class Sharing:
    """The copies of all accounts of one manager, and what became of the store.

    Attributes:
        book: The accounts, and the queues that wait for them; this manager's own.
        loss: What holds while the store is lost.
        pid: The process that it was opened in; another one is its fork.
    """

    def __init__(
        self,
        make: Callable[[], Ledger],
        *,
        clock: Clock,
        spawn: Callable[[Coroutine[object, object, None]], None],
        policy: OnLoss,
    ) -> None:
        """Open nothing yet.

        Args:
            make: Makes a ledger, which connects with the first message: one now, another after a fork.
            clock: Its time.
            spawn: Runs what must not delay a call.
            policy: What holds while the store is lost.
        """
        self.loss: Loss = Loss(policy, clock)
        self.book: AccountBook = AccountBook()
        self._make = make
        self._made: Ledger | None = make()
        self._clock = clock
        self._spawn = spawn
        self._ledger: Ledger | None = None
        self.pid: int = os.getpid()
        self._names: dict[Account, str] = {}
        self._replicas: dict[Account, Replica] = {}
        self._by_name: dict[str, Replica] = {}
        self._reading: dict[Replica, asyncio.Future[bool]] = {}
        self._missed: set[Replica] = set()
        self._stood: dict[Replica, Waiting | None] = {}  # None where this process may stand there or not
        self._told_at: dict[Replica, float] = {}
        self._looking: Timer | None = None
        self._calls = count(1)

    # --- accounts -----------------------------------------------------------------------------------------------------

    def share(self, account: Account, name: str) -> None:
        """Count an account in the store from now on, by that name."""
        self._names[account] = name

    def forget(self, account: Account) -> None:
        """Count it there no more; nobody holds anything of it."""
        name = self._names.pop(account, None)
        self._replicas.pop(account, None)
        self._by_name.pop(name or "", None)

    def replica(self, account: Account) -> Replica | None:
        """Return the copy of an account; None where it is this process's own, or was not met yet."""
        return self._replicas.get(account)

    def knows(self, accounts: Iterable[Account]) -> bool:
        """Return whether all of the accounts that are shared were read, or need not be."""
        return (
            self._ledger is not None
            and self.pid == os.getpid()
            and all(account in self._replicas or account not in self._names for account in accounts)
        )

    async def meet(self, accounts: Sequence[Account]) -> None:
        """Read all that was written of these accounts, before anything is taken there."""
        self._open()
        for account in accounts:
            name = self._names.get(account)
            if name is None or account in self._replicas:
                continue
            replica = self._by_name.get(name)
            if replica is None:
                replica = self._by_name[name] = Replica(name, account, self._opened.process)
            while not await self._news(replica):
                if self.loss.alone:  # it goes on without what the store knows
                    self._tell_loss(replica)
                    break
                await self.loss.over(_PAUSE)
            self._replicas[account] = replica

    # --- taking -------------------------------------------------------------------------------------------------------

    def question(self, replicas: Sequence[Replica], charge: Charge, priority: int) -> Question:
        """Return what to ask for a charge that could be taken of all these accounts, and keep it until the answer."""
        name, now = self._name(), self._clock.now()
        with self.book.lock:
            asks = [Ask(each.name, each.position, each.room(charge, now, priority), name, charge) for each in replicas]
            for replica in replicas:
                replica.keep(name, charge)
        return Question(name, charge, replicas, [replica.epoch for replica in replicas], asks)

    async def ask(self, question: Question) -> Asked | None:
        """Take a charge where the log has room for it; None where it has not, or the store is lost."""
        try:
            reads = await self._opened.ask(question.asks)
        except StoreLostError:
            self._pause(question.replicas)
            return None
        else:
            return self._told(question, reads)
        finally:
            for replica in question.replicas:
                replica.drop(question.call)

    def take_alone(self, replicas: Sequence[Replica], charge: Charge) -> Asked:
        """Take a charge without the store, which is told of it once it is back."""
        name, now = self._name(), self._clock.now()
        self.loss.without += 1
        with self.book.lock:
            holds = [held for replica in replicas for held in replica.take(name, charge, now)]
        for replica in replicas:
            self.write(replica, Taken(name, charge))
        return Asked(name, holds)

    def ended(self, replica: Replica, call: str, used: Charge) -> None:
        """Tell what a call used in the end; what this process counts for it is settled already."""
        with self.book.lock:
            replica.settle(call, used, self._clock.now())
        self.write(replica, Settled(call, used))

    def write(self, replica: Replica, event: Event) -> None:
        """Tell what happened to an account."""
        if self._ledger is not None:
            self._ledger.write(replica.name, event)

    def stand(self, replica: Replica, waiting: Waiting | None) -> None:
        """Stand in line at an account, or leave the line there."""
        if waiting is None:
            if replica in self._stood:
                del self._stood[replica]
                self.write(replica, Gone())
        elif waiting != self._stood.get(replica):
            self._stood[replica] = waiting
            self.write(replica, waiting)
            self._watch()

    def tell(self, replica: Replica, *, for_all: bool = False) -> None:
        """Tell what is known to be taken of an account, where that was not done in this very second."""
        now = self._clock.now()
        if now - self._told_at.get(replica, -math.inf) >= _TELL:
            self._told_at[replica] = now
            self.write(replica, replica.standing(now)._replace(for_all=for_all))

    # --- news ---------------------------------------------------------------------------------------------------------

    def after_news(self, replica: Replica, then: Callable[[], None]) -> None:
        """Read what was written of an account, and do something that depends on it."""

        async def read() -> None:
            await self._news(replica)
            then()

        self._spawn(read())

    async def _news(self, replica: Replica) -> bool:
        """Read what was written of an account; return whether the store told all of it."""
        reading = self._reading.get(replica)
        if reading is None:
            reading = self._reading[replica] = asyncio.get_running_loop().create_future()
            self._spawn(self._read(replica, reading))
        return await asyncio.shield(reading)

    async def _read(self, replica: Replica, reading: asyncio.Future[bool]) -> None:
        done = False
        try:
            while not done:
                epoch = replica.epoch
                self._missed.discard(replica)
                self._apply(replica, await self._opened.read(replica.name, replica.position), epoch)
                done = replica not in self._missed
        except StoreLostError:
            pass
        finally:
            del self._reading[replica]
            reading.set_result(done)

    def _told(self, question: Question, reads: Sequence[Read]) -> Asked | None:
        replicas, call = question.replicas, question.call
        before = [ask.after for ask in question.asks]
        for replica, read, epoch in zip(replicas, reads, question.epochs, strict=True):
            self._apply(replica, read, epoch)
        if all(read.taken for read in reads):
            for replica in replicas:
                self._stood.pop(replica, None)
            now = self._clock.now()
            with self.book.lock:
                return Asked(call, [held for each in replicas for held in each.confirmed(call, question.charge, now)])
        if len(replicas) > 1:  # one may have taken, and left the line, that gave it back since another had no room
            self._stood.update(dict.fromkeys(self._stood.keys() & set(replicas)))
        if [replica.position for replica in replicas] == before:
            self._pause(replicas)
        return None

    def _apply(self, replica: Replica, read: Read, epoch: int) -> None:
        now = self._clock.now()
        with self.book.lock:
            afresh = read.afresh and epoch == replica.epoch
            given_back = replica.apply(read, now, epoch)
            replica.rests_until = max(replica.rests_until, now + read.wait)
        if afresh or read.wants_standing:
            self.write(replica, replica.standing(now))
        if given_back and self.book.sleepers:
            self.book.wake_others(_nobody, given_back)

    def _pause(self, replicas: Iterable[Replica]) -> None:
        until = self._clock.now() + _PAUSE
        for replica in replicas:
            replica.rests_until = max(replica.rests_until, until)

    def _heard(self, name: str) -> None:
        replica = self._by_name.get(name)
        if replica is not None and replica in self._reading:
            self._missed.add(replica)  # its answer may be from before
        elif replica is not None:
            self._spawn(self._look_into(replica))

    async def _look_into(self, replica: Replica) -> None:
        await self._news(replica)
        if self.book.sleepers:
            self.book.wake_others(_nobody, replica.account.limits)

    def _watch(self) -> None:
        if self._looking is None:
            self._looking = self._clock.call_later(_LOOK, self._look)

    def _look(self) -> None:
        """Read for those who stand in line where nothing was heard of for a while: what wakes them may be lost."""
        self._looking = None
        now = self._clock.now()
        for replica in self._stood:
            if now - replica.read_at >= _LOOK and not self.loss.lost:
                self._heard(replica.name)
        if self._stood:
            self._watch()

    # --- the store ----------------------------------------------------------------------------------------------------

    @property
    def _opened(self) -> Ledger:
        return self._ledger or self._open()

    def _open(self) -> Ledger:
        if self._ledger is not None and self.pid == os.getpid():
            return self._ledger
        made, self._made = self._made, None
        ledger = self._ledger = made if made is not None and self.pid == os.getpid() else self._make()
        self.pid = os.getpid()
        for replica in self._by_name.values():  # of the process that this one was forked from
            replica.inherit(ledger.process)
        self._reading.clear()
        self._stood.clear()
        ledger.listen(self._heard, self._changed)
        return ledger

    def _name(self) -> str:
        return f"{self._opened.process}-{next(self._calls)}"

    def _changed(self, lost: bool) -> None:  # noqa: FBT001 - the seam's
        if not lost:
            self._spawn(self._come_back())
        elif not self.loss.lost:
            self.loss.begin()
            for replica in self._by_name.values():
                self._tell_loss(replica)
            self.book.wake_others(_nobody, ())

    def hold_to(self, policy: OnLoss) -> None:
        """Have another policy hold while the store is lost, from now on."""
        self.loss.policy = policy
        if self.loss.lost:
            for replica in self._by_name.values():
                self._tell_loss(replica)

    def _tell_loss(self, replica: Replica) -> None:
        replica.alone = True
        replica.parts = self._opened.processes if self.loss.policy == "share" else 1

    async def _come_back(self) -> None:
        """Read what was written meanwhile before anybody takes again."""
        for replica in list(self._by_name.values()):
            while not await self._news(replica):
                if self._opened.lost:
                    return
                await self._clock.sleep(_PAUSE)
        if self._opened.lost or not self.loss.lost:
            return
        now = self._clock.now()
        with self.book.lock:
            for replica in self._by_name.values():
                replica.rejoin(now)
        self.loss.end()
        self.book.wake_others(_nobody, ())

    def status(self) -> dict[str, Any]:
        """Return the store's state, and what came of its losses."""
        ledger, loss = self._ledger, self.loss
        return {
            "state": "unused" if ledger is None else "lost" if loss.lost else "connected",
            "on_store_loss": loss.policy,
            "processes": 1 if ledger is None else ledger.processes,
            "losses": loss.count,
            "calls_without": loss.without,
        }

    async def close(self) -> None:
        """Leave all lines, write what is to be written, and close the store."""
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            await ledger.close()


def _nobody(_: object) -> None:
    """Stand for no queue: all are told."""
