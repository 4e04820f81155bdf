"""A small run of `make chaos`: faults of every kind, dying keys, reloads, callers that leave; nothing goes astray."""

from __future__ import annotations

import pytest
from benchmarks.chaos import fallback, run, witness

from llm.core.decisions import Decision
from llm.testing.faults import DAMAGES, REFUSALS


async def test_in_chaos_every_call_ends_in_its_own_answer_or_error_and_nothing_is_left_or_unaccounted_for() -> None:
    report = await run.run(1_000, seed=3)
    assert report.broken == []
    assert report.calls == report.outcomes.total() == 1_000
    assert set(report.faults) == {*REFUSALS, *DAMAGES}
    assert report.faults.total() > 0.15 * report.requests
    assert report.outcomes["answered"] > 0.5 * 1_000
    assert report.outcomes["cancelled"] > 0.01 * 1_000
    assert report.reloads > 3


async def test_with_fallback_nearly_all_calls_are_answered_while_a_provider_fails() -> None:
    fallen = await fallback.run(300)
    assert fallen.broken == []
    assert fallen.answered >= 0.999 * 300
    assert fallen.failed > 0.2 * fallen.requests
    assert fallen.others >= fallen.failed


@pytest.mark.parametrize(
    ("events", "fault"),
    [
        ("ticketed paid sent settled ended", None),
        ("ticketed paid sent unsent refunded paid sent answering settled ended", None),
        ("ticketed queued withdrawn ended", None),
        ("ticketed paid sent ended", "ended while sent"),
        ("ticketed paid paid sent settled ended", "paid while paid"),
        ("ticketed sent ended", "sent while free"),
        ("ticketed paid sent settled settled ended", "settled while free"),
        ("ticketed paid sent refunded ended", "refunded while sent"),
        ("ticketed ended ended", "something after the end"),
        ("ticketed paid sent settled", "no end"),
    ],
)
def test_a_decision_log_that_does_not_account_for_its_attempts_is_told(events: str, fault: str | None) -> None:
    assert witness.fault_of([Decision(0.0, event) for event in events.split()]) == fault
