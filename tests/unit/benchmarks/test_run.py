from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from benchmarks.limits.generate import generate
from benchmarks.limits.report import write
from benchmarks.limits.run import configuration, run
from benchmarks.limits.variation import vary
from benchmarks.tables import made

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again


async def test_a_small_run_answers_every_job_and_measures_it(tmp_path: Path) -> None:
    scenario = generate("mixed", 1, jobs=60, times=0.5)
    outcome = await run(scenario)
    assert (outcome.answered, outcome.swapped, outcome.failed) == (60, 0, {})
    assert (outcome.tally.sent - outcome.tally.refused, outcome.tally.doubled) == (60, 0)
    assert 1.0 <= outcome.ratio < 2.0
    assert [len(history) for history in outcome.saturation] == [int(outcome.finish_s) + 1] * 4
    assert max(map(max, outcome.saturation)) > 0.9
    write(tmp_path, [outcome], [], made=made("benchmarks.limits"))
    assert (
        f"| mixed | vendor |  | {outcome.finish_s:.1f} | {outcome.ratio:.3f} |" in (tmp_path / "limits.md").read_text()
    )


async def test_callers_that_leave_are_not_waited_for_and_the_others_are_answered() -> None:
    outcome = await run(generate("equal", 1, jobs=60, times=0.5), variation="cancelled")
    assert (outcome.jobs, outcome.answered, outcome.tally.doubled) == (54, 54, 0)


async def test_another_program_on_a_key_takes_from_it() -> None:
    scenario = generate("equal", 1, jobs=60, times=0.5)
    alone, shared = await run(scenario), await run(scenario, variation="shared")
    assert shared.answered == 60
    assert shared.bound_s > alone.bound_s


def test_all_streams_are_the_same_jobs_as_streams() -> None:
    course = vary(generate("equal", 1, jobs=60), "streams")
    assert all(job.stream for job in course.scenario.jobs)


def test_a_client_is_told_the_limits_and_not_how_they_are_counted() -> None:
    told = json.dumps(configuration(generate("window", 1), "unknown"))
    assert "requests_per_minute" in told
    assert "sliding" not in told
    assert "phase" not in told
