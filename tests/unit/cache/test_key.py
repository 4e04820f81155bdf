from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from llm.cache import compute_request_hash
from llm.cache.key import cache_key
from llm.core.call import Call
from llm.core.exceptions import LLMInvalidRequestError
from llm.core.messages import (
    AudioPart,
    DocumentPart,
    ImagePart,
    Message,
    MessageRole,
    TextPart,
    ThinkingPart,
    ToolCall,
)
from llm.core.texts import EmbeddingInput
from llm.core.types import CachePolicy, LLMRequest, ToolDefinition

if TYPE_CHECKING:
    from pathlib import Path

json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
# Names of our own fields are none of a vendor's; hypothesis knows them from our code.
OURS = {field.name for field in fields(LLMRequest)} | {
    *("stream_options", "max_completion_tokens", "max_output_tokens", "_request_id", "_order_id"),
}
extras = st.dictionaries(st.text(min_size=1).filter(lambda name: name not in OURS), json, max_size=5)


class City(BaseModel):
    name: str


class Place(BaseModel):
    name: str


BASE = LLMRequest("What is Python?", model="m")
DECIDES: dict[str, list[Any]] = {
    "messages": [
        "What is Rust?",
        [Message(MessageRole.SYSTEM, "What is Python?")],
        [Message(MessageRole.USER, "What is Python?", name="ann")],
        [Message(MessageRole.USER, "What is Python?"), Message(MessageRole.ASSISTANT, "")],
        [Message(MessageRole.ASSISTANT, "", tool_calls=(ToolCall("a", "f", "{}"),))],
        [Message(MessageRole.ASSISTANT, "", tool_calls=(ToolCall("a", "f", "{ }"),))],
        [Message(MessageRole.ASSISTANT, "", tool_calls=(ToolCall("a", "f", "{}", custom=True),))],
        [Message(MessageRole.ASSISTANT, "", tool_calls=(ToolCall("a", "f", "{}", signature="s"),))],
        [Message(MessageRole.ASSISTANT, "", tool_calls=(ToolCall("a", "f", "{}", signature="t"),))],
        [Message(MessageRole.TOOL, "5", tool_call_id="a")],
        [Message(MessageRole.TOOL, "5", tool_call_id="b")],
        [Message(MessageRole.USER, (TextPart("a"), TextPart("b")))],
        [Message(MessageRole.USER, (TextPart("b"), TextPart("a")))],
        [Message(MessageRole.USER, (TextPart(""), TextPart("a")))],
        [Message(MessageRole.USER, (TextPart("a"),))],
        [Message(MessageRole.USER, (TextPart("a", refusal=True),))],
        [Message(MessageRole.USER, (ThinkingPart("a"),))],
        [Message(MessageRole.USER, (ThinkingPart("a", "s"),))],
        [Message(MessageRole.USER, (ThinkingPart("a", id="s"),))],
        [Message(MessageRole.USER, (ThinkingPart("a", before="s"),))],
        [Message(MessageRole.USER, (ImagePart(url="a"),))],
        [Message(MessageRole.USER, (ImagePart(url="a", detail="low"),))],
        [Message(MessageRole.USER, (ImagePart(data=b"a", media_type="image/png"),))],
        [Message(MessageRole.USER, (ImagePart(data=b"b", media_type="image/png"),))],
        [Message(MessageRole.USER, (ImagePart(data=b"a", media_type="image/gif"),))],
        [Message(MessageRole.USER, (DocumentPart(data=b"a", media_type="image/png"),))],
        [Message(MessageRole.USER, (DocumentPart(file_id="a"),))],
        [Message(MessageRole.USER, (DocumentPart(url="a"),))],
        [Message(MessageRole.USER, (AudioPart(data=b"a", format="wav"),))],
    ],
    "model": ["n", None],
    "temperature": [0, 0.5],
    "top_p": [0.5],
    "max_tokens": [5],
    "stop": ["a", ["a", "b"], ["b", "a"]],
    "seed": [0, 1],
    "tools": [[ToolDefinition("f")], [ToolDefinition("f", "does")], [ToolDefinition("f", strict=True)], [{"a": 1}], []],
    "tool_choice": ["auto", {"type": "tool"}],
    "response_format": ["json_object", {"type": "json_object"}],
    "response_model": [City, Place],
    "reasoning_effort": ["low"],
    "extra": [{"a": ["", "x"]}, {"a": ["x"]}, {"a": [None, "x"]}, {"a": "x"}, {"a": None}, {"a": True}, {"a": 1}],
}
DECIDES_NOTHING: dict[str, Any] = {
    "timeout": 9.0,
    "user": "ann",
    "priority": 5,
    "cache": CachePolicy(ttl=5),
    "metadata": {"a": 1},
    "stream": True,
    "continue_stream": True,
    "call": Call(0.0),
    "extra": {"_request_id": "r", "_order_id": 7},
}


