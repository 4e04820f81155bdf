"""What ends a run early, what is refused, what is cancelled, and what a key that is gone costs."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from tests.patience import until

from llm import (
    LLMConfigurationError,
    LLMConnectionError,
    LLMInvalidRequestError,
    LLMManager,
    LLMOverloadedError,
    LLMServerError,
)
from llm.batch import run_remote
from llm.batch.remote.ledger import left_beside
from llm.batch.remote.run import apis_of
from llm.batch.remote.values import Pace
from llm.core.config import load_config
from llm.testing import BatchScript, FakeClock, Fault
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.unit.batch.remote.conftest import Bench

    from llm.core.protocols import Reply

ALL = {f"r {number}": f"text of r {number}" for number in range(6)}
CLOCK = SystemClock()
LONG = BatchScript(running=600.0)


async def _left(bench: Bench) -> None:
    """Run until the batches are at the vendor, and leave."""
    task = asyncio.create_task(bench.run())
    await until(lambda: _told(bench, "in progress"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def _told(bench: Bench, what: str) -> bool:
    return any(what in word for word in bench.tracker.words)


async def test_a_run_that_is_left_leaves_its_batches_and_the_next_collects_them(bench: Bench) -> None:
    bench.script, clock = BatchScript(running=6.0), FakeClock()
    async with bench.serving(clock=clock) as up:
        await _left(bench)
        await clock.advance(6.0)
        left = await asyncio.to_thread(left_beside, bench.output)
        assert left is not None
        assert (left.engine, left.rows, left.submitted, left.batches) == (bench.engine, 6, 6, 1)
        summary = await bench.run()
        assert len(up.batches) == 1
    assert (summary.rows, summary.answered, summary.skipped) == (6, 6, 0)
    assert bench.texts() == ALL
    assert await asyncio.to_thread(left_beside, bench.output) is None


async def test_rows_that_came_in_since_are_sent_beside_those_at_the_vendor(bench: Bench) -> None:
    bench.script, clock = BatchScript(running=6.0), FakeClock()
    async with bench.serving(clock=clock) as up:
        await _left(bench)
        bench.write([f"r {number}" for number in range(8)])
        task = asyncio.create_task(bench.run())
        await until(lambda: len(up.batches) == 2)
        await clock.advance(6.0)
        summary = await task
        assert [len(batch.rows) for batch in up.batches] == [6, 2]
    assert (summary.rows, summary.answered) == (8, 8)


async def test_its_state_is_told_in_words(openai: Bench) -> None:
    openai.script, clock = BatchScript(validating=1.0, running=6.0), FakeClock()
    async with openai.serving(clock=clock):
        task = asyncio.create_task(openai.run())
        await until(lambda: _told(openai, "validating"))
        await clock.advance(1.0)
        await until(lambda: _told(openai, "in progress"))
        await clock.advance(4.0)
        await until(lambda: _told(openai, "in progress 4 of 6"))
        await clock.advance(2.0)
        await task
    words = list(dict.fromkeys(openai.tracker.words))
    assert words == ["submitted", "validating", "in progress 0 of 6", "in progress 4 of 6"]


async def test_cancelled_it_keeps_what_was_answered_and_writes_off_the_others(bench: Bench) -> None:
    bench.script, clock = BatchScript(running=6.0), FakeClock()
    async with bench.serving(clock=clock) as up:
        await _left(bench)
        await clock.advance(4.0)
        summary = await bench.cancel()
        assert len(bench.texts()) == 4
        assert set(bench.failures().values()) == {"batch_cancelled"}
        assert (summary.rows, summary.answered, summary.failed) == (6, 4, 2)
        assert not bench.notes.exists()
        task = asyncio.create_task(bench.run())
        await until(lambda: len(up.batches) == 2)
        await clock.advance(6.0)
        await task
        assert [len(batch.rows) for batch in up.batches] == [6, 2]
    assert bench.texts() == ALL
    assert bench.failures() == {}


async def test_a_batch_that_somebody_else_cancelled_is_not_sent_again_by_the_same_run(bench: Bench) -> None:
    bench.script = LONG
    async with bench.serving() as up:
        task = asyncio.create_task(bench.run())
        while not up.batches:
            await CLOCK.sleep(0.001)
        up.batches[0].cancelled_at = CLOCK.now()
        summary = await task
        assert len(up.batches) == 1
    assert summary.errors == {"batch_cancelled": 6}
    assert set(bench.failures().values()) == {"batch_cancelled"}


async def test_what_was_not_submitted_yet_is_given_up_by_a_cancellation(bench: Bench) -> None:
    async with bench.serving(Fault("invalid", route=bench.submit)) as up:
        with pytest.raises(LLMInvalidRequestError):
            await bench.run()
        assert await asyncio.to_thread(left_beside, bench.output) is not None
        summary = await bench.cancel()
        assert up.batches == []
    assert (summary.failed, bench.failures()) == (6, dict.fromkeys(ALL, "batch_cancelled"))


async def test_there_may_be_nothing_to_cancel(bench: Bench) -> None:
    async with bench.serving() as up:
        summary = await bench.cancel()
        assert up.probes == []
    assert summary.rows == 0
    assert not bench.output.exists()


async def test_a_server_without_batches_ends_the_run_and_costs_no_row(openai: Bench) -> None:
    async with openai.serving(Fault("redirect", route="POST */files")):
        with pytest.raises(LLMInvalidRequestError, match="redirects"):
            await openai.run()
        await openai.run()
    assert openai.texts() == ALL


async def test_a_vendor_that_never_answers_is_given_up_and_nothing_is_lost(bench: Bench) -> None:
    bench.pace = replace(bench.pace, patience=0.05)
    async with bench.serving(Fault("unavailable", route="* */batches*", every=1)):
        with pytest.raises(LLMOverloadedError, match="try again later"):
            await bench.run()
    assert any("answered with a failure" in word for word in bench.tracker.words)
    async with bench.serving():
        await bench.run()
        assert set(bench.submitted().values()) == {1}
    assert bench.texts() == ALL


async def test_a_submission_that_always_breaks_is_given_up_though_the_vendor_answers_else(bench: Bench) -> None:
    bench.pace = replace(bench.pace, first=0.0005, settle=0.0)
    async with bench.serving(Fault("server_error", route=bench.submit, every=1)) as up:
        with pytest.raises(LLMServerError):
            await bench.run()
        tried = [probe for probe in up.probes if probe.method == "POST" and probe.path.endswith("/batches")]
        assert len(tried) == 8


async def test_nobody_at_the_address_is_told_as_such(bench: Bench) -> None:
    bench.pace = replace(bench.pace, patience=0.02)
    async with bench.serving():
        pass
    with pytest.raises(LLMConnectionError):
        await bench.run()


async def test_to_begin_anew_what_is_at_the_vendor_must_be_collected_first(bench: Bench) -> None:
    bench.script = LONG
    async with bench.serving():
        await _left(bench)
        with pytest.raises(LLMConfigurationError, match="6 rows of the last run are still in batches"):
            await bench.run(restart=True)
        await bench.cancel()
        bench.up._backend._desk.shelf.script = BatchScript()  # type: ignore[union-attr]  # as if the vendor were quicker
        await bench.run(restart=True)
    assert bench.texts() == ALL
    assert (bench.folder / "out.errors.jsonl.bak").exists()


async def test_batches_of_another_vendor_are_refused_by_name(openai: Bench) -> None:
    openai.script = LONG
    async with openai.serving():
        await _left(openai)
        config = {"providers": {"anthropic": {"api_keys": ["k"], "models": ["claude-x"]}}}
        async with LLMManager.open(config) as manager:
            with pytest.raises(LLMConfigurationError, match="go on with --engine openai-batch"):
                await run_remote(manager, openai.folder / "in.jsonl", openai.output, engine="anthropic-batch")


async def test_a_key_that_was_replaced_is_no_loss_where_the_new_one_sees_the_batches(bench: Bench) -> None:
    bench.script, clock = BatchScript(running=6.0), FakeClock()
    bench.keys = ["old"]
    async with bench.serving(groups={"old": "one", "new": "one"}, clock=clock) as up:
        await _left(bench)
        bench.keys = ["new"]
        await clock.advance(6.0)
        await bench.run()
        assert len(up.batches) == 1
    assert bench.texts() == ALL


async def test_a_key_that_is_gone_is_named_and_its_rows_can_be_given_up(bench: Bench) -> None:
    bench.script = LONG
    bench.keys = ["old"]
    async with bench.serving() as up:
        await _left(bench)
        bench.keys = ["new"]
        with pytest.raises(LLMConfigurationError, match=r"key-[0-9a-f]{8}: configure that key again"):
            await bench.run()
        summary = await bench.cancel()
        assert len(up.batches) == 1
    assert summary.errors == {"batch_cancelled": 6}


async def test_a_submission_in_doubt_is_not_made_anew_with_another_key(bench: Bench) -> None:
    bench.keys = ["old"]
    async with bench.serving(Fault("stalled", route=bench.submit)) as up:
        task = asyncio.create_task(bench.run())
        while not up.batches:
            await CLOCK.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        bench.keys = ["new"]
        with pytest.raises(LLMConfigurationError, match="a batch that may have been submitted"):
            await bench.run()
        bench.keys = ["old"]
        await bench.run()
        assert set(bench.submitted().values()) == {1}
    assert bench.texts() == ALL


async def test_a_provider_that_is_gone_is_named(openai: Bench) -> None:
    openai.script = LONG
    async with openai.serving() as up:
        await _left(openai)
        config = {
            "providers": {"mine": {"type": "openai", "base_url": up.base_url, "api_keys": ["k1"], "models": ["m"]}}
        }
        async with LLMManager.open(config) as manager:
            with pytest.raises(LLMConfigurationError, match="of provider 'openai' cannot be found"):
                await run_remote(
                    manager, openai.folder / "in.jsonl", openai.output, engine="openai-batch", pace=openai.pace
                )


@pytest.mark.parametrize(("kind", "order"), [("reset_before", [True, False]), ("truncated", [False, True])])
async def test_a_batch_of_somebody_else_with_as_many_rows_is_not_taken_for_ours(
    anthropic: Bench, kind: str, order: list[bool]
) -> None:
    anthropic.script, clock = BatchScript(running=6.0), FakeClock()
    async with anthropic.serving(Fault(kind, route=anthropic.submit), clock=clock) as up:
        task = asyncio.create_task(anthropic.run(transport=Followed(anthropic)))
        await until(lambda: len(up.batches) == 1 + (kind == "truncated"))
        looks = len(up.probes)
        await until(lambda: len(up.probes) > looks + 3)  # while both run, nobody knows whose they are
        assert not _told(anthropic, "in progress")
        while not task.done():
            await clock.advance(1.0)
            await CLOCK.sleep(0.002)
        await task
        assert [batch.custom_ids[0].startswith("x-") for batch in up.batches] == order
        assert up.batches[order.index(False)].custom_ids[0].endswith("-1-0")  # it is the first part that was collected
    assert anthropic.texts() == ALL


class Followed:
    """A transport: somebody else's batch comes right behind the first that it submits."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.inner = bench.up.transport()
        self.followed = False

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
        try:
            return await self.inner.request(method, url, headers=headers, body=body)
        finally:
            if not self.followed and (method, url.endswith("/batches")) == ("POST", True):
                self.followed = True
                await _foreign(self.bench)

    async def close(self) -> None:
        await self.inner.close()


