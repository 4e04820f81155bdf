"""The values that go in and come out: frozen, slotted, typed, with these fields in this order."""

# ruff: noqa: ANN401 - public names are looked up as tests run: a missing one fails its tests, not the collection

from __future__ import annotations

import dataclasses
import inspect
from enum import Enum
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType

# Fields in the order in which they may be passed; after `*` by name only.
FIELDS = {
    "Message": "role content * name tool_calls tool_call_id",
    "TextPart": "text",
    "ImagePart": "* url data media_type",
    "ThinkingPart": "text signature",
    "ToolCall": "id name arguments",
    "LLMResponse": (
        "id content model provider usage finish_reason tool_calls parsed cached cost latency attempts key raw"
    ),
    "StreamChunk": "content tool_calls finish_reason usage",
    "TokenUsage": "input_tokens output_tokens cached_input_tokens reasoning_tokens",
    "TokenStats": "requests usage cost seconds cache_hits",
    "CachePolicy": "ttl refresh scope",
    "LLMRequest": (
        "messages * model temperature top_p max_tokens stop seed tools tool_choice response_format response_model "
        "reasoning_effort timeout user priority cache metadata extra stream"
    ),
}
FROZEN = [*FIELDS, "ToolDefinition"]
COUNTS = {
    "TokenUsage": ["input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens"],
    "TokenStats": ["requests", "cache_hits"],
}


def usage(llm: ModuleType, *counts: int) -> Any:
    return llm.TokenUsage(*counts)


def response(llm: ModuleType, **changes: object) -> Any:
    given: dict[str, object] = {
        "id": "r1",
        "content": "Hello!",
        "model": "gpt-4o-mini",
        "provider": "openai",
        "usage": usage(llm, 3, 2, 0, 0),
        "finish_reason": "stop",
        "tool_calls": (),
        "parsed": None,
        "cached": False,
        "cost": None,
        "latency": 0.25,
        "attempts": 1,
        "key": "3f2a91",
        "raw": None,
    }
    return llm.LLMResponse(**{**given, **changes})


@pytest.mark.parametrize("name", FIELDS)
def test_a_value_has_these_fields_in_this_order(llm: ModuleType, name: str) -> None:
    positional, _, by_name = FIELDS[name].partition("*")
    expected = dict.fromkeys(positional.split(), "positional") | dict.fromkeys(by_name.split(), "by name")
    parameters = inspect.signature(getattr(llm, name)).parameters.values()
    kinds = {p.name: "by name" if p.kind is p.KEYWORD_ONLY else "positional" for p in parameters}
    assert dict(list(kinds.items())[: len(expected)]) == expected


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_beyond_the_contract_has_a_default(llm: ModuleType, name: str) -> None:
    known = FIELDS[name].split()
    parameters = inspect.signature(getattr(llm, name)).parameters.values()
    assert [p.name for p in parameters if p.name not in known and p.default is p.empty] == []


@pytest.mark.parametrize("name", FROZEN)
def test_a_value_is_a_frozen_slotted_typed_dataclass(llm: ModuleType, name: str) -> None:
    kind: type = getattr(llm, name)
    fields: Any = dataclasses.fields(kind)
    parameters: Any = vars(kind)["__dataclass_params__"]
    assert parameters.frozen
    assert "__slots__" in vars(kind)
    assert {field.name for field in fields if field.type in {"Any", "object"}} <= {"parsed", "raw"}


def test_a_value_cannot_be_changed_nor_grow(llm: ModuleType) -> None:
    message = llm.Message(llm.MessageRole.USER, "Hi")
    with pytest.raises(dataclasses.FrozenInstanceError):
        message.content = "Bye"
    assert not hasattr(message, "__dict__")


def test_equal_values_are_equal_and_replace_makes_another(llm: ModuleType) -> None:
    first, second = (llm.Message("user", "Hi") for _ in range(2))
    assert first == second
    assert dataclasses.replace(first, content="Bye").content == "Bye"
    assert first.content == "Hi"