def test_whatever_decides_the_answer_makes_another_question() -> None:
    requests = [BASE, *(replace(BASE, **{field: value}) for field, values in DECIDES.items() for value in values)]
    assert len({compute_request_hash(request) for request in requests}) == len(requests)


@pytest.mark.parametrize("field", DECIDES_NOTHING)
def test_what_does_not_is_left_out(field: str) -> None:
    base = replace(BASE, tools=None, response_format=None, stream=True) if field == "continue_stream" else BASE
    assert compute_request_hash(replace(base, **{field: DECIDES_NOTHING[field]})) == compute_request_hash(base)


def test_no_field_of_a_request_is_forgotten() -> None:
    assert {field.name for field in fields(LLMRequest)} == DECIDES.keys() | DECIDES_NOTHING.keys() | {"embed"}


def embedding(
    texts: list[str],
    dimensions: int | None = None,
    **options: Any,  # noqa: ANN401 - any of the request's
) -> LLMRequest:
    return LLMRequest((), model="m", embed=EmbeddingInput(texts, dimensions), **options)


def test_a_call_for_vectors_is_its_texts_in_order_its_dimensions_and_its_model() -> None:
    asked = [
        LLMRequest("a", model="m"),
        embedding(["a"]),
        embedding(["a", "b"]),
        embedding(["b", "a"]),
        embedding(["ab"]),
        embedding(["a"], 8),
        embedding(["a"], 9),
        embedding(["a"], extra={"input_type": "query"}),
        replace(embedding(["a"]), model="n"),
    ]
    assert len({compute_request_hash(request) for request in asked}) == len(asked)
    assert compute_request_hash(embedding(["a"])) == compute_request_hash(replace(embedding(["a"]), user="ann"))


def test_a_call_for_vectors_and_its_mapping_are_the_same_question() -> None:
    mapping = {"model": "m", "embed": {"dimensions": 8, "texts": ["a", "b"]}}
    assert compute_request_hash(mapping) == compute_request_hash(embedding(["a", "b"], 8))


def test_ids_of_rows_are_left_out_of_mappings() -> None:
    row = {"model": "m", "messages": [{"role": "user", "content": "What is Python?"}]}
    assert compute_request_hash(row | {"_request_id": "r1", "_order_id": 3}) == compute_request_hash(row)


def test_the_provider_is_part_of_what_is_kept() -> None:
    keys = {cache_key(BASE, provider=provider, scope="shared", user=None) for provider in (None, "a", "b")}
    assert len(keys) == 3
    assert compute_request_hash(BASE) in keys


def test_scope_user_adds_the_tenant() -> None:
    named = {compute_request_hash(BASE, scope="user", user=user) for user in (None, "", "None", "ann", "bob")}
    assert len(named | {compute_request_hash(BASE, user="ann")}) == 6


def test_scope_user_takes_the_requests_own_user() -> None:
    own = compute_request_hash(replace(BASE, user="ann"), scope="user")
    assert own == compute_request_hash(BASE, scope="user", user="ann")


def test_an_unknown_scope_is_refused_by_name() -> None:
    scope: Any = "tenant"
    with pytest.raises(LLMInvalidRequestError, match="'tenant'; expected 'shared' or 'user'"):
        compute_request_hash(BASE, scope=scope)


