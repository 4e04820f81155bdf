from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.cache.answer import Answer
from llm.core.assembly import assemble
from llm.core.choices import Choice, TokenLogprob
from llm.core.messages import ThinkingPart, ToolCall
from llm.core.stream import LLMStream
from llm.core.types import FinishReason, LLMResponse, StreamChunk, TokenUsage, ToolCallDelta

texts = st.text(st.characters(exclude_categories=["Cs"]))
counts = st.integers(0, 2**40)
usages = st.builds(TokenUsage, counts, counts, counts, counts)
told = st.none() | texts
thoughts = st.builds(ThinkingPart, texts, told, told, told, told)
finishes = st.none() | st.sampled_from(get_args(FinishReason))
deltas = st.builds(
    ToolCallDelta, st.integers(0, 3), st.none() | texts, st.none() | texts, texts, st.booleans(), st.none() | texts
)
tokens = st.builds(TokenLogprob, texts, st.floats(-30, 0), st.none() | st.binary(max_size=4))
logprobs = st.lists(st.builds(replace, tokens, top=st.lists(tokens, max_size=2).map(tuple)), max_size=2).map(tuple)
calls = st.lists(st.builds(ToolCall, texts, texts, texts, st.booleans(), st.none() | texts), max_size=2).map(tuple)
choices = st.builds(Choice, texts, finishes, calls, st.lists(thoughts, max_size=2).map(tuple), logprobs, st.booleans())
chunks = st.builds(
    StreamChunk,
    texts,
    st.lists(deltas, max_size=3).map(tuple),
    finishes,
    st.none() | usages,
    st.none() | thoughts,
    st.integers(0, 2),
    logprobs,
    st.booleans(),
)
responses = st.builds(
    LLMResponse,
    texts,
    texts,
    texts,
    texts,
    usages,
    finishes,
    calls,
    thinking=st.lists(thoughts, max_size=2).map(tuple),
    alternatives=st.lists(choices, max_size=2).map(tuple),
    logprobs=logprobs,
    refused=st.booleans(),
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
    call, token = ToolCall("a", "b", "c"), TokenLogprob("a", -0.5)
    unary = orjson.loads(Answer.of(LLMResponse("id", "text", tool_calls=(call,), logprobs=(token,))).encode())
    streamed = orjson.loads(Answer.of(LLMResponse("id"), [StreamChunk("a", finish_reason="stop")]).encode())
    right = {"v": 2, "id": "x", "model": "x", "provider": "x"}
    wrong = [None, 1, "x", [1], {"a": 1}, [[1, 2, 3]], [["x"]], [1, 2, 3, "4"]]
    return [
        damage
        for kept in (unary, streamed)
        for field in kept
        for damage in (
            {name: value for name, value in kept.items() if name != field},
            *(kept | {field: value} for value in wrong if field not in right or value != right[field]),
        )
    ]


def damaged_choices() -> list[list[Any]]:
    whole: list[Any] = ["text", "stop", [["a", "b", "c", False]], [["hm", None, None]], [["a", -0.5, None, []]], False]
    wrong: dict[int, list[object]] = {
        0: [None, 1],
        1: ["soon", 1],
        2: [None, [["a", "b", "c"]], [["a", "b", "c", 0]], [["a", "b", None, False]]],
        3: [None, ["hm"], [[1, None, None]]],
        4: [
            None,
            [["a", 1, None, []]],
            [["a", -0.5, "?", []]],
            [["a", -0.5, 1, []]],
            [["a", -0.5, None]],
            [[1, -0.5, None, []]],
        ],
        5: [None, 0, "no"],
    }
    return [[], whole[:-1], *([*whole[:at], bad, *whole[at + 1 :]] for at, several in wrong.items() for bad in several)]


@pytest.mark.parametrize("choice", damaged_choices())
def test_a_choice_that_is_not_as_it_was_kept_is_a_miss(choice: list[Any]) -> None:
    kept = orjson.loads(Answer.of(LLMResponse("id", "text")).encode())
    assert Answer.decode(orjson.dumps(kept)) is not None
    assert Answer.decode(orjson.dumps({**kept, "choices": [*kept["choices"], choice]})) is None


@given(responses)
async def test_a_response_replayed_as_a_stream_has_every_choice_in_its_chunks(response: LLMResponse) -> None:
    back = Answer.decode(Answer.of(response).encode())
    assert back is not None
    stream = back.result(stream=True)
    assert isinstance(stream, LLMStream)
    parts = [chunk async for chunk in stream]
    assert await stream.response() == back.response
    again = assemble(parts)
    assert [(c.content, c.logprobs, c.refused) for c in again.choices] == [
        (c.content, c.logprobs, c.refused) for c in response.choices
    ]
    assert (again.usage, again.tool_calls) == (response.usage, response.tool_calls)


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


SINGLE = 0.024047505110502243  # of single precision
VECTORS = [
    ((SINGLE, -1.0, 0.0), (0.5, 0.25, -0.0)),
    ((0.1, 1e300), (5e-324, 1.7976931348623157e308)),
    ((),),
    ((1, 2),),
]


@pytest.mark.parametrize("vectors", VECTORS)
def test_vectors_come_back_exactly(vectors: tuple[tuple[float, ...], ...]) -> None:
    kept = Answer.decode(Answer.of(LLMResponse("id", model="m", embeddings=vectors)).encode())
    assert kept is not None
    assert kept.response.embeddings == vectors
    assert str(kept.response.embeddings) == str(tuple(tuple(map(float, vector)) for vector in vectors))


def test_vectors_of_single_precision_take_half_of_what_double_takes() -> None:
    single, double = ([Answer.of(LLMResponse(embeddings=((number,) * 300,))).encode()] for number in (SINGLE, 0.1))
    assert len(single[0]) < 0.6 * len(double[0])
    assert len(single[0]) < 300 * 6 + 200


@pytest.mark.parametrize("number", [float("nan"), "text", None])
def test_a_vector_with_what_is_no_number_is_not_kept(number: Any) -> None:  # noqa: ANN401 - no number
    with pytest.raises(ValueError, match="no number"):
        Answer.of(LLMResponse(embeddings=((0.5, number),))).encode()


@pytest.mark.parametrize("vectors", [1, [], ["f"], ["e", []], ["f", "x"], ["f", [5]], ["f", ["AA=="]], ["d", ["?"]]])
def test_damaged_vectors_are_a_miss(vectors: Any) -> None:  # noqa: ANN401 - JSON
    kept = orjson.loads(Answer.of(LLMResponse("id", embeddings=((0.5,),))).encode())
    assert Answer.decode(orjson.dumps(kept)) is not None
    assert Answer.decode(orjson.dumps(kept | {"vectors": vectors})) is None


def test_text_without_a_json_form_is_refused() -> None:
    with pytest.raises(ValueError, match="no JSON form"):
        Answer.of(LLMResponse(content="\ud83d")).encode()


@pytest.mark.parametrize("chunks", [None, [StreamChunk("yes"), StreamChunk(finish_reason="stop")]])
def test_what_it_took_and_how_long_it_is_fresh_come_back(chunks: list[StreamChunk] | None) -> None:
    answer = Answer.of(LLMResponse(content="yes", finish_reason="stop"), chunks, seconds=1.25, fresh=60.0)
    again = Answer.decode(answer.encode())
    assert again is not None
    assert (again.response.original_latency, again.fresh) == (1.25, 60.0)
    assert (again.response.stale, again.aged().response.stale) == (False, True)


def test_what_was_kept_without_them_is_still_read() -> None:
    kept = orjson.loads(Answer.of(LLMResponse(content="yes"), seconds=1.0, fresh=2.0).encode())
    del kept["seconds"], kept["fresh"]
    again = Answer.decode(orjson.dumps(kept))
    assert again is not None
    assert (again.response.content, again.response.original_latency, again.fresh) == ("yes", None, None)


@pytest.mark.parametrize("name", ["seconds", "fresh"])
@pytest.mark.parametrize("value", ["1", True, []])
def test_a_time_that_is_no_number_is_a_miss(name: str, value: object) -> None:
    kept = orjson.loads(Answer.of(LLMResponse(content="yes")).encode())
    assert Answer.decode(orjson.dumps(kept | {name: value})) is None
