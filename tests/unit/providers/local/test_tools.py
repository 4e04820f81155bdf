"""Tools with a model without sense, whose template knows them: what it is told, and that its calls fit."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from pydantic import BaseModel

from llm.core.exceptions import LLMInvalidRequestError
from llm.core.messages import Message, MessageRole, ToolCall
from llm.core.types import LLMRequest, ToolDefinition
from llm.providers.local.answering import Chunks, response_of
from llm.providers.local.asking import Asked, read_request
from llm.providers.local.calls import CallReader
from llm.providers.local.grammar import Grammar
from llm.providers.local.tools import HERMES, LLAMA, calls_grammar

if TYPE_CHECKING:
    from llm.core.types import LLMResponse
    from llm.providers.local import InferenceEngine
    from llm.providers.local.tools import CallForm


class Place(BaseModel):
    city: str
    days: list[int]


TOOLS = [ToolDefinition("weather", "", Place.model_json_schema()), ToolDefinition("clock", "")]
REQUEST = LLMRequest("Hi", tools=TOOLS, tool_choice="required", max_tokens=170, temperature=1.0, seed=1)


async def answer(engine: InferenceEngine, request: LLMRequest, form: CallForm = HERMES) -> LLMResponse:
    asked = read_request(request, form)
    result = await engine.generate(asked.prompt, **asked.options)
    return response_of(result, asked.form, model="m", provider="p")


def fits(call: ToolCall) -> bool:
    arguments = orjson.loads(call.arguments)
    return bool(Place.model_validate(arguments)) if call.name == "weather" else arguments == {}


async def test_a_call_that_must_be_fits_its_schema_and_several_may_come(speaking: InferenceEngine) -> None:
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(answer(speaking, replace(REQUEST, seed=seed))) for seed in range(4)]
    answers = [task.result() for task in asked]
    assert all(fits(call) for each in answers for call in each.tool_calls)
    assert all(each.tool_calls and not each.content for each in answers)
    assert max(len(each.tool_calls) for each in answers) > 1
    assert {each.finish_reason for each in answers} <= {"tool_calls", "length"}


async def test_a_named_tool_is_called_once_and_no_other(speaking: InferenceEngine) -> None:
    for choice in ("clock", {"type": "function", "function": {"name": "clock"}}):
        called = await answer(speaking, replace(REQUEST, tool_choice=choice))
        assert [(call.name, call.arguments) for call in called.tool_calls] == [("clock", "{}")]
        assert called.finish_reason == "tool_calls"
    one = replace(REQUEST, tools=tuple(TOOLS[1:]), extra={"parallel_tool_calls": False})
    assert len((await answer(speaking, one)).tool_calls) == 1


async def test_a_stream_of_calls_is_the_whole_answer(speaking: InferenceEngine) -> None:
    request = replace(REQUEST, tool_choice="weather", max_tokens=100, extra={"n": 2})
    whole = await answer(speaking, request)
    asked = read_request(request, HERMES)
    chunks = Chunks(speaking.generate_stream(asked.prompt, **asked.options), HERMES, "m")
    got = [chunk async for chunk in Iterated(chunks)]
    for index, choice in enumerate(whole.choices):
        deltas = [delta for chunk in got if chunk.index == index for delta in chunk.tool_calls]
        assert deltas[0].name == "weather"
        assert deltas[0].id
        assert "".join(delta.arguments for delta in deltas) == choice.tool_calls[0].arguments
    assert [chunk.finish_reason for chunk in got[-2:]] == [choice.finish_reason for choice in whole.choices]
    assert got[-2].usage is None
    assert got[-1].usage is not None  # of the prompt more was kept the second time
    assert replace(got[-1].usage, cached_input_tokens=0) == replace(whole.usage, cached_input_tokens=0)


class Iterated:
    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks

    def __aiter__(self) -> Chunks:
        return self._chunks


async def test_who_may_call_and_need_not_answers_in_words_or_calls(speaking: InferenceEngine) -> None:
    free = await answer(speaking, replace(REQUEST, tool_choice=None, max_tokens=40))
    assert free.content
    assert not free.tool_calls
    shaped = replace(REQUEST, tool_choice="auto", response_model=Place, max_tokens=110)
    for seed in range(2):
        got = await answer(speaking, replace(shaped, seed=seed))
        assert all(fits(call) for call in got.tool_calls) if got.tool_calls else Place.model_validate_json(got.content)
    none = read_request(replace(REQUEST, tool_choice="none"), HERMES)
    assert none == Asked([{"role": "user", "content": "Hi"}], none.options)
    assert none.options.get("grammar") is None


async def test_where_a_call_has_no_mark_it_is_the_answer(speaking: InferenceEngine) -> None:
    called = await answer(speaking, replace(REQUEST, tool_choice="clock"), LLAMA)
    assert [(call.name, call.arguments) for call in called.tool_calls] == [("clock", "{}")]
    tools = [{"type": "function", "function": {"name": "clock"}}]
    grammar = calls_grammar(LLAMA, tools, must=False, several=True, answer=None)
    for seed in range(4):
        made = await speaking.generate("x", grammar=grammar, max_tokens=60, seed=seed, temperature=1.0)
        text = made.text
        assert text.startswith('{"name": "clock", "parameters": {}}') if text.startswith("{") else True


async def test_the_mark_of_a_call_in_free_text_begins_one(speaking: InferenceEngine) -> None:
    tools = [{"type": "function", "function": {"name": "clock"}}]
    auto = calls_grammar(HERMES, tools, must=False, several=False, answer=None)
    forced = Grammar(auto.source.replace("start: TEXT | head", "start: head").replace(r"/(.|\n)*/", "/a*/"))
    made = await speaking.generate("x", grammar=forced, max_tokens=120, temperature=1.0, seed=2)
    reader = CallReader(HERMES)
    text, calls = reader.push(made.text)
    assert set(text) <= {"a"}
    assert [delta.name for delta in calls if delta.name] == ["clock"]


async def test_the_template_tells_of_tools_calls_and_results_in_its_own_way(speaking: InferenceEngine) -> None:
    call = ToolCall("1", "clock", '{"a": 1}')
    turns = [
        *REQUEST.messages,
        Message(MessageRole.ASSISTANT, "", tool_calls=(call, ToolCall("2", "odd", "no JSON"))),
        Message(MessageRole.TOOL, "noon", tool_call_id="1"),
    ]
    asked = read_request(replace(REQUEST, messages=tuple(turns), tool_choice="auto"), HERMES)
    told = await speaking.count_tokens(asked.prompt)
    functions = [{"name": t.name, "description": t.description, "parameters": t.parameters} for t in TOOLS]
    wanted = (
        f"<tools>{''.join(_as_jinja(f) for f in functions)}</tools><user>Hi<assistant>"
        '<tool_call>clock{"a": 1}<tool_call>odd"no JSON"<tool>noon[clock]<assistant>'
    )
    assert told == len(wanted)


def _as_jinja(value: Any) -> str:  # noqa: ANN401 - JSON
    import json  # noqa: PLC0415 - of transformers' own `tojson`, which keeps the order

    return json.dumps(value, ensure_ascii=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tool_choice": "rain"}, r"tool_choice is none .* \(tools: weather, clock\)"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice is none"),
        ({"tools": None}, r"tool_choice is none .* \(tools: none\)"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, r"tools\[0\] is no function"),
        ({"extra": {"parallel_tool_calls": 1}}, "parallel_tool_calls is neither true nor false"),
        ({"extra": {"raw": True}}, "and no tools"),
        ({"extra": {"structured_outputs": {"regex": "a"}}}, r"structured_outputs.regex is given with tools"),
        ({"messages": (Message(MessageRole.TOOL, "x", tool_call_id="9"),)}, r"messages\[0\] is a tool's turn whose"),
    ],
)
def test_what_cannot_be_called_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(LLMInvalidRequestError, match=message):
        read_request(replace(REQUEST, **changes), HERMES)


async def test_a_tool_whose_arguments_cannot_be_held_is_refused(speaking: InferenceEngine) -> None:
    odd = ToolDefinition("odd", "", {"type": "object", "not": {}})
    with pytest.raises(LLMInvalidRequestError, match=r'^tools has what .*"not"'):
        await answer(speaking, replace(REQUEST, tools=(odd,)))
