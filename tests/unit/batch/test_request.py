"""Requests that are collected as with OpenAI's client."""

from __future__ import annotations

import functools
import gzip
import io
import json
from collections import UserList
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.batch.jsonl import read_rows
from llm.batch.request import RequestBatch
from llm.batch.values import CHAT, EMBEDDINGS, RESPONSES, Row
from llm.core.exceptions import LLMConfigurationError, LLMInvalidRequestError
from llm.core.messages import ImagePart, Message, MessageRole, ToolCall
from llm.core.types import ToolDefinition

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_USER = {"role": "user", "content": "Why?"}


def _two() -> RequestBatch:
    batch = RequestBatch()
    batch.chat.completions.create(model="m", messages="Why?", custom_id="a")
    batch.embeddings.create(model="e", input=["x", "y"], custom_id="b")
    return batch


def test_each_create_is_a_row_in_order() -> None:
    batch = _two()
    batch.responses.create(input="Why?", instructions="Be brief.", custom_id="c")
    assert list(batch) == [
        Row(0, "a", CHAT, {"model": "m", "messages": [_USER]}),
        Row(1, "b", EMBEDDINGS, {"model": "e", "input": ["x", "y"]}),
        Row(2, "c", RESPONSES, {"input": "Why?", "instructions": "Be brief."}),
    ]
    assert tuple(batch) == batch.rows()
    assert len(batch) == 3
    assert repr(batch) == "RequestBatch(3 requests)"
    assert repr(next(batch.chunks(1))) == "RequestBatch(1 request)"


def test_create_returns_the_requests_id() -> None:
    batch = RequestBatch()
    ids = [
        batch.chat.completions.create(messages="Why?", custom_id="mine"),
        batch.chat.completions.create(messages="Why?"),
        batch.embeddings.create(input="x"),
        batch.responses.create(input="x"),
    ]
    assert ids == [row.custom_id for row in batch]
    assert ids[0] == "mine"
    assert [name.rpartition("-")[0] for name in ids[1:]] == ["request-2", "request-3", "request-4"]


def test_batches_whose_ids_were_made_can_be_merged() -> None:
    batches = [RequestBatch() for _ in range(20)]
    for batch in batches:
        for _ in range(20):
            batch.chat.completions.create(messages="Why?")
    merged = RequestBatch().merge(*batches)
    assert len(merged) == len({row.custom_id for row in merged}) == 400


def test_a_program_that_runs_again_makes_the_same_ids(fresh_python: Callable[[str], str]) -> None:
    program = """
import sys
sys.path.insert(0, 'src')
from llm.batch.request import RequestBatch
RequestBatch()
for batch in (RequestBatch(), RequestBatch()):
    print(batch.chat.completions.create(messages="Why?", model="m"), batch.embeddings.create(input=["x"]))
"""
    assert fresh_python(program).split() == [
        "request-1-1065fa36588b", "request-2-ee3b8997bcba", "request-1-a6517c1b2214", "request-2-83189572de45",
    ]  # fmt: skip


def test_what_is_given_may_change_afterwards_and_the_row_does_not() -> None:
    batch = RequestBatch()
    messages: list[dict[str, Any]] = [dict(_USER)]
    batch.chat.completions.create(messages=messages, custom_id="a")
    messages[0]["content"] = "changed"
    messages.clear()
    assert batch.rows()[0].body == {"messages": [_USER]}


def test_messages_are_taken_as_the_client_takes_them() -> None:
    call = ToolCall("c1", "look", "{}")
    batch = RequestBatch()
    turns: list[Any] = [
        Message(MessageRole.DEVELOPER, "Be brief."),
        {"role": "user", "content": [ImagePart(url="https://example.org/a.png")]},
        Message(MessageRole.ASSISTANT, tool_calls=(call,)),
        Message(MessageRole.TOOL, "seen", tool_call_id="c1"),
    ]
    batch.chat.completions.create(messages=turns, custom_id="a")
    batch.chat.completions.create(messages=Message(MessageRole.USER, "Why?"), custom_id="b")
    batch.chat.completions.create(messages=iter([_USER]), custom_id="c")
    first, *others = batch
    assert first.body["messages"] == [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
        },
        {"role": "tool", "content": "seen", "tool_call_id": "c1"},
    ]
    assert [row.body for row in others] == [{"messages": [_USER]}] * 2


def test_mappings_in_openais_form_stay_as_they_are() -> None:
    turn = {"role": "assistant", "content": None, "refusal": "No.", "name": "x"}
    batch = RequestBatch()
    batch.chat.completions.create(messages=[_USER, MappingProxyType(turn)], custom_id="a", vendors_own={"x": (1, 2)})
    assert batch.rows()[0].body == {"messages": [_USER, turn], "vendors_own": {"x": [1, 2]}}


