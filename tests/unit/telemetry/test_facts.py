from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llm.core.exceptions import LLMServerError
from llm.core.texts import EmbeddingInput
from llm.core.types import LLMRequest, LLMResponse, TokenUsage
from llm.telemetry import facts, names


class Shape:
    pass


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, {}),
        ({"temperature": 0.0}, {names.REQUEST_TEMPERATURE: 0.0}),
        ({"stream": True}, {names.REQUEST_STREAM: True}),
        ({"response_format": "text"}, {names.OUTPUT_TYPE: "text"}),
        ({"response_format": "json_object"}, {names.OUTPUT_TYPE: "json"}),
        ({"response_model": Shape}, {names.OUTPUT_TYPE: "json"}),
        ({"extra": {"n": 1, "top_k": "many", "presence_penalty": True}}, {}),
        (
            {"extra": {"n": 3, "frequency_penalty": 0.5}},
            {names.REQUEST_CHOICES: 3, names.REQUEST_FREQUENCY_PENALTY: 0.5},
        ),
        ({"extra": {"n": "2", "conversation": {"id": "x"}}}, {}),
        ({"extra": {"conversation": "conv_1"}}, {names.CONVERSATION: "conv_1"}),
        ({"extra": {"user_name": "somebody"}, "metadata": {"secret": 1}, "user": "tenant"}, {}),
    ],
)
def test_of_a_request_only_what_it_states_is_told(options: dict[str, Any], told: dict[str, Any]) -> None:
    assert facts.asked(LLMRequest("private", **options)) == told


def test_vectors_tell_their_length_and_no_output() -> None:
    request = LLMRequest((), embed=EmbeddingInput("text", 8))
    assert (facts.operation(request), facts.asked(request)) == ("embeddings", {names.REQUEST_DIMENSIONS: 8})
    told = facts.answered(LLMResponse(usage=TokenUsage(4), embeddings=((0.1, 0.2),)))
    assert told == {names.USAGE_INPUT: 4}


def test_of_an_answer_the_tokens_are_told_by_kind() -> None:
    response = LLMResponse("id-1", "private", usage=TokenUsage(10, 5, 4, 3), finish_reason="length", cost=0.5, key="k")
    assert facts.answered(response) == {
        names.RESPONSE_ID: "id-1",
        names.RESPONSE_FINISH_REASONS: ["length"],
        names.KEY: "k",
        names.COST: 0.5,
        names.USAGE_INPUT: 10,
        names.USAGE_OUTPUT: 5,
        names.USAGE_CACHED: 4,
        names.USAGE_REASONING: 3,
    }


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (LLMServerError("down"), "LLMServerError"),
        (KeyError("x"), "KeyError"),
        (asyncio.CancelledError(), "cancelled"),
        (GeneratorExit(), "cancelled"),
    ],
)
def test_an_end_without_an_answer_is_one_word(error: BaseException, told: str) -> None:
    assert facts.error_type(error) == told
