"""What the vendors' charges count of a prompt: all its parts, each by its size."""

from __future__ import annotations

import pytest

from llm.core.exceptions import LLMInvalidRequestError
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
from llm.core.types import LLMRequest, ToolDefinition
from llm.providers.estimate import prompt_tokens

SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}


@pytest.mark.parametrize(
    ("part", "tokens"),
    [
        (TextPart("12345"), 2),
        (ThinkingPart("a thought!!!"), 3),
        (ImagePart(url="https://x/y.png"), 1600),
        (ImagePart(url="https://x/y.png", detail="high"), 1600),
        (ImagePart(url="https://x/y.png", detail="low"), 85),
        (DocumentPart(data=b"%PDF-1.7", media_type="application/pdf"), 3000),
        (DocumentPart(url="https://x/y.pdf"), 3000),
        (DocumentPart(data=b"x" * 400, media_type="text/plain"), 100),
        (AudioPart(data=b"\x00" * 16_000, format="mp3"), 10),
    ],
)
def test_every_kind_of_part_has_its_size(part: Part, tokens: int) -> None:
    assert prompt_tokens(LLMRequest(Message(MessageRole.USER, (part,)))) == tokens


@pytest.mark.parametrize(
    ("request_", "tokens"),
    [
        (LLMRequest(Message(MessageRole.TOOL, "x" * 40, tool_call_id="1")), 10),
        (LLMRequest(Message(MessageRole.USER, "x" * 40, name="abcd")), 11),
        (LLMRequest(Message(MessageRole.ASSISTANT, "", tool_calls=(ToolCall("1", "abcd", "{...}..."),))), 3),
        (LLMRequest("x" * 40, tools=[ToolDefinition("abcd", "x" * 16, {})]), 16),  # with {} of two letters, rounded up
        (LLMRequest("x" * 40, response_format=SCHEMA), 29),
        (LLMRequest("x" * 40, response_format="json_object"), 10),
    ],
)
def test_results_names_calls_tools_and_the_form_of_the_answer_count(request_: LLMRequest, tokens: int) -> None:
    assert prompt_tokens(request_) == tokens


def test_a_form_of_the_answer_without_a_json_form_is_refused() -> None:
    with pytest.raises(LLMInvalidRequestError, match="response_format"):
        prompt_tokens(LLMRequest("hello", response_format={"type": object()}))
