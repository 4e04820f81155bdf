"""Calls in a model's text, however it is cut into pieces, and the forms in which models write them."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.core.messages import ToolCall
from llm.core.types import ToolCallDelta
from llm.providers.local.calls import CallReader, gathered
from llm.providers.local.tools import HERMES, IN_WORDS, LLAMA, CallForm, form_of, in_words

ARGUMENTS = ['{"city": "Paris }\\" {", "deep": [{"a": 1}]}', "{}"]


def written(form: CallForm, name: str, arguments: str) -> str:
    return f"{form.begin}{json.dumps(name)}{form.middle}{arguments}{form.end}"


def heard(form: CallForm, pieces: list[str]) -> tuple[str, list[tuple[str, str]]]:
    reader, texts, deltas = CallReader(form), list[str](), list[ToolCallDelta]()
    for piece in pieces:
        text, more = reader.push(piece)
        texts.append(text)
        deltas += more
    texts.append(reader.flush())
    calls = gathered(deltas)
    assert len({call.id for call in calls}) == len(calls)
    assert all(isinstance(call, ToolCall) for call in calls)
    return "".join(texts), [(call.name, call.arguments) for call in calls]


@given(st.lists(st.integers(0, 200), max_size=8), st.sampled_from(["", "Well,\n", "<tool", "a <tool_call> b "]))
def test_calls_are_told_from_text_however_it_is_cut(cuts: list[int], before: str) -> None:
    calls = [written(HERMES, name, arguments) for name, arguments in zip(["weather", 'od"d'], ARGUMENTS, strict=True)]
    text = before + "\n".join(calls)
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[start:end] for start, end in pairwise(places)]
    assert heard(HERMES, pieces) == (before, [("weather", ARGUMENTS[0]), ('od"d', ARGUMENTS[1])])


@pytest.mark.parametrize("size", [1, 7, 500])
def test_where_a_call_has_no_mark_it_is_the_whole_answer(size: int) -> None:
    def cut(text: str) -> list[str]:
        return [text[at : at + size] for at in range(0, len(text), size)]

    call = written(LLAMA, "weather", ARGUMENTS[0])
    assert heard(LLAMA, cut(call)) == ("", [("weather", ARGUMENTS[0])])
    for text in ("Hello " + call, '{"nam', '{"names": 1}', "Hi", ""):
        assert heard(LLAMA, cut(text)) == (text, [])


def test_a_call_that_is_cut_has_the_arguments_that_came_or_is_none() -> None:
    call = written(HERMES, "weather", ARGUMENTS[0])
    assert heard(HERMES, [call[:60]]) == ("", [("weather", call[call.index(HERMES.middle) + len(HERMES.middle) : 60])])
    assert heard(HERMES, [call[:25]]) == ("", [])
    assert heard(HERMES, ["Hi <tool_c"]) == ("Hi <tool_c", [])


@pytest.mark.parametrize(
    ("template", "form"),
    [
        (None, IN_WORDS),
        ("{{ messages }}", IN_WORDS),
        ("{{ tools }} <tool_call>", HERMES),
        ("{{ tools }} <tool_call><function=", IN_WORDS),
        ('{{ tools }} <|python_tag|> "parameters"', LLAMA),
        ("{{ tools }} [TOOL_CALLS]", IN_WORDS),
    ],
)
def test_a_chat_template_tells_how_its_model_writes_calls(template: str | None, form: CallForm) -> None:
    assert form_of(template) == form


def test_without_tools_in_the_template_the_turns_tell_of_them() -> None:
    function = {"name": "f", "arguments": {"a": 1}}
    talk: list[dict[str, Any]] = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "type": "function", "function": function}]},
        {"role": "tool", "content": "4", "name": "f"},
    ]
    tool: dict[str, Any] = {"type": "function", "function": {"name": "f", "parameters": {}}}
    told = in_words(talk, [tool])
    assert [turn["role"] for turn in told] == ["system", "user", "assistant", "user"]
    assert json.dumps(tool["function"]) in told[0]["content"]
    assert told[2]["content"] == '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
    assert told[3]["content"] == "<tool_response>\n4\n</tool_response>"
    system = {"role": "system", "content": "Be brief."}
    assert in_words([system, *talk], [tool])[0]["content"].startswith("Be brief.\n\nYou may call")
    assert in_words([system], []) == [system]
