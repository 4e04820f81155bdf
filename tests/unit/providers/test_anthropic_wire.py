"""Exchanges as Anthropic's public documentation shows them: nothing is dropped, and its own client agrees."""

from __future__ import annotations

from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import anthropic
import orjson
import pytest
from anthropic.types import Message as TheirMessage
from anthropic.types import RawMessageStreamEvent
from pydantic import TypeAdapter

from llm.core.assembly import assemble
from llm.core.exceptions import LLMOverloadedError
from llm.core.messages import ThinkingPart
from llm.core.types import TokenUsage
from llm.providers.anthropic import AnthropicDialect
from llm.providers.anthropic.body import write_count_body
from llm.providers.serving import anthropic_read, anthropic_write
from llm.providers.serving.anthropic_replay import write_events
from llm.testing import MockUpstream
from llm.utils.sse import EventDecoder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llm.core.types import LLMResponse, StreamChunk
    from llm.providers.anthropic.events import AnthropicEvents
    from llm.utils.sse import Event

WIRE = {path.name: path.read_bytes() for path in (Path(__file__).parents[2] / "wire" / "anthropic").iterdir()}
DIALECT = AnthropicDialect()
ANSWERS = [
    "cache", "documents", "images", "refusal", "search", "text", "thinking", "thinking_omitted", "tools", "window",
]  # fmt: skip
REQUESTS = ["cache", "documents", "images", "search", "text", "thinking", "tools"]
EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


def recorded(name: str) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(WIRE[name])
    return body


def decode(body: dict[str, Any]) -> LLMResponse:
    return DIALECT.decode(orjson.dumps(body), provider="", key=None)


def events_of(name: str) -> list[Event]:
    return list(EventDecoder().feed(WIRE[f"{name}.sse"]))


def read(events: Iterable[Event]) -> tuple[LLMResponse, AnthropicEvents]:
    reader = DIALECT.events()
    chunks: list[StreamChunk] = [chunk for event in events if (chunk := reader.feed(event)) is not None]
    return assemble(chunks, id=reader.id, model=reader.model), reader


def plain(response: LLMResponse) -> LLMResponse:
    """Spaces in the JSON of arguments say nothing."""
    calls = tuple(replace(c, arguments=orjson.dumps(orjson.loads(c.arguments)).decode()) for c in response.tool_calls)
    return replace(response, tool_calls=calls, raw=None)


@pytest.mark.parametrize("name", ANSWERS)
def test_a_stream_comes_to_the_whole_answer_and_to_its_whole_body(name: str) -> None:
    body = recorded(f"{name}.json")
    response, reader = read(events_of(name))
    assert reader.done
    assert plain(response) == plain(decode(body))
    assert reader.raw == body


@pytest.mark.parametrize("name", ANSWERS)
def test_the_vendors_types_take_what_is_recorded(name: str) -> None:
    assert TheirMessage.model_validate(recorded(f"{name}.json"), strict=True).type == "message"
    for _, data in events_of(name):
        assert b'"type":"ping"' in data or EVENT.validate_json(data)


@pytest.mark.parametrize("name", REQUESTS)
def test_a_body_is_read_and_written_with_nothing_dropped(name: str) -> None:
    body = recorded(f"{name}.request.json")
    request = anthropic_read.read_request(body)
    assert orjson.loads(DIALECT.encode(request, stream=False)) == body
    assert orjson.loads(DIALECT.encode(request, stream=True)) == {**body, "stream": True}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_goes_on_as_it_came(name: str) -> None:
    body = recorded(f"{name}.json")
    assert anthropic_write.write_response(decode(body)) == body
    response, reader = read(EventDecoder().feed(b"".join(write_events(body, size=5))))
    assert (plain(response), reader.raw) == (plain(decode(body)), body)


def test_an_answer_that_was_changed_is_written_anew() -> None:
    response = decode(recorded("documents.json"))
    assert anthropic_write.write_response(replace(response, content="Green"))["content"] == [
        {"type": "text", "text": "Green"}
    ]
    assert anthropic_write.write_response(replace(response, raw={"object": "chat.completion"}))["stop_reason"]


def test_cited_text_is_one_text_and_its_sources_are_raw() -> None:
    response = decode(recorded("documents.json"))
    assert response.content == "According to the document, the grass is green and the sky is blue."
    assert response.raw is not None
    assert response.raw["content"][3]["citations"][1]["type"] == "page_location"


def test_the_input_includes_what_the_cache_read_and_wrote() -> None:
    assert decode(recorded("cache.json")).usage == TokenUsage(50 + 248 + 1800, 503, 1800)


