from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from genai_prices import Usage, calc_price
from genai_prices.data_snapshot import get_snapshot
from hypothesis import given
from hypothesis import strategies as st

from llm.core.models import PriceBook, Rates, holds_to_schema
from llm.core.types import TokenUsage

AT = datetime(2026, 6, 1, tzinfo=UTC)
BOOK = PriceBook(at=AT)


@dataclass(frozen=True)
class Stated:
    input: float
    output: float
    cached_input: float | None = None


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("openai", "gpt-4o-mini"),
        ("openai", "gpt-4o-mini-2024-07-18"),
        ("anthropic", "claude-3-5-haiku-20241022"),
        ("anthropic", "claude-sonnet-4-5"),
        ("openrouter", "meta-llama/llama-3.1-8b-instruct"),
        ("google", "gemini-1.5-flash"),
        ("openrouter", "perplexity/sonar-deep-research"),
        ("openrouter", "meta-llama/llama-3.3-70b-instruct:free"),
    ],
)
@given(prompt=st.integers(0, 400_000), cached=st.floats(0, 1), answer=st.integers(0, 100_000), thoughts=st.floats(0, 1))
def test_a_cost_is_the_price_packages_own(  # noqa: PLR0913 - a usage in its parts
    kind: str, model: str, *, prompt: int, cached: float, answer: int, thoughts: float
) -> None:
    from_cache, thought = int(prompt * cached), int(answer * thoughts)
    usage = Usage(
        input_tokens=prompt, cache_read_tokens=from_cache, output_tokens=answer, output_reasoning_tokens=thought
    )
    expected = calc_price(usage, model, provider_id=kind, genai_request_timestamp=AT).total_price
    ours = BOOK.cost(kind, model, TokenUsage(prompt, answer, from_cache, thought))
    assert ours == pytest.approx(float(expected), abs=1e-12)


_USAGES = [
    TokenUsage(1000, 500),
    TokenUsage(1000, 500, 800),
    TokenUsage(1000, 500, 0, 400),
    TokenUsage(300_000, 5000, 200_000, 1000),
]