def test_a_request_and_its_mapping_are_the_same_question() -> None:
    parameters: dict[str, Any] = {"type": "object", "properties": {"b": {}, "a": {}}}
    request = LLMRequest(
        [
            Message(MessageRole.USER, (TextPart("look"), ImagePart(url="u", detail="low"))),
            Message(MessageRole.ASSISTANT, "", tool_calls=(ToolCall("c", "f", "{}"),)),
            Message(MessageRole.TOOL, "5", tool_call_id="c"),
        ],
        model="m", temperature=1.0, stop="end", tools=[ToolDefinition("f", "does", parameters)], extra={"top_k": 5},
    )  # fmt: skip
    function = {"name": "f", "description": "does", "parameters": parameters}
    mapping = {
        "top_k": 5,
        "tools": [{"type": "function", "function": function}],
        "stop": ["end"],
        "temperature": 1,
        "top_p": None,
        "model": "m",
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"detail": "low", "url": "u"}},
            ]},
            {"content": None, "role": "assistant", "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            ]},
            {"role": "tool", "content": "5", "tool_call_id": "c"},
        ],
    }  # fmt: skip
    assert compute_request_hash(mapping) == compute_request_hash(request)


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
@given(extras)
def test_vendor_fields_count_the_same_beside_and_inside_extra(extra: dict[str, Any]) -> None:
    beside = {"model": "m", "messages": "What is Python?"} | extra
    assert compute_request_hash(beside) == compute_request_hash(replace(BASE, extra=extra))


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
@given(extras)
def test_the_order_of_mappings_never_matters(extra: dict[str, Any]) -> None:
    assert compute_request_hash(replace(BASE, extra=_turned(extra))) == compute_request_hash(replace(BASE, extra=extra))


def _turned(value: Any) -> Any:  # noqa: ANN401 - JSON
    match value:
        case dict():
            return {key: _turned(element) for key, element in reversed(cast("dict[str, Any]", value).items())}
        case list():
            return list(map(_turned, value))  # pyright: ignore[reportUnknownArgumentType] - JSON
        case _:
            return value


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
@given(json, json)
def test_two_values_share_a_question_only_when_they_are_one_in_json(one: object, other: object) -> None:
    first, second = (compute_request_hash(replace(BASE, extra={"x": value})) for value in (one, other))
    assert (first == second) == (_told(one) == _told(other))


def _told(value: object) -> object:
    """Return an independent witness: the value with its kinds written out, 1 and 1.0 being one number."""
    match value:
        case dict():
            return {"mapping": {key: _told(element) for key, element in cast("dict[str, object]", value).items()}}
        case list():
            return ["list", *map(_told, cast("list[object]", value))]
        case float() if value.is_integer() and abs(value) < 2**53:
            return repr(int(value))
        case _:
            return repr(value)


@given(st.lists(st.none() | st.sampled_from(["", " ", "a"]), max_size=4), st.lists(st.none() | st.just(""), max_size=4))
def test_blank_texts_and_nothing_are_kept_apart(one: list[Any], other: list[Any]) -> None:
    for field in ("stop", "messages", "tools", "anything"):
        hashes = [compute_request_hash({"model": "m", field: value}) for value in (one, other)]
        assert (hashes[0] == hashes[1]) == (one == other)


def test_bytes_count_wherever_they_stand() -> None:
    hashes = {compute_request_hash({"prompt": value}) for value in (b"a", b"b", "a", {"\0bytes": "a"}, {"\0\0": 1})}
    assert len(hashes) == 5


def test_text_beyond_what_json_writes_is_hashed_too() -> None:
    values = ["\ud800", "\udfff", 10**30, -(10**30), float("nan"), float("inf"), "ab\0"]
    assert len({compute_request_hash(replace(BASE, extra={"x": value})) for value in values}) == len(values)


@pytest.mark.parametrize("value", [object(), {1: "a"}, {"a"}])
def test_what_has_no_json_form_is_refused(value: object) -> None:
    with pytest.raises(LLMInvalidRequestError, match=r"JSON|expected text"):
        compute_request_hash(replace(BASE, extra={"x": value}))


