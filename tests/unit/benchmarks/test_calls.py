from __future__ import annotations

import json
import os
import signal
import socket
import sys
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import pytest
from benchmarks.calls import cli, report
from benchmarks.calls.figures import Cost, Figures, Imports, Memory, targets
from benchmarks.calls.measure import Plan, TurnFailedError, in_turn, one_round, server
from benchmarks.calls.saved import as_json, load, save
from benchmarks.calls.shape import (
    ALL_LIMITS,
    BARE,
    GROUPS,
    HIT,
    KEY_LIMITS,
    LITELLM,
    NO_LIMITS,
    NO_METRICS,
    VENDOR,
    Shape,
)
from benchmarks.calls.ways.bare import bare
from benchmarks.calls.ways.hits import Hits, memory
from benchmarks.calls.worker import turn
from benchmarks.programs import first_line, program
from benchmarks.redis_server import redis_server

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncGenerator, Iterator, Sequence
    from pathlib import Path

    from benchmarks.calls.figures import Piece
    from benchmarks.calls.shape import Call

pytestmark = pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again

CALL = Shape("openai", streamed=False, at_once=32)
STREAM = Shape("openai", streamed=True, at_once=32)
ROUNDS = [100.0, 200.0, 100.0]  # of a bare call; the machine was slow in the second


def cost(way: str, *us: float, shape: Shape = CALL) -> Cost:
    return Cost(way, shape, list(us), ROUNDS)


def figures(*, limited: tuple[float, ...] = (110, 240, 120), imports: float = 300) -> Figures:
    free = [cost(NO_METRICS, 95, 200, 100), cost(NO_LIMITS, 100, 210, 105)]
    keyed = cost(KEY_LIMITS, 105, 220, 110)
    costs = [cost(BARE, *ROUNDS), *free, keyed, cost(ALL_LIMITS, *limited), cost(HIT, 10, 20, 10)]
    chunks = cost(ALL_LIMITS, 140, 290, 150, shape=STREAM)
    return Figures([*costs, chunks], [Memory(BARE, "openai", 2048.0)], Imports([imports] * 3, [100.0] * 3))


def test_a_ratio_is_taken_round_by_round_so_that_a_slow_moment_does_not_count() -> None:
    assert cost(ALL_LIMITS, 120, 240, 500).ratio == 1.2


def test_every_target_is_met_or_missed_by_its_own_figure() -> None:
    found = {target.name: (round(target.value or 0, 3), target.met) for target in targets(figures())}
    assert found == {
        "openai: a call, limits of the key on": (1.1, True),
        "openai: a call, all limits on": (1.2, True),
        "openai: a streamed chunk, all limits on": (1.45, True),
        "openai: a hit in the memory cache": (0.1, True),
        "openai: what limits of the key add to a call": (0.05, True),
        "openai: what all limits add to a call": (0.15, True),
        "openai: what metrics add to a call": (0.05, True),
        "import llm": (3.0, True),
    }
    slow = {target.name: target.met for target in targets(figures(limited=(130, 260, 130), imports=401))}
    assert [name for name, met in slow.items() if not met] == [
        "openai: a call, all limits on",
        "openai: what all limits add to a call",
        "import llm",
    ]


def test_what_was_not_measured_has_no_target() -> None:
    assert targets(Figures()) == []
    assert [target.most for target in targets(Figures([cost(HIT, 10, 20, 10)]))] == [0.15]


def test_the_page_shows_each_way_each_target_and_how_it_was_made(tmp_path: Path) -> None:
    report.write(tmp_path, replace(figures(limited=(130, 260, 130)), made={"import": "Measured here."}))
    page = (tmp_path / "calls.md").read_text(encoding="utf-8")
    assert "Measured here." in page
    assert f"| {ALL_LIMITS} | 130.0 | 1.30 |" in page
    assert f"| {ALL_LIMITS} | 150.0 | 1.45 |" in page
    assert f"| {BARE} | openai | 2.0 |" in page
    assert "| openai: what all limits add to a call | 0.25 | 0.20 | missed |" in page
    assert [name for name in ("calls-cpu.png", "calls-memory.png") if name not in page] == []