@pytest.mark.parametrize(
    ("kind", "vendor"),
    [("openai", "openai"), ("anthropic", "anthropic"), ("gemini", "google"), ("xai", "x-ai"), ("mistral", "mistral"),
     ("groq", "groq"), ("deepseek", "deepseek"), ("openrouter", "openrouter")],
)  # fmt: skip
def test_every_published_price_per_token_is_counted_as_the_package_itself_does(kind: str, vendor: str) -> None:
    models = [model.id for known in get_snapshot().providers if known.id == vendor for model in known.models]
    priced = 0
    for model in models[:: max(1, len(models) // 40)]:
        if BOOK.facts(kind, model).rates is None:
            continue
        for usage in _USAGES:
            same = Usage(
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                cache_read_tokens=usage.cached_input_tokens,
                output_reasoning_tokens=usage.reasoning_tokens,
            )
            expected = calc_price(same, model, provider_id=vendor, genai_request_timestamp=AT).total_price
            assert BOOK.cost(kind, model, usage) == pytest.approx(float(expected), abs=1e-12), model
            priced += 1
    assert priced >= 8


def test_what_is_charged_by_the_hour_or_the_page_has_no_price_and_what_is_free_has() -> None:
    assert BOOK.cost("groq", "whisper-large-v3", TokenUsage(1000)) is None
    assert BOOK.cost("mistral", "mistral-ocr-2505", TokenUsage(1000)) is None
    assert BOOK.cost("openrouter", "meta-llama/llama-3.3-70b-instruct:free", TokenUsage(1000, 1000)) == 0.0


@pytest.mark.parametrize(
    ("kind", "model", "dollars"),
    [
        ("deepseek", "deepseek-chat", 0.685),
        ("fireworks", "accounts/fireworks/models/deepseek-v3-0324", 1.8),
        ("gemini", "gemini-2.5-flash", 2.8),
        ("groq", "llama-3.3-70b-versatile", 1.38),
        ("mistral", "mistral-large-latest", 8.0),
        ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo", 1.76),
        ("xai", "grok-3", 18.0),
    ],
)
def test_hosted_servers_of_others_have_prices(kind: str, model: str, dollars: float) -> None:
    assert BOOK.cost(kind, model, TokenUsage(1000, 1000)) == pytest.approx(dollars / 1000)


def test_a_prompt_beyond_a_tier_costs_more_from_its_first_token() -> None:
    at, above = (BOOK.cost("anthropic", "claude-sonnet-4-5", TokenUsage(tokens)) for tokens in (200_000, 200_001))
    assert at == pytest.approx(0.6)
    assert above == pytest.approx(1.200006)


def test_a_provider_that_counts_a_part_larger_than_the_whole_does_not_pay_us() -> None:
    rates = Rates(3e-6, 15e-6, 0.3e-6, 20e-6)
    assert rates.cost(TokenUsage(10, 5, 100_000, 1_000)) == rates.cost(TokenUsage(10, 5, 10, 5)) > 0


def test_cached_input_has_its_own_price() -> None:
    assert BOOK.cost("openai", "gpt-4o-mini", TokenUsage(1_000_000, 0, 1_000_000)) == pytest.approx(0.075)


@pytest.mark.parametrize(("kind", "model"), [("openai", "nobody-has-this"), ("my-own", "gpt-4o"), ("openai", "")])
def test_what_nobody_prices_costs_none(kind: str, model: str) -> None:
    assert BOOK.cost(kind, model, TokenUsage(1, 1)) is None
    assert BOOK.context_window(kind, model) is None


def test_the_box_costs_nothing() -> None:
    assert BOOK.cost("local", "smollm2-135m", TokenUsage(1000, 1000)) == 0.0


def test_a_stated_price_goes_before_the_known_one() -> None:
    book = PriceBook({"gpt-4o-mini": Stated(1, 2, 0.5), "mine": Stated(3, 4)}, at=AT)
    usage = TokenUsage(2_000_000, 1_000_000, 1_000_000)
    assert book.cost("openai", "gpt-4o-mini", usage) == pytest.approx(1 + 2 + 0.5)
    assert book.context_window("openai", "gpt-4o-mini") == 128_000
    assert book.cost("my-own", "mine", usage) == pytest.approx(3 + 3 + 4)
    assert book.cost("local", "mine", usage) == pytest.approx(10)


def test_a_context_window_is_known() -> None:
    assert BOOK.context_window("anthropic", "claude-3-5-haiku-20241022") == 200_000


def test_a_price_that_changes_is_that_of_the_moment() -> None:
    model = "meta-llama/llama-3.1-8b-instruct"
    before, after = (PriceBook(at=datetime(2026, month, 1, tzinfo=UTC)) for month in (6, 12))
    assert before.cost("openrouter", model, TokenUsage(1_000_000)) == pytest.approx(0.02)
    assert after.cost("openrouter", model, TokenUsage(1_000_000)) == pytest.approx(0.05)


@pytest.mark.parametrize(
    "model",
    [
        *("gpt-4o", "gpt-4o-mini", "gpt-4o-2024-08-06", "gpt-4.1-mini", "gpt-4.5-preview", "gpt-5", "o1", "o3-mini"),
        *("claude-sonnet-4-5-20250929", "claude-opus-4-5", "claude-haiku-4-5", "claude-opus-4-6", "claude-fable-5"),
        *("anthropic/claude-sonnet-4-6", "meta-llama/llama-3.1-8b-instruct", "mine"),
    ],
)
def test_a_model_holds_to_a_schema_unless_it_is_known_not_to(model: str) -> None:
    assert holds_to_schema(model)


@pytest.mark.parametrize(
    "model",
    [
        *("gpt-3.5-turbo", "gpt-4", "gpt-4-0613", "gpt-4-turbo", "gpt-4o-2024-05-13", "chatgpt-4o-latest", "o1-mini"),
        *("claude-2.1", "claude-3-haiku-20240307", "claude-3-5-sonnet-latest", "claude-instant-1.2", "openai/gpt-4"),
        *("claude-opus-4-20250514", "claude-sonnet-4-0", "claude-opus-4-1-20250805", "anthropic/claude-3.7-sonnet"),
    ],
)
def test_older_models_do_not(model: str) -> None:
    assert not holds_to_schema(model)


def test_importing_it_loads_no_prices() -> None:
    program = "import sys, llm.core.models, llm.core.tokens; print({'genai_prices', 'bpe_openai'} & set(sys.modules))"
    done = subprocess.run(  # noqa: S603 - our own interpreter, our own line
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONPATH": sys.path[0]}
    )
    assert done.stdout == "set()\n"
