"""From the chunks of a stream to the whole response."""

from __future__ import annotations

from llm import LLMResponse, StreamChunk, TokenUsage, ToolCall
from llm.core.assembly import assemble, take_apart
from llm.core.choices import Choice, TokenLogprob
from llm.core.messages import ThinkingPart
from llm.core.types import ToolCallDelta


def test_text_is_put_together_in_order_and_the_last_facts_count() -> None:
    chunks = [
        StreamChunk("a", usage=TokenUsage(1, 1)),
        StreamChunk("b", finish_reason="stop"),
        StreamChunk(usage=TokenUsage(5, 2)),
    ]
    whole = assemble(chunks, id="i", model="m", provider="p", key="k")
    assert whole == LLMResponse("i", "ab", "m", "p", TokenUsage(5, 2), "stop", key="k")


def test_nothing_makes_an_empty_response() -> None:
    assert assemble([]) == LLMResponse()


def test_tool_calls_grow_by_index_however_their_pieces_come() -> None:
    chunks = [
        StreamChunk(tool_calls=(ToolCallDelta(1, "t2", "two", "{"),)),
        StreamChunk(tool_calls=(ToolCallDelta(0, "t1", "one", '{"a"'), ToolCallDelta(1, arguments="}"))),
        StreamChunk(tool_calls=(ToolCallDelta(0, arguments=": 1}"),)),
    ]
    assert assemble(chunks).tool_calls == (ToolCall("t1", "one", '{"a": 1}'), ToolCall("t2", "two", "{}"))


def test_the_pieces_of_several_choices_and_their_calls_may_come_mixed_and_the_usage_counts_once() -> None:
    chunks = [
        StreamChunk("a"),
        StreamChunk("A", index=2),
        StreamChunk(index=1, tool_calls=(ToolCallDelta(1, "t2", "two", "{"),)),
        StreamChunk("b", logprobs=(TokenLogprob("b", -1.0),)),
        StreamChunk(
            index=1, tool_calls=(ToolCallDelta(0, "t1", "one", "hi", custom=True), ToolCallDelta(1, arguments="}"))
        ),
        StreamChunk("B", index=2, refused=True, finish_reason="content_filter"),
        StreamChunk(index=1, finish_reason="tool_calls"),
        StreamChunk(finish_reason="stop"),
        StreamChunk(usage=TokenUsage(3, 9)),
    ]
    whole = assemble(chunks)
    assert whole.choices == (
        Choice("ab", "stop", logprobs=(TokenLogprob("b", -1.0),)),
        Choice("", "tool_calls", (ToolCall("t1", "one", "hi", custom=True), ToolCall("t2", "two", "{}"))),
        Choice("AB", "content_filter", refused=True),
    )
    assert (str(whole), whole.usage) == ("ab", TokenUsage(3, 9))
    assert [str(choice) for choice in whole.choices] == ["ab", "", "AB"]


def test_a_response_taken_apart_and_put_together_is_the_same() -> None:
    call, thought, token = ToolCall("t", "one", "{}"), ThinkingPart("hm"), TokenLogprob("a", -1.0)
    whole = LLMResponse(
        content="a",
        finish_reason="stop",
        usage=TokenUsage(1, 4),
        thinking=(thought,),
        logprobs=(token,),
        alternatives=(Choice("b", "tool_calls", (call,), (thought,)), Choice("No.", "content_filter", refused=True)),
    )
    chunks = take_apart(whole)
    assert assemble(chunks) == whole
    assert [chunk.usage for chunk in chunks if chunk.usage] == [TokenUsage(1, 4)]


def test_a_thought_ends_with_its_signature_and_a_redacted_one_stands_alone() -> None:
    pieces = [
        ThinkingPart("let "), ThinkingPart("me"), ThinkingPart("", "sig1"), ThinkingPart("next"),
        ThinkingPart("", None, "blob"), ThinkingPart("last"),
    ]  # fmt: skip
    whole = assemble([StreamChunk(thinking=piece) for piece in pieces])
    assert whole.thinking == (
        ThinkingPart("let me", "sig1"), ThinkingPart("next"), ThinkingPart("", None, "blob"), ThinkingPart("last"),
    )  # fmt: skip


def test_a_thought_with_an_id_has_it_in_its_first_piece_and_ends_with_its_encrypted_form() -> None:
    pieces = [
        ThinkingPart("let ", id="a"), ThinkingPart("me"), ThinkingPart("see", id="a"),
        ThinkingPart("", redacted="blob", before="call"), ThinkingPart("", None, "more", "b"), ThinkingPart("last"),
    ]  # fmt: skip
    whole = assemble([StreamChunk(thinking=piece) for piece in pieces])
    assert whole.thinking == (
        ThinkingPart("let me", id="a"), ThinkingPart("see", None, "blob", "a", "call"),
        ThinkingPart("", None, "more", "b"), ThinkingPart("last"),
    )  # fmt: skip
