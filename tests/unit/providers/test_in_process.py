"""The transport under the vendors' clients: addresses, errors, times, and what is left when a caller goes."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from llm import LLMManager
from llm.core.exceptions import LLMConfigurationError
from llm.testing import FakeClock, Fault, MockUpstream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    Transport = httpx2.AsyncBaseTransport

CHAT = "/v1/chat/completions"
OPENAI = "https://api.openai.com"
ANTHROPIC = "https://api.anthropic.com"
HELLO = "Hello there, who are you?"
ASK: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": HELLO}]}
MESSAGE = ASK | {"max_tokens": 50}
STREAM = ASK | {"stream": True}
VERSION = {"anthropic-version": "2023-06-01"}


class Bench:
    """A manager on a vendor of the test's own, both on one virtual clock, and a client on its transport."""

    def __init__(self, manager: LLMManager, up: MockUpstream, clock: FakeClock, transport: Transport) -> None:
        self.manager = manager
        self.up = up
        self.clock = clock
        self.transport = transport
        self.client = httpx2.AsyncClient(transport=transport, timeout=None)

    def at_rest(self) -> bool:
        """Return whether nothing runs, waits or is asked upstream."""
        pool = self.manager.get_status()["pool"]
        return (pool["calls"], pool["waiting"], self.up.active) == (0, 0, 0)


@asynccontextmanager
async def bench(
    *faults: Fault,
    service: float = 0.0,
    known: list[str] | None = None,
    rate_limits: dict[str, Any] | None = None,
    user: str | None = None,
    **config: object,
) -> AsyncGenerator[Bench]:
    """Open both; an answer takes `service` seconds, and `rate_limits` are the key's."""
    clock = FakeClock(auto=True)
    up = MockUpstream(faults=faults, service=service, chunk_size=1, api_keys=known, clock=clock)
    section = {"base_url": up.base_url, "api_keys": ["k1"], "models": ["gpt-4o-mini"], "rate_limits": rate_limits or {}}
    told = {"providers": {"openai": section}, **config}
    async with LLMManager.open(told, transport=up.transport(), clock=clock) as manager:
        made = Bench(manager, up, clock, manager.http_transport(user=user))
        async with made.client:
            yield made


@pytest.mark.parametrize(
    "address",
    [
        f"{OPENAI}/v1/chat/completions",
        f"{OPENAI}/chat/completions",
        "http://127.0.0.1:9/v1/chat/completions?api-version=1",
        "https://openrouter.ai/api/v1/chat/completions",
    ],
)
async def test_it_answers_at_any_host_with_and_without_v1(address: str) -> None:
    async with bench() as it:
        answer = await it.client.post(address, json=ASK)
    assert answer.json()["choices"][0]["message"]["content"] == HELLO
    assert answer.headers["x-llm-provider"] == "openai"
    assert answer.headers["x-llm-cache"] == "miss"
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert answer.elapsed.total_seconds() >= 0


@pytest.mark.parametrize(
    ("method", "address", "headers", "kind"),
    [
        ("POST", f"{OPENAI}/v1/threads/t1/messages", {}, "openai"),
        ("GET", f"{OPENAI}{CHAT}", {}, "openai"),
        ("DELETE", f"{OPENAI}/v1/models/gpt-4o-mini", {}, "openai"),
        ("POST", f"{ANTHROPIC}/v1/messages/batches", VERSION, "anthropic"),
        ("GET", f"{ANTHROPIC}/v1/models/nobodys", VERSION, "anthropic"),
    ],
)
async def test_what_is_not_there_is_a_404_in_the_callers_dialect(
    method: str, address: str, headers: dict[str, str], kind: str
) -> None:
    async with bench() as it:
        answer = await it.client.request(method, address, headers=headers)
    error = answer.json()["error"]
    assert answer.status_code == 404
    assert error["type"] == ("not_found_error" if kind == "anthropic" else "invalid_request_error")
    assert ("request-id" in answer.headers) == (kind == "anthropic")


async def test_models_are_listed_in_the_callers_dialect() -> None:
    async with bench() as it:
        listed = (await it.client.get(f"{OPENAI}/v1/models")).json()
        one = (await it.client.get(f"{OPENAI}/v1/models/openai%2Fgpt-4o-mini")).json()
        hers = (await it.client.get(f"{ANTHROPIC}/v1/models", headers=VERSION)).json()
        hers_one = (await it.client.get(f"{ANTHROPIC}/v1/models/gpt-4o-mini", headers=VERSION)).json()
    assert [model["id"] for model in listed["data"]] == ["gpt-4o-mini"]
    assert (one["id"], one["owned_by"]) == ("openai/gpt-4o-mini", "openai")
    assert hers["data"] == [hers_one]
    assert hers_one["type"] == "model"