def test_a_page_of_a_part_has_no_place_for_the_pictures_of_the_rest(tmp_path: Path) -> None:
    report.write(tmp_path, import_of(300))
    page = (tmp_path / "calls.md").read_text(encoding="utf-8")
    assert "png" not in page
    assert "| import llm | 300.0 | 3.00 |" in page


def test_figures_come_back_from_json_as_they_were(tmp_path: Path) -> None:
    found = replace(figures(), made={str(CALL): "Measured here."}, missing=["memory"])
    found.costs.append(Cost(VENDOR, CALL, [], [], "APITimeoutError: Request timed out."))
    save(tmp_path / "new" / "bench.json", found)
    assert load(tmp_path / "new" / "bench.json") == found
    assert {target["met"] for target in json.loads(as_json(found))["targets"]} == {True}


def test_json_of_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.json"
    other.write_text("{}")
    assert cli.main(["--json", str(other), "--resume"], nothing) == 2
    assert "does not hold figures of this benchmark" in capsys.readouterr().err
    assert cli.main(["--redraw"], nothing) == 2
    assert "need --json" in capsys.readouterr().err


def test_a_way_that_fails_has_a_word_instead_of_figures_and_a_target_of_it_is_missed(tmp_path: Path) -> None:
    why = "APITimeoutError: Request timed out."
    failed = [Cost(way, CALL, [], [], why) for way in (VENDOR, ALL_LIMITS)]
    found = Figures([cost(BARE, *ROUNDS), cost(NO_LIMITS, *ROUNDS), *failed], [Memory(VENDOR, "openai", 0, why)])
    report.write(tmp_path, found)
    page = (tmp_path / "calls.md").read_text(encoding="utf-8")
    assert f"| {VENDOR} | failed |  |" in page
    assert f"- {VENDOR} failed: {why} (openai, calls, 32 at once; open streams, openai)" in page
    assert "| openai: a call, all limits on | failed | 1.20 | missed |" in page
    assert "| openai: what all limits add to a call | failed | 0.20 | missed |" in page


def test_one_that_fails_does_not_stop_the_others_and_has_no_turn_any_more() -> None:
    asked: list[str] = []

    def cost_of(way: str) -> float:
        asked.append(way)
        if way == HIT:
            raise TurnFailedError("it cannot")
        return 100.0

    costs = {way: Cost(way, CALL, [], []) for way in (BARE, HIT, ALL_LIMITS)}
    for number in range(2):
        costs = one_round(costs, number, cost_of)
    assert (costs[HIT].failed, costs[HIT].us) == ("it cannot", [])
    assert (costs[ALL_LIMITS].us, costs[ALL_LIMITS].bare) == ([100.0, 100.0], [100.0, 100.0])
    assert asked.count(HIT) == 1
    assert asked == [BARE, HIT, BARE, ALL_LIMITS, BARE, ALL_LIMITS]


def test_where_all_have_failed_nobody_has_a_turn() -> None:
    def cost_of(_: str) -> float:
        raise TurnFailedError("no server")

    costs = {BARE: Cost(BARE, CALL, [], []), HIT: Cost(HIT, CALL, [], [], "it cannot")}
    assert one_round(costs, 1, cost_of) == costs


def test_all_are_compared_with_the_bare_calls_between_them() -> None:
    seconds = iter([100.0, 150.0, 200.0, 30.0])  # bare, limits; bare, hit
    costs = {way: Cost(way, CALL, [], []) for way in (BARE, ALL_LIMITS, HIT)}
    costs = one_round(costs, 0, lambda _: next(seconds))
    assert [costs[way].ratio for way in (BARE, ALL_LIMITS, HIT)] == [1.0, 1.0, 0.2]
    assert costs[BARE].us == [150.0]


