"""What holds for every route: who is let in, how failures are told, what every answer carries."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from tests.patience import until

from llm.testing import Fault, MockUpstream

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm.gateway.entry import Entry

    Serving = Callable[..., Any]

ASK: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello there"}]}
CHAT = "/v1/chat/completions"
KEYS = {"gateway": {"api_keys": {"alice": {"key": "gw-alice-0123456789"}}}}
ALICE = {"authorization": "Bearer gw-alice-0123456789"}


async def test_health_alone_needs_no_key(serving: Serving) -> None:
    async with serving(**KEYS) as it:
        open_ = {path: (await it.ask("GET", path))[0] for path in ("/v1/health", "/livez", "/readyz")}
        closed = {(await it.ask(method, path, {}))[0] for method, path in it.entry.routes if path not in open_}
    assert set(open_.values()) == {200}
    assert closed == {401}


async def test_an_unknown_address_is_a_404_in_json(serving: Serving) -> None:
    async with serving() as it:
        status, body, headers = await it.ask("GET", "/v1/nothing")
        native = await it.ask("GET", "/nothing")
        anthropic = await it.ask("POST", "/v1/messages/nothing", {})
    assert (status, body["error"]["type"]) == (404, "invalid_request_error")
    assert headers["x-request-id"].startswith("req_")
    assert native[:2] == (404, {"error": {"type": "invalid_request_error", "message": body["error"]["message"]}})
    assert anthropic[1]["error"]["type"] == "not_found_error"


async def test_another_method_is_a_405_that_names_those_there_are(serving: Serving) -> None:
    async with serving() as it:
        post = await it.ask("GET", CHAT)
        get = await it.ask("DELETE", "/v1/models")
        one = await it.ask("POST", "/v1/models/gpt-4o-mini", {})
        anthropic = await it.ask("GET", "/v1/messages")
    assert (post[0], post[2]["allow"]) == (405, "OPTIONS, POST")
    assert (get[0], get[2]["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert (one[0], one[2]["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert anthropic[1]["error"]["type"] == "invalid_request_error"


async def test_options_tells_the_methods(serving: Serving) -> None:
    async with serving() as it:
        status, body, headers = await it.ask("OPTIONS", CHAT)
    assert (status, body, headers["allow"]) == (204, "", "OPTIONS, POST")


async def test_head_is_get_without_its_body(serving: Serving) -> None:
    async with serving() as it:
        asked = [await it.ask("HEAD", path) for path in ("/v1/health", "/v1/models", "/v1/models/gpt-4o-mini")]
        got = await it.ask("GET", "/v1/models")
    assert [status for status, _, _ in asked] == [200, 200, 200]
    assert int(asked[1][2]["content-length"]) == len(json.dumps(got[1], separators=(",", ":")))


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"", "it is empty"),
        (b"  ", "it is empty"),
        (b"{", "line 1"),
        (b"[1]", "expected a JSON object"),
        (b"NaN", "line 1"),
        (b'{"temperature": NaN}', "line 1"),
        (b'{"messages": "\xff"}', "byte 14 is no UTF-8"),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "128 deep"),
        (b"[" * 100_000, "line 1"),
    ],
)
async def test_what_is_no_request_is_a_400(serving: Serving, body: bytes, where: str) -> None:
    async with serving() as it:
        told = [await it.ask("POST", path, data=body) for path in (CHAT, "/v1/messages", "/v1/generate")]
    assert [status for status, _, _ in told] == [400, 400, 400]
    for _, answer, _ in told:
        assert where in answer["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (CHAT, {"messages": []}, "messages"),
        (CHAT, ASK | {"stream": "yes"}, "stream"),
        (CHAT, ASK | {"tools": 3}, "tools"),
        (CHAT, {"messages": [{"role": "judge", "content": "x"}]}, "messages[0].role"),
        ("/v1/completions", {"prompt": [1, 2]}, "prompt[0]"),
        ("/v1/completions", {"prompt": ""}, "prompt[0]"),
        ("/v1/completions", {"prompt": []}, "prompt"),
        ("/v1/completions", {"prompt": "x", "echo": 3}, "echo"),
        ("/v1/completions", {"prompt": "x", "best_of": 3}, "best_of"),
        ("/v1/completions", {"prompt": "x", "suffix": "y"}, "suffix"),
        ("/v1/completions", {"prompt": "x", "logprobs": 3}, "logprobs"),
        ("/v1/completions", {"prompt": ["x", "y"], "stream": True}, "prompt"),
        ("/v1/embeddings", {"model": "m", "input": 3}, "input"),
        ("/v1/responses", {"input": []}, "input"),
    ],
)
async def test_a_wrong_field_is_named(serving: Serving, path: str, body: object, param: str) -> None:
    async with serving() as it:
        status, told, _ = await it.ask("POST", path, body)
    assert (status, told["error"]["param"]) == (400, param)


async def test_the_clients_name_of_a_request_is_kept_where_it_is_sane(serving: Serving) -> None:
    async with serving() as it:
        kept = await it.ask("GET", "/livez", headers={"x-request-id": "my.request:1_a-b"})
        made = [
            (await it.ask("GET", "/livez", headers={"x-request-id": bad}))[2]["x-request-id"]
            for bad in ("a b", "x" * 129, "é", '"')
        ]
    assert kept[2]["x-request-id"] == "my.request:1_a-b"
    assert len(set(made)) == 4
    assert all(name.startswith("req_") for name in made)


async def test_anthropics_clients_find_the_name_where_they_look(serving: Serving) -> None:
    async with serving() as it:
        _, body, headers = await it.ask("POST", "/v1/messages", {}, headers={"x-request-id": "mine"})
    assert headers["request-id"] == headers["x-request-id"] == body["request_id"] == "mine"


async def test_json_is_read_whatever_it_is_called(serving: Serving) -> None:
    async with serving() as it:
        told = await it.ask("POST", CHAT, data=json.dumps(ASK).encode(), headers={"content-type": "text/plain"})
    assert told[0] == 200


async def test_too_large_a_body_is_a_413_declared_or_not(serving: Serving) -> None:
    async def pieces() -> Any:  # noqa: ANN401 - an iterator of bytes
        for _ in range(20):
            yield b"x" * 100

    async with serving(gateway={"max_body_bytes": 1000}) as it:
        declared = await it.ask("POST", CHAT, data=b"x" * 1001)
        counted = await it.ask("POST", CHAT, data=pieces())
        anthropic = await it.ask("POST", "/v1/messages", data=b"x" * 1001)
        fits = await it.ask("POST", CHAT, ASK)
    assert declared[0] == counted[0] == 413
    assert "1000 bytes" in declared[1]["error"]["message"]
    assert anthropic[1]["error"]["type"] == "request_too_large"
    assert fits[0] == 200


async def test_pages_of_named_origins_alone_may_call(serving: Serving) -> None:
    asking = {"origin": "https://app.example.org", "access-control-request-method": "POST"}
    async with serving(gateway={"cors_origins": ["https://app.example.org"], **KEYS["gateway"]}) as it:
        leave = await it.ask("OPTIONS", CHAT, headers=asking)
        other = await it.ask("OPTIONS", CHAT, headers=asking | {"origin": "https://evil.example.org"})
        called = await it.ask("POST", CHAT, ASK, headers=ALICE | {"origin": "https://app.example.org"})
        refused = await it.ask("POST", CHAT, ASK, headers={"origin": "https://app.example.org"})
        plain = await it.ask("OPTIONS", CHAT)
    assert (leave[0], leave[2]["access-control-allow-origin"]) == (204, "https://app.example.org")
    assert "allow" not in leave[2]
    assert (other[0], other[2].get("access-control-allow-origin")) == (403, None)
    assert called[2]["access-control-allow-origin"] == "https://app.example.org"
    assert (refused[0], refused[2]["access-control-allow-origin"]) == (401, "https://app.example.org")
    assert plain[2]["allow"] == "OPTIONS, POST"


async def test_a_gateway_that_ends_takes_no_calls_and_says_so(serving: Serving) -> None:
    async with serving() as it:
        it.entry.draining = True
        call = await it.ask("POST", CHAT, ASK)
        health = [await it.ask("GET", path) for path in ("/livez", "/readyz", "/v1/health")]
    assert call[0] == 503
    assert (call[2]["connection"], call[2]["retry-after"]) == ("close", "1")
    assert [status for status, _, _ in health] == [200, 503, 503]
    assert health[2][1]["status"] == "draining"


async def test_calls_that_still_run_at_the_end_hear_of_it(serving: Serving) -> None:
    async with MockUpstream(service=60.0) as up, serving(up) as it, asyncio.TaskGroup() as group:
        whole = group.create_task(it.ask("POST", CHAT, ASK))
        await until(lambda: bool(up.requests))
        it.entry.end_all()
        status, body, headers = await whole
    assert status == 503
    assert "shutting down" in body["error"]["message"]
    assert headers["connection"] == "close"


@pytest.mark.parametrize(
    ("path", "body", "last"),
    [
        (CHAT, ASK, 'data: {"error":'),
        ("/v1/messages", ASK | {"max_tokens": 99}, "event: error"),
        ("/v1/responses", {"model": "gpt-4o-mini", "input": "Hello there"}, "event: error"),
        ("/v1/generate", {"prompt": "Hello there"}, 'data: {"error":{"type":"'),
        ("/v1/completions", {"prompt": "Hello there"}, 'data: {"error":'),
    ],
)
async def test_a_stream_that_still_runs_at_the_end_ends_with_an_event(
    serving: Serving, path: str, body: dict[str, Any], last: str
) -> None:
    async with MockUpstream(service=2.0, chunk_size=1) as up, serving(up) as it, asyncio.TaskGroup() as group:
        reading = group.create_task(it.events(path, body | {"stream": True}))
        await until(lambda: any(exchange.stream for exchange in it.entry.running))
        it.entry.end_all()
        events = await reading
    assert events[-1].startswith(last)
    assert "shutting down" in events[-1]


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/v1/responses", "/v1/generate", "/v1/completions"])
async def test_a_stream_that_breaks_ends_with_an_event_and_nothing_after(serving: Serving, path: str) -> None:
    body = ASK | {"prompt": "Hello there, all", "input": "Hello there, all", "stream": True}
    wanted = {CHAT: ["messages"], "/v1/messages": ["messages"], "/v1/responses": ["input"]}.get(path, ["prompt"])
    asked = {name: body[name] for name in (*wanted, "stream")}
    async with MockUpstream(faults=[Fault("polite_cut", every=1, after_chunks=1)]) as up, serving(up) as it:
        events = await it.events(path, asked)
    assert "error" in events[-1]
    assert not any("[DONE]" in event or '"done"' in event for event in events)


async def test_a_stream_that_fails_before_its_first_chunk_is_a_status(serving: Serving) -> None:
    async with MockUpstream(faults=[Fault("context_length", every=1)]) as up, serving(up) as it:
        status, body, _ = await it.ask("POST", CHAT, ASK | {"stream": True})
    assert (status, body["error"]["code"]) == (400, "context_length_exceeded")


async def test_a_client_that_left_ends_its_call_and_is_no_failure(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "llm.gateway")
    async with MockUpstream(service=60.0) as up, serving(up) as it:
        task = asyncio.create_task(_call(it.entry, left=True))
        await until(lambda: up.active > 0)
        task.cancel()
        await task  # quietly
        await until(lambda: up.active == 0)
        assert up.requests[0].left
        assert it.entry.desk.counts.requests == {499: 1}
        cancelled = asyncio.create_task(_call(it.entry, left=False))
        await until(lambda: up.active > 0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
    assert json.loads(caplog.messages[-1])["status"] == 499


async def _call(entry: Entry, *, left: bool) -> list[Any]:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(ASK).encode()}

    async def send(message: Any) -> None:  # noqa: ANN401 - ASGI's
        sent.append(message)

    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": CHAT, "headers": [], "llm.left": lambda: left}
    await entry(scope, receive, send)
    return sent


async def test_a_body_that_never_ends_has_no_answer(serving: Serving) -> None:
    async with serving() as it:
        messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": b"{", "more_body": True},
            {"type": "http.disconnect"},
        ]

        async def receive() -> dict[str, Any]:
            return messages.pop(0)

        async def send(message: Any) -> None:  # noqa: ANN401 - ASGI's
            assert message

        await it.entry({"type": "http", "method": "POST", "path": CHAT, "headers": []}, receive, send)
    assert it.entry.desk.counts.requests == {499: 1}


async def test_a_fault_of_our_own_is_a_500_that_tells_nothing(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("a secret".upper())

    async with serving() as it:
        route = it.entry.routes["POST", CHAT]
        it.entry.routes["POST", CHAT] = route._replace(handle=broken)
        status, body, headers = await it.ask("POST", CHAT, ASK)
    assert status == 500
    assert body["error"]["type"] == "server_error"
    assert "SECRET" not in json.dumps(body) + caplog.text
    assert headers["x-request-id"] in caplog.text
    assert "RuntimeError" in caplog.text


async def test_a_server_goes_through_its_life(serving: Serving) -> None:
    async with serving() as it:
        sent: list[str] = []
        kinds = ["lifespan.startup", "lifespan.shutdown"]

        async def receive() -> dict[str, str]:
            return {"type": kinds.pop(0)}

        async def send(message: Any) -> None:  # noqa: ANN401 - ASGI's
            sent.append(message["type"])

        await it.entry({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_a_reload_changes_who_may_call(serving: Serving) -> None:
    async with MockUpstream() as up, serving(up, **KEYS) as it:
        before = await it.ask("POST", CHAT, ASK, headers=ALICE)
        provider = {"base_url": up.base_url, "api_keys": ["k1"], "models": ["gpt-4o-mini"]}
        told = {"providers": {"openai": provider}, "gateway": {"api_keys": {"bob": {"key": "gw-bob-0123456789"}}}}
        await it.manager.reload(told)
        after = await it.ask("POST", CHAT, ASK, headers=ALICE)
        bob = await it.ask("POST", CHAT, ASK, headers={"x-api-key": "gw-bob-0123456789"})
    assert (before[0], after[0], bob[0]) == (200, 401, 200)
    assert after[2]["www-authenticate"] == "Bearer"
