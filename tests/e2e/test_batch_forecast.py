"""The time that a dry run foretells is the time that the run takes: limits of all kinds, on a clock that tests move."""

# ruff: noqa: ANN401, S311 - what a row may hold; a test's dice
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from llm import LLMManager
from llm.batch.dialect import request_of
from llm.batch.forecast import forecast
from llm.batch.values import CHAT, BadRow, Row
from llm.testing import FakeClock, MockUpstream
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from llm.utils.clock import Clock

PROMISED = 0.10
"""Of the run's time: what the forecast may be off."""

MINI = "gpt-4o-mini"
HAIKU = "claude-3-5-haiku-20241022"
WORDS = ("quick", "brown", "fox", "jumps", "over", "lazy", "dogs", "while", "seven", "wizards", "brew", "potions")


def row(number: int, text: str, **body: Any) -> Row:
    return Row(number, f"row-{number}", CHAT, {"messages": [{"role": "user", "content": text}], **body}, number + 1)


def rows(
    count: int,
    *,
    words: tuple[int, int] = (5, 40),
    seed: int = 7,
    one_of: Mapping[str, Sequence[Any]] | None = None,
    **body: Any,
) -> list[Row]:
    """Rows of random texts; of the options in `one_of` each has one of the values."""
    dice = Random(seed)

    def one(number: int) -> Row:
        text = " ".join(dice.choices(WORDS, k=dice.randint(*words)))
        chosen = {name: dice.choice(values) for name, values in (one_of or {}).items()}
        return row(number, f"{number} {text}", **body, **chosen)

    return [one(number) for number in range(count)]


async def portions_of(rows: Sequence[Row | BadRow]) -> AsyncIterator[Sequence[Row | BadRow]]:
    for start in range(0, len(rows), 100):
        yield rows[start : start + 100]


async def run(manager: LLMManager, rows: Sequence[Row], clock: Clock, workers: int = 64) -> float:
    """Answer all rows as the engine does; return the seconds that it took."""
    client, rest, began = manager.get_client(), iter(rows), clock.now()

    async def work() -> None:
        for row in rest:
            await client.request(request_of(row))

    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(work())
    return clock.now() - began


@dataclass(frozen=True)
class Case:
    """A configuration, and a server that keeps the same limits."""

    rows: list[Row]
    limits: Mapping[str, Mapping[str, Any]]
    models: tuple[str, ...] = (MINI,)
    kind: str = "openai"
    server: Mapping[str, Any] = field(default_factory=dict[str, Any])
    more: Mapping[str, Any] = field(default_factory=dict[str, Any])
    workers: int = 64

    def config(self, base_url: str = "http://upstream.test") -> dict[str, Any]:
        section = {
            "base_url": base_url,
            "api_keys": list(self.limits),
            "models": list(self.models),
            "rate_limits": list(self.limits.values()),
        }
        return {"providers": {self.kind: section}, **self.more}

    def upstream(self, clock: Clock) -> MockUpstream:
        dialect: Any = self.kind
        enforced = {
            key: {name: value for name, value in of.items() if name != "algorithm"} for key, of in self.limits.items()
        }
        options: dict[str, Any] = {"network": (0.002, 0.01), **self.server}
        return MockUpstream(dialect, limits=enforced, clock=clock, **options)


UNEQUAL = {
    f"key-{number}": {"requests_per_minute": requests, "tokens_per_minute": tokens}
    for number, (requests, tokens) in enumerate([(20, 1000), (40, 2000), (100, 6000), (200, 20000)])
}
CASES = {
    "requests": Case(rows(250, model=MINI, max_tokens=16), {"k": {"requests_per_minute": 100}}),
    "tokens, with answers much shorter than max_tokens": Case(
        rows(250, model=MINI, max_tokens=400), {"k": {"requests_per_minute": 300, "tokens_per_minute": 5000}}
    ),
    "tokens, and no max_tokens": Case(rows(250, model=MINI), {"k": {"tokens_per_minute": 5000}}),
    "unequal keys": Case(rows(500, model=MINI, max_tokens=100), UNEQUAL),
    "requests that only the large keys fit": Case(
        rows(500, model=MINI, one_of={"max_tokens": (100, 200, 1500, 5000)}, words=(3, 6)), UNEQUAL
    ),
    "a sliding window": Case(
        rows(250, model=MINI),
        {"k": {"requests_per_minute": 100, "algorithm": "sliding_window"}},
        server={"mode": "sliding"},
    ),
    "two models": Case(
        rows(250, one_of={"model": (MINI, "gpt-4o")}, max_tokens=16),
        {"k": {"requests_per_minute": 50}, "l": {"requests_per_minute": 100}},
        models=(MINI, "gpt-4o"),
    ),
    "no model": Case(
        rows(300, max_tokens=16),
        {"k": {"requests_per_minute": 30}, "l": {"requests_per_minute": 120}},
        models=(MINI, "gpt-4o"),
    ),
    "anthropic's three limits": Case(
        rows(250, model=HAIKU, max_tokens=100),
        {"k": {"requests_per_minute": 90, "input_tokens_per_minute": 3000, "output_tokens_per_minute": 3000}},
        models=(HAIKU,),
        kind="anthropic",
    ),
    "the limit of everything": Case(
        rows(250, model=MINI),
        {"k": {"requests_per_minute": 600}},
        more={"limits": {"global": {"requests_per_minute": 100}}},
    ),
    "repeated rows and a cache": Case(
        [row(number, f"question {number % 120}", model=MINI) for number in range(250)],
        {"k": {"requests_per_minute": 60}},
        more={"cache": {"backend": "memory"}},
    ),
}


