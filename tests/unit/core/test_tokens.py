from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.core.messages import (
    AudioPart,
    DocumentPart,
    ImagePart,
    Message,
    MessageRole,
    Part,
    TextPart,
    ThinkingPart,
    ToolCall,
)
from llm.core.tokens import OutputEstimate, PromptCalibration, count_text, count_tokens, estimate_tokens
from llm.core.types import LLMRequest, ToolDefinition


@given(st.lists(st.text(min_size=1), min_size=1, max_size=5))
def test_an_estimate_is_the_characters_by_four_rounded_up(texts: list[str]) -> None:
    request = LLMRequest([Message(MessageRole.USER, text) for text in texts])
    assert estimate_tokens(request) == ceil(sum(map(len, texts)) / 4)


@pytest.mark.parametrize(
    ("part", "tokens"),
    [
        (TextPart("12345"), 2),
        (ImagePart(url="https://x/y.png"), 765),
        (ImagePart(url="https://x/y.png", detail="low"), 85),
        (ImagePart(data=b"\x89PNG", media_type="image/png", detail="high"), 765),
        (DocumentPart(data=b"%PDF-1.7", media_type="application/pdf"), 3000),
        (DocumentPart(url="https://x/y.pdf"), 3000),
        (DocumentPart(data=b"eight by", media_type="text/plain"), 2),
        (AudioPart(data=b"\x00" * 16_000, format="mp3"), 10),
    ],
)
def test_every_kind_of_part_has_its_stated_size(part: Part, tokens: int) -> None:
    assert estimate_tokens(LLMRequest(Message(MessageRole.USER, (part,)))) == tokens


def test_tools_and_their_calls_count() -> None:
    bare = LLMRequest("Hello")
    tool = ToolDefinition("weather", "Tells the weather.", {"type": "object", "properties": {"city": {}}})
    declared = LLMRequest("Hello", tools=[tool])
    called = LLMRequest(
        [*bare.messages, Message(MessageRole.ASSISTANT, "", tool_calls=(ToolCall("1", "weather", '{"city": "Rome"}'),))]
    )
    mapping = LLMRequest("Hello", tools=[{"type": "function", "function": {"name": "weather"}}])
    schema = LLMRequest("Hello", response_format={"type": "json_schema", "json_schema": {"name": "x"}})
    for more in (declared, called, mapping, schema):
        assert estimate_tokens(more) > estimate_tokens(bare)
        assert (count_tokens(more, "gpt-4o") or 0) > (count_tokens(bare, "gpt-4o") or 0)


# The counts are what OpenAI's cookbook prints for its example, and what its endpoint answered for it.
EXAMPLE = [
    ("You are a helpful, pattern-following assistant that translates corporate jargon into plain English.", None),
    ("New synergies will help drive top-line growth.", "example_user"),
    ("Things working well together will increase revenue.", "example_assistant"),
    (
        "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage.",
        "example_user",
    ),
    ("Let's talk later when we're less busy about how to do better.", "example_assistant"),
    (
        "This late pivot means we don't have time to boil the ocean for the client deliverable.",
        None,
    ),
]


@pytest.mark.parametrize(
    ("model", "tokens"), [("gpt-4o", 124), ("gpt-4o-mini", 124), ("gpt-4", 129), ("gpt-3.5-turbo", 129)]
)
def test_a_count_is_what_openai_counts(model: str, tokens: int) -> None:
    roles = [MessageRole.SYSTEM] * 5 + [MessageRole.USER]
    messages = [Message(role, text, name=name) for role, (text, name) in zip(roles, EXAMPLE, strict=True)]
    assert count_tokens(LLMRequest(messages), model) == tokens


@pytest.mark.parametrize("model", ["claude-3-5-haiku-20241022", "smollm2-135m", "o", "gpt-2"])
def test_a_model_of_unknown_vocabulary_has_no_count(model: str) -> None:
    assert count_tokens(LLMRequest("Hello"), model) is None
    assert count_text("Hello", model) is None


