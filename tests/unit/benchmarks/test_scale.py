from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from benchmarks.scale.bound import bound_s
from benchmarks.scale.cost import Cost, measure
from benchmarks.scale.plan import Plan, grid, main
from benchmarks.scale.report import write
from benchmarks.scale.simulate import TARGET, simulate
from benchmarks.scale.work import make
from benchmarks.tables import made

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again


async def test_more_keys_than_are_asked_each_are_filled_as_soon_as_arithmetic_allows(tmp_path: Path) -> None:
    outcome = await simulate(make(40, 11))
    assert (outcome.answered, outcome.jobs) == (4000, 4000)
    assert 1.0 <= outcome.ratio <= TARGET
    assert outcome.refused <= 5 * outcome.jobs / 600
    assert outcome.met
    write(tmp_path, [outcome], [Cost(100, 0.001), Cost(1000, 0.0012)], made=made("benchmarks.scale"))
    page = (tmp_path / "scale.md").read_text()
    assert f"| 40 | 40 | 4,000 | 11 | {outcome.finish_s:.1f} | {outcome.bound_s:.1f} | {outcome.ratio:.3f} |" in page
    assert "| 1,000 | 1200 | 1.20 | 1.50 |" in page


async def test_what_a_decision_costs_is_measured_side_by_side() -> None:
    few, many = await measure((10, 40), 1, rounds=1)
    assert (few.accounts, many.accounts) == (10, 40)
    assert min(few.cpu_s, many.cpu_s) > 0.0


def test_work_is_the_same_for_the_same_seed_and_larger_than_some_keys() -> None:
    work = make(20, 3)
    assert make(20, 3) == work
    assert make(20, 4) != work
    largest = max(job.charge.total_tokens for job in work.jobs)
    small = make(20, 3, each=20)
    assert min(limits["tokens_per_minute"] for limits in small.limits) < largest
    assert max(limits["tokens_per_minute"] for limits in work.limits) >= largest


def test_the_bound_grows_with_what_only_the_larger_keys_take() -> None:
    work = make(20, 3)
    assert bound_s(make(20, 3, jobs=4000)) > 1.5 * bound_s(work) > max(job.service_s for job in work.jobs)
    least = [max(1.0, stated["tokens_per_minute"] / 100) for stated in work.limits]
    shrunk = [dict(stated, tokens_per_minute=most) for stated, most in zip(work.limits, least, strict=True)]
    shrunk[0] = dict(work.limits[0])  # alone takes the larger ones
    assert bound_s(replace(work, limits=tuple(shrunk))) > 3 * bound_s(work)


def test_the_page_has_the_figures_that_the_formulae_give(root: Path) -> None:
    page = (root / "docs" / "scale.md").read_text()
    lines = [line for line in grid(Plan()).markdown().splitlines() if line.startswith("| ")]
    assert [line for line in lines if line not in page] == []
    given = [f"| `{name}` | {value:,g} |" for name, value in PLAN.items() if name != "model"]
    assert [line for line in given if line not in page] == []
    assert f"`{Plan().model}`" in page


PLAN = {name: getattr(Plan(), name) for name in Plan.__dataclass_fields__}


def test_a_readers_own_numbers_go_through_the_same_formulae(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rows", "1e6", "--accounts", "10"]) == 0
    assert "| rows a minute |" in capsys.readouterr().out
    plan = Plan(rows=1e6, accounts=10)
    assert plan.hours == pytest.approx(1e6 / 5000 / 60 * 1.1)
    assert plan.journal_bytes == 32e6
    assert Plan(tokens_per_minute=36_000).rows_per_minute == 100_000
    with pytest.raises(ValueError, match="price"):
        _ = Plan(model="nobody/nothing").cost