def test_tool_definitions_are_written_as_openai_has_them() -> None:
    batch = RequestBatch()
    batch.chat.completions.create(messages="Why?", tools=(ToolDefinition("look", "Looks."),), stop=UserList(["."]))
    assert batch.rows()[0].body["stop"] == ["."]
    assert batch.rows()[0].body["tools"] == [
        {
            "type": "function",
            "function": {"name": "look", "parameters": {"type": "object", "properties": {}}, "description": "Looks."},
        }
    ]


_DEEP: list[Any] = functools.reduce(lambda inner, _: [inner], range(5000), [])
_ROUND: dict[str, Any] = {}
_ROUND["x"] = _ROUND


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"messages": []}, "messages: expected one message or more"),
        ({"messages": ""}, "messages is an empty text"),
        ({"messages": 5}, "messages"),
        ({"messages": [5]}, r"messages"),
        ({"messages": [Message(MessageRole.USER, "a"), 5]}, r"messages\[1\]"),
        ({"messages": [{"role": "nobody", "content": ""}]}, r"messages\[0\]\.role"),
        ({"model": 5}, "model is 5"),
        ({"temperature": 9}, "temperature is 9; expected a number, 0 to 2"),
        ({"stream": True}, "stream: a row of a batch is answered whole"),
        ({"custom_id": ""}, "custom_id is no text, or empty"),
        ({"custom_id": 5}, "custom_id is no text"),
        ({"custom_id": "\ud800"}, "custom_id is no text, or empty; pass a text of whole characters"),
        ({"custom_id": "taken"}, "custom_id 'taken' is taken in this batch"),
        ({"seed": float("nan")}, "seed: cannot be written as JSON: Out of range float values"),
        ({"logit_bias": {(1, 2): 3}}, "logit_bias: cannot be written as JSON"),
        ({"response_format": LLMConfigurationError}, "response_format: cannot be written as JSON: a type is no JSON"),
        ({"stop": {"a"}}, "stop: cannot be written as JSON: a set is no JSON"),
        ({"extra": b"x"}, "extra: cannot be written as JSON: a bytes is no JSON"),
        ({"user": "\ud800"}, "user: cannot be written as JSON"),
        ({"metadata": _ROUND}, "metadata: cannot be written as JSON"),
        ({"metadata": _DEEP}, "metadata: cannot be written as JSON"),
    ],
)
def test_a_wrong_argument_fails_at_once_by_its_name_and_adds_nothing(body: dict[str, Any], said: str) -> None:
    batch = RequestBatch()
    batch.chat.completions.create(messages="Why?", custom_id="taken")
    create: Callable[..., str] = batch.chat.completions.create
    with pytest.raises(LLMInvalidRequestError, match=said):
        create(**{"messages": [_USER], **body})
    assert [row.custom_id for row in batch] == ["taken"]


def test_wrong_arguments_of_the_other_kinds_fail_too() -> None:
    batch = RequestBatch()
    with pytest.raises(LLMInvalidRequestError, match="input"):
        batch.embeddings.create(model="e", input=[])
    with pytest.raises(LLMInvalidRequestError, match="input"):
        batch.responses.create(input=[])
    with pytest.raises(LLMInvalidRequestError, match="url is none of /v1/chat/completions, "):
        batch.add("/v1/completions", {"prompt": "x"})
    with pytest.raises(LLMInvalidRequestError, match="cannot merge a list; pass each batch by itself"):
        batch.merge([_two()])  # type: ignore[arg-type]  # as others' merge takes them
    assert not len(batch)


def test_merging_adds_behind_and_leaves_the_others() -> None:
    batch, other = _two(), RequestBatch()
    other.responses.create(input="x", custom_id="c")
    assert batch.merge(other) is batch
    assert [(row.order, row.custom_id) for row in batch] == [(0, "a"), (1, "b"), (2, "c")]
    assert [row.order for row in other] == [0]
    with pytest.raises(LLMInvalidRequestError, match="'c' is taken"):
        batch.responses.create(input="x", custom_id="c")


def test_a_merge_with_an_id_twice_is_refused_by_name_and_changes_nothing() -> None:
    batch, other = _two(), RequestBatch()
    for name in ("new", "a", "b"):
        other.embeddings.create(input="x", custom_id=name)
    for others in ((other,), (other, other), (batch,)):
        with pytest.raises(LLMInvalidRequestError, match=r"custom_id occurs twice: .*'a', 'b'"):
            batch.merge(*others)
    assert [row.custom_id for row in batch] == ["a", "b"]
    batch.embeddings.create(input="x", custom_id="new")


