"""The seam to what several processes count their limits on: a log, in one order for all, of what each took.

Each process keeps its own copy of an account, with all its limits and what it learned, and brings it up to date with
what the others wrote. It asks before it takes: the log takes the entry only where what the others wrote meanwhile
leaves room for it, so one step decides, and all copies agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llm.core.call import Charge

Position: TypeAlias = str
"""A place in an account's log; `BEGINNING` is before all of it."""

BEGINNING = "0-0"


class Taken(NamedTuple):
    """Some process took `charge` for a call, which runs from now on."""

    call: str
    charge: Charge


class Settled(NamedTuple):
    """A call that had taken ended, and used `used` in the end."""

    call: str
    used: Charge


class Waiting(NamedTuple):
    """The first who waits in some process stands in line for `charge`, in place of who stood there for it before."""

    charge: Charge
    priority: int


class Gone(NamedTuple):
    """Some process stands in line no more; `dead`: nor does any of its calls run, since nothing was heard of it."""

    dead: bool = False


class Resting(NamedTuple):
    """The provider asked for so many seconds of rest from now on."""

    seconds: float


class Running(NamedTuple):
    """A call of `process` that took `charge` and runs."""

    call: str
    process: str
    charge: Charge


class Standing(NamedTuple):
    """What some process knows of an account.

    Attributes:
        taken: What is taken of each limit, by name: pairs of seconds ago and amount.
        running: The calls that run, of all processes; what they took is in `taken`.
        upto: How far it had read.
        for_all: Whether those who read all of the log must know it, too; else it stands for what the log forgets.
    """

    taken: Mapping[str, Sequence[tuple[float, float]]]
    running: Sequence[Running] = ()
    upto: Position = BEGINNING
    for_all: bool = False


Event: TypeAlias = Taken | Settled | Waiting | Gone | Resting | Standing


class Entry(NamedTuple):
    """A line of an account's log.

    Attributes:
        at: Its place.
        age: Seconds since it was written, by the store's clock.
        process: Who wrote it.
        event: What happened.
    """

    at: Position
    age: float
    process: str
    event: Event


class Room(NamedTuple):
    """What a copy of an account has room for; infinite where nothing limits it."""

    input_tokens: float
    output_tokens: float
    total_tokens: float
    cost: float
    requests: float
    running: float


class Ask(NamedTuple):
    """A call that would take, as seen from a copy of the account.

    Attributes:
        account: Its name in the store.
        after: How far the copy has read.
        room: What it has room for as it stands there.
        call: Name of the call; no other has it.
        charge: What it would take.
    """

    account: str
    after: Position
    room: Room
    call: str
    charge: Charge


class Read(NamedTuple):
    """What the log says.

    Attributes:
        taken: Whether the call's entry was written; it is the last of `entries` then.
        entries: What was written after the place that was read to, one's own included, in order. Where the log does not
            reach back so far: a `Standing`, who stands in line, and what was written after it.
        upto: How far that is. It may be less than all there is; then nothing was taken.
        afresh: Whether the log began anew since: what was written there is lost, and `Standing` is to be told.
        wait: Seconds in which nobody may take, since a log that began anew does not know yet what was taken.
        wants_standing: Whether this process is asked to tell a `Standing`, so that the log can forget what is old.
    """

    taken: bool
    entries: Sequence[Entry]
    upto: Position
    afresh: bool
    wait: float = 0.0
    wants_standing: bool = False


class StoreLostError(Exception):
    """The store cannot be reached, or does not answer in time; what was asked may or may not have been written."""


class Ledger(Protocol):
    """The logs of all accounts.

    Attributes:
        process: Name of this process in them, another for each time that it runs.
        lost: Whether the store cannot be reached now.
        processes: How many processes use the store, as far as known; 1 or more.
    """

    process: str

    @property
    def lost(self) -> bool:
        """Whether the store cannot be reached now."""
        ...

    @property
    def processes(self) -> int:
        """How many processes use the store, as far as known; 1 or more."""
        ...

    async def ask(self, asks: Sequence[Ask]) -> list[Read]:
        """Write all of a call's takings, or none, in one round trip where nothing stands against it.

        What was written after `Ask.after` is counted against `Ask.room`: what was taken, by this process too, and,
        unless this process stands in line already, what others wait for in line. Nothing is taken where the copy must
        know first what was written: a rest, a `Standing`. A process that takes leaves the line.

        Raises:
            StoreLostError: The store cannot be reached; nothing of it counts, and what was written is taken back.
        """
        ...

    async def read(self, account: str, after: Position) -> Read:
        """Return what was written after that place.

        Raises:
            StoreLostError: The store cannot be reached.
        """
        ...

    def write(self, account: str, event: Event) -> None:
        """Write an event soon, after all that was given before; while the store is lost, once it is back.

        Where the store was lost in between it may be written twice, so a copy counts each call's only once.
        """

    def listen(self, heard: Callable[[str], None], changed: Callable[[bool], None]) -> None:
        """Tell what happens from now on.

        Args:
            heard: Something was given back to the account of this name, for which this process is first in line.
            changed: The store was lost (true), or is back.
        """

    async def close(self) -> None:
        """Write what is to be written, leave all lines, and give back what is held; as often as one likes."""
        ...
