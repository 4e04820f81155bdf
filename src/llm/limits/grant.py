"""What a call holds once it was paid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from llm.core.call import Charge

from .breaker import verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llm.core.call import LimitReport
    from llm.core.keys import Slot

    from .base import Holds
    from .breaker import Permit

_NOTHING = Charge(requests=0)


class Ledger(Protocol):
    """Where grants are paid, corrected and levelled; the queue."""

    def settle(self, holds: Holds, used: Charge, permit: Permit | None = None) -> None:
        """Correct what was taken to `used`; `permit` ends with it."""

    def learn(self, slot: Slot, holds: Holds, heard: Callable[[], Sequence[LimitReport]], *, closely: bool) -> None:
        """Level the slot's account with what the provider said as it admitted or refused what holds `holds`."""

    def succeeded(self, slot: Slot, permit: Permit | None = None) -> None:
        """Know that the slot's account is served again, and that the attempt of `permit` is answered."""

    def cool(self, slot: Slot, seconds: float | None) -> float:
        """Rest the slot's account, and return for how many seconds; None: the provider named no time."""
        ...


class Grant:
    """A slot and what was paid for one attempt on it; a `Lease`."""

    __slots__ = ("_holds", "_ledger", "_permit", "charge", "key", "slot")

    def __init__(self, slot: Slot, charge: Charge, holds: Holds, ledger: Ledger, permit: Permit | None = None) -> None:
        """Keep what the ledger must be told at the end; `permit` is the breaker's, where there is one."""
        self._ledger = ledger
        self._holds = holds
        self._permit = permit
        self.slot: Slot = slot
        self.key: str = slot.key.fingerprint
        self.charge: Charge = charge

    def refund(self) -> None:
        """Give everything back: nothing was sent."""
        self._settle(_NOTHING)

    def settle(self, used: Charge | None, most: Charge | None = None) -> None:
        """Correct the tokens to what was used; None keeps what was paid.

        The key's own limits keep `most`, where the provider may have used more than is known; what is too much there
        the headers of later answers bring back.
        """
        if most is not None:
            theirs = [held for held in self._holds if held[0].level == "key"]
            self._holds = [held for held in self._holds if held[0].level != "key"]
            permit, self._permit = self._permit, None  # told with the first, which may let go who waits
            self._ledger.settle(theirs, most, permit)
        self._settle(self.charge if used is None else used)

    def learn(self, heard: Callable[[], Sequence[LimitReport]], *, closely: bool = False) -> None:
        """Level the limits with what the provider said of them: where it is worth it, or in any case `closely`."""
        self._ledger.learn(self.slot, self._holds, heard, closely=closely)

    def succeeded(self) -> None:
        """Know that an answer, or its first chunk, is there, and that the slot's account is served again."""
        self._ledger.succeeded(self.slot, self._permit)

    def refused(self, seconds: float | None) -> float:
        """Rest the slot's account, and return for how many seconds; None: the provider named no time."""
        return self._ledger.cool(self.slot, seconds)

    def told(self, error: BaseException | None, *, late: bool = False) -> None:
        """Know how the attempt ended, before it is settled; None: well. `late`: at the call's own deadline.

        An attempt of which nothing is told says nothing to the breaker, and gives its place back.
        """
        if self._permit is not None:
            self._permit.good = error is None or verdict(error)
            self._permit.late = late

    def _settle(self, used: Charge) -> None:
        holds, self._holds = self._holds, []
        permit, self._permit = self._permit, None
        self._ledger.settle(holds, used, permit)
