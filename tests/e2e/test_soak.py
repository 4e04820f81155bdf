"""Shorter forms of `make soak`: everything that `manifold serve` is asked at once, its log and metrics held against it.

`make test` runs seconds of it, `make test-all` three minutes, `make soak` thirty.
"""

from __future__ import annotations

import pytest
from benchmarks.soak import run
from benchmarks.soak.books import Books


async def test_a_soak_breaks_no_promise() -> None:
    report = await run.run(3.0, seed=3, callers=12, stalls=False)
    assert report.broken == []
    assert report.calls.total() > 100
    assert {"200", "400", "401", "left"} <= report.outcomes.keys()
    assert report.faults
    assert report.reloads


@pytest.mark.soak
async def test_three_minutes_of_it_break_no_promise_and_memory_stays_flat() -> None:
    report = await run.run(180.0)
    assert report.broken == []
    assert len(report.memory) >= run.WARM  # it was looked at


PAGE = """
llm_gateway_requests_total{status="200"} 1.0
llm_gateway_tokens_generated_total 3.0
llm_gateway_active_requests 1.0
"""
LINE = b'{"request_id": "soak-1", "status": 200, "provider": "openai", "cached": false, "tokens": {"output": 3}}'


def books(*lines: bytes, status: int | None = 200) -> list[str]:
    """Return what is broken where one call was made, and these lines were written."""
    kept = Books()
    if status is not None:
        kept.answered(kept.next_id(), status)
    for line in lines:
        kept.hear(line)
    kept.close(PAGE)
    return [broken.partition(":")[0] for broken in kept.broken]


def test_what_does_not_add_up_is_told() -> None:
    assert books(LINE) == []
    assert books(LINE, status=503) == ["the log tells what the caller got"]
    assert books(LINE, status=None) == ["each line is of one call"]
    assert "each call has its line in the log" in books()
    assert "metrics add up to the calls" in books(LINE.replace(b": 3", b": 4"))
    assert "the log is JSON" in books(LINE, b"Traceback (most recent call last):")
    fault = b'{"level": "error", "logger": "llm.gateway", "message": "request soak-1 failed"}'
    assert "the gateway has no fault of its own" in books(LINE, fault)
