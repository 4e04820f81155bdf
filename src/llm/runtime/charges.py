"""What calls to a provider reserve: the vendor's rule, corrected by what answers taught, and dollars where they count.

The vendor's rule decides, since what the vendor takes at admission is what must be there:

- OpenAI takes the larger of an estimate (characters by four) and `max_tokens`. That stays as it is, whatever we know
  better, but for one case: where the prompt alone is known to take more, that is surely used in the end, and reserved.
- Anthropic takes its own estimate of the prompt and `max_tokens`, each by itself; ours is corrected up and down.
- A call for vectors has no answer in words: it takes its texts, by any vendor's rule.
- Of what is no vendor nobody knows the rule: prompt and answer together, the prompt corrected.

What was reserved is settled to the usage that comes back; until then a reservation that falls short lets other calls
take what this one will need.

Source: https://platform.openai.com/docs/guides/rate-limits and https://docs.claude.com/en/api/rate-limits
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm.core.call import Charge, make_charge
from llm.core.exceptions import LLMException
from llm.core.foreign import as_ours
from llm.core.protocols import Charging
from llm.core.tokens import estimate_tokens
from llm.core.types import TokenUsage
from llm.middleware.rate_limiter import make_reserved

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm.core.protocols import Provider
    from llm.core.tokens import OutputEstimate, PromptCalibration
    from llm.core.types import LLMRequest, LLMResponse
    from llm.middleware.rate_limiter import Reserved


class Charges:
    """What calls to one provider reserve; learns from their answers."""

    def __init__(
        self,
        provider: Provider,
        *,
        kind: str,
        prompts: PromptCalibration,
        output: OutputEstimate,
        price: Callable[[LLMRequest, TokenUsage], float] | None = None,
    ) -> None:
        """Follow the rule of a provider.

        Args:
            provider: Any of the section's; all have the same rule.
            kind: The section's type, whose models share what is learned.
            prompts: How far estimates of prompts are off.
            output: How long answers are.
            price: US dollars of a request with this usage, 0 where no budget counts them; None where none ever does.
        """
        self._rule = provider.charge if isinstance(provider, Charging) else _plain
        self._kind = kind
        self._prompts = prompts
        self._output = output
        self._price = price

    def reserve(self, request: LLMRequest, model: str) -> Reserved:
        """Return what the request must reserve.

        Raises:
            LLMInvalidRequestError: A budget in dollars counts it, and the price of its model is unknown.
            LLMServerError: The provider's code failed.
        """
        output = 0 if request.embed is not None else request.max_tokens or self._output.expected(model)
        try:  # for every call, so without the steps of a scope
            stated = self._rule(request, output)
            estimate, answer, total, _, requests = stated
        except LLMException:
            raise
        except Exception as error:
            raise as_ours(error) from error
        prompt = self._prompts.tokens(self._kind, model, estimate)
        cost = 0.0
        if self._price is not None:
            cost = self._price(request, TokenUsage(prompt or estimate_tokens(request), max(output, answer)))
        if prompt == estimate and not cost:
            return make_reserved((stated, estimate))
        # What counts against limits on tokens as such, by the vendor's rule for a prompt of so many.
        total = prompt + answer if total == estimate + answer else max(total, prompt)
        return make_reserved((make_charge((prompt, answer, total, cost, requests)), estimate))

    def prompt_tokens(self, request: LLMRequest) -> int:
        """Return about how many tokens the request's prompt takes, more likely too many than too few."""
        return self._prompts.tokens(self._kind, request.model or "", self._rule(request, 1).input_tokens)

    def learn(self, request: LLMRequest, model: str, reserved: Reserved, response: LLMResponse) -> None:
        """Learn from an answer; how long answers are not from one that the request itself cut."""
        usage = response.usage
        if not (usage.input_tokens or usage.output_tokens):  # the provider told none
            return
        self._prompts.observe(self._kind, model, reserved.estimate, usage.input_tokens)
        if request.embed is not None:
            return
        if response.finish_reason != "length" or request.max_tokens is None:
            self._output.observe(model, usage.output_tokens // (1 + len(response.alternatives)))


def _plain(request: LLMRequest, expected_output: int) -> Charge:
    prompt = estimate_tokens(request)
    return Charge(prompt, expected_output, prompt + expected_output)