@pytest.mark.parametrize(("kind", "fields"), COUNTS.items())
def test_counts_are_whole_numbers(llm: ModuleType, kind: str, fields: list[str]) -> None:
    declared: Any = dataclasses.fields(getattr(llm, kind))
    types = {field.name: field.type for field in declared}
    assert {types[field] for field in fields} <= {"int", int}


@pytest.mark.parametrize(
    ("kind", "members"),
    [
        ("LLMProvider", {"OPENAI": "openai", "ANTHROPIC": "anthropic", "OPENROUTER": "openrouter", "LOCAL": "local"}),
        ("MessageRole", {"SYSTEM": "system", "USER": "user", "ASSISTANT": "assistant", "TOOL": "tool"}),
    ],
)
def test_a_string_enum_has_these_members(llm: ModuleType, kind: str, members: dict[str, str]) -> None:
    enum: Any = getattr(llm, kind)
    assert {str, Enum} <= set(enum.__mro__)
    assert {name: enum[name] for name in members} == members
    assert [str(enum[name]) for name in members] == list(members.values())


def test_a_message_takes_its_role_as_text_too(llm: ModuleType) -> None:
    message = llm.Message("assistant", "Hi")
    assert message.role is llm.MessageRole.ASSISTANT
    assert (message.name, message.tool_calls, message.tool_call_id) == (None, (), None)


def test_a_messages_parts_become_a_tuple(llm: ModuleType) -> None:
    parts = [llm.TextPart("What is this?"), llm.ImagePart(data=b"\x89PNG", media_type="image/png")]
    assert llm.Message("user", parts).content == tuple(parts)


@pytest.mark.parametrize(
    "messages",
    ["Hi", [{"role": "user", "content": "Hi"}], ({"role": "user", "content": "Hi"},)],
    ids=["text", "list", "tuple"],
)
def test_a_request_makes_a_tuple_of_messages_from_text_and_mappings(llm: ModuleType, messages: object) -> None:
    assert llm.LLMRequest(messages).messages == (llm.Message("user", "Hi"),)


def test_a_requests_options_default_to_none_and_stream_to_false(llm: ModuleType) -> None:
    request = llm.LLMRequest("Hi")
    options = FIELDS["LLMRequest"].partition("*")[2].split()
    assert {name: getattr(request, name) for name in options} == dict.fromkeys(options) | {"stream": False}


def test_str_of_a_response_and_of_a_chunk_is_the_text(llm: ModuleType) -> None:
    chunk = llm.StreamChunk(content="Hel", tool_calls=(), finish_reason=None, usage=None)
    assert str(response(llm, content="Hello!")) == "Hello!"
    assert str(chunk) == "Hel"


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "content_filter"])
def test_a_finish_reason_is_one_of_four_words(llm: ModuleType, reason: str) -> None:
    assert response(llm, finish_reason=reason).finish_reason == reason


def test_usage_adds_field_by_field_and_totals_input_and_output(llm: ModuleType) -> None:
    both = usage(llm, 10, 4, 6, 1) + usage(llm, 5, 2, 1, 0)
    assert both == usage(llm, 15, 6, 7, 1)
    assert both.total_tokens == 21


def test_usage_of_nothing_is_zero(llm: ModuleType) -> None:
    assert llm.TokenUsage() == usage(llm, 0, 0, 0, 0)


def test_stats_tell_speed_and_hits(llm: ModuleType) -> None:
    stats = llm.TokenStats(requests=4, usage=usage(llm, 60, 20, 0, 0), cost=0.5, seconds=2.0, cache_hits=1)
    assert stats.tokens_per_second == 40.0
    assert stats.cache_hit_ratio == 0.25
    assert stats.saturation == 0.0


def test_stats_of_nothing_divide_by_nothing(llm: ModuleType) -> None:
    stats = llm.TokenStats(requests=0, usage=usage(llm, 0, 0, 0, 0), cost=None, seconds=0.0, cache_hits=0)
    assert (stats.tokens_per_second, stats.cache_hit_ratio) == (0.0, 0.0)
