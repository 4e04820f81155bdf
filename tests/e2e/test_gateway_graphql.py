"""GraphQL over real connections, by a client of its own: gql, unchanged."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from gql import Client, GraphQLRequest, gql
from gql.transport.aiohttp import AIOHTTPTransport
from gql.transport.exceptions import TransportConnectionFailed, TransportQueryError
from gql.transport.websockets import WebsocketsTransport
from tests.patience import PATIENCE, until
from tests.steps import counted

from llm.testing import Fault, MockUpstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    Gateways = Callable[..., AbstractAsyncContextManager[Any]]

ENDLESS = "one two three four five six seven eight nine ten " * 20
KEY = "gw-alice-0123456789"
FEW = 1_000_000  # steps: four times what the largest document that is read takes, its way here and back included
KEYS = {"alice": {"key": KEY}}
COMPLETE = """mutation ($input: CompletionInput!) {
    complete(input: $input) { content model finishReason usage { inputTokens outputTokens } }
}"""
COMPLETION = """subscription ($input: CompletionInput!) {
    completion(input: $input) { content finishReason usage { outputTokens } }
}"""


def config(up: MockUpstream, **more: object) -> dict[str, Any]:
    section = {"base_url": up.base_url, "api_keys": ["k1"], "models": ["gpt-4o-mini"]}
    return {"providers": {"openai": section}, "gateway": {"api_keys": KEYS}, "retry": {"max_attempts": 1}, **more}


def asked(document: str, **told: object) -> GraphQLRequest:
    return GraphQLRequest(gql(document).document, variable_values={"input": told})


def over_http(it: Any, key: str = KEY) -> Client:  # noqa: ANN401 - the fixture's
    transport = AIOHTTPTransport(f"{it.url}/graphql", headers={"Authorization": f"Bearer {key}"})
    return Client(transport=transport, fetch_schema_from_transport=True)


def over_socket(it: Any, **payload: str) -> Client:  # noqa: ANN401 - the fixture's
    url = f"{it.url.replace('http', 'ws', 1)}/graphql"
    return Client(
        transport=WebsocketsTransport(
            url,
            init_payload=payload,
            subprotocols=[WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL],
        )
    )


async def drained(pieces: AsyncIterator[dict[str, Any]]) -> None:
    async for _ in pieces:
        pass


async def test_a_client_reads_the_schema_and_completes(gateway: Gateways) -> None:
    async with MockUpstream() as up, gateway(config(up)) as it, over_http(it) as session:
        assert session.client.schema is not None
        told = await session.execute(asked(COMPLETE, prompt="hello there my friend", model="gpt-4o-mini"))
        models = await session.execute(gql("{ models { id provider } health { status } }"))
    assert told["complete"] == {
        "content": "hello there my friend",
        "model": "gpt-4o-mini",
        "finishReason": "stop",
        "usage": {"inputTokens": 6, "outputTokens": 6},
    }
    assert models == {"models": [{"id": "gpt-4o-mini", "provider": "openai"}], "health": {"status": "ok"}}


async def test_a_client_learns_of_failures_by_their_codes(gateway: Gateways) -> None:
    faults = [Fault("rate_limit", at=1, retry_after=200)]
    async with MockUpstream(faults=faults) as up, gateway(config(up)) as it:
        async with over_http(it) as session:
            with pytest.raises(TransportQueryError) as failed:
                await session.execute(asked(COMPLETE, prompt="hi"))
        with pytest.raises(TransportQueryError, match="'AUTHENTICATION'"):
            async with over_http(it, "wrong"):
                pass
    assert failed.value.errors is not None
    extensions = failed.value.errors[0]["extensions"]
    assert extensions["code"] == "RATE_LIMIT"
    assert 0 < extensions["retryAfter"] <= 200


async def test_a_client_subscribes_to_tokens(gateway: Gateways) -> None:
    async with (
        MockUpstream() as up,
        gateway(config(up)) as it,
        over_socket(it, Authorization=f"Bearer {KEY}") as session,
    ):
        told = [piece["completion"] async for piece in session.subscribe(asked(COMPLETION, prompt="hello my friend"))]
        again = await session.execute(gql("{ health { status } }"))  # on the same connection
        transport = session.client.transport
        assert isinstance(transport, WebsocketsTransport)
        await transport.send_ping()  # by hand: what sends them by itself may miss its own end, before Python 3.12
        await until(transport.pong_received.is_set)
    assert "".join(piece["content"] for piece in told) == "hello my friend"
    assert (told[-1]["finishReason"], told[-1]["usage"]) == ("stop", {"outputTokens": 4})
    assert again == {"health": {"status": "ok"}}


async def test_a_client_that_leaves_its_subscription_ends_upstream(gateway: Gateways) -> None:
    async with (
        MockUpstream(service=2 * PATIENCE) as up,
        gateway(config(up)) as it,
        over_socket(it, Authorization=f"Bearer {KEY}") as session,
    ):
        pieces = session.subscribe(asked(COMPLETION, prompt=ENDLESS))
        assert (await anext(pieces))["completion"]["content"]
        assert up.active == 1
        await pieces.aclose()
        await until(lambda: not up.active)
        assert await session.execute(gql("{ health { status } }")) == {"health": {"status": "ok"}}


async def test_a_mutation_that_its_client_leaves_ends_upstream(gateway: Gateways) -> None:
    async with MockUpstream(service=2 * PATIENCE) as up, gateway(config(up)) as it:
        async with over_http(it) as session:
            await session.execute(gql("{ health { status } }"))  # GraphQL is loaded by whoever asks first

        async def mutate() -> None:
            async with over_http(it) as session:
                await session.execute(asked(COMPLETE, prompt="hi"))

        leaving = asyncio.create_task(mutate())
        await until(lambda: up.active)
        leaving.cancel()
        await asyncio.wait([leaving])
        assert len(up.requests) == 1
        await until(lambda: not up.active)


async def test_a_subscription_that_fails_raises_in_the_client(gateway: Gateways) -> None:
    faults = [Fault("truncated", at=1)]
    async with (
        MockUpstream(faults=faults) as up,
        gateway(config(up)) as it,
        over_socket(it, **{"x-api-key": KEY}) as session,
    ):
        pieces = session.subscribe(asked(COMPLETION, prompt=ENDLESS))
        assert (await anext(pieces))["completion"]["content"]
        with pytest.raises(TransportQueryError) as failed:
            await drained(pieces)
    assert failed.value.errors is not None
    assert failed.value.errors[0]["extensions"]["code"] == "STREAM_INTERRUPTED"


async def test_a_client_without_a_good_key_is_closed_out(gateway: Gateways) -> None:
    async with MockUpstream() as up, gateway(config(up)) as it:
        with pytest.raises(TransportConnectionFailed):
            async with over_socket(it, Authorization="Bearer wrong"):
                pass


async def test_bombs_are_refused_before_they_run_while_others_are_answered(gateway: Gateways) -> None:
    doubling = " ".join(f"fragment F{n} on Query {{...F{n + 1} ...F{n + 1}}}" for n in range(15))
    bombs = (
        "{" + "models { id } " * 300 + "}",
        "{" + " ".join(f"a{n}: status" for n in range(100)) + "}",
        f"{{...F0}} {doubling} fragment F15 on Query {{status}}",
        "{" * 5_000,
        "{__schema {types " + "{fields {type " * 5 + "{name}" + "}}" * 5 + "}}",
        "{health {status}}" + "#\n" * 300_000,
    )
    async with MockUpstream() as up, gateway(config(up)) as it:
        headers = {"x-api-key": KEY}
        await it.ask("POST", "/graphql", {"query": "{health {status}}"}, headers=headers)
        for bomb in bombs:
            with counted() as steps:
                status, told, _ = await it.ask("POST", "/graphql", {"query": bomb}, headers=headers)
            assert steps.count < FEW
            assert status == 200
            assert "data" not in told
            assert told["errors"]