@pytest.mark.parametrize(("size", "lengths"), [(1, [1, 1, 1]), (2, [2, 1]), (3, [3]), (9, [3])])
def test_chunks_have_every_request_once(size: int, lengths: list[int]) -> None:
    batch = _two()
    batch.responses.create(input="x", custom_id="c")
    chunks = list(batch.chunks(size))
    assert [len(chunk) for chunk in chunks] == lengths
    assert [row.custom_id for chunk in chunks for row in chunk] == ["a", "b", "c"]
    assert all([row.order for row in chunk] == list(range(len(chunk))) for chunk in chunks)
    assert list(RequestBatch().merge(*chunks)) == list(batch)


@pytest.mark.parametrize("size", [0, -1, 1.5, True, None])
def test_a_chunk_size_that_is_none_is_refused_at_once(size: Any) -> None:  # noqa: ANN401 - the wrong ones too
    with pytest.raises(LLMInvalidRequestError, match="size is no whole number of 1 or more"):
        _two().chunks(size)


def test_a_batch_is_written_to_a_path_a_file_or_a_text(tmp_path: Path) -> None:
    batch = _two()
    text = batch.to_jsonl()
    assert [json.loads(line)["custom_id"] for line in text.splitlines()] == ["a", "b"]
    assert text.splitlines()[0] == (
        '{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", '
        '"body": {"model": "m", "messages": [{"role": "user", "content": "Why?"}]}}'
    )
    plain, packed = tmp_path / "in.jsonl", tmp_path / "in.jsonl.gz"
    binary, texts = io.BytesIO(), io.StringIO()
    for target in (plain, str(packed), binary, texts):
        batch.to_jsonl(target)
    assert plain.read_text("ascii") == binary.getvalue().decode() == texts.getvalue() == text
    assert gzip.decompress(packed.read_bytes()).decode() == text


def test_a_batch_is_read_from_a_path_a_file_bytes_or_lines(tmp_path: Path) -> None:
    batch = _two()
    path = tmp_path / "in.jsonl"
    batch.to_jsonl(path)
    data = path.read_bytes()
    with path.open("rb") as file:
        for source in (path, str(path), file, data, data.splitlines(), data.decode().splitlines(keepends=True), [b""]):
            read = RequestBatch.from_jsonl(source)
            assert list(read) == (list(batch) if source != [b""] else [])
    with pytest.raises(LLMInvalidRequestError, match="'a' is taken"):
        RequestBatch.from_jsonl(path).embeddings.create(input="x", custom_id="a")


def test_bad_lines_are_one_error_that_names_all_of_them() -> None:
    good = _two().to_jsonl().encode()
    with pytest.raises(LLMInvalidRequestError) as caught:
        RequestBatch.from_jsonl(good + b"{\n\n" + good + b"{}")
    told = str(caught.value).splitlines()
    assert [line.split()[1] for line in told[1:]] == ["3", "5", "6", "7"]
    assert "line 5 repeats the custom_id 'a'; give each row its own" in told[2]
    with pytest.raises(LLMInvalidRequestError, match=r"line 10 .*\n  and 5 more"):
        RequestBatch.from_jsonl(["{}"] * 15)


@pytest.mark.parametrize("source", ["none.jsonl", 5, io.StringIO("{}")])
def test_what_cannot_be_read_is_said(source: Any) -> None:  # noqa: ANN401 - the wrong ones too
    with pytest.raises(LLMConfigurationError, match=r"there is no file|pass a path"):
        RequestBatch.from_jsonl(source)


_TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


@settings(deadline=None)
@given(st.lists(st.tuples(_TEXT, _TEXT, st.floats(0, 2)), max_size=5, unique_by=lambda request: request[0]))
async def test_what_is_written_is_read_the_same(requests: list[tuple[str, str, float]]) -> None:
    batch = RequestBatch()
    for custom_id, content, temperature in requests:
        batch.chat.completions.create(custom_id=custom_id, messages=content, temperature=temperature)
    file = io.BytesIO(batch.to_jsonl().encode())
    read = [row async for portion in read_rows(file) for row in portion]
    assert [(row.order, row.custom_id, row.body) for row in read if isinstance(row, Row)] == [
        (row.order, row.custom_id, row.body) for row in batch
    ]
    assert list(RequestBatch.from_jsonl(file.getvalue())) == list(batch)
