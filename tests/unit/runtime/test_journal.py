"""`get_status()["calls"]`: why a call waited, which key took it, what it reserved and used, and how it ended."""

# ruff: noqa: ANN401 - a status is JSON
from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from llm import LLMException, LLMManager, LLMRateLimitError, LLMServerError, register_provider
from llm.testing import FakeClock, FakeProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from llm.core.protocols import Provider, ProviderSettings

PROMPT = "four" * 25
KEY = "sk-live-a-very-long-secret"


class Bench:
    """A manager of two keys on a virtual clock; `make` says what double stands behind each."""

    def __init__(self) -> None:
        self.clock = FakeClock(start=500.0)
        self.make: Callable[[str], Provider] = lambda _: FakeProvider()
        self.fingerprints: dict[str, str] = {}
        self.config: dict[str, Any] = {}
        self.manager: LLMManager

    async def open(self, *, keys: int = 2, of_key: dict[str, Any] | None = None, **sections: Any) -> LLMManager:
        def factory(settings: ProviderSettings) -> Provider:
            assert settings.key is not None
            self.fingerprints[settings.key.reveal()] = settings.key.fingerprint
            return self.make(settings.key.reveal())

        register_provider("fake", factory)
        section = {"api_keys": [f"{KEY}-{i}" for i in range(keys)], "models": ["m"], "rate_limits": of_key or {}}
        self.config = {"providers": {"fake": section}, **sections}
        self.manager = await LLMManager.open(self.config, clock=self.clock)
        return self.manager

    def key(self, index: int) -> str:
        return self.fingerprints[f"{KEY}-{index}"]

    @property
    def calls(self) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = json.loads(json.dumps(self.manager.get_status()))["calls"]
        return told

    async def run(self, seconds: float = 0.0, *, user: str | None = None, **options: Any) -> None:
        task = asyncio.get_running_loop().create_task(self.manager.get_client(user=user).chat(PROMPT, **options))
        await self.clock.advance(seconds)
        with suppress(LLMException):
            await task


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.manager.close(0.0)


def story(call: dict[str, Any]) -> list[tuple[float, str, str]]:
    return [(entry["at"], entry["event"], entry["detail"]) for entry in call["log"]]


async def test_a_call_that_goes_straight_through_is_counted_and_not_kept(bench: Bench) -> None:
    await bench.open()
    await bench.run()
    assert bench.calls == []
    assert bench.manager.get_status()["metrics"]["total_requests"] == 1


async def test_a_call_that_waited_tells_for_which_limit_which_key_took_it_and_what_it_used(bench: Bench) -> None:
    await bench.open(keys=1, of_key={"requests_per_minute": 1})
    await bench.run(max_tokens=50)
    await bench.run(61.0, max_tokens=50, user="alice")
    (call,) = bench.calls
    assert (call["provider"], call["model"], call["user"], call["key"]) == ("fake", "m", "alice", bench.key(0))
    assert (call["outcome"], call["error"]) == ("answered", None)
    assert call["started"] == pytest.approx(1_767_225_600.0)
    assert call["seconds"] == pytest.approx(60.1, abs=0.01)
    at = pytest.approx(60.1, abs=0.01)
    (queued,) = [entry for entry in story(call) if entry[1] == "queued"]
    assert queued[0] == 0.0
    assert queued[2].startswith("requests_per_minute of the key")
    assert [entry for entry in story(call) if entry != queued] == [
        (0.0, "ticketed", "asks for 75 tokens (25 in, 50 out)"),
        (at, "paid", bench.key(0)),
        (at, "sent", ""),
        (at, "settled", "75 tokens (25 in, 50 out) reserved, 50 tokens (25 in, 25 out) used"),
        (at, "ended", ""),
    ]


async def test_a_call_that_was_refused_tells_which_key_refused_it_for_how_long_and_which_answered(
    bench: Bench,
) -> None:
    refusal = LLMRateLimitError("slow down", retry_after=20.0)
    bench.make = lambda key: FakeProvider([refusal] if key.endswith("-0") else None)
    await bench.open()
    await bench.run(max_tokens=50)
    (call,) = bench.calls
    assert [entry[1:] for entry in story(call)] == [
        ("ticketed", "asks for 75 tokens (25 in, 50 out)"),
        ("paid", bench.key(0)),
        ("sent", ""),
        ("refused", f"{bench.key(0)} rests for 20 seconds"),
        ("settled", "75 tokens (25 in, 50 out) reserved, 0 tokens (0 in, 0 out) used"),
        ("paid", bench.key(1)),
        ("sent", ""),
        ("settled", "75 tokens (25 in, 50 out) reserved, 50 tokens (25 in, 25 out) used"),
        ("ended", ""),
    ]
    assert call["outcome"] == "answered"