async def _foreign(bench: Bench) -> None:
    """Submit another program's batch."""
    params = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "theirs"}]}
    body = json.dumps({"requests": [{"custom_id": f"x-{number}", "params": params} for number in range(6)]})
    headers = {"x-api-key": "k1"}
    reply = await bench.up.transport().request("POST", "/v1/messages/batches", headers=headers, body=body.encode())
    assert (reply.status, len(await reply.read()) > 0) == (200, True)


async def test_rows_that_the_vendor_refuses_are_written_off_and_the_others_sent(openai: Bench) -> None:
    def wrong(line: Mapping[str, Any]) -> str | None:
        return "no such field" if line["custom_id"] in {"r 1", "r 4"} else None

    openai.script = BatchScript(validating=0.002, invalid=wrong)
    async with openai.serving() as up:
        summary = await openai.run()
        assert [len(batch.rows) for batch in up.batches] == [6, 4]
    assert openai.failures() == {"r 1": "invalid_request", "r 4": "invalid_request"}
    assert openai.lines("out.errors.jsonl")[0]["error"]["message"] == "no such field"
    assert summary.answered == 4


async def test_a_batch_that_is_refused_as_a_whole_writes_its_rows_off(openai: Bench) -> None:
    openai.script = BatchScript(most_rows=5)
    async with openai.serving() as up:
        summary = await openai.run()
        assert len(up.batches) == 1
    assert summary.errors == {"invalid_file": 6}