def test_without_bare_calls_nothing_has_a_figure() -> None:
    def cost_of(way: str) -> float:
        if way == BARE:
            raise TurnFailedError("no server")
        return 100.0

    costs = one_round({way: Cost(way, CALL, [], []) for way in (BARE, HIT)}, 0, cost_of)
    assert [cost.failed for cost in costs.values()] == ["bare calls failed: no server"] * 2


def test_rounds_that_agree_are_enough_and_few_or_unlike_ones_are_not() -> None:
    def settled(*us: float) -> bool:
        return Cost(HIT, CALL, list(us), [100.0] * len(us)).settled

    assert settled(120, 121, 120, 119)
    assert not settled(120, 121, 120)
    assert not settled(120, 150, 90, 119)


def test_a_worker_says_why_a_client_failed_and_goes_on() -> None:
    @asynccontextmanager
    async def refused(_root: str, _shape: Shape) -> AsyncGenerator[Call]:
        async def call() -> int:
            raise OSError("connection refused")

        yield call

    asked = {"way": "refused", "root": "", "shape": asdict(CALL), "calls": 32}
    assert turn({"refused": refused}, asked) == {"failed": "OSError: connection refused"}


@pytest.mark.parametrize("streamed", [False, True])
async def test_hits_are_answered_by_the_cache_and_each_of_those_at_once_asks_something_else(streamed: bool) -> None:
    shape = Shape("openai", streamed, 3)
    with server() as root:
        async with Hits(memory)(root, shape) as call:
            assert [await call() for _ in range(4)] == [shape.characters] * 4


async def test_calls_that_no_cache_answers_are_not_taken_for_hits() -> None:
    with server() as root:
        async with Hits(lambda: {"backend": "none"})(root, Shape("openai", streamed=False, at_once=1)) as call:
            with pytest.raises(RuntimeError, match="does not answer"):
                await call()


def test_a_redis_server_of_its_own_ends_with_the_run() -> None:
    with redis_server() as server:
        assert server is not None
        where = ("127.0.0.1", int(server.url.rpartition(":")[2].removesuffix("/0")))
        server.kill()
        server.start()
        socket.create_connection(where).close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(where)


def test_the_tables_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    report.show(figures())
    assert "Targets" in capsys.readouterr().out


def test_everyone_is_first_now_and_then() -> None:
    assert [in_turn(["a", "b", "c"], turn)[0] for turn in range(4)] == ["a", "b", "c", "a"]


def test_every_process_has_bare_calls_of_its_own_to_compare_with() -> None:
    assert all(ways[0] == BARE for ways in GROUPS.values())


def test_what_lasts_has_fewer_rounds_and_what_has_targets_more() -> None:
    plan, many, alone = Plan(10, 640), replace(CALL, at_once=1000), replace(STREAM, at_once=1)
    assert [plan.rounds_of(shape) for shape in (CALL, STREAM, many, alone)] == [80, 30, 2, 5]
    assert [plan.rounds_of(shape, "litellm_peer") for shape in (CALL, STREAM, many)] == [3, 3, 1]
    assert [plan.calls_of(shape) for shape in (CALL, STREAM, many, alone)] == [640, 32, 1000, 2]
    assert plan.calls_of(CALL, LITELLM) == 40
    assert [str(piece) for piece in plan.pieces(["import", "streams"])][:2] == ["import", "openai, streams, 1 at once"]


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_the_server_answers_whole(dialect: str, streamed: bool) -> None:
    with server() as root:
        for at_once in (1, 1000):
            shape = Shape("openai" if dialect == "openai" else "anthropic", streamed, at_once)
            async with bare(root + shape.path, shape) as call:
                assert await call() == shape.characters


def nothing(_plan: Plan, _pieces: Sequence[Piece]) -> Iterator[Figures]:
    return iter(())


