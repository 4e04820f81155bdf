"""Rows become parts: within the vendor's bounds, byte for byte what is sent, and in flat memory."""

from __future__ import annotations

import asyncio
import email
import json
import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from llm import LLMConnectionError, LLMManager, LLMServerError, LLMTimeoutError
from llm.batch.remote.anthropic import AnthropicBatches
from llm.batch.remote.doors import Door, Doors
from llm.batch.remote.intake import Intake, Reading, Way
from llm.batch.remote.ledger import Part, Plan
from llm.batch.remote.openai import OpenAIBatches
from llm.batch.remote.spool import Spool
from llm.batch.remote.values import Bounds, Pace, Phase, Standing
from llm.batch.values import CHAT, EMBEDDINGS, Row
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from llm.batch.remote.spool import PartWriter

CLOCK = SystemClock()
PACE = Pace(control=0.2, quiet=0.2)
MIB = 1 << 20


def chat(name: str, text: str = "Hi") -> Row:
    return Row(0, name, CHAT, {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": 9})


class Taking:
    """An intake over one provider with small bounds."""

    def __init__(self, manager: LLMManager, folder: Path, api: Any) -> None:  # noqa: ANN401 - either vendor's
        self.api = api
        self.spool = Spool(folder)
        self.numbers = 0
        apis = {api.kind: api}
        self.intake = Intake(Reading(manager.get_client(), apis, api.kind), apis, self.begin)

    def begin(self, way: Way) -> PartWriter:
        self.numbers += 1
        return self.spool.begin(self.api, f"run-{self.numbers}", Plan(self.numbers, *way, rows=0))

    def sent(self, number: int) -> bytes:
        return bytes(self.spool.body(number))


@pytest.fixture
async def taking(tmp_path: Path) -> AsyncIterator[Callable[[Any, Bounds], Awaitable[Taking]]]:
    managers: list[LLMManager] = []

    async def make(api: Any, bounds: Bounds) -> Taking:  # noqa: ANN401 - either vendor's
        config = {"providers": {api.kind: {"api_keys": ["k"], "models": ["*"]}}}
        managers.append(await LLMManager.open(config))
        api.bounds = bounds
        return Taking(managers[-1], tmp_path, api)

    yield make
    for manager in managers:
        await manager.close()


async def test_a_part_is_full_at_the_vendors_number_of_rows(taking: Any) -> None:  # noqa: ANN401 - the fixture
    ours = await taking(OpenAIBatches("openai", None, PACE), Bounds(rows=3, size=MIB))
    plans, wrong = await ours.intake.take([chat(f"r{number}") for number in range(8)])
    plans += await ours.intake.finish()
    assert ([plan.rows for plan in plans], wrong) == ([3, 3, 2], [])


async def test_texts_of_embeddings_count_as_rows(taking: Any) -> None:  # noqa: ANN401 - the fixture
    ours = await taking(OpenAIBatches("openai", None, PACE), Bounds(rows=5, size=MIB))
    rows = [Row(0, f"v{n}", EMBEDDINGS, {"model": "e", "input": ["a", "b"]}) for n in range(3)]
    rows.append(Row(0, "much", EMBEDDINGS, {"model": "e", "input": list("abcdef")}))
    plans, wrong = await ours.intake.take(rows)
    plans += await ours.intake.finish()
    assert [plan.rows for plan in plans] == [2, 1]
    assert [(row.custom_id, "larger than a whole batch" in str(error)) for row, error in wrong] == [("much", True)]


@pytest.mark.parametrize("api", [OpenAIBatches, AnthropicBatches])
async def test_no_part_is_larger_than_the_vendor_takes(taking: Any, api: Any) -> None:  # noqa: ANN401 - the fixture
    ours = await taking(api(api.kind, None, PACE), Bounds(rows=1000, size=10_000))
    plans, wrong = await ours.intake.take(
        [chat(f"r{n}", "x" * (n % 700)) for n in range(150)] + [chat("huge", "x" * 9000)]
    )
    plans += await ours.intake.finish()
    assert sum(plan.rows for plan in plans) == 150
    assert max(len(ours.sent(plan.number)) for plan in plans) <= 10_000
    assert len(plans) < 8
    assert [row.custom_id for row, _ in wrong] == ["huge"]


async def test_what_is_sent_to_anthropic_is_one_json_object_with_names_of_ours(taking: Any) -> None:  # noqa: ANN401
    ours = await taking(AnthropicBatches("anthropic", None, PACE), Bounds(rows=10, size=MIB))
    await ours.intake.take([chat("any name at all, however long, of any letters: ä€😀", f"text {n}") for n in range(2)])
    await ours.intake.finish()
    sent = json.loads(ours.sent(1))
    assert [row["custom_id"] for row in sent["requests"]] == ["run-1-0", "run-1-1"]
    assert sent["requests"][1]["params"]["messages"] == [{"role": "user", "content": "text 1"}]


async def test_what_is_uploaded_to_openai_is_a_form_as_anybody_reads_it(taking: Any) -> None:  # noqa: ANN401
    ours = await taking(OpenAIBatches("openai", None, PACE), Bounds(rows=10, size=MIB))
    await ours.intake.take([chat(f"r{n}", "a\u2028b\r\n--run-1") for n in range(2)])
    await ours.intake.finish()
    kind = b'Content-Type: multipart/form-data; boundary="manifold-run-1-edge"\r\n\r\n'
    parts: Any = email.message_from_bytes(kind + ours.sent(1)).get_payload()
    purpose, file = parts
    assert purpose.get_payload(decode=True) == b"batch"
    assert file.get_filename() == "manifold-run-1.jsonl"
    lines = file.get_payload(decode=True).rstrip(b"\n").split(b"\n")
    assert [json.loads(line)["custom_id"] for line in lines] == ["r0", "r1"]


async def test_many_models_are_not_as_many_open_files(taking: Any) -> None:  # noqa: ANN401 - the fixture
    ours = await taking(OpenAIBatches("openai", None, PACE), Bounds(rows=10, size=MIB))
    rows = [replace(chat(f"r{n}"), body={**chat("").body, "model": f"m{n}"}) for n in range(40)]
    plans, _ = await ours.intake.take(rows)
    assert len(plans) == 40 - 32
    assert len(await ours.intake.finish()) == 32


async def test_parts_that_were_not_noted_are_removed(taking: Any, tmp_path: Path) -> None:  # noqa: ANN401 - the fixture
    ours = await taking(OpenAIBatches("openai", None, PACE), Bounds(rows=1, size=MIB))
    await ours.intake.take([chat("a"), chat("b")])
    await asyncio.to_thread(_kept_and_removed, ours, tmp_path)


def _kept_and_removed(ours: Taking, folder: Path) -> None:
    (folder / "journal.jsonl").touch()
    ours.spool.keep({1})
    assert sorted(path.name for path in folder.iterdir()) == ["000001.body", "000001.jsonl", "journal.jsonl"]
    with ours.spool.rows(1) as rows:
        assert [(len(rows), row.custom_id, rows[0] == row) for row in rows] == [(1, "a", True)]
    ours.intake.discard()
    ours.spool.remove(1)
    ours.spool.remove(1)
    assert [path.name for path in folder.iterdir()] == ["journal.jsonl"]


class Sink:
    """A server that counts what it is sent, and answers by the test's word."""

    def __init__(self) -> None:
        self.received = 0
        self.answer: list[bytes] = []
        self.hold = False

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length")), 0
        )
        while self.received < length and (data := await reader.read(MIB)):
            self.received += len(data)
        for piece in self.answer:
            writer.write(piece)
            await writer.drain()
        if self.hold:
            await reader.read()
        writer.close()


@pytest.fixture
async def sink() -> AsyncIterator[tuple[Sink, Door]]:
    sink = Sink()
    server = await asyncio.start_server(sink.handle, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    config = {"providers": {"openai": {"base_url": address, "api_keys": ["k"], "models": ["m"]}}}
    async with LLMManager.open(config) as manager:
        doors = Doors("openai", manager.parts.chains["openai"].pool, CLOCK)
        door = doors.next("m")
        door.address = address  # type: ignore[attr-defined]  # for the tests
        yield sink, door
    server.close()


def _said(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


async def test_a_file_of_64_mib_goes_out_in_flat_memory(sink: tuple[Sink, Any], tmp_path: Path) -> None:
    server, door = sink
    with (tmp_path / "000001.body").open("wb") as file:
        file.truncate(64 * MIB)
    server.answer = [_said(b'{"id": "file-1"}')]
    tracemalloc.start()
    try:
        body = await asyncio.to_thread(Spool(tmp_path).body, 1)
        told = await door.ask("POST", f"{door.address}/files", body=body, seconds=60.0)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (told, server.received) == ({"id": "file-1"}, 64 * MIB)
    assert most < 16 * MIB


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
async def test_results_of_64_mib_are_read_in_flat_memory(sink: tuple[Sink, Any]) -> None:
    server, door = sink
    line = b"x" * 1023 + b"\n"
    server.answer = [b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (64 * MIB + 3), *[line * 1024] * 64, b"end"]
    tracemalloc.start()
    try:
        seen = [len(line) async for line in door.lines(f"{door.address}/x", seconds=60.0)]
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(seen), seen[-1]) == (64 * 1024 + 1, 3)
    assert most < 16 * MIB


async def test_who_never_answers_is_left_in_time(sink: tuple[Sink, Any]) -> None:
    server, door = sink
    server.hold = True
    with pytest.raises(LLMTimeoutError, match=r"no answer came within 0\.05 seconds"):
        await door.ask("GET", f"{door.address}/x", seconds=0.05)
    with pytest.raises(LLMTimeoutError, match="no results came within"):
        await anext(door.lines(f"{door.address}/x", seconds=0.05))
    server.answer = [b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nx\ny"]
    with pytest.raises(LLMTimeoutError, match="nothing more of the results came"):
        _ = [line async for line in door.lines(f"{door.address}/x", seconds=0.05)]


async def test_results_that_are_cut_are_told_as_such(sink: tuple[Sink, Any]) -> None:
    server, door = sink
    server.answer = [b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nx\ny"]
    with pytest.raises(LLMConnectionError):
        _ = [line async for line in door.lines(f"{door.address}/x", seconds=5.0)]


@pytest.mark.parametrize("line", [b"{no", b"{}", b'{"custom_id": "a", "response": null, "error": null}', b"[]"])
@pytest.mark.parametrize("api", [OpenAIBatches, AnthropicBatches])
async def test_a_line_that_is_no_result_is_passed_over(sink: tuple[Sink, Any], api: Any, line: bytes) -> None:  # noqa: ANN401
    server, door = sink
    server.answer = [_said(line)]
    batches = api("openai", door.address, PACE)
    results = batches.results(door, "batch-1", Standing(Phase.ENDED, files=("file-1",)), PACE)
    assert [result async for result in results] == []


@pytest.mark.parametrize("api", [OpenAIBatches, AnthropicBatches])
async def test_an_answer_without_a_name_is_none(sink: tuple[Sink, Any], api: Any) -> None:  # noqa: ANN401 - either
    server, door = sink
    server.answer = [_said(b'{"object": "batch"}')]
    part = Part(Plan(1, "openai", CHAT, "m", 1), "run-1")
    with pytest.raises(LLMServerError, match="without an id"):
        await api("openai", door.address, PACE).submit(door, part, b"{}")