async def test_where_the_queue_is_full_a_part_waits_for_the_others(openai: Bench) -> None:
    lines = [openai.row(f"r {number}", model=f"m-{number}") for number in range(3)]
    (openai.folder / "in.jsonl").write_text("".join(lines))
    openai.script, clock = BatchScript(running=6.0, enqueued_tokens=100), FakeClock()
    openai.keys = ["k1"]
    async with openai.serving(clock=clock) as up:
        config = openai.config()
        config["providers"]["openai"]["models"] = ["*"]
        async with LLMManager.open(config) as manager:
            run = run_remote(
                manager,
                openai.folder / "in.jsonl",
                openai.output,
                engine="openai-batch",
                model="m",
                pace=openai.pace,
                tracker=openai.tracker,
            )
            task = asyncio.create_task(run)
            await until(lambda: _told(openai, "waiting for room in the queue"))
            while not task.done():
                await clock.advance(1.0)
                await CLOCK.sleep(0.002)
            await task
        taken = [batch for batch in up.batches if not batch.refusals]
        assert sorted(name for batch in taken for name in batch.custom_ids) == ["r 0", "r 1", "r 2"]
        assert len({probe.path for probe in up.probes if probe.method == "POST"}) == 2
        assert len([probe for probe in up.probes if probe.method == "POST" and probe.path == "/v1/files"]) == 3
    assert len(openai.texts()) == 3


