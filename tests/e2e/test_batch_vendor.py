"""`manifold batch --engine …-batch` as a whole program: killed at its main steps, left by Ctrl-C, ended by --cancel."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from tests.held import HeldTime
from tests.patience import PATIENCE

from llm.testing import BatchScript, Fault, MockUpstream
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.forking import Ended, Forking

    Served = Callable[..., AbstractContextManager[MockUpstream]]

KEY = "sk-a-long-secret-key"
ROWS = 60
LOOK = threading.Event()
WITHOUT_RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="the extra ray is there")
MODELS = {"openai": "gpt-4o-mini", "anthropic": "claude-sonnet-4-5"}
STEPS = {
    "openai": ["POST */files", "POST */batches", "GET */content"],
    "anthropic": ["POST */batches", "GET */results"],
}


class Bench:
    """A folder with a configuration and an input, and the program run in it."""

    def __init__(self, folder: Path, forking: Forking, dialect: str) -> None:
        self.folder = folder
        self.forking = forking
        self.dialect = dialect

    def prepare(self, up: MockUpstream, rows: int = ROWS) -> None:
        section = f"{{base_url: '{up.base_url}', api_keys: [{KEY}], models: [{MODELS[self.dialect]}]}}"
        (self.folder / "llm.yaml").write_text(f"providers: {{{self.dialect}: {section}}}\n")
        with (self.folder / "in.jsonl").open("w") as file:
            for number in range(rows):
                body = {"messages": [{"role": "user", "content": f"text {number}"}], "max_tokens": 20}
                line = {"custom_id": f"r {number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
                file.write(json.dumps(line) + "\n")

    def __call__(self, *words: str, **options: Any) -> Ended:  # noqa: ANN401 - those of `Forking`
        engine = ["--engine", f"{self.dialect}-batch"]
        done = self.forking(self.folder, "batch", "in.jsonl", "-o", "out.jsonl", *engine, *words, **options)
        assert KEY not in done.out + done.err
        assert "Traceback" not in done.err
        return done

    def texts(self) -> dict[str, str]:
        lines = [json.loads(line) for line in (self.folder / "out.jsonl").read_text().splitlines()]
        told = {line["custom_id"]: line["response"]["body"]["choices"][0]["message"]["content"] for line in lines}
        assert len(told) == len(lines)
        return told


@pytest.fixture
def bench(tmp_path: Path, forking: Forking) -> Callable[[str], Bench]:
    return lambda dialect: Bench(tmp_path, forking, dialect)


def _submitted(up: MockUpstream) -> Counter[str]:
    return Counter(row.body["messages"][0]["content"] for batch in up.batches for row in batch.rows)


def _until(met: Callable[[], bool]) -> None:
    due = SystemClock().now() + PATIENCE
    while not met():
        assert SystemClock().now() < due, "it does not go on"
        LOOK.wait(0.002)


@pytest.mark.parametrize(("dialect", "step"), [(name, step) for name, steps in STEPS.items() for step in steps])
def test_killed_at_a_step_and_run_again_it_submits_no_row_twice_and_loses_none(
    bench: Callable[[str], Bench], served: Served, dialect: str, step: str
) -> None:
    ours = bench(dialect)
    # What the vendor was asked has been done there, and its answer never comes to its end.
    with served(dialect=dialect, faults=[Fault("stalled", route=step)]) as up:
        ours.prepare(up)

        def kill(child: int) -> None:
            _until(lambda: any(probe.fault for probe in up.probes))
            LOOK.wait(0.05)
            os.kill(child, signal.SIGKILL)

        assert ours(during=kill).status == -signal.SIGKILL
        again = ours()
        assert (again.status, _submitted(up)) == (0, Counter(f"text {number}" for number in range(ROWS)))
        assert len([probe for probe in up.probes if probe.method == "POST" and probe.path.endswith("/files")]) <= 1
    assert ours.texts() == {f"r {number}": f"text {number}" for number in range(ROWS)}
    assert not (ours.folder / "out.batches").exists()


@pytest.mark.parametrize("dialect", MODELS)
def test_ctrl_c_leaves_the_batches_and_says_how_to_go_on(
    bench: Callable[[str], Bench], served: Served, dialect: str
) -> None:
    ours = bench(dialect)
    held = HeldTime()
    with served(dialect=dialect, batches=BatchScript(running=1.0), clock=held) as up:
        ours.prepare(up, 20)

        def interrupt(child: int) -> None:
            _until(lambda: any(probe.method == "GET" and "batch_" in probe.path for probe in up.probes))
            os.kill(child, signal.SIGINT)

        left = ours(during=interrupt)
        assert left.status == 130
        assert "1 batch goes on at the vendor with 20 rows: run the same command again to collect" in left.err
        assert "or with --cancel to end" in left.err
        local = ours.forking(ours.folder, "batch", "in.jsonl", "-o", "out.jsonl")
        assert (local.status, len(up.requests)) == (2, 0)
        assert f"20 rows for out.jsonl are in batches of {dialect}-batch" in local.err
        assert ours("--restart").status == 2
        told = ours("--dry-run")
        assert "Done already: 20 rows." in told.err
        held.go_on(1.0)
        again = ours("--json")
        assert (again.status, again.json["answered"], again.json["complete"]) == (0, 20, True)
        assert len(up.batches) == 1
    assert len(ours.texts()) == 20


def test_cancel_ends_what_is_at_the_vendor_and_keeps_what_was_answered(
    bench: Callable[[str], Bench], served: Served
) -> None:
    ours = bench("openai")
    held = HeldTime()
    with served(dialect="openai", batches=BatchScript(running=1.0), clock=held) as up:
        ours.prepare(up, 100)

        def interrupt(child: int) -> None:
            _until(lambda: any(probe.method == "GET" and "batch_" in probe.path for probe in up.probes))
            os.kill(child, signal.SIGINT)

        assert ours(during=interrupt).status == 130
        held.go_on(0.5)
        ended = ours("--cancel", "--json")
        answered = len(ours.texts())
        assert 0 < answered < 100
        assert (ended.status, ended.json["answered"], ended.json["failed"]) == (1, answered, 100 - answered)
        assert ended.json["errors"] == {"batch_cancelled": 100 - answered}
        nothing = ours("--cancel")
        assert (nothing.status, "nothing for out.jsonl is at a vendor\n" in nothing.err) == (1, True)


def test_a_dry_run_tells_tokens_parts_and_the_price_of_batches(bench: Callable[[str], Bench], served: Served) -> None:
    ours = bench("openai")
    with served() as up:
        ours.prepare(up, 10)
        local = ours.forking(ours.folder, "batch", "in.jsonl", "--dry-run", "--json").json
        told = ours("--dry-run", "--json").json
        shown = ours("--dry-run")
        assert (up.probes, up.requests) == ([], [])
    assert (told["rows"], told["parts"], told["input_tokens"]) == (10, 1, local["input_tokens"])
    assert told["cost"] == pytest.approx(local["cost"] / 2)
    assert "It goes over in 1 batch, at the price of batches; the vendor takes up to 24 hours for each." in shown.err
    assert "calls at once" not in shown.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cancel"], "name whose: --engine openai-batch"),
        (["--engine", "openai-batch", "--cancel", "--restart"], "--cancel goes with neither"),
        pytest.param(["--engine", "ray"], "--engine", marks=WITHOUT_RAY),
    ],
)
def test_what_does_not_go_together_is_refused(forking: Forking, tmp_path: Path, words: list[str], said: str) -> None:
    done = forking(tmp_path, "batch", "in.jsonl", "-o", "out.jsonl", *words)
    assert (done.status, said in done.err) == (2, True)


def test_a_provider_that_refuses_the_key_ends_it_with_3_and_the_next_run_goes_on(
    bench: Callable[[str], Bench], served: Served
) -> None:
    ours = bench("openai")
    with served(api_keys=["another"]) as up:
        ours.prepare(up, 5)
        done = ours()
        assert (done.status, "everything finished is kept, run the same command again to go on" in done.err) == (
            3,
            True,
        )
    with served() as up:
        ours.prepare(up, 5)
        assert ours().status == 0
    assert len(ours.texts()) == 5
