"""What an attempt took in the end: what the answer says, or where there is none, what is known and what may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from .call import Charge
from .exceptions import LLMException, LLMRateLimitError, LLMServerError
from .tokens import CHARACTERS_PER_TOKEN
from .types import TokenUsage

_DOUBT = 0.05
_REFUSED = range(HTTPStatus.BAD_REQUEST, HTTPStatus.INTERNAL_SERVER_ERROR)


@dataclass(frozen=True, slots=True)
class Settlement:
    """The rules of one pool.

    Where nobody knows what the provider used, the second of a pair is the most that it may have: its own limits keep
    so much, and the headers of later answers bring back what was too much; budgets count what is known.

    Attributes:
        cost: US dollars of a usage of a model, where a budget counts them; else None.
        expected: How long a model's answers are, in tokens; None where nobody knows.
    """

    cost: Callable[[str, TokenUsage], float] | None = None
    expected: Callable[[str], int] | None = None

    def answered(self, used: Charge | None, usage: TokenUsage, model: str, told: float | None = None) -> Charge | None:
        """Return what an answer took, in the vendor's count `used`; None where it tells no usage.

        `told` is the vendor's own word of its cost, in US dollars.

        Raises:
            LLMServerError: It is no number, or one that JSON has not.
        """
        if told is not None and not isinstance(told, (float, int)):  # pyright: ignore[reportUnnecessaryIsInstance]
            kind = type(told).__name__
            message = f"the provider's code told a cost of type {kind}; return US dollars as a float"
            raise LLMServerError(message, retryable=False)
        if used is None or self.cost is None:
            return used
        return used._replace(cost=self.cost(model, usage) if told is None else told)

    def in_vain(self, paid: Charge, model: str, error: BaseException) -> tuple[Charge, Charge | None]:
        """Return what a request took that was sent and brought nothing.

        Where the provider did not take it up: no tokens. Else the prompt, and where we left, or the way back broke, it
        may go on to the end of the answer: after a break to one of this model's usual length.
        """
        status = error.status if isinstance(error, LLMException) else None
        if isinstance(error, LLMRateLimitError) or (status is not None and status in _REFUSED):
            return Charge(), None
        known = self._with(paid, model, 0)
        if isinstance(error, LLMException):
            return known, _doubted(self._usual(paid, model, 0)) if status is None else None
        return known, _doubted(paid)

    def cut(self, paid: Charge, model: str, text: str) -> tuple[Charge, Charge]:
        """Return what a stream took that did not end well: only its chunks tell."""
        came = -(-len(text) // CHARACTERS_PER_TOKEN)
        return self._with(paid, model, came), _doubted(self._usual(paid, model, came))

    def _usual(self, paid: Charge, model: str, output: int) -> Charge:
        usual = output if self.expected is None else max(output, min(self.expected(model), paid.output_tokens))
        return self._with(paid, model, usual)

    def _with(self, paid: Charge, model: str, output: int) -> Charge:
        cost = 0.0 if self.cost is None else self.cost(model, TokenUsage(paid.input_tokens, output))
        return Charge(paid.input_tokens, output, paid.input_tokens + output, cost)


def _doubted(charge: Charge) -> Charge:
    """Return the charge with a prompt as long as it may be.

    Of twenty prompts one is longer than its estimate. Where no usage ever corrects that, and the provider rounds what
    it says is left, every such call brings our count a little further ahead of the provider's.
    """
    more = int(charge.input_tokens * _DOUBT) + 1
    return charge._replace(input_tokens=charge.input_tokens + more, total_tokens=charge.total_tokens + more)