def test_what_contains_itself_is_refused() -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(LLMInvalidRequestError, match="contains itself"):
        compute_request_hash(replace(BASE, extra={"x": ring}))


def test_extra_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(LLMInvalidRequestError, match="extra is int"):
        compute_request_hash({"messages": "hi", "extra": 5})


def test_the_request_is_left_as_it_was() -> None:
    row: dict[str, Any] = {"messages": [{"role": "user", "content": "a"}], "extra": {"b": [1]}, "top_k": 2}
    compute_request_hash(row)
    assert row == {"messages": [{"role": "user", "content": "a"}], "extra": {"b": [1]}, "top_k": 2}


PROGRAM = """
from llm.cache import compute_request_hash
from llm.core.types import LLMRequest
extra = {"b": {"y": 1.5, "x": None}, "a": ["", None, "é"], "big": 10**30, **{str(n): n for n in range(50)}}
print(compute_request_hash(LLMRequest("Straße", model="m", temperature=0.1, extra=extra), scope="user", user="ann"))
"""


def test_every_process_computes_the_same_whatever_its_hash_seed() -> None:
    told = {
        subprocess.check_output([sys.executable, "-c", PROGRAM], env=_environment(seed), text=True)  # noqa: S603 - our own text
        for seed in ("0", "1", "4242")
    }
    assert told == {_EXPECTED}


@pytest.mark.parametrize("characters", [1, 900, 5_000])
def test_a_question_asked_again_has_the_name_that_it_had_however_long_it_is(characters: int) -> None:
    request = LLMRequest("a" * characters, model="m")
    canonical = b'{"messages":[["user","' + b"a" * characters + b'",null,[],null]],"model":"m","provider":"p","v":1}'
    names = {cache_key(request, provider="p", scope="shared", user=None) for _ in range(3)}
    assert names == {hashlib.sha256(canonical).hexdigest()}


def test_what_was_kept_by_an_earlier_version_is_found() -> None:
    function = ToolDefinition("f", "does", {"type": "object"}, strict=True)
    turns = [
        Message(MessageRole.DEVELOPER, "Be brief."),
        Message(MessageRole.USER, (TextPart("look"), ImagePart(data=b"a", media_type="image/png")), name="ann"),
        Message(MessageRole.ASSISTANT, "", tool_calls=(ToolCall("c", "f", "{}"), ToolCall("d", "g", "x", custom=True))),
        Message(MessageRole.TOOL, "5", tool_call_id="c", is_error=True),
    ]
    request = LLMRequest(
        turns, model="m", temperature=1.0, top_p=0.5, max_tokens=9, stop=["a", "b"], seed=3, tools=[function],
        tool_choice="auto", response_format={"type": "json_object"}, reasoning_effort="low", extra={"top_k": 5},
    )  # fmt: skip
    assert compute_request_hash(request) == "75208e7b46810f76c86ef40a444eca1d8406dbf64f7760d71f5e5211ed1e16dd"
    assert (
        cache_key(request, provider="p", scope="user", user="ann")
        == "aa0d322d7c1296e66c4e67714f32d67e1523f81fa46e86eb7eb44570488ffb69"
    )
    assert (
        compute_request_hash(embedding(["a", "b"], 8))
        == "47e30ac849e4201fb823222dc5b0f1813b5730afd224ac5a87a2d020d0a5bdbd"
    )


def _environment(seed: str) -> dict[str, str]:
    return {"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed}


# Written down, so that an answer kept today is found by the next version, on every Python.
_EXPECTED = "04047402e50918fab6a8dfc2c21b589912346b49079fc90c8d1b9a271e88c018\n"


def test_the_door_loads_nothing_heavy(root: Path) -> None:
    program = "import sys, llm.cache; print(sorted({'openai','aiohttp','pydantic','redis','torch'} & set(sys.modules)))"
    told = subprocess.check_output(  # noqa: S603 - our own text
        [sys.executable, "-c", program], env={"PYTHONPATH": str(root / "src")}, text=True
    )
    assert told.strip() == "[]"