def import_of(ms: float) -> Figures:
    return Figures(imports=Imports([ms], [100.0]))


class Measuring:
    """Gives figures in order, notes what was asked for, and is stopped where they end too early."""

    def __init__(self, *found: Figures) -> None:
        self.found = list(found)
        self.asked: list[list[str]] = []

    def __call__(self, _plan: Plan, pieces: Sequence[Piece]) -> Iterator[Figures]:
        self.asked.append([str(piece) for piece in pieces])
        for _ in pieces:
            if not self.found:
                os.kill(os.getpid(), signal.SIGTERM)
            yield self.found.pop(0)


def test_the_exit_status_tells_of_a_missed_target_and_the_figures_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--only", "import", "--json", str(tmp_path / "new" / "bench.json")]
    measuring = Measuring(import_of(300), import_of(500))
    assert cli.main(arguments, measuring) == 0
    assert cli.main(arguments, measuring) == 1
    assert load(tmp_path / "new" / "bench.json").imports.ours == [500.0]
    assert "missed" in capsys.readouterr().out


def test_what_is_asked_for_is_what_is_measured() -> None:
    asked: list[tuple[Plan, list[Piece]]] = []

    def measure(plan: Plan, pieces: Sequence[Piece]) -> Iterator[Figures]:
        asked.append((plan, list(pieces)))
        return iter(())

    cli.main(["--rounds", "4", "--calls", "50", "--only", "import", "calls"], measure)
    cli.main(["--quick"], measure)
    assert (asked[0][0], len(asked[0][1])) == (Plan(4, 50), 1 + 6)
    assert (asked[1][0].at_once, len(asked[1][1])) == ((32,), 2 + 2 + 1 + 1)


def test_a_part_measured_anew_takes_its_place_beside_the_others(tmp_path: Path) -> None:
    place = tmp_path / "bench.json"
    save(place, replace(figures(), made={"import": "Then.", "memory": "Then."}))
    arguments = ["--json", str(place), "--only", "import", "--results", str(tmp_path)]
    cli.main(arguments, Measuring(import_of(200)))
    kept = load(place)
    assert (kept.imports.ours, kept.costs, kept.made["memory"]) == ([200.0], figures().costs, "Then.")
    page = (tmp_path / "calls.md").read_text(encoding="utf-8")
    assert "Then. So: memory." in page
    assert "So: import." in page


def test_a_page_is_drawn_again_without_measuring(tmp_path: Path) -> None:
    save(tmp_path / "bench.json", figures())
    measuring = Measuring()
    assert cli.main(["--json", str(tmp_path / "bench.json"), "--results", str(tmp_path), "--redraw"], measuring) == 0
    assert f"| {ALL_LIMITS} | 120.0 | 1.20 |" in (tmp_path / "calls.md").read_text(encoding="utf-8")
    assert measuring.asked == []


def test_a_number_below_one_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--rounds", "0"])
    assert stopped.value.code == 2
    assert "0 is less than 1" in capsys.readouterr().err


def test_what_is_terminated_keeps_what_it_has_says_what_is_missing_and_can_be_gone_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "bench.json"
    arguments = ["--json", str(place), "--results", str(tmp_path), "--only", "import", "memory"]
    assert cli.main(arguments, Measuring(import_of(300))) == 130
    assert "Stopped. `--resume` goes on." in capsys.readouterr().err
    assert "**Incomplete**: it was stopped before memory." in (tmp_path / "calls.md").read_text(encoding="utf-8")
    going_on = Measuring(Figures(memory=[Memory(BARE, "openai", 2048.0)]))
    assert cli.main([*arguments, "--resume"], going_on) == 0
    assert going_on.asked == [["memory"]]
    assert (load(place).imports.ours, load(place).missing) == ([300.0], [])
    assert "Incomplete" not in (tmp_path / "calls.md").read_text(encoding="utf-8")


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