@pytest.mark.parametrize("name", CASES)
async def test_the_time_that_is_foretold_is_the_time_that_it_takes(name: str) -> None:
    case, clock = CASES[name], FakeClock(auto=True)
    up = case.upstream(clock)
    async with LLMManager.open(case.config(), transport=up.transport(), clock=clock) as manager:
        foretold = await forecast(manager, portions_of(case.rows), concurrency=case.workers, clock=clock)
        assert up.requests == []
        seconds = await run(manager, case.rows, clock, case.workers)
        metrics = manager.get_status()["metrics"]
    assert seconds > 10.0
    assert foretold.seconds == pytest.approx(seconds, rel=PROMISED)
    assert foretold.seconds_at_most >= foretold.seconds
    assert (foretold.rows, foretold.invalid_rows) == (len(case.rows), 0)
    assert foretold.cache_hits == metrics["cache"]["hits"]
    assert foretold.input_tokens == pytest.approx(metrics["tokens"]["input"], rel=0.05)
    assert foretold.output_tokens >= metrics["tokens"]["output"]


async def test_where_answers_are_known_to_take_time_that_is_what_bounds_a_run_without_limits() -> None:
    clock = FakeClock(auto=True)
    asked = rows(60, model=MINI, words=(8, 12))
    case = Case(asked, {"k": {"concurrent_requests": 20}}, server={"service": 2.0})
    async with LLMManager.open(case.config(), transport=case.upstream(clock).transport(), clock=clock) as manager:
        await run(manager, rows(40, model=MINI, words=(8, 12), seed=8), clock, 10)
        few = await forecast(manager, portions_of(asked), concurrency=6, clock=clock)
        assert few.seconds == pytest.approx(await run(manager, asked, clock, 6), rel=0.02)
        many = await forecast(manager, portions_of(asked), concurrency=64, clock=clock)
        assert many.seconds == pytest.approx(await run(manager, asked, clock, 64), rel=0.02)
        metrics = manager.get_status()["metrics"]
    assert (few.brakes[0].limit, many.brakes[0].limit) == ("concurrency", "concurrent_requests")
    assert few.bases == {"learned": 60}
    assert few.output_tokens == pytest.approx(metrics["tokens"]["output"] * 60 / 160, rel=0.1)


async def test_what_is_taken_of_the_limits_already_counts() -> None:
    clock = FakeClock()
    case = Case(rows(150, model=MINI), {"k": {"requests_per_minute": 100}}, server={"network": (0.0, 0.0)})
    async with LLMManager.open(case.config(), transport=case.upstream(clock).transport(), clock=clock) as manager:
        await run(manager, rows(60, model=MINI, seed=8), clock)
        foretold = await forecast(manager, portions_of(case.rows), concurrency=64, clock=clock)
        assert foretold.seconds == pytest.approx(66.0, abs=1.0)
        running = asyncio.create_task(run(manager, case.rows, clock))
        while not running.done():
            await clock.advance(1.0)
        assert foretold.seconds == pytest.approx(await running, rel=0.02)


@pytest.mark.soak
async def test_on_real_sockets_the_time_is_the_same() -> None:
    clock = SystemClock()
    case = Case(rows(105, model=MINI, max_tokens=20), {"k": {"requests_per_minute": 100}}, server={"network": (0, 0)})
    async with case.upstream(clock) as up, LLMManager.open(case.config(up.base_url)) as manager:
        foretold = await forecast(manager, portions_of(case.rows), concurrency=64, clock=clock)
        assert up.requests == []
        seconds = await run(manager, case.rows, clock)
    assert foretold.seconds == pytest.approx(3.1, abs=0.1)
    assert seconds == pytest.approx(foretold.seconds, rel=PROMISED, abs=0.5)  # where the machine has more to do
