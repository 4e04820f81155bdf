"""What answers took that were paid for and did not become the outcome of their call."""

from __future__ import annotations

from typing import NamedTuple


class Spent(NamedTuple):
    """What answers took.

    Attributes:
        input_tokens: Tokens of the prompts.
        output_tokens: Tokens of the answers.
        cached_input_tokens: Those of the prompts that the provider had in its cache.
        cost: US dollars; None where the price of one is unknown.
    """

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    cost: float | None

    def with_more(self, more: Spent) -> Spent:
        """Return what both took."""
        return Spent(
            self.input_tokens + more.input_tokens,
            self.output_tokens + more.output_tokens,
            self.cached_input_tokens + more.cached_input_tokens,
            None if self.cost is None or more.cost is None else self.cost + more.cost,
        )
