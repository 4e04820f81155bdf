"""Opens the call's ticket: what the provider will charge, for whom, until when. Takes nothing.

Capacity is paid by the pool in the instant it sends, so a cache hit costs none and never waits for any.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from llm.core.call import CallState, Charge, Ticket, make_ticket
from llm.core.stream import at_end
from llm.utils.frozen import packer

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm.core.protocols import CallNext
    from llm.core.stream import LLMResult
    from llm.core.types import LLMRequest, LLMResponse
    from llm.utils.clock import Clock


_CREATED: Final = CallState.CREATED  # here once, as in `core.call`


class Reserved(NamedTuple):
    """What a request reserves.

    Attributes:
        charge: What it takes from the limits.
        estimate: Tokens of its prompt as they were estimated before what was learned corrected them.
    """

    charge: Charge
    estimate: int


make_reserved = packer(Reserved)
"""Makes one of its two fields, as one tuple."""


class Reserving(Protocol):
    """What the calls to a provider reserve; `llm.runtime.charges.Charges` is one."""

    def reserve(self, request: LLMRequest, model: str) -> Reserved:
        """Return what a request for a model must reserve."""
        ...

    def learn(self, request: LLMRequest, model: str, reserved: Reserved, response: LLMResponse) -> None:
        """Learn from the answer to a request that reserved so much."""


class RateLimitMiddleware:
    """The outermost layer: refuses at once what no wait can make possible, and opens the ticket for the rest."""

    def __init__(self, *, charges: Reserving, check: Callable[[Ticket], None], clock: Clock) -> None:
        """Make the layer.

        Args:
            charges: What requests reserve.
            check: Raises for a ticket that can never be paid; the queue's.
            clock: Its time.
        """
        self._charges = charges
        self._check = check
        self._clock = clock

    async def __call__(self, request: LLMRequest, call_next: CallNext) -> LLMResult:
        """Open the ticket, and learn from the answer.

        Raises:
            LLMRateLimitError: The request exceeds a limit by itself, or a daily or money limit is used up.
        """
        call, model = request.call, request.model
        if call is None or model is None or call.state is not _CREATED:
            return await call_next(request)
        reserved = self._charges.reserve(request, model)
        ticket = make_ticket((reserved.charge, model, call.user, call.priority, call.deadline))
        self._check(ticket)
        call.ticketed(self._clock.now(), ticket)
        result = await call_next(request)
        return at_end(result, partial(self._ended, request, model, reserved))

    def ticket(self, request: LLMRequest, model: str) -> Ticket:
        """Return what the request will ask of the limits."""
        call = request.call
        charge = self._charges.reserve(request, model).charge
        if call is None:
            return Ticket(charge, model, request.user, request.priority or 0)
        return Ticket(charge, model, call.user, call.priority, call.deadline)

    def _ended(
        self, request: LLMRequest, model: str, reserved: Reserved, response: LLMResponse | None, _: object
    ) -> None:
        if response is not None and not response.cached:
            self._charges.learn(request, model, reserved, response)
