"""The batch APIs of a `MockUpstream`, as the vendors' own clients use them."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest

from llm.testing import BatchScript, FakeClock, Fault, MockUpstream

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY = "sk-test-k1"
CHAT = "/v1/chat/completions"


def _openai(up: MockUpstream, key: str = KEY) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=up.base_url, api_key=key, max_retries=0)


def _anthropic(up: MockUpstream, key: str = KEY) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=up.base_url, api_key=key, max_retries=0)


def _lines(*names: str, url: str = CHAT, model: str = "m") -> bytes:
    rows = [
        {
            "custom_id": name,
            "method": "POST",
            "url": url,
            "body": {"model": model, "messages": [{"role": "user", "content": name}]},
        }
        for name in names
    ]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


async def _submit(client: openai.AsyncOpenAI, data: bytes, endpoint: Any = CHAT) -> str:  # noqa: ANN401 - a literal
    file = await client.files.create(file=("in.jsonl", io.BytesIO(data)), purpose="batch")
    batch = await client.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window="24h", metadata={"run": "one"}
    )
    return batch.id


def _requests(*names: str) -> Any:  # noqa: ANN401 - the vendor's type
    params = {"model": "m", "max_tokens": 9}
    return [
        {"custom_id": name, "params": {**params, "messages": [{"role": "user", "content": name}]}} for name in names
    ]


async def test_openais_client_takes_a_batch_from_its_file_to_its_answers() -> None:
    async with MockUpstream("openai") as up, _openai(up) as client:
        name = await _submit(client, _lines("a", "b"))
        batch = await client.batches.retrieve(name)
        assert (batch.status, batch.metadata, batch.error_file_id) == ("completed", {"run": "one"}, None)
        assert batch.request_counts is not None
        assert (batch.request_counts.total, batch.request_counts.completed) == (2, 2)
        assert batch.output_file_id is not None
        content = await client.files.content(batch.output_file_id)
        told = [json.loads(line) for line in content.text.splitlines()]
        assert [(line["custom_id"], line["response"]["status_code"]) for line in told] == [("a", 200), ("b", 200)]
        assert told[0]["response"]["body"]["choices"][0]["message"]["content"] == "a"
        assert [batch.id for batch in up.batches] == [name]
        assert up.batches[0].custom_ids == ["a", "b"]
        assert KEY not in repr(up.batches)


async def test_openais_files_are_listed_and_removed() -> None:
    async with MockUpstream("openai") as up, _openai(up) as client:
        names = [(await client.files.create(file=(f"f{n}.jsonl", b"{}"), purpose="batch")).id for n in range(3)]
        page = await client.files.list(purpose="batch", limit=2, order="desc")
        assert [file.filename for file in page.data] == ["f2.jsonl", "f1.jsonl"]
        assert [file.filename async for file in page] == ["f2.jsonl", "f1.jsonl", "f0.jsonl"]
        assert (await client.files.retrieve(names[0])).bytes == 2
        assert (await client.files.delete(names[0])).deleted
        with pytest.raises(openai.NotFoundError):
            await client.files.retrieve(names[0])
        with pytest.raises(openai.BadRequestError):
            await client.files.create(file=("x", b"{}"), purpose="vision")


async def test_a_batch_goes_through_its_states_on_the_clock() -> None:
    clock = FakeClock()
    script = BatchScript(validating=10, running=100, cancelling=5)
    async with MockUpstream("openai", batches=script, clock=clock) as up, _openai(up) as client:
        name = await _submit(client, _lines("a", "b", "c", "d"))
        seen: list[tuple[str, int]] = []
        for seconds in (0, 10, 50):
            await clock.advance(seconds)
            batch = await client.batches.retrieve(name)
            assert batch.request_counts is not None
            seen.append((batch.status, batch.request_counts.completed))
        assert seen == [("validating", 0), ("in_progress", 0), ("in_progress", 2)]
        assert (await client.batches.cancel(name)).status == "cancelling"
        await clock.advance(5)
        batch = await client.batches.retrieve(name)
        assert batch.status == "cancelled"
        assert batch.error_file_id is not None
        errors = (await client.files.content(batch.error_file_id)).text.splitlines()
        assert [json.loads(line)["error"]["code"] for line in errors] == ["batch_cancelled"] * 2


async def test_rows_come_to_the_ends_of_the_script() -> None:
    outcomes: dict[str, Any] = {"a": "answered", "b": "failed", "c": "refused", "d": "expired", "e": "lost"}
    script = BatchScript(outcome=lambda name, _: outcomes[name])
    async with MockUpstream("openai", batches=script) as up, _openai(up) as client:
        batch = await client.batches.retrieve(await _submit(client, _lines(*"abcde")))
        assert batch.status == "expired"
        assert batch.error_file_id is not None
        lines = [json.loads(line) for line in (await client.files.content(batch.error_file_id)).text.splitlines()]
        told = {line["custom_id"]: (line["response"] or line["error"]).get("status_code", "") for line in lines}
        assert told == {"b": 500, "c": 400, "d": ""}
        assert lines[2]["error"]["code"] == "batch_expired"


async def test_openai_refuses_a_file_by_its_lines() -> None:
    def wrong(line: Mapping[str, Any]) -> str | None:
        return "bad" if line["custom_id"] == "b" else None

    async with MockUpstream("openai", batches=BatchScript(invalid=wrong)) as up, _openai(up) as client:
        refused = await client.batches.retrieve(await _submit(client, _lines("a", "b")))
        mixed = await client.batches.retrieve(await _submit(client, _lines("a") + _lines("c", model="other")))
        astray = await client.batches.retrieve(await _submit(client, _lines("a"), "/v1/embeddings"))
    assert [batch.status for batch in (refused, mixed, astray)] == ["failed"] * 3
    for batch, code, line in (
        (refused, "invalid_request", 2),
        (mixed, "mismatched_model", None),
        (astray, "invalid_url", 1),
    ):
        assert batch.errors is not None
        assert batch.errors.data is not None
        assert [(error.code, error.line) for error in batch.errors.data] == [(code, line)]


async def test_openais_queue_holds_so_many_tokens() -> None:
    script = BatchScript(running=100, enqueued_tokens=40)
    clock = FakeClock()
    async with MockUpstream("openai", batches=script, clock=clock) as up, _openai(up) as client:
        names = [await _submit(client, _lines("a")) for _ in range(2)]
        assert [(await client.batches.retrieve(name)).status for name in names] == ["in_progress", "failed"]
        await clock.advance(100)
        assert (await client.batches.retrieve(await _submit(client, _lines("a")))).status == "in_progress"


async def test_keys_see_the_batches_of_their_group_alone() -> None:
    groups = {"k1": "one", "k2": "one"}
    async with MockUpstream("openai", groups=groups) as up:
        mine, ours, theirs = (_openai(up, key) for key in ("k1", "k2", "k3"))
        names = [await _submit(mine, _lines("a")) for _ in range(3)]
        assert [batch.id async for batch in await ours.batches.list(limit=2)] == names[::-1]
        assert (await theirs.batches.list()).data == []
        with pytest.raises(openai.NotFoundError):
            await theirs.batches.retrieve(names[0])
        for client in (mine, ours, theirs):
            await client.close()


async def test_anthropics_client_takes_a_batch_to_its_results() -> None:
    outcomes: dict[str, Any] = {"a": "answered", "b": "failed", "c": "expired", "d": "lost"}
    script = BatchScript(outcome=lambda name, _: outcomes[name])
    async with MockUpstream("anthropic", batches=script) as up, _anthropic(up) as client:
        batch = await client.messages.batches.create(requests=_requests(*"abcd"))
        assert batch.processing_status == "ended"
        counts = batch.request_counts
        assert (counts.succeeded, counts.errored, counts.expired, counts.processing) == (1, 2, 1, 0)
        results = {line.custom_id: line.result async for line in await client.messages.batches.results(batch.id)}
        assert {name: result.type for name, result in results.items()} == {
            "a": "succeeded",
            "b": "errored",
            "c": "expired",
        }
        assert results["a"].type == "succeeded"
        assert results["a"].message.content[0].type == "text"
        assert results["a"].message.content[0].text == "a"
        assert (await client.messages.batches.delete(batch.id)).id == batch.id
        with pytest.raises(anthropic.NotFoundError):
            await client.messages.batches.retrieve(batch.id)


async def test_anthropics_batches_are_cancelled_listed_and_refused() -> None:
    clock = FakeClock()
    script = BatchScript(running=100, cancelling=5)
    async with MockUpstream("anthropic", batches=script, clock=clock) as up, _anthropic(up) as client:
        names = [(await client.messages.batches.create(requests=_requests("a", "b"))).id for _ in range(3)]
        assert [batch.id async for batch in await client.messages.batches.list(limit=2)] == names[::-1]
        assert (await client.messages.batches.retrieve(names[0])).request_counts.processing == 2
        await clock.advance(60)
        assert (await client.messages.batches.cancel(names[0])).processing_status == "canceling"
        with pytest.raises(anthropic.BadRequestError):
            await client.messages.batches.delete(names[0])
        await clock.advance(5)
        results = [line.result.type async for line in await client.messages.batches.results(names[0])]
        assert results == ["succeeded", "canceled"]
        wrong: list[Any] = [_requests("a", "a"), _requests("no blanks"), []]
        for requests in wrong:
            with pytest.raises(anthropic.BadRequestError):
                await client.messages.batches.create(requests=requests)


async def test_anthropic_tells_of_a_wrong_request_in_its_result() -> None:
    script = BatchScript(invalid=lambda line: "bad" if line["custom_id"] == "a" else None)
    async with MockUpstream("anthropic", batches=script) as up, _anthropic(up) as client:
        batch = await client.messages.batches.create(requests=_requests("a", "b"))
        results = {line.custom_id: line.result async for line in await client.messages.batches.results(batch.id)}
    assert results["a"].type == "errored"
    assert results["a"].error.error.message == "bad"
    assert results["b"].type == "succeeded"


async def test_a_key_that_is_not_known_has_no_batches() -> None:
    async with MockUpstream("openai", api_keys=["other"]) as up, _openai(up) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.batches.list()
    async with MockUpstream("openrouter") as up, _openai(up) as client:
        with pytest.raises(openai.NotFoundError):
            await client.batches.list()


async def test_faults_with_a_route_meet_these_requests_and_no_others() -> None:
    faults = [Fault("server_error", route="POST */batches", at=2), Fault("overloaded", route="GET */batches", key="k9")]
    async with MockUpstream("openai", faults=faults) as up, _openai(up) as client:
        await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}])
        await _submit(client, _lines("a"))
        with pytest.raises(openai.InternalServerError):
            await _submit(client, _lines("b"))
        await client.batches.list()
        await _submit(client, _lines("c"))
        asked = [(probe.method, probe.path, probe.fault) for probe in up.probes]
    assert asked.count(("POST", "/v1/batches", "server_error")) == 1
    assert [fault for _, _, fault in asked if fault] == ["server_error"]
    assert len(up.batches) == 2


async def test_a_body_that_is_none_is_refused() -> None:
    async with MockUpstream("openai") as up:
        transport, headers = up.transport(), {"authorization": "Bearer k", "content-type": "text/plain"}
        for path in ("/v1/batches", "/v1/files"):
            reply = await transport.request("POST", path, headers=headers, body=b"{no json")
            assert (reply.status, await reply.read() != b"") == (400, True)
