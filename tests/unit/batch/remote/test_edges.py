"""What happens seldom: answers that make no sense, full disks, notes of nothing, names that are found again."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import pytest
from tests.patience import until

from llm import (
    LLMConfigurationError,
    LLMInvalidRequestError,
    LLMManager,
    LLMResponse,
    LLMServerError,
    register_provider,
)
from llm.batch.remote.doors import Doors
from llm.batch.remote.ledger import Part, Plan, left_beside
from llm.batch.remote.run import apis_of
from llm.batch.remote.values import Pace
from llm.testing import BatchScript, FakeClock, FakeProvider, Fault
from llm.testing.batches import MockBatch, MockRow, Refusal
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.unit.batch.remote.conftest import Bench

    from llm.core.protocols import Reply, Transport

ALL = {f"r {number}": f"text of r {number}" for number in range(6)}
CLOCK = SystemClock()
PACE = Pace()


class Rewriting:
    """A transport that changes what comes from some addresses."""

    def __init__(self, inner: Transport, ending: str, change: Callable[[bytes], bytes]) -> None:
        self.inner = inner
        self.ending = ending
        self.change = change

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
        reply: Any = await self.inner.request(method, url, headers=headers, body=body)
        if url.endswith(self.ending):
            pieces = [self.change(await reply.read())]

            async def chunk() -> bytes:
                return pieces.pop() if pieces else b""

            reply.chunk = chunk
        return reply  # type: ignore[no-any-return]  # with another body

    async def close(self) -> None:
        await self.inner.close()


async def test_an_answer_that_makes_no_sense_is_a_failure_of_its_row(bench: Bench) -> None:
    field = b'"choices":[' if bench.dialect == "openai" else b'"content":['

    def spoil(body: bytes) -> bytes:
        first, *others = body.split(b"\n")
        return b"\n".join([first.replace(field, b'"nothing":['), *others])

    async with bench.serving() as up:
        ending = "/content" if bench.dialect == "openai" else "/results"
        summary = await bench.run(transport=Rewriting(up.transport(), ending, spoil))
        assert len(up.batches) == 3
    assert (summary.answered, summary.errors) == (5, {"LLMServerError": 1})
    assert list(bench.failures().values()) == [502]


async def test_results_that_are_cut_politely_are_read_again(bench: Bench) -> None:
    cut = [2]

    def half(body: bytes) -> bytes:
        cut[0] -= 1
        return body[: len(body) // 2] if cut[0] >= 0 else body

    async with bench.serving() as up:
        ending = "/content" if bench.dialect == "openai" else "/results"
        await bench.run(transport=Rewriting(up.transport(), ending, half))
        assert len(up.batches) == 1
    assert bench.texts() == ALL


async def test_a_full_disk_ends_the_run_and_the_next_goes_on(
    bench: Bench, small_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    bench.write([f"r {number}" for number in range(20)])

    def answer(_: object) -> str:
        return "x" * 4000

    async with bench.serving(answer=answer) as up:
        with small_disk(12_000), pytest.raises(OSError, match="a rerun goes on"):
            await bench.run()
        summary = await bench.run()
        assert len(up.batches) == 1
    assert summary.skipped + summary.answered == 20
    assert len(bench.texts()) == 20


async def test_vectors_have_no_batches_at_anthropic(anthropic: Bench) -> None:
    line = '{"custom_id": "v", "method": "POST", "url": "/v1/embeddings", "body": {"model": "x", "input": "a"}}\n'
    (anthropic.folder / "in.jsonl").write_text(line.replace('"x"', f'"{anthropic.model}"'))
    async with anthropic.serving():
        await anthropic.run()
    assert "/v1/embeddings is none of the addresses" in anthropic.lines("out.errors.jsonl")[0]["error"]["message"]


async def test_a_file_that_went_over_before_is_found_by_its_name(openai: Bench) -> None:
    async with openai.serving(Fault("truncated", route="POST */files")) as up:
        await openai.run()
        assert [probe.fault for probe in up.probes if probe.method == "POST" and probe.path == "/v1/files"] == [
            "truncated"
        ]
    assert openai.texts() == ALL


async def test_a_file_that_the_vendor_removed_goes_over_once_more(openai: Bench) -> None:
    faults = [Fault("rate_limit", route=openai.submit), Fault("invalid", route=openai.submit, at=2)]
    openai.keys = ["k1"]
    async with openai.serving(*faults) as up:
        up_loads = await _uploads(openai, up)
    assert up_loads == 1  # by its name it is still there
    assert openai.texts() == ALL


async def _uploads(bench: Bench, up: Any) -> int:  # noqa: ANN401 - a server
    await bench.run()
    return len([probe for probe in up.probes if probe.method == "POST" and probe.path == "/v1/files"])


async def test_a_key_without_credit_is_known_by_the_batch_that_it_was_refused(openai: Bench) -> None:
    async with openai.serving() as up:
        task = asyncio.create_task(openai.run())
        while not up.batches:
            await CLOCK.sleep(0)
        up.batches[0].refusals = [Refusal("billing_hard_limit_reached", "no credit")]
        await task
        assert [batch.key for batch in up.batches] in (["k1", "k2"], ["k1"])
    assert openai.texts() == ALL


async def test_a_batch_that_was_refused_is_given_up_by_a_cancellation(openai: Bench) -> None:
    openai.script, clock = BatchScript(validating=1.0, most_rows=5), FakeClock()
    async with openai.serving(clock=clock) as up:
        task = asyncio.create_task(openai.run())
        await until(lambda: "validating" in openai.tracker.words)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await clock.advance(1.0)
        await openai.cancel()
        assert len(up.batches) == 1
    assert set(openai.failures().values()) == {"batch_cancelled"}


async def test_a_submission_in_doubt_whose_key_is_gone_can_be_given_up(bench: Bench) -> None:
    bench.keys = ["old"]
    async with bench.serving(Fault("stalled", route=bench.submit)) as up:
        task = asyncio.create_task(bench.run())
        while not up.batches:
            await CLOCK.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        bench.keys = ["new"]
        await bench.cancel()
    assert set(bench.failures().values()) == {"batch_cancelled"}


async def test_a_vendor_that_refuses_to_tell_ends_the_run(bench: Bench) -> None:
    async with bench.serving(Fault("invalid", route="GET */batches/*")):
        with pytest.raises(LLMInvalidRequestError):
            await bench.run()
        await bench.run()
        assert set(bench.submitted().values()) == {1}
    async with bench.serving(Fault("auth", route="GET */batches/*", every=1)):
        bench.output.unlink()
        with pytest.raises(Exception, match="check the key"):
            await bench.run()


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
async def test_a_lists_pages_are_turned_to_find_what_was_submitted(bench: Bench) -> None:
    part = Part(Plan(1, bench.dialect, "/v1/x", "m", 1), "run-1", newest="before")
    names = ["before", "ours", *[f"other-{number}" for number in range(150)], "newest"]
    async with bench.serving() as up, LLMManager.open(bench.config()) as manager:
        for name in names:
            rows = [MockRow("run-1-0" if name == "ours" else "run-2-0", "", {}, "failed")]
            metadata = {"manifold": "run-1" if name == "ours" else "run-2"}
            up.batches.append(MockBatch(name, "k1", "k1", rows, 0.0, 0.0, metadata=metadata))
        api = apis_of(manager, bench.engine, PACE)[bench.dialect]
        door = Doors(bench.dialect, manager.parts.chains[bench.dialect].pool, CLOCK).next(bench.model)
        assert await api.newest(door) == "newest"
        assert await api.find(door, part, set()) == ("ours", False)
        assert await api.find(door, part, {"ours"}) == (None, False)
        part.newest = "ours"
        assert await api.find(door, part, set()) == (None, False)  # it looks no further than what was there before


def test_notes_of_nothing_are_nothing(openai: Bench) -> None:
    openai.notes.mkdir()
    (openai.notes / "journal.jsonl").touch()
    assert left_beside(openai.output) is None


async def test_a_provider_of_ones_own_has_no_batch_api() -> None:
    register_provider("of-our-own", lambda _: FakeProvider())
    config = {"providers": {"mine": {"type": "of-our-own", "api_keys": ["k"], "models": ["m"]}}}
    async with LLMManager.open(config) as manager:
        door = Doors("mine", manager.parts.chains["mine"].pool, CLOCK).next("m")
        with pytest.raises(LLMConfigurationError, match="has no batch API"):
            await door.ask("GET", "http://127.0.0.1:9/x", seconds=1.0)


async def test_a_client_that_lived_long_is_made_anew(openai: Bench) -> None:
    async with openai.serving() as up:
        config = {**openai.config(), "pool": {"max_lifetime": 0.000001}}
        async with LLMManager.open(config) as manager:
            door = Doors("openai", manager.parts.chains["openai"].pool, CLOCK).next(openai.model)
            url = f"{up.base_url}/batches"
            async with asyncio.TaskGroup() as group:
                for _ in range(3):
                    group.create_task(door.ask("GET", url, seconds=5.0))
            assert (await door.ask("GET", url, seconds=5.0))["object"] == "list"


async def test_a_row_of_a_batch_may_be_one_that_no_vendor_understands(openai: Bench) -> None:
    def answer(_: object) -> LLMResponse | str | Exception:
        return LLMServerError("down")

    async with openai.serving(answer=answer) as up:
        summary = await openai.run()
        assert len(up.batches) == 3
    assert summary.errors == {"LLMServerError": 6}


async def test_a_vendor_that_repeats_the_key_has_it_taken_out_of_the_errors_file(bench: Bench) -> None:
    bench.keys = ["a-secret-of-some-length"]

    def answer(_: object) -> LLMResponse | str | Exception:
        return LLMInvalidRequestError("the key a-secret-of-some-length may not", status=400)

    async with bench.serving(answer=answer):
        await bench.run()
    text = (bench.folder / "out.errors.jsonl").read_text()
    assert text.count("the key ********** may not") == 6
    assert "a-secret" not in text


async def test_results_that_are_not_kept_any_more_can_be_given_up(bench: Bench) -> None:
    route = "GET */content" if bench.dialect == "openai" else "GET */results"
    async with bench.serving(Fault("invalid", route=route, every=1)) as up:
        with pytest.raises(LLMInvalidRequestError):
            await bench.run()
        summary = await bench.cancel()
        assert len(up.batches) == 1
    assert summary.errors == {"batch_expired": 6}
    assert not bench.notes.exists()


async def test_a_date_that_was_set_back_holds_up_no_search(anthropic: Bench) -> None:
    async with anthropic.serving(Fault("reset_before", route=anthropic.submit)) as up:
        task = asyncio.create_task(anthropic.run())
        journal = anthropic.notes / "journal.jsonl"
        while not any(probe.fault for probe in up.probes):
            await CLOCK.sleep(0.0005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(_in_the_future, journal)
        await anthropic.run()
    assert anthropic.texts() == ALL


def _in_the_future(journal: Path) -> None:
    journal.write_text(re.sub(r'"at":[0-9.]+', '"at":99999999999.0', journal.read_text()))
