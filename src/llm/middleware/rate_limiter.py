"""Opens the call's ticket: what the provider will charge, for whom, until when. Takes nothing.

Capacity is paid by the pool in the instant it sends, so a cache hit costs none and never waits for any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from llm.core.call import CallState, Charge, Ticket
from llm.core.stream import at_end

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm.core.protocols import CallNext
    from llm.core.stream import LLMResult
    from llm.core.types import LLMRequest, LLMResponse
    from llm.utils.clock import Clock


class OutputLearning(Protocol):
    """How long answers are, by model; `llm.core.tokens.OutputEstimate` is one."""

    def expected(self, model: str) -> int:
        """Return the tokens to reserve for an answer that has no bound of its own."""
        ...

    def observe(self, model: str, output_tokens: int) -> None:
        """Learn from an answer."""


class RateLimitMiddleware:
    """The outermost layer: refuses at once what no wait can make possible, and opens the ticket for the rest."""

    def __init__(
        self,
        *,
        charge: Callable[[LLMRequest, int], Charge],
        check: Callable[[Ticket], None],
        output: OutputLearning,
        clock: Clock,
    ) -> None:
        """Make the layer.

        Args:
            charge: What the provider charges at admission for a request and an expected length of the answer.
            check: Raises for a ticket that can never be paid; the queue's.
            output: The running estimate of the answer's length.
            clock: Its time.
        """
        self._charge = charge
        self._check = check
        self._output = output
        self._clock = clock

    async def __call__(self, request: LLMRequest, call_next: CallNext) -> LLMResult:
        """Open the ticket, and learn from the answer how long answers are.

        Raises:
            LLMRateLimitError: The request exceeds a limit by itself, or a daily or money limit is used up.
        """
        call, model = request.call, request.model
        if call is None or model is None or call.state is not CallState.CREATED:
            return await call_next(request)
        ticket = self.ticket(request, model)
        self._check(ticket)
        call.ticketed(self._clock.now(), ticket)
        result = await call_next(request)

        def learn(response: LLMResponse | None, _: object) -> None:
            if response is not None and not response.cached:
                self._output.observe(model, response.usage.output_tokens)

        return at_end(result, learn)

    def ticket(self, request: LLMRequest, model: str) -> Ticket:
        """Return what the request will ask of the limits."""
        call = request.call
        charge = self._charge(request, request.max_tokens or self._output.expected(model))
        if call is None:
            return Ticket(charge, model, request.user, request.priority or 0)
        return Ticket(charge, model, call.user, call.priority, call.deadline)


def estimated_charge(estimate: Callable[[LLMRequest], int]) -> Callable[[LLMRequest, int], Charge]:
    """Return the charge for providers that do not say theirs: the estimated prompt and the expected answer."""

    def charge(request: LLMRequest, expected_output: int) -> Charge:
        prompt = estimate(request)
        return Charge(prompt, expected_output, prompt + expected_output)

    return charge
