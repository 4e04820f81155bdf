"""`/v1/stream`: several answers on one connection, each with its own end."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.patience import until

from llm.core.choices import Choice
from llm.core.messages import ThinkingPart, ToolCall
from llm.core.types import LLMResponse
from llm.gateway.sockets import MOST_OPERATIONS
from llm.testing import FakeClock, Fault, MockUpstream
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from llm.core.types import LLMRequest

    Gateways = Callable[..., AbstractAsyncContextManager[Any]]

CLOCK = SystemClock()
LONG = "one two three four five six seven eight nine ten"
ENDLESS = LONG * 20  # a chunk each quarter of a second, where it takes half a minute
USAGE = {"output_tokens": 6, "total_tokens": 12, "cached_input_tokens": 0, "reasoning_tokens": 0}
ALICE, BOB = "gw-alice-0123456789", "gw-bob-0123456789"
KEYS = {"alice": {"key": ALICE}, "bob": {"key": BOB, "models": ["other"]}}

WRONG: list[tuple[str | bytes, str | None, str]] = [
    ("{", None, "expected JSON"),
    ("[1]", None, "expected a JSON object"),
    ("[" * 1500 + "]" * 1500, None, "expected JSON"),
    ('{"id": "a", "x": ' + "[" * 300 + "]" * 300 + "}", None, "deep"),
    (b'{"id": "a"}', None, "as text, not as bytes"),
    ('{"id": "a", "prompt": "' + "x" * 5000 + '"}', None, "larger than 4096 bytes"),
    ('{"prompt": "hi"}', None, "id: expected"),
    ('{"id": "", "prompt": "hi"}', None, "id: expected"),
    ('{"id": true, "prompt": "hi"}', None, "id: expected"),
    ('{"id": 1.5, "prompt": "hi"}', None, "id: expected"),
    ('{"id": "a", "type": "start", "prompt": "hi"}', "a", "type: expected cancel"),
    ('{"id": "a"}', "a", "expected a body"),
    ('{"id": "a", "prompt": "hi", "messages": []}', "a", "expected a body"),
    ('{"id": "a", "prompt": ""}', "a", "prompt: expected"),
    ('{"id": "a", "messages": [{"role": "nobody", "content": "hi"}]}', "a", "messages[0].role: expected"),
    ('{"id": "a", "prompt": "hi", "temperature": 9}', "a", "temperature is 9"),
]
"""What is said, the id that is answered, and words of the answer."""


def line(it: Any, *, key: str | None = None, **headers: str) -> Any:  # noqa: ANN401 - the fixture's
    return it.line("/v1/stream", key=key, **headers)


def text(answer: list[dict[str, Any]]) -> str:
    return "".join(message["text"] for message in answer if message["type"] == "chunk")


@pytest.mark.parametrize(
    "body",
    [{"prompt": "hello there my friend"}, {"messages": [{"role": "user", "content": "hello there my friend"}]}],
    ids=["generate", "chat"],
)
async def test_an_answer_comes_in_chunks_and_then_is_done(inside: Gateways, body: dict[str, Any]) -> None:
    async with inside() as it, line(it) as ws:
        await ws.say(id="a", model="gpt-4o-mini", **body)
        *chunks, done = await ws.answer("a")
    assert len(chunks) > 1
    assert text(chunks) == "hello there my friend"
    usage = done.pop("usage")
    assert usage.items() >= USAGE.items()
    assert done == {
        "type": "done", "finish_reason": "stop", "model": "gpt-4o-mini", "provider": "openai", "cached": False,
    }  # fmt: skip


async def test_a_prompts_length_is_counted_in_new_tokens(inside: Gateways) -> None:
    async with inside() as it, line(it) as ws:
        await ws.say(id=1, prompt=LONG, max_length=2)
        answer = await ws.answer(1)
    assert (text(answer), answer[-1]["finish_reason"]) == (LONG[:8], "length")


async def test_tool_calls_come_in_pieces(inside: Gateways) -> None:
    def speak(_: LLMRequest) -> LLMResponse:
        return LLMResponse(tool_calls=(ToolCall("call_1", "weather", '{"city": "Paris"}'),), finish_reason="tool_calls")

    tool = {"type": "function", "function": {"name": "weather"}}
    async with inside(MockUpstream(answer=speak)) as it, line(it) as ws:
        await ws.say(id="t", messages=[{"role": "user", "content": "Rain?"}], tools=[tool])
        *chunks, done = await ws.answer("t")
    pieces = [piece for chunk in chunks for piece in chunk["tool_calls"]]
    assert (pieces[0]["id"], pieces[0]["function"]["name"]) == ("call_1", "weather")
    assert "".join(piece["function"]["arguments"] for piece in pieces) == '{"city": "Paris"}'
    assert done["finish_reason"] == "tool_calls"


async def test_thoughts_and_further_choices_are_told_apart(inside: Gateways) -> None:
    def speak(_: LLMRequest) -> LLMResponse:
        return LLMResponse(content="one", thinking=(ThinkingPart("hm"),), alternatives=(Choice("two", "stop"),))

    async with inside(MockUpstream(answer=speak)) as it, line(it) as ws:
        await ws.say(id="t", messages=[{"role": "user", "content": "Say it."}], n=2)
        *chunks, _ = await ws.answer("t")
    told = [{key: value for key, value in chunk.items() if key != "type"} for chunk in chunks]
    assert {"reasoning_content": "hm"} in told
    assert {"text": "one"} in told
    assert {"text": "two", "index": 1} in told


async def goes_on(clock: FakeClock) -> None:
    while True:
        await clock.advance(0.5)
        await CLOCK.sleep(0.002)


async def test_several_answers_at_once_are_told_apart_by_their_ids(inside: Gateways) -> None:
    clock = FakeClock()
    up = MockUpstream(service=5.0, clock=clock)
    async with inside(up) as it, line(it) as ws:
        for name in ("a", "b", 3):
            await ws.say(id=name, prompt=f"{LONG} {name}")
        await until(lambda: up.active == 3)
        going = asyncio.create_task(goes_on(clock))
        told: dict[object, str] = {}
        order: list[tuple[object, str]] = []
        while sum(kind == "done" for _, kind in order) < 3:
            message = await ws.hear()
            order.append((message["id"], message["type"]))
            told[message["id"]] = told.get(message["id"], "") + message.get("text", "")
        going.cancel()
    assert told == {name: f"{LONG} {name}" for name in ("a", "b", 3)}
    assert len({name for name, kind in order[:9] if kind == "chunk"}) == 3  # side by side, not one after the other


async def test_a_cancelled_answer_is_done_at_once_and_the_others_go_on(inside: Gateways) -> None:
    up = MockUpstream(service=lambda asked: 30.0 if asked.messages[0].content == ENDLESS else 0.2)
    async with inside(up) as it, line(it) as ws:
        await ws.say(id="a", prompt=ENDLESS)
        await ws.hear()
        await ws.say(id="b", prompt=LONG)
        await ws.say(id="a", type="cancel")
        assert (await ws.answer("a"))[-1] == {"type": "done", "finish_reason": "cancelled", "usage": None}
        await ws.say(id="a", prompt="short")  # the id is free again
        assert (await ws.answer("b"))[-1]["finish_reason"] == "stop"
        assert text(await ws.answer("a")) == "short"
        await ws.say(id="a", prompt="again")
        assert text(await ws.answer("a")) == "again"


async def test_a_cancelled_answers_upstream_closes(inside: Gateways) -> None:
    up = MockUpstream(service=30.0)
    async with inside(up) as it, line(it) as ws:
        await ws.say(id="a", prompt=ENDLESS)
        await ws.hear()
        assert up.active == 1
        await ws.say(id="a", type="cancel")
        await until(lambda: up.active == 0)
        assert not it.entry.running


async def test_a_socket_that_goes_ends_its_upstream_calls(inside: Gateways) -> None:
    up = MockUpstream(service=30.0)
    async with inside(up) as it:
        async with line(it) as ws:
            await ws.say(id="a", prompt=ENDLESS)
            await ws.say(id="b", prompt=ENDLESS)
            await until(lambda: up.active == 2)
            await ws.hear()
            await ws.leave()
            await until(lambda: up.active == 0 and not it.entry.live.open)
        assert it.entry.desk.counts.requests == {499: 2}


async def test_a_cancel_for_what_does_not_run_is_not_answered(inside: Gateways) -> None:
    async with inside() as it, line(it) as ws:
        await ws.say(id="nobody", type="cancel")
        await ws.say(id="a", prompt="hi")
        assert (await ws.hear())["id"] == "a"


async def test_an_id_that_runs_is_refused_and_what_runs_under_it_goes_on(inside: Gateways) -> None:
    clock = FakeClock()
    async with inside(MockUpstream(service=5.0, clock=clock)) as it, line(it) as ws:
        await ws.say(id="a", prompt=LONG)
        await ws.say(id="a", prompt="another")
        refused = await ws.hear()
        assert refused["error"] == {
            "type": "invalid_request_error", "message": "id: expected one that no running answer has",
        }  # fmt: skip
        going = asyncio.create_task(goes_on(clock))
        assert text(await ws.answer("a")) == LONG
        going.cancel()


async def test_one_answer_too_many_is_refused_and_told_the_bound(inside: Gateways) -> None:
    async with inside(MockUpstream(service=30.0)) as it, line(it) as ws:
        for number in range(MOST_OPERATIONS + 1):
            await ws.say(id=number, prompt=ENDLESS)
        while (told := await ws.hear())["type"] != "error":
            pass
    assert told["id"] == MOST_OPERATIONS
    assert f"{MOST_OPERATIONS} answers" in told["error"]["message"]


async def test_what_is_no_message_is_an_error_and_the_connection_goes_on(inside: Gateways) -> None:
    async with inside(gateway={"max_body_bytes": 4096}) as it, line(it) as ws:
        for sent, name, words in WRONG:
            await ws.say_text(sent)
            told = await ws.hear()
            assert (told["id"], told["type"], told["error"]["type"]) == (name, "error", "invalid_request_error"), sent
            assert words in told["error"]["message"]
        await ws.say(id="next", prompt="hi")
        assert text(await ws.answer("next")) == "hi"


async def test_a_provider_that_fails_is_an_error_with_its_kind(inside: Gateways) -> None:
    up = MockUpstream(faults=[Fault("overloaded", at=1)])
    async with inside(up, retry={"max_attempts": 1}) as it, line(it) as ws:
        await ws.say(id="a", prompt="hi")
        (told,) = await ws.answer("a")
        assert (told["type"], told["error"]["type"]) == ("error", "overloaded")
        assert it.entry.desk.counts.requests == {503: 1}


async def test_a_stream_that_breaks_is_what_came_and_then_an_error(inside: Gateways) -> None:
    up = MockUpstream(faults=[Fault("truncated", at=1)])
    async with inside(up, retry={"max_attempts": 1}) as it, line(it) as ws:
        await ws.say(id="a", prompt=LONG)
        *chunks, error = await ws.answer("a")
    assert chunks
    assert LONG.startswith(text(chunks))
    assert error["error"]["type"] == "stream_interrupted"


async def test_a_fault_of_the_gateways_own_is_told_without_its_words(inside: Gateways) -> None:
    async with inside() as it, line(it) as ws:

        def stream(*_: object) -> None:
            raise ValueError("a secret of the insides")

        it.entry.desk.asking.stream = stream
        await ws.say(id="a", prompt="hi")
        (told,) = await ws.answer("a")
    assert told["error"]["type"] == "server_error"
    assert "secret" not in json.dumps(told)


async def test_without_a_good_key_the_handshake_is_a_401(inside: Gateways) -> None:
    async with inside(gateway={"api_keys": KEYS}) as it:
        for key in (None, "wrong"):
            async with line(it, key=key) as refused:
                assert refused.status == 401
        async with line(it, key=ALICE) as ws:
            await ws.say(id="a", prompt="hi")
            assert text(await ws.answer("a")) == "hi"


async def test_a_key_that_is_taken_away_gets_no_more_answers(inside: Gateways) -> None:
    async with inside(gateway={"api_keys": KEYS}) as it, line(it, key=ALICE) as ws:
        told = it.manager.config.model_dump(exclude_unset=True, by_alias=True)
        told["gateway"]["api_keys"] = {"bob": {"key": BOB}}
        told["providers"]["openai"]["api_keys"] = ["k1"]
        await it.manager.reload(told)
        await ws.say(id="a", prompt="hi")
        assert (await ws.answer("a"))[-1]["error"]["type"] == "invalid_api_key"


async def test_a_key_asks_for_its_own_models_alone(inside: Gateways) -> None:
    section = {"api_keys": ["k1", "k2"], "models": ["gpt-4o-mini", "other"]}
    async with inside(section=section, gateway={"api_keys": KEYS}) as it, line(it, key=BOB) as ws:
        await ws.say(id="a", prompt="hi", model="gpt-4o-mini")
        assert "may not use the model" in (await ws.answer("a"))[-1]["error"]["message"]
        await ws.say(id="b", prompt="hi", model="other")
        assert (await ws.answer("b"))[-1]["model"] == "other"


async def test_the_keys_user_pays_whoever_the_body_names(inside: Gateways) -> None:
    limits = {"users": {"default": {"requests_per_day": 1}}}
    async with inside(gateway={"api_keys": KEYS}, limits=limits) as it, line(it, key=ALICE) as ws:
        await ws.say(id="a", prompt="hi", user="carol")
        await ws.answer("a")
        await ws.say(id="b", messages=[{"role": "user", "content": "hi"}], user="dave")
        (told,) = await ws.answer("b")
    assert told["error"]["type"] == "rate_limit_exceeded"
    assert told["error"]["retry_after"] > 0


async def test_web_pages_of_other_origins_open_no_socket_unless_named(inside: Gateways) -> None:
    named = {"api_keys": KEYS, "cors_origins": ["https://app.example.org"]}
    async with inside(gateway=named) as it:
        for page in ("https://evil.example.org", "null", "https://app.example.org.evil.org", "http://127.0.0.1:1"):
            async with line(it, key=ALICE, Origin=page) as refused:
                assert refused.status == 403
        for page in ("https://app.example.org", "http://127.0.0.1:8000"):
            async with line(it, key=ALICE, Origin=page) as ws:
                await ws.say(id="a", prompt="hi")
                assert text(await ws.answer("a")) == "hi"


async def test_an_address_that_is_none_is_a_404(inside: Gateways) -> None:
    async with inside() as it, it.line("/nowhere") as refused:
        assert refused.status == 404


async def test_as_the_gateway_drains_answers_finish_and_new_ones_are_refused(inside: Gateways) -> None:
    up = MockUpstream(service=30.0, clock=(clock := FakeClock()))
    async with inside(up) as it, line(it) as busy, line(it) as idle:
        await busy.say(id="a", prompt=LONG)
        await until(lambda: up.active == 1)
        await clock.advance(20.0)
        await busy.hear()
        it.entry.draining = True
        assert await idle.closed() == 1012
        await busy.say(id="b", prompt="hi")
        assert (await busy.answer("b"))[-1]["error"]["type"] == "overloaded"
        await clock.advance(20.0)
        assert (await busy.answer("a"))[-1]["type"] == "done"
        assert await busy.closed() == 1012
        async with line(it) as refused:
            assert refused.status == 503


async def test_answers_that_are_ended_are_told_so_before_the_close(inside: Gateways) -> None:
    up = MockUpstream(service=30.0)
    async with inside(up) as it, line(it) as ws:
        await ws.say(id="a", prompt=ENDLESS)
        await ws.hear()
        it.entry.draining = True
        it.entry.end_all()
        told = (await ws.answer("a"))[-1]
        assert (told["type"], told["error"]["type"]) == ("error", "overloaded")
        assert await ws.closed() == 1012
        await until(lambda: up.active == 0)


async def test_an_answer_that_is_ended_before_its_first_chunk_is_told_so(inside: Gateways) -> None:
    up = MockUpstream(network=(60.0, 60.0))
    async with inside(up) as it, line(it) as ws:
        await ws.say(id="a", prompt=LONG)
        await until(lambda: bool(it.entry.running))
        await CLOCK.sleep(0.05)
        it.entry.draining = True
        it.entry.end_all()
        assert (await ws.answer("a"))[-1]["error"]["type"] == "overloaded"


async def test_each_answer_is_a_request_of_the_metrics(inside: Gateways) -> None:
    async with inside() as it, line(it) as ws:
        for name in ("a", "b"):
            await ws.say(id=name, prompt="hello there my friend")
            await ws.answer(name)
        counts = it.entry.desk.counts
        await until(lambda: counts.active == 0)
        assert counts.requests == {200: 2}
        assert counts.tokens == 12
        assert list(counts.durations) == ["/v1/stream"]
        assert sum(counts.models["chat", "openai", "gpt-4o-mini"].first.counts) == 2


async def test_a_slow_reader_holds_up_its_upstream_and_fills_no_memory(inside: Gateways) -> None:
    up = MockUpstream(chunk_size=65_536, answer=lambda _: "word " * 6_000_000)
    async with inside(up) as it, line(it) as ws:
        ws.taken.clear()
        await ws.say(id="a", prompt="hi")
        await until(lambda: up.active == 1)
        await CLOCK.sleep(0.3)
        assert (ws.sent, up.active) == (2, 1)  # the acceptance, and the one message that is in the way
        assert len(next(iter(it.entry.running)).stream.text) < 1_000_000
        await ws.leave()
        await until(lambda: up.active == 0)


async def test_a_client_that_went_is_told_nothing_and_ends_its_calls(inside: Gateways) -> None:
    up = MockUpstream(service=30.0)
    async with inside(up) as it, line(it) as ws:
        await ws.say(id="a", prompt=ENDLESS)
        await ws.hear()
        ws.gone = True
        await ws.say(id="a", type="something else")
        await until(lambda: up.active == 0 and not it.entry.live.open)


async def test_a_connection_that_went_as_it_was_accepted_leaves_nothing(inside: Gateways) -> None:
    async with inside() as it:

        async def receive() -> dict[str, str]:
            return {"type": "websocket.connect"}

        async def send(_: object) -> None:
            raise OSError

        await it.entry({"type": "websocket", "path": "/v1/stream", "headers": []}, receive, send)
        assert not it.entry.live.open


async def test_a_server_that_cannot_answer_a_handshake_closes_it(inside: Gateways) -> None:
    sent: list[dict[str, object]] = []
    async with inside(gateway={"api_keys": KEYS}) as it:

        async def receive() -> dict[str, str]:
            return {"type": "websocket.connect"}

        async def send(message: dict[str, object]) -> None:
            sent.append(message)

        await it.entry({"type": "websocket", "path": "/v1/stream", "headers": []}, receive, send)
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1008)]


async def test_a_limit_is_told_with_what_is_left_of_it(inside: Gateways) -> None:
    limits = {"users": {"alice": {"requests_per_hour": 1}}}
    async with inside(limits=limits, gateway={"api_keys": KEYS}) as it, line(it, key=ALICE) as ws:
        await ws.say(id=1, prompt="hi")
        await ws.answer(1)
        await ws.say(id=2, prompt="hi again")
        [refused] = await ws.answer(2)
    told = refused["error"]
    assert told["type"] == "rate_limit_exceeded"
    assert 3_500 < told["retry_after"] < 3_601
    assert told["limits"]["x-ratelimit-remaining-requests"] == "0"
