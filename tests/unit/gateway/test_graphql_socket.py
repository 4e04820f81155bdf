"""`/graphql` as a WebSocket: the protocol `graphql-transport-ws`, its closes, and what runs on it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.patience import until

from llm.core.messages import ToolCall
from llm.core.types import LLMResponse
from llm.gateway.graphql.socket import INIT_TIMEOUT
from llm.gateway.sockets import MOST_OPERATIONS
from llm.testing import FakeClock, Fault, MockUpstream

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from llm.core.types import LLMRequest

    Gateways = Callable[..., AbstractAsyncContextManager[Any]]

LONG = "one two three four five six seven eight nine ten"
ENDLESS = LONG * 20
ALICE, BOB = "gw-alice-0123456789", "gw-bob-0123456789"
KEYS = {"alice": {"key": ALICE}, "bob": {"key": BOB, "models": ["other"]}}
COMPLETION = """subscription ($input: CompletionInput!) {
    completion(input: $input) {
        content finishReason model provider cached cost toolCalls { index id name arguments }
        usage { inputTokens outputTokens totalTokens }
    }
}"""

SLOW = 'subscription { completion(input: {prompt: "hi"}) { content } }'

FORBIDDEN: list[tuple[list[dict[str, Any] | str | bytes], int]] = [
    ([{"type": "connection_init"}], 4429),
    (["{"], 4400),
    (["[]"], 4400),
    ([b"{}"], 4400),
    (["[" * 400 + "]" * 400], 4400),
    ([{"type": "nothing"}], 4400),
    ([{}], 4400),
    ([{"type": "subscribe", "id": "1"}], 4400),
    ([{"type": "subscribe", "id": 1, "payload": {"query": "{a}"}}], 4400),
    ([{"type": "subscribe", "id": "", "payload": {"query": "{a}"}}], 4400),
    ([{"type": "complete"}], 4400),
    ([{"type": "subscribe", "id": "1", "payload": {"query": SLOW}}] * 2, 4409),
]


async def begin(ws: Any, **payload: object) -> None:  # noqa: ANN401 - the fixture's
    await ws.say(type="connection_init", **({"payload": payload} if payload else {}))
    assert await ws.hear() == {"type": "connection_ack"}


async def subscribe(ws: Any, name: str, query: str = COMPLETION, **told: object) -> None:  # noqa: ANN401 - the fixture's
    await ws.say(id=name, type="subscribe", payload={"query": query, "variables": {"input": told}})


def pieces(answer: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [message["payload"]["data"]["completion"] for message in answer if message["type"] == "next"]


async def test_a_subscription_tells_an_answer_in_pieces_the_last_of_the_whole(inside: Gateways) -> None:
    async with inside() as it, it.line("/graphql") as ws:
        assert ws.accepted == "graphql-transport-ws"
        await begin(ws)
        await subscribe(ws, "1", prompt="hello there my friend")
        answer = await ws.answer("1")
        assert it.entry.desk.counts.tokens == 6
    assert answer[-1] == {"type": "complete"}
    *chunks, last = pieces(answer)
    assert "".join(piece["content"] for piece in chunks) == "hello there my friend"
    assert all(piece["finishReason"] is piece["usage"] is None for piece in chunks)
    assert last.pop("cost") > 0
    assert last == {
        "content": "", "finishReason": "stop", "model": "gpt-4o-mini", "provider": "openai", "cached": False,
        "toolCalls": [], "usage": {"inputTokens": 6, "outputTokens": 6, "totalTokens": 12},
    }  # fmt: skip


async def test_a_subscription_tells_tool_calls_in_pieces(inside: Gateways) -> None:
    def speak(_: LLMRequest) -> LLMResponse:
        return LLMResponse(tool_calls=(ToolCall("call_1", "weather", '{"city": "Paris"}'),), finish_reason="tool_calls")

    async with inside(MockUpstream(answer=speak)) as it, it.line("/graphql") as ws:
        await begin(ws)
        await subscribe(ws, "1", prompt="Rain?", tools=[{"name": "weather"}])
        *chunks, last = pieces(await ws.answer("1"))
    calls = [call for piece in chunks for call in piece["toolCalls"]]
    assert (calls[0]["index"], calls[0]["id"], calls[0]["name"]) == (0, "call_1", "weather")
    assert "".join(call["arguments"] for call in calls) == '{"city": "Paris"}'
    assert last["finishReason"] == "tool_calls"


async def test_queries_and_mutations_run_on_it_too_and_several_at_once(inside: Gateways) -> None:
    async with inside(MockUpstream(service=0.2)) as it, it.line("/graphql") as ws:
        await begin(ws)
        await subscribe(ws, "s", prompt=LONG)
        await subscribe(
            ws, "m", "mutation ($input: CompletionInput!) { complete(input: $input) { content } }", prompt="hi"
        )
        await subscribe(ws, "q", "{ health { status } }")
        query, done = await ws.answer("q")
        assert (query["payload"], done) == ({"data": {"health": {"status": "ok"}}}, {"type": "complete"})
        mutation, done = await ws.answer("m")
        assert (mutation["payload"], done) == ({"data": {"complete": {"content": "hi"}}}, {"type": "complete"})
        assert "".join(piece["content"] for piece in pieces(await ws.answer("s"))) == LONG


async def test_a_mutation_that_brings_nothing_is_an_error_with_its_place(inside: Gateways) -> None:
    async with inside() as it, it.line("/graphql") as ws:
        await begin(ws)
        await subscribe(ws, "m", "mutation ($input: CompletionInput!) { complete(input: $input) { content } }")
        (failed,) = await ws.answer("m")
    assert failed["type"] == "error"
    assert failed["payload"][0]["path"] == ["complete"]
    assert failed["payload"][0]["extensions"]["code"] == "INVALID_REQUEST"


async def test_a_completed_operation_ends_upstream(inside: Gateways) -> None:
    up = MockUpstream(service=30.0)
    async with inside(up) as it, it.line("/graphql") as ws:
        await begin(ws)
        await subscribe(ws, "1", prompt=ENDLESS)
        await ws.hear()
        await ws.say(id="1", type="complete")
        await ws.say(id="nobody", type="complete")
        await until(lambda: up.active == 0 and not it.entry.running)
        await subscribe(ws, "1", "{ health { status } }")  # the id is free, and nothing more came of the first
        assert [message["type"] for message in await ws.answer("1")][-2:] == ["next", "complete"]


async def test_a_mutation_that_is_left_ends_upstream(inside: Gateways) -> None:
    up = MockUpstream(service=30.0)
    async with inside(up) as it, it.line("/graphql") as ws:
        await begin(ws)
        await subscribe(
            ws, "m", "mutation ($input: CompletionInput!) { complete(input: $input) { content } }", prompt="hi"
        )
        await until(lambda: up.active == 1)
        await ws.say(id="m", type="complete")
        await until(lambda: up.active == 0 and not it.entry.running)


async def test_a_socket_that_goes_ends_its_upstream_calls(inside: Gateways) -> None:
    up = MockUpstream(service=30.0)
    async with inside(up) as it, it.line("/graphql") as ws:
        await begin(ws)
        await subscribe(ws, "1", prompt=ENDLESS)
        await subscribe(ws, "2", prompt=ENDLESS)
        await until(lambda: up.active == 2)
        await ws.leave()
        await until(lambda: up.active == 0 and not it.entry.live.open)


async def test_what_cannot_run_is_an_error_of_its_operation_alone(inside: Gateways) -> None:
    async with inside() as it, it.line("/graphql") as ws:
        await begin(ws)
        for query, code in (
            ("{", "GRAPHQL_PARSE_FAILED"),
            ("{nothing}", "GRAPHQL_VALIDATION_FAILED"),
            ("{" + "a " * 300 + "}", "TOO_COMPLEX"),
            ("", "INVALID_REQUEST"),
            (COMPLETION, "INVALID_REQUEST"),
        ):
            await subscribe(ws, "1", query)
            (told,) = await ws.answer("1")
            assert told["type"] == "error"
            assert told["payload"][0]["extensions"]["code"] == code


async def test_an_answer_that_breaks_is_its_pieces_and_then_an_error(inside: Gateways) -> None:
    up = MockUpstream(faults=[Fault("truncated", at=1)])
    async with inside(up, retry={"max_attempts": 1}) as it, it.line("/graphql") as ws:
        await begin(ws)
        await subscribe(ws, "1", prompt=LONG)
        answer = await ws.answer("1")
    assert pieces(answer)
    assert answer[-1]["type"] == "error"
    assert answer[-1]["payload"][0]["extensions"]["code"] == "STREAM_INTERRUPTED"


async def test_a_key_comes_in_the_headers_or_in_the_first_message(inside: Gateways) -> None:
    async with inside(gateway={"api_keys": KEYS}) as it:
        async with it.line("/graphql", key=ALICE) as ws:
            await begin(ws)
        for payload in (
            {"Authorization": f"Bearer {ALICE}"},
            {"authorization": f"bearer {ALICE}"},
            {"x-api-key": ALICE},
        ):
            async with it.line("/graphql") as ws:
                await begin(ws, **payload)
                await subscribe(ws, "1", prompt="hi")
                assert (await ws.answer("1"))[-1] == {"type": "complete"}
                assert list(it.manager.get_status()["users"]) == ["alice"]


@pytest.mark.parametrize(
    "payload", [None, {}, {"Authorization": "Bearer wrong"}, {"x-api-key": 5}, {"x-api-key": "ü"}, [1], "text"]
)
async def test_without_a_good_key_it_is_closed_as_forbidden(inside: Gateways, payload: object) -> None:
    async with inside(gateway={"api_keys": KEYS}) as it, it.line("/graphql") as ws:
        await ws.say(type="connection_init", payload=payload)
        assert await ws.closed() == 4403


async def test_who_asks_before_saying_who_it_is_is_closed_as_unauthorized(inside: Gateways) -> None:
    async with inside() as it, it.line("/graphql") as ws:
        await subscribe(ws, "1", "{ health { status } }")
        assert await ws.closed() == 4401


async def test_a_key_that_is_taken_away_closes_the_socket_as_it_asks_again(inside: Gateways) -> None:
    async with inside(gateway={"api_keys": KEYS}) as it, it.line("/graphql", key=ALICE) as ws:
        await begin(ws)
        told = it.manager.config.model_dump(exclude_unset=True, by_alias=True)
        told["gateway"]["api_keys"] = {"bob": {"key": BOB}}
        told["providers"]["openai"]["api_keys"] = ["k1"]
        await it.manager.reload(told)
        await subscribe(ws, "1", prompt="hi")
        assert await ws.closed() == 4403


async def test_a_key_asks_for_its_own_models_alone(inside: Gateways) -> None:
    section = {"api_keys": ["k1", "k2"], "models": ["gpt-4o-mini", "other"]}
    async with (
        inside(section=section, gateway={"api_keys": KEYS}) as it,
        it.line("/graphql", key=BOB) as ws,
    ):
        await begin(ws)
        await subscribe(ws, "1", prompt="hi", model="gpt-4o-mini")
        assert (await ws.answer("1"))[-1]["payload"][0]["extensions"]["code"] == "AUTHENTICATION"
        await subscribe(ws, "2", prompt="hi", model="other")
        assert (await ws.answer("2"))[-1] == {"type": "complete"}


async def test_who_says_nothing_is_closed_after_ten_seconds(inside: Gateways) -> None:
    async with inside() as it:
        it.entry.desk.clock = clock = FakeClock(start=0.0)
        async with it.line("/graphql") as silent, it.line("/graphql") as greeted:
            await begin(greeted)
            await clock.advance(INIT_TIMEOUT + 1)
            assert await silent.closed() == 4408
            await greeted.say(type="ping")
            assert await greeted.hear() == {"type": "pong"}


@pytest.mark.parametrize(("said", "code"), FORBIDDEN)
async def test_what_the_protocol_forbids_closes_with_its_code(
    inside: Gateways, said: list[dict[str, Any] | str | bytes], code: int
) -> None:
    async with inside(MockUpstream(service=60.0)) as it, it.line("/graphql") as ws:
        await begin(ws)
        for message in said:
            await ws.say_text(json.dumps(message) if isinstance(message, dict) else message)
        assert await ws.closed() == code


async def test_pings_are_answered_and_pongs_are_not(inside: Gateways) -> None:
    async with inside() as it, it.line("/graphql") as ws:
        await ws.say(type="pong")
        await ws.say(type="ping", payload={"a": 1})
        assert await ws.hear() == {"type": "pong"}


async def test_one_operation_too_many_is_an_error_of_its_own(inside: Gateways) -> None:
    async with inside(MockUpstream(service=30.0)) as it, it.line("/graphql") as ws:
        await begin(ws)
        for number in range(MOST_OPERATIONS + 1):
            await subscribe(ws, str(number), prompt=ENDLESS)
        (told,) = (await ws.answer(str(MOST_OPERATIONS)))[-1:]
    assert told["payload"][0]["extensions"]["code"] == "RATE_LIMIT"
    assert str(MOST_OPERATIONS) in told["payload"][0]["message"]


async def test_switched_off_by_a_reload_it_runs_nothing_more(inside: Gateways) -> None:
    async with inside() as it, it.line("/graphql") as ws:
        await begin(ws)
        told = it.manager.config.model_dump(exclude_unset=True, by_alias=True)
        told["providers"]["openai"]["api_keys"] = ["k1"]
        await it.manager.reload({**told, "features": {"graphql": False}})
        await subscribe(ws, "1", "{ health { status } }")
        (refused,) = await ws.answer("1")
    assert "features.graphql" in refused["payload"][0]["message"]


async def test_another_subprotocol_or_none_is_closed_as_not_acceptable(inside: Gateways) -> None:
    async with inside() as it, it.line("/graphql", subprotocols="graphql-ws") as ws:
        assert await ws.closed() == 4406


async def test_as_the_gateway_drains_operations_finish_and_new_ones_are_refused(inside: Gateways) -> None:
    up = MockUpstream(service=30.0, clock=(clock := FakeClock()))
    async with (
        inside(up) as it,
        it.line("/graphql") as busy,
        it.line("/graphql") as idle,
    ):
        await begin(busy)
        await subscribe(busy, "1", prompt=LONG)
        await until(lambda: up.active == 1)
        await clock.advance(20.0)
        await busy.hear()
        it.entry.draining = True
        assert await idle.closed() == 1012
        await subscribe(busy, "2", prompt="hi")
        assert (await busy.answer("2"))[-1]["payload"][0]["extensions"]["code"] == "POOL_EXHAUSTED"
        await clock.advance(20.0)
        assert (await busy.answer("1"))[-1] == {"type": "complete"}
        assert await busy.closed() == 1012


async def test_operations_that_are_ended_are_told_so_before_the_close(inside: Gateways) -> None:
    up = MockUpstream(service=30.0)
    async with inside(up) as it, it.line("/graphql") as ws:
        await begin(ws)
        await subscribe(ws, "s", prompt=ENDLESS)
        await subscribe(
            ws, "m", "mutation ($input: CompletionInput!) { complete(input: $input) { content } }", prompt="hi"
        )
        await until(lambda: up.active == 2)
        await ws.hear()
        it.entry.draining = True
        it.entry.end_all()
        for name in ("m", "s"):
            assert (await ws.answer(name))[-1]["payload"][0]["extensions"]["code"] == "POOL_EXHAUSTED"
        assert await ws.closed() == 1012
        await until(lambda: up.active == 0)


async def test_a_fault_of_the_gateways_own_is_told_without_its_words(inside: Gateways) -> None:
    async with inside() as it, it.line("/graphql") as ws:
        await begin(ws)

        def stream(*_: object) -> None:
            raise ValueError("a secret of the insides")

        it.entry.desk.asking.stream = stream
        await subscribe(ws, "1", prompt="hi")
        (told,) = await ws.answer("1")
    assert told["payload"][0]["extensions"]["code"] == "INTERNAL"
    assert "secret" not in json.dumps(told)


async def test_who_has_not_said_who_it_is_sends_no_long_message(inside: Gateways) -> None:
    async with inside(gateway={"api_keys": KEYS}) as it:
        async with it.line("/graphql") as ws:
            await ws.say(type="connection_init", payload={"x-api-key": ALICE, "more": "x" * 70_000})
            assert await ws.closed() == 4400
        async with it.line("/graphql") as ws:
            await begin(ws, **{"x-api-key": ALICE})
            await ws.say(type="ping", payload={"more": "x" * 70_000})
            assert await ws.hear() == {"type": "pong"}
