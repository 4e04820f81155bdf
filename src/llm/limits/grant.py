"""What a call holds once it was paid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from llm.core.call import Charge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm.core.call import LimitReport
    from llm.core.keys import Slot

    from .base import Holds

_NOTHING = Charge(requests=0)


class Ledger(Protocol):
    """Where grants are paid, corrected and levelled; the queue."""

    def settle(self, holds: Holds, used: Charge) -> None:
        """Correct what was taken to `used`."""

    def learn(self, slot: Slot, holds: Holds, reports: Sequence[LimitReport]) -> None:
        """Level the slot's account with what the provider said as it admitted or refused what holds `holds`."""


class Grant:
    """A slot and what was paid for one attempt on it; a `Lease`."""

    __slots__ = ("_holds", "_ledger", "charge", "slot")

    def __init__(self, slot: Slot, charge: Charge, holds: Holds, ledger: Ledger) -> None:
        """Keep what the ledger must be told at the end."""
        self._ledger = ledger
        self._holds = holds
        self.slot: Slot = slot
        self.charge: Charge = charge

    @property
    def key(self) -> str:
        """Fingerprint of the slot's key."""
        return self.slot.key.fingerprint

    def refund(self) -> None:
        """Give everything back: nothing was sent."""
        self._settle(_NOTHING)

    def settle(self, used: Charge | None) -> None:
        """Correct the tokens to what was used; None keeps what was paid."""
        self._settle(self.charge if used is None else used)

    def learn(self, reports: Sequence[LimitReport]) -> None:
        """Level the limits with what the provider said of them."""
        self._ledger.learn(self.slot, self._holds, reports)

    def _settle(self, used: Charge) -> None:
        holds, self._holds = self._holds, []
        self._ledger.settle(holds, used)
