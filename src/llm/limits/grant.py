"""What a call holds once it was paid."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from llm.core.call import Charge

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm.core.keys import Slot

    from .base import Hold, Limit

Holds: TypeAlias = "list[tuple[Limit, Hold]]"

_NOTHING = Charge(requests=0)


class Grant:
    """A slot and what was paid for one attempt on it; a `Lease`."""

    __slots__ = ("_holds", "_settle_holds", "charge", "slot")

    def __init__(self, slot: Slot, charge: Charge, holds: Holds, settle: Callable[[Holds, Charge], None]) -> None:
        """Keep what `settle` must be told at the end."""
        self._settle_holds = settle
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

    def _settle(self, used: Charge) -> None:
        holds, self._holds = self._holds, []
        self._settle_holds(holds, used)
