"""What a call for vectors asks."""

# ruff: noqa: ANN401 - options as they come
from __future__ import annotations

from typing import Any

import pytest

from llm import LLMInvalidRequestError, LLMRequest
from llm.core.texts import EmbeddingInput


def test_one_text_a_list_and_an_iterator_become_a_tuple() -> None:
    assert EmbeddingInput("one").texts == ("one",)
    assert EmbeddingInput(["one", "two"]).texts == EmbeddingInput(iter(["one", "two"])).texts == ("one", "two")


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (5, "texts is neither"),
        (["a", 5], "texts is neither"),
        ([None], "texts is neither"),
        (b"bytes", "texts is neither"),
        ([], "texts is empty"),
        ("", r"texts\[0\] is empty"),
        (["a", "b", ""], r"texts\[2\] is empty"),
    ],
)
def test_texts_that_have_no_vectors_are_refused_by_name(texts: Any, told: str) -> None:
    with pytest.raises(LLMInvalidRequestError, match=told):
        EmbeddingInput(texts)


@pytest.mark.parametrize("dimensions", [0, -1, 1.5, True, "8"])
def test_dimensions_that_are_no_count_are_refused_by_name(dimensions: Any) -> None:
    with pytest.raises(LLMInvalidRequestError, match="dimensions is no whole number"):
        EmbeddingInput("a", dimensions)


def test_a_request_for_vectors_has_no_conversation() -> None:
    request = LLMRequest((), embed=EmbeddingInput("one"))
    assert (request.messages, request.embed) == ((), EmbeddingInput("one"))
    with pytest.raises(LLMInvalidRequestError, match="messages is given in a request for embeddings"):
        LLMRequest("hello", embed=EmbeddingInput("one"))


@pytest.mark.parametrize(
    "option",
    [
        {"stream": True},
        {"temperature": 0},
        {"top_p": 0.5},
        {"max_tokens": 5},
        {"stop": "x"},
        {"seed": 0},
        {"tools": [{"type": "function"}]},
        {"tool_choice": "auto"},
        {"response_format": "text"},
        {"response_model": int},
        {"reasoning_effort": "low"},
    ],
    ids=lambda option: next(iter(option)),
)
def test_what_concerns_an_answer_in_words_is_refused_by_name(option: dict[str, Any]) -> None:
    (name,) = option
    with pytest.raises(LLMInvalidRequestError, match=f"^{name} is given in a request for embeddings"):
        LLMRequest((), embed=EmbeddingInput("one"), **option)


def test_texts_in_place_of_an_embedding_input_are_refused_by_name() -> None:
    texts: Any = ["one"]
    with pytest.raises(LLMInvalidRequestError, match="embed is a list; expected an EmbeddingInput"):
        LLMRequest((), embed=texts)
