from __future__ import annotations

import json
import signal
import sys
from typing import TYPE_CHECKING

import orjson
import pytest
from benchmarks.calls import cli, report
from benchmarks.calls.figures import Cost, Figures, Imports, Memory, targets
from benchmarks.calls.measure import Plan, in_turn, server
from benchmarks.calls.shape import ALL_LIMITS, BARE, GROUPS, HIT, NO_LIMITS, NO_METRICS, Shape
from benchmarks.calls.ways.bare import bare
from benchmarks.programs import first_line, program

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence
    from pathlib import Path

CALL = Shape("openai", streamed=False, at_once=32)
STREAM = Shape("openai", streamed=True, at_once=32)
ROUNDS = [100.0, 200.0, 100.0]  # of a bare call; the machine was slow in the second


def cost(way: str, *us: float, shape: Shape = CALL) -> Cost:
    return Cost(way, shape, list(us), ROUNDS)


def figures(*, limited: tuple[float, ...] = (110, 240, 120), imports: float = 300) -> Figures:
    free = [cost(NO_METRICS, 95, 200, 100), cost(NO_LIMITS, 100, 210, 105)]
    costs = [cost(BARE, *ROUNDS), *free, cost(ALL_LIMITS, *limited), cost(HIT, 10, 20, 10)]
    chunks = cost(ALL_LIMITS, 140, 290, 150, shape=STREAM)
    return Figures([*costs, chunks], [Memory(BARE, "openai", 2048.0)], Imports([imports] * 3, [100.0] * 3))


def test_a_ratio_is_taken_round_by_round_so_that_a_slow_moment_does_not_count() -> None:
    assert cost(ALL_LIMITS, 120, 240, 500).ratio == 1.2


def test_every_target_is_met_or_missed_by_its_own_figure() -> None:
    found = {target.name: (round(target.value, 3), target.met) for target in targets(figures())}
    assert found == {
        "openai: a call, all limits on": (1.2, True),
        "openai: a streamed chunk, all limits on": (1.45, True),
        "openai: a hit in the memory cache": (0.1, True),
        "openai: what limits add to a call": (0.15, True),
        "openai: what metrics add to a call": (0.05, True),
        "import llm": (3.0, True),
    }
    slow = {target.name: target.met for target in targets(figures(limited=(130, 260, 130), imports=401))}
    assert [name for name, met in slow.items() if not met] == [
        "openai: a call, all limits on",
        "openai: what limits add to a call",
        "import llm",
    ]


def test_what_was_not_measured_has_no_target() -> None:
    assert targets(Figures()) == []
    assert [target.most for target in targets(Figures([cost(HIT, 10, 20, 10)]))] == [0.15]


def test_the_page_shows_each_way_each_target_and_how_it_was_made(tmp_path: Path) -> None:
    report.write(tmp_path, figures(limited=(130, 260, 130)), made="Measured here.")
    page = (tmp_path / "calls.md").read_text(encoding="utf-8")
    assert "Measured here." in page
    assert f"| {ALL_LIMITS} | 130.0 | 1.30 |" in page
    assert f"| {ALL_LIMITS} | 150.0 | 1.45 |" in page
    assert f"| {BARE} | openai | 2.0 |" in page
    assert "| openai: what limits add to a call | 0.25 | 0.20 | missed |" in page
    assert [name for name in ("calls-cpu.png", "calls-memory.png") if name not in page] == []


def test_a_page_of_a_part_has_no_place_for_the_pictures_of_the_rest(tmp_path: Path) -> None:
    report.write(tmp_path, Figures(imports=Imports([300.0], [100.0])), made="")
    page = (tmp_path / "calls.md").read_text(encoding="utf-8")
    assert "png" not in page
    assert "| import llm | 300.0 | 3.00 |" in page


def test_the_json_has_every_round_and_every_target() -> None:
    told = json.loads(json.dumps(report.as_json(figures())))
    assert [row["us"] for row in told["costs"] if row["way"] == HIT] == [[10, 20, 10]]
    assert told["costs"][0]["shape"] == {"dialect": "openai", "streamed": False, "at_once": 32}
    assert {target["met"] for target in told["targets"]} == {True}


def test_the_tables_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    report.show(figures())
    assert "Targets" in capsys.readouterr().out


def test_everyone_is_first_now_and_then() -> None:
    assert [in_turn(["a", "b", "c"], turn)[0] for turn in range(4)] == ["a", "b", "c", "a"]


def test_every_process_has_bare_calls_of_its_own_to_compare_with() -> None:
    assert all(ways[0] == BARE for ways in GROUPS.values())


def test_a_thousand_at_once_have_fewer_rounds_and_as_many_calls() -> None:
    plan, many = Plan(rounds=10, calls=640), Shape("openai", streamed=False, at_once=1000)
    assert (plan.rounds_of(CALL), plan.calls_of(CALL)) == (10, 640)
    assert (plan.rounds_of(many), plan.calls_of(many)) == (2, 1000)
    assert plan.calls_of(STREAM) == 32
    assert plan.turns(streamed=False) == 2 * (10 + 10 + 2)


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_the_server_answers_whole(dialect: str, streamed: bool) -> None:
    shape = Shape("openai" if dialect == "openai" else "anthropic", streamed, 1)
    with server() as root:
        async with bare(root, shape) as call:
            assert await call() == shape.characters


def test_the_exit_status_tells_of_a_missed_target_and_the_figures_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [Figures(imports=Imports([imports], [100.0])) for imports in (500.0, 300.0)]

    def measure(_plan: Plan, _parts: Sequence[str]) -> Figures:
        return found.pop()

    arguments = ["--json", str(tmp_path / "new" / "bench.json")]
    assert cli.main(arguments, measure) == 0
    assert cli.main(arguments, measure) == 1
    assert orjson.loads((tmp_path / "new" / "bench.json").read_bytes())["imports"]["ours"] == [500.0]
    assert "missed" in capsys.readouterr().out


def test_what_is_asked_for_is_what_is_measured() -> None:
    asked: list[tuple[Plan, list[str]]] = []

    def measure(plan: Plan, parts: Sequence[str]) -> Figures:
        asked.append((plan, list(parts)))
        return Figures()

    cli.main(["--rounds", "4", "--calls", "50", "--only", "import", "calls"], measure)
    cli.main(["--quick"], measure)
    assert asked[0] == (Plan(4, 50), ["import", "calls"])
    assert (asked[1][0].at_once, asked[1][1]) == ((32,), ["calls", "streams", "memory", "import"])


def test_a_number_below_one_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--rounds", "0"])
    assert stopped.value.code == 2
    assert "0 is less than 1" in capsys.readouterr().err


def test_an_interrupt_ends_it_in_a_line_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def stopped(_plan: Plan, _parts: Sequence[str]) -> Figures:
        raise KeyboardInterrupt

    assert cli.main(["--results", str(tmp_path / "results")], stopped) == 130
    assert capsys.readouterr().err == "Stopped; nothing was written.\n"
    assert not (tmp_path / "results").exists()


def test_an_interrupt_leaves_no_program_behind() -> None:
    started: list[subprocess.Popen[str]] = []

    def interrupted() -> None:
        with program(sys.executable, "benchmarks.calls.server") as process:
            started.append(process)
            assert first_line(process).isdigit()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [process.returncode for process in started] == [-signal.SIGKILL]
