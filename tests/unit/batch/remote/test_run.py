"""Runs through a vendor's batch API: what comes out, what is sent again, and how trouble is borne."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from llm import (
    LLMAuthenticationError,
    LLMManager,
)
from llm.batch import run_file
from llm.testing import BatchScript, Fault
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from tests.unit.batch.remote.conftest import Bench

ALL = {f"r {number}": f"text of r {number}" for number in range(6)}
CLOCK = SystemClock()


def _same(line: dict[str, Any]) -> dict[str, Any]:
    """What of an output line does not change from run to run."""
    body = {name: value for name, value in line["response"]["body"].items() if name not in {"id", "created"}}
    return {"id": line["id"], "custom_id": line["custom_id"], "error": line["error"], "body": body}


async def test_the_output_is_that_of_the_local_engine(bench: Bench) -> None:
    async with bench.serving() as up:
        await bench.run()
        async with LLMManager.open(bench.config()) as manager:
            await run_file(manager, bench.folder / "in.jsonl", bench.folder / "local.jsonl")
        assert len(up.requests) == 6
    ours, local = (
        sorted(bench.lines(name), key=lambda line: line["custom_id"]) for name in ("out.jsonl", "local.jsonl")
    )
    assert [_same(line) for line in ours] == [_same(line) for line in local]


async def test_what_is_sent_is_what_a_call_would_send(bench: Bench) -> None:
    async with bench.serving() as up:
        await bench.run()
        async with LLMManager.open(bench.config()) as manager:
            await run_file(manager, bench.folder / "in.jsonl", bench.folder / "local.jsonl", concurrency=1)
        assert [row.body for row in up.batches[0].rows] == [request.body for request in up.requests]


async def test_a_second_run_has_nothing_left(bench: Bench) -> None:
    async with bench.serving() as up:
        first = await bench.run()
        again = await bench.run()
        assert len(up.batches) == 1
    assert (first.rows, first.answered, first.skipped, first.unmet) == (6, 6, 0, 0)
    assert (again.rows, again.answered, again.skipped) == (6, 0, 6)
    assert not bench.notes.exists()


async def test_an_answer_costs_half_of_what_a_call_costs(bench: Bench) -> None:
    async with bench.serving():
        ours = await bench.run()
        async with LLMManager.open(bench.config()) as manager:
            local = await run_file(manager, bench.folder / "in.jsonl", bench.folder / "local.jsonl")
    assert ours.cost is not None
    assert local.cost is not None
    assert ours.usage == local.usage
    assert ours.cost == pytest.approx(local.cost / 2)


async def test_rows_that_ran_out_of_time_are_sent_again_and_at_last_written_off(bench: Bench) -> None:
    def outcome(name: str, times: int) -> Any:  # noqa: ANN401 - an outcome
        del times
        return "expired" if "3" in name.rpartition("-")[2] or name == "r 3" else "answered"

    def rarely(name: str, times: int) -> Any:  # noqa: ANN401 - an outcome
        return "expired" if times < 3 and name in {"r 2", "r 3"} else "answered"

    bench.script = BatchScript(outcome=rarely if bench.dialect == "openai" else outcome)
    async with bench.serving() as up:
        summary = await bench.run()
        counts = [len(batch.rows) for batch in up.batches]
    if bench.dialect == "openai":
        assert bench.texts() == ALL
        assert counts == [6, 2, 2]
    else:  # the fourth row of each part
        assert counts == [6, 1]
        assert summary.answered == 6


async def test_a_row_that_never_gets_its_turn_is_told_as_expired_and_asked_by_the_next_run(openai: Bench) -> None:
    openai.script = BatchScript(outcome=lambda name, times: "expired" if name == "r 1" and times <= 3 else "answered")
    async with openai.serving() as up:
        first = await openai.run()
        assert openai.failures() == {"r 1": "batch_expired"}
        assert (first.answered, first.failed, first.errors) == (5, 1, {"batch_expired": 1})
        again = await openai.run()
        assert [len(batch.rows) for batch in up.batches] == [6, 1, 1, 1]
    assert (again.skipped, again.answered) == (5, 1)
    assert openai.texts() == ALL
    assert openai.failures() == {}


async def test_failures_of_rows_are_told_as_the_local_engine_tells_them(bench: Bench) -> None:
    def outcome(name: str, times: int) -> Any:  # noqa: ANN401 - an outcome
        if name == "r 0" or name.endswith("-1-0"):
            return "refused"
        return "failed" if times == 1 and (name == "r 1" or name.endswith("-1-1")) else "answered"

    bench.script = BatchScript(outcome=outcome)
    async with bench.serving():
        summary = await bench.run()
        again = await bench.run()
    assert bench.failures() == {"r 0": 400}
    assert {name: text for name, text in ALL.items() if name != "r 0"} == bench.texts()
    assert summary.errors == {"LLMInvalidRequestError": 1}
    assert again.skipped == 6


async def test_rows_of_which_the_results_say_nothing_are_sent_again(bench: Bench) -> None:
    bench.script = BatchScript(
        outcome=lambda name, times: "lost" if times == 1 and name.endswith(("r 4", "-1-4")) else "answered"
    )
    async with bench.serving() as up:
        await bench.run()
        assert [len(batch.rows) for batch in up.batches] == [6, 1]
    assert bench.texts() == ALL


async def test_rows_that_hold_no_request_are_bad_rows_and_cost_no_other(bench: Bench) -> None:
    rows = bench.row("good") + "{no json\n" + bench.row("bad", temperature="hot") + bench.row("good")
    (bench.folder / "in.jsonl").write_text(rows + bench.row("far", model="elsewhere/m") + bench.row("vector", "/v1/x"))
    async with bench.serving() as up:
        summary = await bench.run()
        assert [len(batch.rows) for batch in up.batches] == [1]
    assert list(bench.texts()) == ["good"]
    codes = [line["error"]["code"] for line in bench.lines("out.errors.jsonl")]
    wanted = ["duplicate_custom_id", "invalid_json", "invalid_request_error", "invalid_request_error", "invalid_url"]
    assert sorted(codes) == wanted
    assert (summary.rows, summary.answered, summary.failed) == (6, 1, 5)


async def test_a_row_for_another_kind_of_provider_is_refused_by_name(openai: Bench) -> None:
    openai.write(["r 0"], model="other/claude-x")
    async with openai.serving():
        config = openai.config()
        config["providers"]["other"] = {"type": "anthropic", "api_keys": ["k"], "models": ["claude-x"]}
        async with LLMManager.open(config) as manager:
            from llm.batch import run_remote  # noqa: PLC0415 - by itself here

            await run_remote(
                manager, openai.folder / "in.jsonl", openai.output, engine="openai-batch", pace=openai.pace
            )
    assert "asks providers of type openai" in openai.lines("out.errors.jsonl")[0]["error"]["message"]


async def test_an_alias_goes_to_its_first_target_that_has_the_api(anthropic: Bench) -> None:
    anthropic.write(["r 0"], model="fast")
    async with anthropic.serving() as up:
        config = anthropic.config()
        config["providers"]["openai"] = {"api_keys": ["k"], "models": ["gpt-4o-mini"]}
        targets = ["openai/gpt-4o-mini", f"anthropic/{anthropic.model}"]
        config |= {"aliases": {"fast": {"targets": targets}}, "global": {"default_provider": "openai"}}
        async with LLMManager.open(config) as manager:
            from llm.batch import run_remote  # noqa: PLC0415 - by itself here

            await run_remote(
                manager, anthropic.folder / "in.jsonl", anthropic.output, engine="anthropic-batch", pace=anthropic.pace
            )
        assert up.batches[0].rows[0].body["model"] == anthropic.model
    assert anthropic.texts() == {"r 0": "text of r 0"}


async def test_a_file_is_of_one_address_and_one_model(openai: Bench) -> None:
    rows = [
        openai.row("chat"),
        openai.row("other", model="gpt-4o"),
        json.dumps(
            {"custom_id": "v", "method": "POST", "url": "/v1/embeddings", "body": {"model": "e-3", "input": ["a", "b"]}}
        ),
        json.dumps(
            {"custom_id": "r", "method": "POST", "url": "/v1/responses", "body": {"model": "gpt-4o", "input": "Hi"}}
        ),
    ]
    (openai.folder / "in.jsonl").write_text("\n".join(line.strip() for line in rows))
    openai.keys = ["k1"]
    async with openai.serving() as up:
        config = openai.config()
        config["providers"]["openai"]["models"] = ["*"]
        async with LLMManager.open(config) as manager:
            from llm.batch import run_remote  # noqa: PLC0415 - by itself here

            await run_remote(
                manager,
                openai.folder / "in.jsonl",
                openai.output,
                engine="openai-batch",
                model="gpt-4o-mini",
                pace=openai.pace,
            )
        endpoints = {(batch.endpoint, batch.rows[0].body["model"]) for batch in up.batches}
    chat = "/v1/chat/completions"
    assert endpoints == {
        (chat, "gpt-4o-mini"),
        (chat, "gpt-4o"),
        ("/v1/embeddings", "e-3"),
        ("/v1/responses", "gpt-4o"),
    }
    told = {line["custom_id"]: line["response"]["body"] for line in openai.lines("out.jsonl")}
    assert len(told["v"]["data"]) == 2
    assert told["r"]["output"][0]["content"][0]["text"] == "Hi"


async def test_keys_take_turns(bench: Bench) -> None:
    bench.write([f"r {number}" for number in range(4)])
    lines = [bench.row(f"m {number}", model=f"model-{number}") for number in range(4)]
    (bench.folder / "in.jsonl").write_text("".join(lines))
    async with bench.serving() as up:
        config = bench.config()
        config["providers"][bench.dialect]["models"] = ["*", "*"]
        async with LLMManager.open(config) as manager:
            from llm.batch import run_remote  # noqa: PLC0415 - by itself here

            await run_remote(
                manager, bench.folder / "in.jsonl", bench.output, engine=bench.engine, pace=bench.pace, model="m"
            )
        assert [batch.key for batch in up.batches] == ["k1", "k2", "k1", "k2"]
        polled = {
            (probe.path.split("/")[-1], probe.key)
            for probe in up.probes
            if probe.path.split("/")[-1].startswith(("batch_", "msgbatch_"))
        }
        assert polled == {(batch.id, batch.key) for batch in up.batches}  # a part stays with its key


@pytest.mark.parametrize("kind", ["auth", "quota"])
async def test_a_key_that_is_refused_leaves_its_parts_to_the_next(bench: Bench, kind: str) -> None:
    async with bench.serving(Fault(kind, key="k1", route="POST *", every=1)) as up:
        await bench.run()
        assert [batch.key for batch in up.batches] == ["k2"]
    assert bench.texts() == ALL


async def test_where_no_key_is_left_the_run_stops_and_nothing_is_lost(bench: Bench) -> None:
    async with bench.serving(api_keys=["good"]):
        with pytest.raises(LLMAuthenticationError):
            await bench.run()
        bench.keys = ["good"]
        await bench.run()
        assert set(bench.submitted().values()) == {1}
    assert bench.texts() == ALL


@pytest.mark.parametrize("kind", ["server_error", "reset_before", "truncated", "html"])
async def test_a_submission_that_fails_in_passing_is_made_once(bench: Bench, kind: str) -> None:
    async with bench.serving(Fault(kind, route=bench.submit, times=2)) as up:
        await bench.run()
        assert len(up.batches) == 1
    assert bench.texts() == ALL


@pytest.mark.parametrize("route", ["GET */batches", "GET */batches/*", "POST */files", "GET */files", "GET */content"])
async def test_what_can_be_asked_twice_is_asked_again(bench: Bench, route: str) -> None:
    async with bench.serving(Fault("truncated", route=route), Fault("unavailable", route=route, at=2)) as up:
        bench.pace = replace(bench.pace, patience=30.0)
        await bench.run()
        assert len(up.batches) == 1
    assert bench.texts() == ALL
