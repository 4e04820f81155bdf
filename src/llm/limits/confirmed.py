"""What a call holds that was paid in a store: as it ends, the log is told."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from llm.core.call import Charge

from .grant import Grant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm.core.keys import Slot

    from .base import Holds
    from .breaker import Permit
    from .grant import Ledger
    from .replica import Replica
    from .sharing import Sharing

NOTHING: Final = Charge(requests=0)


class Paid(NamedTuple):
    """Where a grant stands in the log.

    Attributes:
        sharing: What writes there.
        call: The call's name.
        replicas: The accounts that were paid.
        of_key: The one of them that is the key's.
    """

    sharing: Sharing
    call: str
    replicas: Sequence[Replica]
    of_key: Replica | None

    def ended(self, used: Charge, of_key: Charge) -> None:
        """Write what was used, and what the key's own limits keep."""
        for replica in self.replicas:
            self.sharing.ended(replica, self.call, of_key if replica is self.of_key else used)

    def refused(self) -> None:
        """Tell what the provider has, so that no other process finds it out by a refusal of its own."""
        replica = self.of_key
        if replica is not None:
            self.sharing.after_news(replica, partial(self.sharing.tell, replica, for_all=True))


class ConfirmedGrant(Grant):
    """A grant whose end the log is told."""

    __slots__ = ("_count", "_paid")

    def __init__(  # noqa: PLR0913, PLR0917 - a grant's facts, and where they are written
        self, slot: Slot, charge: Charge, holds: Holds, queue: Ledger, permit: Permit | None, paid: Paid
    ) -> None:
        """Keep what the queue and the log must be told at the end."""
        super().__init__(slot, charge, holds, queue, permit)
        self._paid = paid
        self._count = len(holds)

    def refund(self) -> None:
        """Give everything back: nothing was sent."""
        self._paid.ended(NOTHING, NOTHING)
        super().refund()

    def settle(self, used: Charge | None, most: Charge | None = None) -> None:
        """Correct the tokens to what was used; None keeps what was paid."""
        known = self.charge if used is None else used
        of_key = known if most is None else most
        refused = len(self._holds) < self._count  # the provider said so, and took nothing there
        self._paid.ended(known, NOTHING if refused else of_key)
        super().settle(used, most)
        if refused:  # and the others were told that it was given back
            self._paid.refused()
