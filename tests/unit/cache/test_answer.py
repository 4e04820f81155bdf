from __future__ import annotations

from typing import Any, get_args

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.cache.answer import Answer
from llm.core.messages import ThinkingPart, ToolCall
from llm.core.stream import LLMStream
from llm.core.types import FinishReason, LLMResponse, StreamChunk, TokenUsage, ToolCallDelta

texts = st.text(st.characters(exclude_categories=["Cs"]))
counts = st.integers(0, 2**40)
usages = st.builds(TokenUsage, counts, counts, counts, counts)
told = st.none() | texts
thoughts = st.builds(ThinkingPart, texts, told, told, told, told)
finishes = st.none() | st.sampled_from(get_args(FinishReason))
deltas = st.builds(ToolCallDelta, st.integers(0, 3), st.none() | texts, st.none() | texts, texts)
chunks = st.builds(StreamChunk, texts, st.lists(deltas).map(tuple), finishes, st.none() | usages, st.none() | thoughts)
responses = st.builds(
    LLMResponse,
    texts,
    texts,
    texts,
    texts,
    usages,
    finishes,
    st.lists(st.builds(ToolCall, texts, texts, texts)).map(tuple),
    thinking=st.lists(thoughts).map(tuple),
    parsed=st.just(object()),
    raw=st.just({"a": object()}),
    key=st.just("key-1"),
)


@given(responses)
def test_a_response_comes_back_equal(response: LLMResponse) -> None:
    answer = Answer.of(response)
    assert Answer.decode(answer.encode()) == answer


@given(st.lists(chunks))
async def test_a_streams_chunks_come_back_equal(sent: list[StreamChunk]) -> None:
    source = Answer.of(LLMResponse("id", model="m", provider="p"), sent)
    back = Answer.decode(source.encode())
    assert back is not None
    stream = back.result(stream=True)
    assert isinstance(stream, LLMStream)
    assert [chunk async for chunk in stream] == sent
    assert await stream.response() == back.result(stream=False) == back.response


def test_what_belongs_to_one_call_is_left_out() -> None:
    response = LLMResponse("id", "text", parsed=object(), raw={"a": 1}, key="key-1", cost=3.0, latency=2.0, attempts=4)
    again = Answer.of(response).response
    assert again == LLMResponse("id", "text", cached=True, cost=0.0)


def damaged() -> list[dict[str, Any]]:
    unary = orjson.loads(Answer.of(LLMResponse("id", "text", tool_calls=(ToolCall("a", "b", "c"),))).encode())
    streamed = orjson.loads(Answer.of(LLMResponse("id"), [StreamChunk("a", finish_reason="stop")]).encode())
    right = {"v": 1, "finish": None, "id": "x", "model": "x", "provider": "x", "content": "x"}
    wrong = [None, 1, "x", [1], {"a": 1}, [[1, 2, 3]], [["x"]]]
    return [
        damage
        for kept in (unary, streamed)
        for field in kept
        for damage in (
            {name: value for name, value in kept.items() if name != field},
            *(kept | {field: value} for value in wrong if field not in right or value != right[field]),
        )
    ]


@pytest.mark.parametrize("kept", damaged())
def test_a_field_that_is_missing_or_of_another_kind_is_a_miss_never_a_wrong_text(kept: dict[str, Any]) -> None:
    assert Answer.decode(orjson.dumps(kept)) is None


@given(st.binary())
def test_bytes_of_any_kind_are_at_worst_a_miss(value: bytes) -> None:
    assert Answer.decode(value) is None


@pytest.mark.parametrize("at", range(0, 200, 7))
def test_a_cut_entry_is_a_miss(at: int) -> None:
    encoded = Answer.of(LLMResponse("id", "a text" * 30, "m", "p")).encode()
    assert Answer.decode(encoded[:at]) is None


def test_text_without_a_json_form_is_refused() -> None:
    with pytest.raises(ValueError, match="no JSON form"):
        Answer.of(LLMResponse(content="\ud83d")).encode()
