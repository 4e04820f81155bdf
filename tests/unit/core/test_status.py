"""What the status tells of a key: its state, for how long, why, and what it may not do."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from llm import (
    LLMAuthenticationError,
    LLMException,
    LLMManager,
    LLMQuotaExceededError,
    LLMRateLimitError,
    register_provider,
)
from llm.core.standing import EngineStanding
from llm.testing import FakeClock, FakeProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from llm.core.protocols import ProviderSettings

KEY = "sk-live-a-very-long-secret"


class Bench:
    """A manager of one key that serves the models `a` and `b`, which have limits of their own."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.provider = FakeProvider()
        self.manager: LLMManager

    async def open(self, provider: FakeProvider, **limits: float) -> None:
        def factory(settings: ProviderSettings) -> FakeProvider:
            del settings
            return provider

        register_provider("fake", factory)
        section = {
            "api_keys": [KEY],
            "models": ["a", "b"],
            "rate_limits": limits or {"requests_per_minute": 4, "tokens_per_day": 1000},
            "model_families": {"first": ["a"], "second": ["b"]},
        }
        self.provider = provider
        self.manager = await LLMManager.open({"providers": {"fake": section}}, clock=self.clock)

    async def ask(self, model: str = "a") -> None:
        with suppress(LLMException):
            await self.manager.get_client(middleware=["rate_limit"]).chat("hello", model=model, max_tokens=100)

    @property
    def key(self) -> dict[str, Any]:
        told = json.dumps(self.manager.get_status(), allow_nan=False)
        assert KEY not in told
        keys: list[dict[str, Any]] = json.loads(told)["providers"]["fake"]["keys"]
        assert len(keys) == 1
        return keys[0]

    def told(self, *names: str) -> tuple[Any, ...]:
        return tuple(self.key[name] for name in names)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.manager.close(0.0)


async def test_an_available_key_has_no_reason(bench: Bench) -> None:
    await bench.open(FakeProvider())
    await bench.ask()
    assert bench.told("state", "cooling_seconds", "reason", "forbidden_models") == ("available", 0.0, None, [])


async def test_the_saturation_of_each_limit_and_the_calls_in_flight_are_told(bench: Bench) -> None:
    await bench.open(FakeProvider(latency=10.0, clock=bench.clock))
    running = asyncio.get_running_loop().create_task(bench.ask("a"))
    await bench.clock.advance(1.0)
    assert bench.key["calls"] == 1
    full, empty = bench.key["models"]["a"], bench.key["models"]["b"]
    assert full == {"requests_per_minute": 0.25, "tokens_per_day": 0.102}
    assert empty == {"requests_per_minute": 0.0, "tokens_per_day": 0.0}
    await bench.clock.advance(10.0)
    await running
    assert bench.key["calls"] == 0


async def test_a_key_is_cooling_while_none_of_its_accounts_may_be_called(bench: Bench) -> None:
    refusal = [LLMRateLimitError(f"slow down, {KEY}", retry_after=seconds) for seconds in (20.0, 50.0)]
    await bench.open(FakeProvider([*refusal, "well"]))
    await bench.ask("a")
    assert bench.told("state", "cooling_seconds", "reason") == ("available", 20.0, None)  # `b` may be called still
    await bench.ask("b")
    assert bench.told("state", "cooling_seconds", "reason") == ("cooling", 50.0, "slow down, **********")
    await bench.clock.advance(20.0)
    assert bench.told("state", "cooling_seconds", "reason") == ("available", 30.0, None)
    await bench.clock.advance(30.0)
    assert bench.told("state", "cooling_seconds", "reason") == ("available", 0.0, None)


@pytest.mark.parametrize(
    ("error", "state"),
    [(LLMAuthenticationError, "rejected"), (LLMQuotaExceededError, "out_of_credit")],
)
async def test_a_key_that_left_the_rotation_says_why_in_a_short_line_without_the_key(
    bench: Bench, error: type[LLMException], state: str
) -> None:
    await bench.open(FakeProvider([error(f"the key {KEY}\nis of no use: {'therefore ' * 100}")]))
    await bench.ask()
    told, reason = bench.told("state", "reason")
    assert told == state
    assert reason.startswith("the key ********** is of no use: therefore")
    assert reason.endswith(" therefore …")
    assert len(reason) <= 202


async def test_a_key_that_came_back_has_no_reason_any_more(bench: Bench) -> None:
    await bench.open(FakeProvider([LLMAuthenticationError("wrong key")]))
    await bench.ask()
    assert bench.told("state", "reason") == ("rejected", "wrong key")
    await bench.manager.health_check()
    assert bench.told("state", "reason") == ("available", None)


async def test_a_model_that_the_key_may_not_use_is_named_and_the_key_stays(bench: Bench) -> None:
    await bench.open(FakeProvider([LLMAuthenticationError("not that model", model_only=True)]))
    await bench.ask("b")
    assert bench.told("state", "forbidden_models", "reason") == ("available", ["b"], "not that model")


class OnBox(FakeProvider):
    """A provider that runs its models itself."""

    standing: EngineStanding | None = None

    def engine_standing(self) -> EngineStanding | None:
        return self.standing


async def test_what_runs_models_in_this_process_tells_its_figures_and_how_full_its_own_limits_are(bench: Bench) -> None:
    provider = OnBox()
    await bench.open(provider, requests_per_minute=4)
    status = bench.manager.get_status()["providers"]["fake"]
    assert "engine" not in status  # nothing is loaded yet
    provider.standing = EngineStanding({"running": 3, "tokens_per_second": 80.5}, {"a": {"max_batch": 0.75}})
    status = json.loads(json.dumps(bench.manager.get_status()))["providers"]["fake"]
    assert status["engine"] == {"running": 3, "tokens_per_second": 80.5}
    assert bench.key["models"] == {
        "a": {"requests_per_minute": 0.0, "max_batch": 0.75},
        "b": {"requests_per_minute": 0.0},
    }


async def test_who_runs_no_models_has_no_engine(bench: Bench) -> None:
    await bench.open(FakeProvider())
    assert "engine" not in bench.manager.get_status()["providers"]["fake"]