@pytest.mark.parametrize("text", ["hello world, this is a sentence. " * 40_000, "äöü 😀 " * 40_000, "x" * 1_100_000])
def test_a_text_of_any_length_is_counted(text: str) -> None:
    part = text[: len(text) // 20]
    counted, a_twentieth = count_text(text, "gpt-4o"), count_text(part, "gpt-4o")
    assert counted is not None
    assert a_twentieth is not None
    assert counted == pytest.approx(20 * a_twentieth, rel=0.01)


def test_a_text_that_names_a_special_token_is_text() -> None:
    assert (count_text("<|endoftext|>", "gpt-4o") or 0) > 1


def test_without_answers_the_estimate_is_its_start() -> None:
    assert OutputEstimate().expected("any") == 512
    assert OutputEstimate(start=64).expected("any") == 64


def test_few_answers_raise_the_estimate_but_do_not_lower_it() -> None:
    estimate = OutputEstimate(start=100)
    estimate.observe("a", 5)
    assert estimate.expected("a") == 100
    estimate.observe("a", 900)
    assert estimate.expected("a") == 900
    assert estimate.expected("b") == 100


@given(st.integers(0, 2**32), st.integers(320, 640))
def test_the_estimate_is_the_95th_percentile_of_256_answers_up_to_one_of_the_last_32(seed: int, answers: int) -> None:
    seen = [seed * number % 4999 for number in range(1, answers + 1)]
    estimate = OutputEstimate()
    for tokens in seen:
        estimate.observe("a", tokens)
    exact = [max(1, sorted(seen[end - 256 : end])[ceil(0.95 * 256) - 1]) for end in range(answers - 31, answers + 1)]
    assert estimate.expected("a") in exact


# --- prompts ----------------------------------------------------------------------------------------------------------


def learned(*pairs: tuple[int, int]) -> PromptCalibration:
    calibration = PromptCalibration()
    for estimate, real in pairs:
        calibration.observe("openai", "m", estimate, real)
    return calibration


def test_of_a_model_without_answers_the_estimate_stays_as_it_is() -> None:
    calibration = learned((100, 300))
    assert calibration.tokens("openai", "another", 100) == 100
    assert calibration.tokens("anthropic", "m", 100) == 100


def test_the_first_answer_that_takes_more_raises_the_estimate_and_few_do_not_lower_it() -> None:
    assert learned((1000, 1500)).tokens("openai", "m", 1000) == 1500
    assert learned((1000, 400)).tokens("openai", "m", 1000) == 1000
    assert learned(*[(1000, 400)] * 20).tokens("openai", "m", 1000) == 400


def test_a_stray_answer_is_forgotten_once_twenty_came() -> None:
    calibration = learned((1000, 4000), *[(1000, 1100)] * 31)
    assert calibration.tokens("openai", "m", 1000) == pytest.approx(1100, abs=2)


@pytest.mark.parametrize(("real", "answers", "tokens"), [(100_000, 1, 4000), (100_000, 20, 4000), (1, 20, 250)])
def test_the_factor_stays_within_a_quarter_and_four(real: int, answers: int, tokens: int) -> None:
    calibration = learned(*[(1000, real)] * answers)
    assert calibration.tokens("openai", "m", 1000) == pytest.approx(tokens, rel=0.03)


def test_what_stands_around_a_short_prompt_does_not_inflate_a_long_one() -> None:
    calibration = learned(*[(1, 8)] * 40)  # a word, with the roles and marks around it
    assert calibration.tokens("openai", "m", 1) == 8
    assert calibration.tokens("openai", "m", 10_000) <= 12_500


@pytest.mark.parametrize(("estimate", "real"), [(0, 50), (50, 0)])
def test_an_empty_prompt_or_an_answer_without_usage_teaches_nothing(estimate: int, real: int) -> None:
    assert learned(*[(estimate, real)] * 40).tokens("openai", "m", 100) == 100


@given(st.integers(0, 2**32), st.integers(2, 12))
def test_at_least_nine_in_ten_of_the_prompts_it_learned_from_fit_what_it_reserves(seed: int, spread: int) -> None:
    prompts = [(100 + seed * n % 5000, n) for n in range(1, 129)]
    pairs = [(estimate, ceil(estimate * (0.8 + (seed * n % 100) / 100 * spread / 10))) for estimate, n in prompts]
    calibration = learned(*pairs)
    short = sum(calibration.tokens("openai", "m", estimate) < real for estimate, real in pairs)
    assert short <= 13


def test_every_part_of_a_message_counts_in_estimate_and_count() -> None:
    plain = LLMRequest([Message(MessageRole.USER, "hello")])
    fuller = {
        "name": Message(MessageRole.USER, "hello", name="somebody"),
        "thought": Message(MessageRole.USER, (TextPart("hello"), ThinkingPart("a thought of some words"))),
        "tool's answer": Message(MessageRole.TOOL, "hello, and what the tool said", tool_call_id="1"),
        "document": Message(
            MessageRole.USER, (TextPart("hello"), DocumentPart(data=b"some text in it", media_type="text/plain"))
        ),
    }
    for message in fuller.values():
        more = LLMRequest([message])
        assert estimate_tokens(more) > estimate_tokens(plain)
        assert (count_tokens(more, "gpt-4o") or 0) > (count_tokens(plain, "gpt-4o") or 0)