async def test_a_request_has_a_name_its_own_where_it_has_one() -> None:
    async with bench() as it:
        named = await it.client.post(OPENAI + CHAT, json=ASK, headers={"x-request-id": "mine-1"})
        strange = await it.client.post(OPENAI + CHAT, json=ASK, headers={b"x-request-id": "é".encode()})
        hers = await it.client.post(f"{ANTHROPIC}/v1/messages", json=MESSAGE)
        failed = await it.client.post(f"{ANTHROPIC}/v1/messages", json={})
    assert named.headers["x-request-id"] == "mine-1"
    assert strange.headers["x-request-id"].startswith("req_")
    assert hers.headers["request-id"] == hers.headers["x-request-id"] != strange.headers["x-request-id"]
    assert failed.json()["request_id"] == failed.headers["request-id"]


async def test_a_body_that_comes_in_pieces_is_read() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in json.dumps(ASK).partition("Hello"):
            yield piece.encode()

    async with bench() as it:
        answer = await it.client.post(OPENAI + CHAT, content=pieces())
        empty = await it.client.post(OPENAI + CHAT)
    assert answer.status_code == 200
    assert (empty.status_code, empty.json()["error"]["message"]) == (400, "body: expected a JSON object; it is empty")


async def test_a_stream_comes_as_it_is_made() -> None:
    async with (
        bench(service=100.0) as it,
        it.client.stream("POST", OPENAI + CHAT, json=STREAM) as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        times = [(it.clock.now(), piece) async for piece in answer.aiter_raw()]
    assert it.at_rest()
    assert len(times) >= len(HELLO)
    assert times[0][0] < 10.0  # while the last one comes after 100 seconds
    assert times[-1][0] == pytest.approx(100.0)
    assert times[-1][1].endswith(b"data: [DONE]\n\n")


async def test_leaving_a_stream_ends_the_call_upstream() -> None:
    async with bench(service=100.0) as it:
        async with it.client.stream("POST", OPENAI + CHAT, json=STREAM) as answer:
            await anext(answer.aiter_raw())
            assert it.up.active == 1
        assert it.at_rest()
        assert it.up.requests[0].left
        assert it.manager.get_status()["metrics"]["cancelled_requests"] == 1


async def test_a_stream_that_nobody_holds_ends_too() -> None:
    async with bench(service=100.0) as it:
        request = it.client.build_request("POST", OPENAI + CHAT, json=STREAM)
        answer = await it.transport.handle_async_request(request)
        assert it.up.active == 1
        del answer
        gc.collect()
        assert it.at_rest()


async def test_a_stream_that_fails_tells_so_and_ends() -> None:
    async with bench(Fault("polite_cut", every=1, after_chunks=3)) as it:
        answer = await it.client.post(OPENAI + CHAT, json=STREAM)
    assert answer.status_code == 200
    assert json.loads(answer.text.split("data: ")[-1])["error"]["code"] == "stream_interrupted"
    assert it.at_rest()


@pytest.mark.parametrize("seconds", [0.0, 0.5, 5.0, 50.0])
@pytest.mark.parametrize("asked", [ASK, STREAM])
async def test_a_caller_that_is_cancelled_anywhere_leaves_nothing(asked: dict[str, Any], seconds: float) -> None:
    """It waits for a key, for the head of the answer, and for the next event."""
    async with bench(service=20.0, rate_limits={"concurrent_requests": 1}) as it:
        tasks = [asyncio.create_task(it.client.post(OPENAI + CHAT, json=asked)) for _ in range(2)]
        await it.clock.sleep(seconds)
        for task in tasks:
            task.cancel()
        ended = await asyncio.wait(tasks)
        assert not ended[1]
        assert it.at_rest()
        assert (await it.client.post(OPENAI + CHAT, json=ASK)).status_code == 200


async def test_a_read_time_out_bounds_the_wait_for_an_answer() -> None:
    async with bench(service=100.0) as it:
        began = it.clock.now()
        with pytest.raises(httpx2.ReadTimeout, match="nothing came for 3 seconds") as late:
            await it.client.post(OPENAI + CHAT, json=ASK, timeout=3.0)
        assert it.clock.now() - began == pytest.approx(3.0)
        assert it.at_rest()
    assert late.value.request.url.path == CHAT
    assert it.manager.get_status()["metrics"]["cancelled_requests"] == 1


async def test_a_read_time_out_bounds_the_wait_for_each_event_and_not_for_all() -> None:
    async with bench(Fault("stalled", at=2, after_chunks=3), service=100.0) as it:
        whole = await it.client.post(OPENAI + CHAT, json=STREAM, timeout=10.0)
        assert whole.text.endswith("data: [DONE]\n\n")
        with pytest.raises(httpx2.ReadTimeout):
            await it.client.post(OPENAI + CHAT, json=STREAM, timeout=10.0)
        assert it.at_rest()


@pytest.mark.parametrize(("middleware", "final"), [(["rate_limit", "retry"], "false"), (["rate_limit"], None)])
async def test_what_the_chain_has_repeated_is_final(middleware: list[str], final: str | None) -> None:
    chain: dict[str, Any] = {"global": {"middleware": middleware}}
    async with bench(Fault("unavailable", every=1, retry_after=2), **chain) as it:
        answer = await it.client.post(OPENAI + CHAT, json=ASK)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.headers.get("x-should-retry") == final
    assert len(it.up.requests) == (1 if final is None else 4)


async def test_a_refused_key_is_the_programs_own() -> None:
    async with bench(known=["another"]) as it:
        openai = await it.client.post(OPENAI + CHAT, json=ASK)
        anthropic = await it.client.post(f"{ANTHROPIC}/v1/messages", json=MESSAGE)
    assert (openai.status_code, openai.json()["error"]["code"]) == (401, "invalid_api_key")
    assert (anthropic.status_code, anthropic.json()["error"]["type"]) == (401, "authentication_error")


async def test_calls_count_for_the_transports_user_and_a_limit_says_what_is_left() -> None:
    async with bench(user="alice", limits={"users": {"alice": {"requests_per_day": 2}}}) as it:
        for _ in range(2):
            assert (await it.client.post(OPENAI + CHAT, json=ASK)).status_code == 200
        openai = await it.client.post(OPENAI + CHAT, json=ASK)
        anthropic = await it.client.post(f"{ANTHROPIC}/v1/messages", json=MESSAGE)
        assert it.manager.get_status()["users"]["alice"]["requests"] == 4
    assert openai.status_code == anthropic.status_code == 429
    assert openai.headers["x-ratelimit-remaining-requests"] == "0"
    assert anthropic.headers["anthropic-ratelimit-requests-remaining"] == "0"


async def test_a_higher_priority_goes_first() -> None:
    done: list[int] = []
    async with bench(service=1.0, rate_limits={"concurrent_requests": 1}) as it:

        async def ask(priority: int) -> None:
            within = it.manager.http_transport(priority=priority)
            async with httpx2.AsyncClient(transport=within) as client:
                await client.post(OPENAI + CHAT, json=ASK)
            done.append(priority)

        async with asyncio.TaskGroup() as group:
            for priority in (0, 0, 5):
                group.create_task(ask(priority))
    assert done == [0, 5, 0]


async def test_an_argument_of_the_wrong_kind_is_refused() -> None:
    async with bench() as it:
        with pytest.raises(LLMConfigurationError, match="priority"):
            it.manager.http_transport(priority="high")  # type: ignore[arg-type] # on purpose


async def test_a_reload_is_followed() -> None:
    async with bench() as it:
        section = {"base_url": it.up.base_url, "api_keys": ["k2"], "models": ["another"]}
        await it.manager.reload({"providers": {"openai": section}})
        assert (await it.client.post(OPENAI + CHAT, json=ASK)).status_code == 404
        assert (await it.client.post(OPENAI + CHAT, json=ASK | {"model": "another"})).status_code == 200
    assert it.up.requests[0].key == "k2"


async def test_closing_the_transport_leaves_the_manager_open() -> None:
    async with bench() as it:
        await it.client.aclose()
        assert str(await it.manager.get_client().chat(HELLO)) == HELLO


async def test_a_closed_manager_is_a_connection_that_fails() -> None:
    async with bench() as it:
        await it.manager.close()
        with pytest.raises(httpx2.ConnectError, match="the manager behind this transport is closed"):
            await it.client.post(OPENAI + CHAT, json=ASK)


async def test_another_loop_is_told_where_to_take_one() -> None:
    async with bench() as it:

        def elsewhere() -> httpx2.Response:
            request = httpx2.Request("POST", OPENAI + CHAT, json=ASK)
            return asyncio.run(it.transport.handle_async_request(request))

        answer = await asyncio.to_thread(elsewhere)
        assert (answer.status_code, answer.headers["x-should-retry"]) == (500, "false")
        body = b"".join([piece async for piece in answer.aiter_raw()])
    assert b"await manager.here()" in body
    assert not it.up.requests


async def test_keys_of_clients_go_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "sk-of-the-client-0123456789"  # noqa: S105 - none of anybody's
    async with bench() as it:
        headers = {"authorization": f"Bearer {secret}", "x-api-key": secret}
        good = await it.client.post(OPENAI + CHAT, json=ASK, headers=headers)
        bad = await it.client.post(OPENAI + CHAT, json={}, headers=headers)
        assert it.up.requests[0].key == "k1"
        told = f"{good.headers}{good.text}{bad.text}{caplog.text}{it.manager.get_status()}{it.transport!r}"
    assert secret not in told
