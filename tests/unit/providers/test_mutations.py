"""Recorded exchanges, mutilated: what does not contain the closing event is no answer, and what fails is typed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.core.exceptions import LLMException, LLMServerError
from llm.core.stream import LLMStream
from llm.providers.anthropic import AnthropicDialect
from llm.providers.openai import OpenAIDialect
from llm.providers.openrouter.dialect import OpenRouterDialect
from llm.providers.responses import ResponsesDialect
from llm.providers.source import ReplyChunks
from llm.utils.clock import SystemClock
from llm.utils.sse import EventDecoder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm.core.types import LLMResponse
    from llm.providers.dialect import Dialect

WIRE: Final = Path(__file__).parents[2] / "wire"
DIALECTS: Final[dict[str, Dialect]] = {
    "openai": OpenAIDialect(),
    "responses": ResponsesDialect(),
    "anthropic": AnthropicDialect(),
    "openrouter": OpenRouterDialect(),
}
CLOSING: Final = {
    "openai": (b"[DONE]",),
    "responses": (b"response.completed", b"response.incomplete"),
    "anthropic": (b"message_stop",),
    "openrouter": (b"[DONE]",),
}
FAILING: Final = {"cut", "error", "failed", "overloaded"}
STREAMS: Final = [
    (name, path.read_bytes()) for name in DIALECTS for path in sorted((WIRE / name).glob("*.sse"))
    if path.stem not in FAILING
]  # fmt: skip
NAMES: Final = [
    f"{name}/{path.stem}" for name in DIALECTS for path in sorted((WIRE / name).glob("*.sse"))
    if path.stem not in FAILING
]  # fmt: skip
ANSWERS: Final = [(name, path.read_bytes()) for name in DIALECTS for path in (WIRE / name).glob("*.json")]
ANSWERS_WHOLE: Final = [
    (name, (WIRE / name / f"{stem}.json").read_bytes())
    for name, stem in [("openai", "tools"), ("responses", "tools"), ("anthropic", "tools"), ("openrouter", "answer")]
]


class Sent:
    """A reply of these pieces, which ends in order."""

    status = 200

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = iter(pieces)
        self.headers: Mapping[str, str] = {}

    async def read(self) -> bytes:
        return b"".join(self._pieces)

    async def chunk(self) -> bytes:
        return next(self._pieces, b"")

    def waiting(self) -> bool:
        return False

    def close(self) -> None:
        self._pieces = iter([])


async def streamed(name: str, pieces: list[bytes]) -> LLMResponse:
    source = ReplyChunks(
        Sent([piece for piece in pieces if piece]), DIALECTS[name].events(), SystemClock(), lambda _: None
    )
    return await (await LLMStream(source).begin()).response()


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
@pytest.mark.parametrize(("name", "whole"), STREAMS, ids=NAMES)
async def test_a_stream_cut_at_any_byte_is_no_answer(name: str, whole: bytes) -> None:
    reader, decoder = DIALECTS[name].events(), EventDecoder()
    whole = whole.rstrip(b"\n") + b"\n\n"
    for place in range(len(whole) - 1):  # a cut after any of these leaves this state, and adds nothing to it
        for event in decoder.feed(whole[place : place + 1]):
            reader.feed(event)
        assert not reader.done, place
    assert (await streamed(name, [whole])).raw is not None


@pytest.mark.parametrize(("name", "whole"), ANSWERS_WHOLE, ids=DIALECTS)
def test_a_whole_answer_cut_at_any_byte_is_none(name: str, whole: bytes) -> None:
    whole = whole.strip()
    for place in range(len(whole)):
        with pytest.raises(LLMServerError):
            DIALECTS[name].decode(whole[:place], provider="p", key=None)
    DIALECTS[name].decode(whole, provider="p", key=None)


MUTATIONS: Final = st.lists(
    st.tuples(
        st.sampled_from(["delete", "double", "flip", "insert", "cut", "swap"]),
        st.integers(0, 1 << 16),
        st.integers(1, 200),
        st.sampled_from([b"null", b"0", b"-1", b'"', b"{", b"}", b"[]", b"{}", b"\n\n", b"\r", b"\x00", b"\xff"]),
    ),
    min_size=1,
    max_size=4,
)  # fmt: skip


def mutilated(data: bytes, mutations: list[tuple[str, int, int, bytes]], unit: bytes) -> bytes:
    """Spoil the data: by bytes, and by events or fields, which `unit` parts."""
    for kind, place, length, token in mutations:
        parts = data.split(unit)
        at, part = place % (len(data) + 1), place % len(parts)
        if kind == "delete":
            data = unit.join(parts[:part] + parts[part + 1 :])
        elif kind == "double":
            data = unit.join([*parts[: part + 1], *parts[part:]])
        elif kind == "swap":
            data = unit.join([*parts[:part], *parts[part + 1 : part + 2], parts[part], *parts[part + 2 :]])
        elif kind == "flip":
            data = data[:at] + bytes(byte ^ (1 << length % 8) for byte in data[at : at + 1]) + data[at + 1 :]
        elif kind == "insert":
            data = data[:at] + token + data[at + length % 12 :]
        else:
            data = data[:at]
    return data


@settings(deadline=None, max_examples=2 * settings().max_examples)
@given(st.sampled_from(STREAMS), MUTATIONS, st.sampled_from([b"\n\n", b"\n", b","]), st.integers(1, 4096))
async def test_a_mutilated_stream_is_an_answer_only_with_its_closing_event(
    recorded: tuple[str, bytes], mutations: list[tuple[str, int, int, bytes]], unit: bytes, step: int
) -> None:
    name, whole = recorded
    data = mutilated(whole, mutations, unit)
    try:
        await streamed(name, [data[at : at + step] for at in range(0, len(data), step)])
    except LLMException:
        return
    assert any(word in data for word in CLOSING[name])


@settings(deadline=None, max_examples=2 * settings().max_examples)
@given(st.sampled_from(ANSWERS), MUTATIONS, st.sampled_from([b",", b"\n"]))
def test_a_mutilated_answer_fails_typed_if_it_fails(
    recorded: tuple[str, bytes], mutations: list[tuple[str, int, int, bytes]], unit: bytes
) -> None:
    name, whole = recorded
    try:
        answer = DIALECTS[name].decode(mutilated(whole, mutations, unit), provider="p", key=None)
    except LLMException:
        return
    assert answer.content or answer.tool_calls or answer.thinking or answer.finish_reason


UNTOLD: Final = {
    "openai": (b'"finish_reason":"tool_calls"', b'"finish_reason":null'),
    "anthropic": (b'"stop_reason":"tool_use"', b'"stop_reason":null'),
}


@pytest.mark.parametrize("name", UNTOLD)
async def test_a_tool_call_that_nobody_ended_is_none_for_it_may_be_cut(name: str) -> None:
    whole = (WIRE / name / "tools.sse").read_bytes()
    assert (await streamed(name, [whole])).tool_calls
    old, new = UNTOLD[name]
    assert old in whole
    with pytest.raises(LLMServerError, match="in the middle of a tool call"):
        await streamed(name, [whole.replace(old, new)])


async def test_a_tool_call_cut_by_the_most_tokens_is_told_by_its_reason() -> None:
    whole = (WIRE / "openai" / "tools.sse").read_bytes()
    cut = await streamed("openai", [whole.replace(b'"finish_reason":"tool_calls"', b'"finish_reason":"length"')])
    assert (cut.finish_reason, bool(cut.tool_calls)) == ("length", True)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("openai", b'{"choices": [{"message": {"role": "assistant", "content": null}}]}'),
        ("openai", b'{"choices": [{"message": {"role": "assistant", "content": ""}, "finish_reason": null}]}'),
        ("anthropic", b'{"content": [], "stop_reason": null}'),
        ("responses", b'{"output": []}'),
    ],
)
def test_an_answer_of_nothing_and_no_reason_why_is_none(name: str, body: bytes) -> None:
    with pytest.raises(LLMServerError):
        DIALECTS[name].decode(body, provider="p", key=None)


@pytest.mark.parametrize(
    ("name", "stream"),
    [
        ("openai", b'data: {"choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\ndata: [DONE]\n\n'),
        (
            "anthropic",
            b'data: {"type":"message_start","message":{"id":"i"}}\n\ndata: {"type":"message_stop"}\n\n',
        ),
        ("responses", b'data: {"type":"response.completed","response":{}}\n\n'),
        (
            "responses",
            b'data: {"type":"response.completed","response":{"id":"i","output":[{"type":"message","content":[]}]}}\n\n',
        ),
    ],
)
async def test_a_stream_of_nothing_and_no_reason_why_is_none(name: str, stream: bytes) -> None:
    with pytest.raises(LLMServerError, match="without an answer"):
        await streamed(name, [stream])


@pytest.mark.parametrize("depth", [100, 500, 1000])
@pytest.mark.parametrize("name", ["openai", "openrouter"])
async def test_events_nested_deeply_fail_typed_if_they_fail(name: str, depth: int) -> None:
    nested = b'{"x":' * depth + b"1" + b"}" * depth
    event = b'data: {"choices":[{"index":0,"delta":{"content":"Hi","more":%b},"finish_reason":"stop"}]}\n\n' % nested
    try:
        response = await streamed(name, [event, event, b"data: [DONE]\n\n"])
    except LLMServerError:
        assert depth > 100
    else:
        assert response.content == "HiHi"


async def test_events_that_do_not_fit_each_other_are_no_answer() -> None:
    stream = (
        b'data: {"type":"message_start","message":{"id":"i"}}\n\n'
        b'data: {"type":"content_block_start","index":0,"content_block":{"type":["text"]}}\n\n'
        b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}\n\n'
        b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}\n\ndata: {"type":"message_stop"}\n\n'
    )
    with pytest.raises(LLMServerError, match="do not fit each other"):
        await streamed("anthropic", [stream])