async def test_a_part_that_never_fits_the_queue_is_sent_in_halves(openai: Bench) -> None:
    openai.script = BatchScript(running=0.005, enqueued_tokens=130)
    async with openai.serving() as up:
        await openai.run()
        taken = [batch for batch in up.batches if not batch.refusals]
        assert max(len(batch.rows) for batch in taken) < 6
        assert sorted(name for batch in taken for name in batch.custom_ids) == sorted(ALL)
    assert openai.texts() == ALL


async def test_a_vendor_without_room_for_a_submission_is_asked_again_later(anthropic: Bench) -> None:
    async with anthropic.serving(Fault("rate_limit", route=anthropic.submit, times=3)) as up:
        await anthropic.run()
        assert len(up.batches) == 1
    assert anthropic.texts() == ALL


async def test_an_engine_without_a_provider_is_refused(openai: Bench) -> None:
    async with LLMManager.open({"providers": {"anthropic": {"api_keys": ["k"], "models": ["m"]}}}) as manager:
        source = openai.folder / "in.jsonl"
        with pytest.raises(LLMConfigurationError, match="asks providers of type openai, and none is configured"):
            await run_remote(manager, source, openai.output, engine="openai-batch")
        unknown: Any = "ray"
        with pytest.raises(LLMConfigurationError, match="there is no engine 'ray'; expected one of openai-batch"):
            await run_remote(manager, source, openai.output, engine=unknown)
        with pytest.raises(LLMConfigurationError, match="provider 'openai' is none that --engine anthropic-batch"):
            await run_remote(manager, source, openai.output, engine="anthropic-batch", provider="openai")


def test_a_section_that_goes_through_an_sdk_has_no_batches() -> None:
    config = load_config({"providers": {"openai": {"api_keys": ["k"], "models": ["m"], "transport": "sdk"}}})
    manager: Any = SimpleNamespace(parts=SimpleNamespace(config=config))
    with pytest.raises(LLMConfigurationError, match="goes through an SDK"):
        apis_of(manager, "openai-batch", Pace())


async def test_an_ordered_output_is_in_the_order_of_the_input(bench: Bench) -> None:
    bench.script = BatchScript(
        outcome=lambda name, times: "expired" if times == 1 and name.endswith(("r 0", "-1-0")) else "answered"
    )
    async with bench.serving():
        await bench.run(ordered=True)
        assert list(bench.texts()) == list(ALL)
        with (bench.folder / "in.jsonl").open("rb") as file, pytest.raises(LLMInvalidRequestError, match="ordered"):
            await run_remote_of(bench, file)


async def run_remote_of(bench: Bench, source: Any) -> None:  # noqa: ANN401 - a file
    async with LLMManager.open(bench.config()) as manager:
        await run_remote(manager, source, bench.output, engine=bench.engine, ordered=True)
