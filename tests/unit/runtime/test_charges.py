"""What calls reserve: the vendor's rule, what answers taught about prompts and lengths, and dollars."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm.core.call import Charge
from llm.core.choices import Choice
from llm.core.texts import EmbeddingInput
from llm.core.tokens import OutputEstimate, PromptCalibration
from llm.core.types import LLMRequest, LLMResponse, TokenUsage
from llm.providers.anthropic import AnthropicDialect
from llm.providers.openai import OpenAIDialect
from llm.runtime.charges import Charges
from llm.testing import FakeProvider

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm.core.protocols import Provider

PROMPT = "x" * 4000  # 1000 tokens by the plain estimate


class Ruled(FakeProvider):
    """A double that charges as a vendor does."""

    def __init__(self, dialect: OpenAIDialect | AnthropicDialect) -> None:
        super().__init__()
        self.charge = dialect.charge
        self.used = dialect.used


def charges(provider: Provider, price: Callable[[LLMRequest, TokenUsage], float] | None = None) -> Charges:
    return Charges(provider, kind="fake", prompts=PromptCalibration(), output=OutputEstimate(), price=price)


def answered(of: Charges, request: LLMRequest, real: int, output: int = 10, finish: str = "stop") -> None:
    usage = TokenUsage(real, output)
    response = LLMResponse("1", "x", "m", "fake", usage, finish)  # type: ignore[arg-type]  # a text of the test's
    of.learn(request, "m", of.reserve(request, "m"), response)


def asked(text: str = PROMPT, max_tokens: int | None = 100) -> LLMRequest:
    return LLMRequest(text, model="m", max_tokens=max_tokens)


@pytest.mark.parametrize("provider", [Ruled(OpenAIDialect()), FakeProvider()], ids=["openai", "unknown"])
def test_a_call_for_vectors_reserves_its_texts_corrected_and_no_answer(provider: Provider) -> None:
    of = charges(provider)
    request = LLMRequest((), model="m", embed=EmbeddingInput(["x" * 2000, "x" * 2000]))
    assert of.reserve(request, "m").charge == Charge(1000, 0, 1000)
    response = LLMResponse(model="m", usage=TokenUsage(2000), embeddings=((0.5,), (0.5,)))
    for _ in range(200):
        of.learn(request, "m", of.reserve(request, "m"), response)
    assert of.reserve(request, "m").charge == Charge(2000, 0, 2000)


def test_calls_for_vectors_teach_nothing_of_how_long_answers_are() -> None:
    of = charges(FakeProvider())
    before = of.reserve(asked(max_tokens=None), "m").charge
    request = LLMRequest((), model="m", embed=EmbeddingInput(PROMPT))
    for _ in range(50):
        of.learn(request, "m", of.reserve(request, "m"), LLMResponse(usage=TokenUsage(1000), embeddings=((0.5,),)))
    assert of.reserve(asked(max_tokens=None), "m").charge == before


def test_a_budget_counts_the_texts_of_a_call_for_vectors() -> None:
    seen: list[TokenUsage] = []

    def price(_: LLMRequest, usage: TokenUsage) -> float:
        seen.append(usage)
        return 0.5

    request = LLMRequest((), model="m", embed=EmbeddingInput(PROMPT))
    assert charges(Ruled(OpenAIDialect()), price).reserve(request, "m").charge == Charge(1000, 0, 1000, 0.5)
    assert seen == [TokenUsage(1000, 0)]


@pytest.mark.parametrize(
    ("provider", "plain", "dense", "sparse"),
    [
        # Dense: twice the tokens of the estimate; sparse: half of them.
        (Ruled(OpenAIDialect()), Charge(1000, 100, 1000), Charge(2000, 100, 2000), Charge(500, 100, 1000)),
        (Ruled(AnthropicDialect()), Charge(1000, 100, 1100), Charge(2000, 100, 2100), Charge(500, 100, 600)),
        (FakeProvider(), Charge(1000, 100, 1100), Charge(2000, 100, 2100), Charge(500, 100, 600)),
    ],
    ids=["openai", "anthropic", "unknown"],
)
def test_the_vendors_rule_is_corrected_by_what_prompts_really_took(
    provider: Provider, plain: Charge, dense: Charge, sparse: Charge
) -> None:
    for real, expected in ((1000, plain), (2000, dense), (500, sparse)):
        of = charges(provider)
        for _ in range(20):
            answered(of, asked(), real)
        reserved = of.reserve(asked(), "m")
        assert reserved.charge == expected
        assert reserved.estimate == 1000  # what the next answer is compared with is the plain estimate still


def test_where_openai_charges_max_tokens_a_denser_prompt_changes_nothing() -> None:
    of = charges(Ruled(OpenAIDialect()))
    for _ in range(20):
        answered(of, asked(max_tokens=3000), 2000)
    assert of.reserve(asked(max_tokens=3000), "m").charge == Charge(2000, 3000, 3000)


def test_a_count_of_tokens_is_corrected_too() -> None:
    of = charges(Ruled(AnthropicDialect()))
    answered(of, asked(), 2000)
    assert of.prompt_tokens(asked()) == 2000
    assert of.prompt_tokens(LLMRequest(PROMPT, model="another")) == 1000


def test_without_max_tokens_the_95th_percentile_of_the_models_answers_is_reserved() -> None:
    of = charges(FakeProvider())
    assert of.reserve(asked(max_tokens=None), "m").charge.output_tokens == 512
    for output in range(1, 101):
        answered(of, asked(max_tokens=None), 1000, output)
    assert of.reserve(asked(max_tokens=None), "m").charge.output_tokens == pytest.approx(95, abs=5)
    assert of.reserve(asked(max_tokens=None), "another").charge.output_tokens == 512
    assert of.reserve(asked(max_tokens=7), "m").charge.output_tokens == 7


def test_an_answer_that_the_request_cut_does_not_teach_how_long_answers_are() -> None:
    of = charges(FakeProvider())
    for _ in range(40):
        answered(of, asked(max_tokens=5), 1000, 5, "length")
    assert of.reserve(asked(max_tokens=None), "m").charge.output_tokens == 512
    for _ in range(40):
        answered(of, asked(max_tokens=None), 1000, 4096, "length")  # cut by the model's own bound: so long it is
    assert of.reserve(asked(max_tokens=None), "m").charge.output_tokens == 4096


def test_an_answer_without_usage_teaches_nothing() -> None:
    of = charges(FakeProvider())
    for _ in range(40):
        answered(of, asked(), 0, 0)
    assert of.reserve(asked(max_tokens=None), "m").charge == Charge(1000, 512, 1512)


def test_dollars_are_reserved_for_the_corrected_prompt_and_the_most_output() -> None:
    of = charges(FakeProvider(), price=lambda _, usage: usage.input_tokens * 0.001 + usage.output_tokens * 0.01)
    assert of.reserve(asked(), "m").charge.cost == pytest.approx(2.0)
    answered(of, asked(), 2000)
    assert of.reserve(asked(), "m").charge.cost == pytest.approx(3.0)
    assert of.reserve(asked(max_tokens=None), "m").charge.cost == pytest.approx(2.0 + 5.12)


def test_dollars_and_lengths_count_the_choices_that_are_asked_for() -> None:
    of = charges(Ruled(OpenAIDialect()), price=lambda _, usage: usage.output_tokens * 0.01)
    request = LLMRequest(PROMPT, model="m", max_tokens=100, extra={"n": 3})
    reserved = of.reserve(request, "m").charge
    assert (reserved.output_tokens, reserved.total_tokens) == (300, 1000)
    assert reserved.cost == pytest.approx(3.0)
    response = LLMResponse(
        "1", "x", "m", usage=TokenUsage(1000, 60), finish_reason="stop", alternatives=(Choice(),) * 2
    )
    taught = OutputEstimate()
    Charges(Ruled(OpenAIDialect()), kind="k", prompts=PromptCalibration(), output=taught).learn(
        request, "m", of.reserve(request, "m"), response
    )
    assert taught.expected("m") == once(20)


def once(output: int) -> int:
    estimate = OutputEstimate()
    estimate.observe("m", output)
    return estimate.expected("m")
