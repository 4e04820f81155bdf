"""Values refuse what no later layer could make sense of."""

from __future__ import annotations

from typing import Any

import pytest

import llm
from llm import (
    CachePolicy,
    Choice,
    DocumentPart,
    LLMInvalidRequestError,
    LLMResponse,
    LLMTimeoutError,
    Message,
    TextPart,
    ThinkingPart,
    ToolCall,
)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("ttl", "soon", "seconds, 0 or more"),
        ("ttl", -1, "seconds, 0 or more"),
        ("ttl", float("nan"), "seconds, 0 or more"),
        ("refresh", "no", "True or False"),
        ("scope", "usr", "shared, user"),
        ("scope", ["user"], "shared, user"),
    ],
)
def test_a_cache_policy_refuses_a_wrong_field_by_its_name(field: str, value: object, expected: str) -> None:
    options: dict[str, Any] = {field: value}
    with pytest.raises(LLMInvalidRequestError, match=rf"^CachePolicy\.{field} is .*; expected {expected}"):
        CachePolicy(**options)


def test_a_cache_policy_takes_what_it_says() -> None:
    assert CachePolicy(ttl=0, refresh=True, scope="user").scope == "user"
    assert CachePolicy() == CachePolicy(None, refresh=False, scope=None)


def test_a_failure_before_a_key_was_taken_shows_none() -> None:
    assert str(LLMTimeoutError("too late", phase="pool", provider="openai", key="")) == "too late (provider openai)"


@pytest.mark.parametrize(
    "given",
    [{}, {"url": "a", "file_id": "b"}, {"data": b"a", "media_type": "text/plain", "file_id": "b"}, {"file_id": 5}],
)
def test_a_document_has_one_source(given: dict[str, Any]) -> None:
    with pytest.raises(LLMInvalidRequestError, match="DocumentPart"):
        DocumentPart(**given)


def test_a_call_of_a_tool_of_free_text_is_read_from_the_vendors_form() -> None:
    call = {"id": "c", "type": "custom", "custom": {"name": "shell", "input": "ls"}}
    asked: Any = {"role": "assistant", "content": None, "tool_calls": [call]}
    turn = Message(asked["role"], tool_calls=asked["tool_calls"])
    assert turn.tool_calls == (ToolCall("c", "shell", "ls", custom=True),)


def test_any_choice_can_go_on_as_the_assistants_turn() -> None:
    refusal = Choice("No.", "content_filter", refused=True)
    response = LLMResponse(content="Yes.", thinking=(ThinkingPart("hm"),), alternatives=(refusal, Choice("Maybe.")))
    assert [choice.message.content for choice in response.choices] == [
        (ThinkingPart("hm"), TextPart("Yes.")),
        (TextPart("No.", refusal=True),),
        "Maybe.",
    ]
    assert response.message == response.choices[0].message
    assert Choice(thinking=(ThinkingPart("hm"),)).message.content == (ThinkingPart("hm"),)


@pytest.mark.parametrize("name", ["model", "stream", "max_tokens", "max_completion_tokens", "max_output_tokens"])
def test_extra_does_not_go_around_an_option_of_ours(name: str) -> None:
    with pytest.raises(LLMInvalidRequestError, match=f"extra holds '{name}'; pass"):
        llm.LLMRequest("Hello", extra={name: 1})