def test_a_thought_that_is_kept_back_still_has_its_signature() -> None:
    response, _ = read(events_of("thinking_omitted"))
    assert response.thinking == (ThinkingPart("", "EosnCkYICxIMMb3LzNrMu"),)
    assert response.usage.reasoning_tokens == 31


def test_an_overload_in_the_middle_of_a_stream_raises() -> None:
    *begun, last = events_of("overloaded")
    reader = DIALECT.events()
    assert [str(chunk) for event in begun if (chunk := reader.feed(event)) is not None] == ["Hel"]
    with pytest.raises(LLMOverloadedError, match="Overloaded"):
        reader.feed(last)
    assert not reader.done


def test_without_its_start_a_stream_has_no_raw_body() -> None:
    assert DIALECT.events().raw is None


def test_the_last_counts_of_a_stream_stand_where_they_are_given() -> None:
    usage = {"input_tokens": 9, "output_tokens": 1, "cache_read_input_tokens": 4, "service_tier": "priority"}
    told = {"input_tokens": None, "output_tokens": 0, "cache_read_input_tokens": 5}
    bodies: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"content": [], "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": None}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": told},
        {"type": "message_stop"},
    ]
    response, reader = read([("", orjson.dumps(body)) for body in bodies])
    assert response.usage == TokenUsage(14, 0, 5)
    assert reader.raw == {
        "content": [{"type": "text", "text": "x"}],
        "stop_reason": "end_turn",
        "usage": {**usage, "output_tokens": 0, "cache_read_input_tokens": 5},
    }


def test_input_that_max_tokens_cut_stays_the_text_that_came() -> None:
    start: dict[str, Any] = {"type": "tool_use", "id": "t", "name": "look", "input": {}}
    bodies: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"content": []}},
        {"type": "content_block_start", "index": 0, "content_block": start},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '{"at'}},
        {"type": "content_block_delta", "index": 7, "delta": {"type": "something_new", "x": 1}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "something_new", "x": 1}},
        {"type": "content_block_delta", "index": 7, "delta": {"type": "text_delta", "text": "lost"}},
        {"type": "content_block_delta", "index": 7, "delta": {"type": "thinking_delta", "thinking": "lost"}},
    ]
    reader = DIALECT.events()
    for body in bodies:
        reader.feed(("", orjson.dumps(body)))
    assert reader.raw == {"content": [{**start, "input": '{"at', "x": 1}]}


def test_a_thought_may_come_in_the_start_of_its_block() -> None:
    reader = DIALECT.events()
    for text, proof in (("hm", ""), ("", "sig")):
        block = {"type": "thinking", "thinking": text, "signature": proof}
        body = {"type": "content_block_start", "index": 0, "content_block": block}
        chunk = reader.feed(("", orjson.dumps(body)))
        assert chunk is not None
        assert chunk.thinking == ThinkingPart(text, proof or None)


def test_the_body_of_a_count_is_that_of_a_call_without_what_a_count_does_not_take() -> None:
    body = recorded("count.request.json")
    request = anthropic_read.read_request({**body, "max_tokens": 20000, "stream": True, "top_k": 3, "temperature": 1})
    assert orjson.loads(write_count_body(request)) == body


@pytest.mark.parametrize("name", ANSWERS)
async def test_the_vendors_own_client_reads_every_answer_whole_and_streamed(name: str) -> None:
    body = recorded(f"{name}.json")
    given = recorded(f"{name if name in REQUESTS else 'text'}.request.json")
    names = signature(anthropic.AsyncAnthropic(api_key="k1").messages.create).parameters
    asked: dict[str, Any] = {field: value for field, value in given.items() if field in names}
    asked["extra_body"] = {field: value for field, value in given.items() if field not in names}  # it dropped some
    expected = TheirMessage.model_validate(body)
    up = MockUpstream("anthropic", answer=lambda _: decode(body), chunk_size=5)
    async with up, anthropic.AsyncAnthropic(api_key="k1", base_url=up.base_url, max_retries=0) as client:
        whole = cast("TheirMessage", await client.messages.create(**asked))
        async with client.messages.stream(**asked) as stream:
            streamed = await stream.get_final_message()
    assert [request.body for request in up.requests] == [given, {**given, "stream": True}]
    assert whole.to_dict() == body
    assert TheirMessage.model_validate(streamed.to_dict()).model_dump() == expected.model_dump()


async def test_the_vendors_own_client_counts() -> None:
    asked = recorded("count.request.json")
    async with (
        MockUpstream("anthropic") as up,
        anthropic.AsyncAnthropic(api_key="k1", base_url=up.base_url, max_retries=0) as client,
    ):
        count = await client.messages.count_tokens(**asked)
    assert count.input_tokens > 0
    assert up.probes[0].path == "/v1/messages/count_tokens"
