"""The seam to the limits: what a pool needs of a queue, and what it is given there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .call import Call, Charge, LimitReport, Ticket
    from .keys import Slot
    from .standing import Admission


class Grant(Protocol):
    """What admission gives: a lease that knows its slot and what was paid."""

    @property
    def slot(self) -> Slot:
        """The slot."""
        ...

    @property
    def charge(self) -> Charge:
        """What was paid."""
        ...

    def learn(self, heard: Callable[[], Sequence[LimitReport]], *, closely: bool = False) -> None:
        """Level its limits with what the provider said of them: where it is worth it, or in any case `closely`."""

    def succeeded(self) -> None:
        """Know that the slot's account is served again."""

    def refused(self, seconds: float | None) -> float:
        """Rest the slot's account, and return for how many seconds; None: the provider named no time."""
        ...

    def told(self, error: BaseException | None, *, late: bool = False) -> None:
        """Know how the attempt ended, before it is settled; None: well. `late`: at the call's own deadline."""


class Admitting(Protocol):
    """What the pool needs of the queue; `llm.limits.admission` has it."""

    @property
    def slots(self) -> tuple[Slot, ...]:
        """All slots, in the order of the configuration."""
        ...

    @property
    def waiting(self) -> int:
        """Calls that wait."""
        ...

    def models(self) -> tuple[str, ...]:
        """Return the models that the slots name."""
        ...

    def choose_model(self, *, vectors: bool = False) -> str:
        """Return a model for a call that names none; with `vectors` one for embeddings."""
        ...

    def check(self, ticket: Ticket) -> None:
        """Refuse what can never be paid."""

    async def pay(self, call: Call, *, timeout: float | None = None) -> Grant:  # noqa: ASYNC109 - the pool's own limit
        """Wait until a slot can pay, and pay."""
        ...

    def keys_changed(self) -> None:
        """Look again who can go."""

    def usable(self, model: str) -> bool:
        """Return whether a key is left."""
        ...

    def rest(self, model: str) -> float:
        """Return seconds until a key is not cooling."""
        ...

    def explain(self, ticket: Ticket) -> Admission:
        """Return what would happen now."""
        ...

    def saturation(self, slot: Slot) -> dict[str, float]:
        """Return how full each limit is."""
        ...

    def capacities(self, slot: Slot) -> dict[str, float]:
        """Return how much each limit lets through."""
        ...

    def cooling(self, slot: Slot) -> float:
        """Return seconds that the account still rests."""
        ...

    def close(self, error: Exception) -> None:
        """End all waiting, in order."""


class Timeouts(Protocol):
    """Seconds of one attempt; `llm.core.config` has them."""

    @property
    def first_token(self) -> float:
        """Until a stream's first chunk."""
        ...

    @property
    def idle(self) -> float:
        """Between two chunks, and between two reads."""
        ...

    @property
    def attempt(self) -> float:
        """A whole unary attempt."""
        ...
