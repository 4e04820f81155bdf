"""One look a second for all who watch, none while nobody does, and to each what it has not seen."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, cast

import orjson
import pytest

from llm.gateway.dashboard.feed import POINTS, Feed
from llm.gateway.dashboard.sight import Look
from llm.providers.endpoints.caller import ANYONE, Caller
from llm.testing import FakeClock

if TYPE_CHECKING:
    from llm.gateway.dashboard.sight import Sight

ALICE = Caller("a", "alice")


class Clock(FakeClock):
    """One whose time also passes while something is done."""

    extra = 0.0

    def jump(self, seconds: float) -> None:
        self.extra += seconds

    def now(self) -> float:
        return super().now() + self.extra


class Scene:
    """Looks that a test sets; a `Sight`."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.looks = 0
        self.open_: list[bool] = []
        self.sections: dict[str, Any] = {}
        self.calls: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self.takes = 0.0

    def open(self) -> None:
        self.open_.append(True)

    def close(self) -> None:
        self.open_.append(False)

    def look(self) -> Look:
        self.looks += 1
        self.clock.jump(self.takes)
        if self.error is not None:
            raise self.error
        calls, self.calls = self.calls, []
        return Look([self.clock.wall(), self.looks], dict(self.sections), calls)


class Bench:
    def __init__(self) -> None:
        self.clock = Clock(start=0.0)
        self.scene = Scene(self.clock)
        self.feed = Feed(cast("Sight", self.scene), self.clock)

    def event(self, since: int, caller: Caller = ANYONE) -> dict[str, Any]:
        return dict(orjson.loads(b"{%b}" % self.feed.event(since, caller)))


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_nobody_watches_nothing_is_looked_at(bench: Bench) -> None:
    await bench.clock.advance(60.0)
    assert bench.scene.looks == 0
    with bench.feed.watched():
        assert bench.scene.looks == 1
        await bench.clock.advance(3.0)
        assert bench.scene.looks == 4
    await bench.clock.advance(60.0)
    assert bench.scene.looks == 4
    assert bench.scene.open_ == [True, False]


async def test_a_look_is_one_however_many_watch(bench: Bench) -> None:
    with bench.feed.watched(), bench.feed.watched(), bench.feed.watched():
        await bench.clock.advance(2.0)
        assert bench.scene.looks == 3
        assert bench.feed.viewers == 3
        first, second = (bench.feed.event(1, ANYONE) for _ in range(2))
        assert first is second  # written once
    assert bench.scene.open_ == [True, False]


async def test_who_has_seen_some_is_told_what_changed_since(bench: Bench) -> None:
    bench.scene.sections = {"a": 1, "b": [1]}
    with bench.feed.watched():
        whole = bench.event(-1)
        assert whole == {"a": 1, "b": [1], "points": [[bench.clock.wall(), 1]]}
        bench.scene.sections = {"a": 2, "b": [1]}
        await bench.clock.advance(1.0)
        assert set(bench.event(1)) == {"a", "points"}
        assert set(bench.event(-1)) == {"a", "b", "points"}
        await bench.clock.advance(1.0)
        assert set(bench.event(2)) == {"points"}
        assert bench.event(1)["a"] == 2
        assert [point[1] for point in bench.event(1)["points"]] == [2, 3]
        bench.scene.sections = {"b": [1]}
        await bench.clock.advance(1.0)
        assert set(bench.event(-1)) == {"b", "points"}


async def test_calls_and_costs_of_others_are_for_operators(bench: Bench) -> None:
    bench.scene.sections = {"cost": 1, "reasons": {}, "rates": 3}
    bench.scene.calls = [{"user": "alice", "n": 1}, {"user": "bob", "n": 2}, {"user": None, "n": 3}]
    with bench.feed.watched():
        assert [call["n"] for call in bench.event(-1)["calls"]] == [1, 2, 3]
        hers = bench.event(-1, ALICE)
        assert [call["n"] for call in hers["calls"]] == [1]
        assert set(hers) == {"rates", "points", "calls"}
        assert [call["n"] for call in bench.event(-1, Caller("o", "ops", operator=True))["calls"]] == [1, 2, 3]
        assert "calls" not in bench.event(-1, Caller("c", "carol"))


async def test_what_is_kept_is_bounded(bench: Bench) -> None:
    with bench.feed.watched():
        for number in range(POINTS + 50):
            bench.scene.calls = [{"user": "alice", "n": number}] * 2
            await bench.clock.advance(1.0)
        whole = bench.event(-1)
        assert len(whole["points"]) == POINTS
        assert len(whole["calls"]) == 60


async def test_points_outlive_a_page_that_is_loaded_again_and_not_five_minutes(bench: Bench) -> None:
    with bench.feed.watched():
        await bench.clock.advance(5.0)
    await bench.clock.advance(60.0)
    with bench.feed.watched():
        assert len(bench.event(-1)["points"]) == 7
    await bench.clock.advance(250.0)
    with bench.feed.watched():
        assert len(bench.event(-1)["points"]) == 2


async def test_a_look_that_fails_is_logged_and_the_next_is_taken(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    with bench.feed.watched(), caplog.at_level(logging.ERROR, "llm.gateway"):
        bench.scene.error = ZeroDivisionError("a secret")
        await bench.clock.advance(1.0)
        assert bench.feed.turn == 1
        bench.scene.error = None
        await bench.clock.advance(1.0)
        assert bench.feed.turn == 2
    assert "ZeroDivisionError" in caplog.text
    assert "secret" not in caplog.text


async def test_looking_takes_at_most_a_twentieth_of_the_time(bench: Bench) -> None:
    bench.scene.takes = 0.2
    with bench.feed.watched():
        await bench.clock.advance(3.9)
        assert bench.scene.looks == 1
        await bench.clock.advance(0.2)
        assert bench.scene.looks == 2


async def test_a_slow_look_never_leaves_a_page_without_news_until_it_takes_the_stream_for_lost(bench: Bench) -> None:
    bench.scene.takes = 1.0
    with bench.feed.watched():
        await bench.clock.advance(4.0)
        assert bench.scene.looks == 2


async def test_who_waits_is_woken_by_the_next_look_and_by_the_end(bench: Bench) -> None:
    with bench.feed.watched():
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(bench.feed.after(1))
            await bench.clock.advance(0.5)
            assert not waiting.done()
            await bench.clock.advance(0.6)
            assert waiting.done()
            waiting = group.create_task(bench.feed.after(2))
            await bench.clock.advance(0.1)
            bench.feed.close()
    assert waiting.done()