async def test_a_call_that_failed_tells_how_and_on_which_key_and_not_in_whose_words(bench: Bench) -> None:
    bench.make = lambda key: FakeProvider([LLMServerError(f"broken: {key} {PROMPT}", status=500)])
    await bench.open(keys=1, retry={"max_attempts": 1})
    await bench.run()
    (call,) = bench.calls
    assert (call["outcome"], call["error"], call["key"]) == ("failed", "LLMServerError", bench.key(0))
    assert ("failed", f"LLMServerError (500) on {bench.key(0)}") in [entry[1:] for entry in story(call)]
    assert story(call)[-1][1:] == ("ended", "LLMServerError")
    assert KEY not in json.dumps(bench.calls)
    assert PROMPT not in json.dumps(bench.calls)


async def test_a_call_that_a_budget_refused_names_the_limit_and_whose_it_is(bench: Bench) -> None:
    await bench.open(limits={"users": {"default": {"requests_per_day": 1}}})
    for _ in range(2):
        await bench.run(user="alice")
    (call,) = bench.calls
    assert (call["outcome"], call["key"], call["user"]) == ("failed", None, "alice")
    assert [entry[1:] for entry in story(call)] == [("ended", "LLMRateLimitError: requests_per_day of the user")]


async def test_a_call_that_was_cancelled_in_the_queue_is_kept_as_that(bench: Bench) -> None:
    await bench.open(keys=1, of_key={"requests_per_minute": 1})
    await bench.run()
    task = asyncio.get_running_loop().create_task(bench.manager.get_client().chat(PROMPT))
    await bench.clock.advance(5.0)
    task.cancel()
    await bench.clock.advance(0.0)
    (call,) = bench.calls
    assert (call["outcome"], call["error"], call["seconds"]) == ("cancelled", "CancelledError", 5.0)
    assert [entry[1] for entry in story(call)] == ["ticketed", "queued", "withdrawn", "ended"]


async def test_dollars_stand_beside_the_tokens_where_a_budget_counts_them(bench: Bench) -> None:
    budget: dict[str, Any] = {"users": {"default": {"cost_per_day": 1.0}}}
    prices = {"m": {"input": 1000.0, "output": 2000.0}}
    await bench.open(keys=1, of_key={"requests_per_minute": 1}, limits=budget, prices=prices)
    await bench.run()
    await bench.run(61.0, max_tokens=50, user="alice")
    (call,) = bench.calls
    assert ("ticketed", "asks for 75 tokens (25 in, 50 out), 0.125 US dollars") in [e[1:] for e in story(call)]


async def test_the_last_hundred_are_kept_also_over_a_reload(bench: Bench) -> None:
    bench.make = lambda _: FakeProvider(lambda _: LLMServerError("down"))
    await bench.open(keys=1, retry={"max_attempts": 1})
    for _ in range(60):
        await bench.run()
    await bench.manager.reload(bench.config)
    for _ in range(60):
        await bench.run()
    numbers = [call["number"] for call in bench.calls]
    assert len(numbers) == 100
    assert numbers == sorted(numbers)


async def test_clients_with_layers_of_their_own_are_kept_too(bench: Bench) -> None:
    bench.make = lambda _: FakeProvider([LLMServerError("down")])
    await bench.open(keys=1)
    with pytest.raises(LLMServerError):
        await bench.manager.get_client(middleware=["rate_limit"]).chat(PROMPT)
    assert [call["outcome"] for call in bench.calls] == ["failed"]


async def test_while_somebody_watches_calls_that_go_straight_through_are_told_too(bench: Bench) -> None:
    await bench.open()
    journal = bench.manager.parts.journal
    await bench.run()
    assert journal.latest(0, 10) == []
    journal.watch(plain=True)
    await bench.run(user="alice", max_tokens=50)
    (call,) = journal.latest(0, 10)
    assert (call["user"], call["outcome"], call["cached"], call["sends"]) == ("alice", "answered", False, 1)
    assert (call["waited"], call["tokens"]) == (0.0, (25, 25))
    assert [event for _, event, _ in call["log"]] == ["ticketed", "paid", "sent", "settled", "ended"]
    assert journal.latest(call["turn"], 10) == []
    assert bench.calls == []  # the status shows those that did not go straight through, as ever
    journal.watch(plain=False)
    await bench.run()
    assert journal.latest(0, 10) == []


async def test_of_many_calls_the_newest_are_told_and_first_those_that_did_not_go_straight_through(
    bench: Bench,
) -> None:
    bench.make = lambda _: FakeProvider([*["ok"] * 3, LLMServerError("no", retryable=False), *["ok"] * 30])
    await bench.open(keys=1)
    journal = bench.manager.parts.journal
    journal.watch(plain=True)
    for _ in range(30):
        await bench.run()
    assert len(journal.latest(0, 100)) == 21  # the last 20, and the one that failed
    told = journal.latest(0, 4)
    assert [call["outcome"] for call in told] == ["failed", "answered", "answered", "answered"]
    assert [call["turn"] for call in told] == [4, 28, 29, 30]
    assert [call["turn"] for call in journal.latest(0, 1)] == [4]
    assert [call["turn"] for call in journal.latest(28, 9)] == [29, 30]
