"""Between calls: refused keys are asked or tried again, and clients that idle are closed."""

# ruff: noqa: ANN401 - options as they come

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from llm import (
    LLMAuthenticationError,
    LLMException,
    LLMManager,
    LLMQuotaExceededError,
    LLMServerError,
    register_provider,
)
from llm.testing import FakeClock, FakeProvider

if TYPE_CHECKING:
    from llm import HealthStatus, ProviderSettings


class Doubles:
    """Every provider that is made, and a manager of two keys on a fake clock."""

    def __init__(self, kind: type[FakeProvider] = FakeProvider) -> None:
        self.clock = FakeClock()
        self.made: list[FakeProvider] = []
        self._kind = kind

    def make(self, _: ProviderSettings) -> FakeProvider:
        self.made.append(self._kind(self.answer, clock=self.clock))
        return self.made[-1]

    def answer(self, _: object) -> str:
        return "fine"

    async def open(self, **pool: Any) -> LLMManager:
        register_provider("doubles", self.make)
        section = {"type": "doubles", "api_keys": ["k1", "k2"], "models": ["m"]}
        return await LLMManager.open({"pool": pool, "providers": {"doubles": section}}, clock=self.clock)


class Refusing(Doubles):
    """The first key is refused until it is told to be `well`."""

    well = False

    def answer(self, _: object) -> str:
        if not self.well and self.made[0].calls and self.made[0].in_flight:
            raise LLMAuthenticationError("this key is refused")
        return "fine"


class Hanging(FakeProvider):
    async def health_check(self) -> HealthStatus:
        await self._clock.sleep(1e6)
        return await super().health_check()


def states(manager: LLMManager) -> list[str]:
    return [key["state"] for key in manager.get_status()["providers"]["doubles"]["keys"]]


async def test_a_refused_key_that_is_healthy_again_comes_back_by_itself() -> None:
    doubles = Refusing()
    async with await doubles.open(health_check_interval=60) as manager:
        doubles.made[0].healthy = False
        assert str(await manager.get_client().chat("hello")) == "fine"
        assert states(manager) == ["rejected", "available"]
        await doubles.clock.advance(59)
        doubles.made[0].healthy = doubles.well = True
        assert states(manager) == ["rejected", "available"]
        await doubles.clock.advance(2)
        assert states(manager) == ["available", "available"]


async def test_a_refused_key_that_stays_ill_stays_out() -> None:
    doubles = Refusing()
    async with await doubles.open(health_check_interval=60) as manager:
        doubles.made[0].healthy = False
        await manager.get_client().chat("hello")
        await doubles.clock.advance(600)
        assert states(manager) == ["rejected", "available"]


async def test_asking_a_key_that_never_answers_ends_and_leaves_nothing() -> None:
    doubles = Refusing(Hanging)
    async with await doubles.open(health_check_interval=10) as manager:
        await manager.get_client().chat("hello")
        await doubles.clock.advance(35)
        assert states(manager) == ["rejected", "available"]
        await doubles.clock.advance(5)
        await manager.close()  # does not wait for the answer
    assert doubles.clock.timers == 0


@pytest.mark.parametrize(("min_size", "closed"), [(0, 2), (1, 1), (2, 0)])
async def test_idle_clients_are_closed_but_for_the_least_number(min_size: int, closed: int) -> None:
    doubles = Doubles()
    async with await doubles.open(min_size=min_size, idle_timeout=100, health_check_interval=30) as manager:
        for _ in range(2):
            await manager.get_client().chat("hello")
        await doubles.clock.advance(90)
        assert sum(double.closed for double in doubles.made) == 0
        await doubles.clock.advance(60)
        assert sum(double.closed for double in doubles.made) == closed
        assert str(await manager.get_client().chat("again")) == "fine"


async def test_an_idle_client_stays_where_no_other_can_be_made_and_those_behind_it_are_looked_at() -> None:
    class Scarce(Doubles):
        failures = 0

        def make(self, _: ProviderSettings) -> FakeProvider:
            if self.failures:
                self.failures -= 1
                raise OSError("no socket left")
            return super().make(_)

    doubles = Scarce()
    async with await doubles.open(min_size=0, idle_timeout=100, health_check_interval=30) as manager:
        for _ in range(2):
            await manager.get_client().chat("hello")
        doubles.failures = 1
        await doubles.clock.advance(125)
        assert [double.closed for double in doubles.made] == [False, True, False]
        doubles.failures = 1
        with pytest.raises(LLMServerError, match="no socket left"):
            await manager.get_client().chat("again")
        assert str(await manager.get_client().chat("again")) == "fine"


async def test_closing_the_manager_ends_the_upkeep() -> None:
    doubles = Doubles()
    manager = await doubles.open()
    assert doubles.clock.timers == 1
    await manager.close()
    assert doubles.clock.timers == 0


# --- what no health check can tell ------------------------------------------------------------------------------------

OWING = LLMQuotaExceededError("pay first")
FORBIDDEN = LLMAuthenticationError("not this model", model_only=True)
refusals = pytest.mark.parametrize("failure", [OWING, FORBIDDEN], ids=["credit", "model"])


class Refused(Doubles):
    """The first key answers every call with its `failure`, after a second; all keys are healthy throughout."""

    def __init__(self, failure: LLMException, keys: int = 2) -> None:
        super().__init__()
        self.failure: LLMException | None = failure
        self.keys = keys

    def make(self, _: ProviderSettings) -> FakeProvider:
        answers = "fine" if self.made else self.answer
        self.made.append(FakeProvider(answers, latency=1.0, clock=self.clock))
        return self.made[-1]

    def answer(self, _: object) -> Any:
        return self.failure or "first"

    @property
    def first(self) -> FakeProvider:
        return self.made[0]

    async def ask(self, manager: LLMManager, calls: int = 1) -> list[asyncio.Task[Any]]:
        """Make calls at once, and give them the time to end."""
        client = manager.get_client()
        tasks = [asyncio.get_running_loop().create_task(client.chat("hello")) for _ in range(calls)]
        for _ in range(3):
            await self.clock.advance(1.0)
        return tasks

    async def refused_at_once(self, manager: LLMManager) -> None:
        """Let the first key be refused."""
        await self.ask(manager)
        assert self.first.calls == 1
        assert sound(manager)[0] is False


def sound(manager: LLMManager) -> list[bool]:
    keys = manager.get_status()["providers"]["doubles"]["keys"]
    return [key["state"] == "available" and key["forbidden_models"] == [] for key in keys]


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
@refusals
async def test_credit_and_a_forbidden_model_are_tried_again_by_one_call_after_pauses_that_grow_to_an_hour(
    failure: LLMException,
) -> None:
    doubles = Refused(failure)
    async with await doubles.open(health_check_interval=10, max_lifetime=1e9, idle_timeout=1e9) as manager:
        await doubles.refused_at_once(manager)
        tried = [doubles.clock.now()]
        while doubles.clock.now() < 3.6 * 3600:
            before = doubles.first.calls
            for task in await doubles.ask(manager, 4):
                assert str(task.result()) == "fine"  # another key serves who tries
            if doubles.first.calls > before:
                tried.append(doubles.clock.now())
                assert doubles.first.calls == before + 1
            await doubles.clock.advance(57.0)
        pauses = [later - earlier for earlier, later in pairwise(tried)]
        assert pauses == pytest.approx([300, 600, 1200, 2400, 3600, 3600], abs=70)
        assert sound(manager) == [False, True]


@refusals
async def test_what_serves_again_is_back_for_all_and_of_many_calls_only_one_had_tried(
    failure: LLMException, caplog: pytest.LogCaptureFixture
) -> None:
    doubles = Refused(failure)
    caplog.set_level("INFO", "llm.keys")
    async with await doubles.open(health_check_interval=10, max_lifetime=1e9, idle_timeout=1e9) as manager:
        await doubles.refused_at_once(manager)
        doubles.failure = None
        await doubles.ask(manager, 20)
        assert doubles.first.calls == 1
        await doubles.clock.advance(310.0)
        tasks = await doubles.ask(manager, 20)
        assert [str(task.result()) for task in tasks].count("first") == 1
        assert sound(manager) == [True, True]
        tasks = await doubles.ask(manager, 20)
        assert [str(task.result()) for task in tasks].count("first") == 10
    left, back = [record.getMessage() for record in caplog.records]
    assert "left the rotation" in left
    assert failure.message in left
    assert "is in the rotation again" in back


@pytest.mark.parametrize("end", ["fails", "cancelled"])
async def test_a_call_that_finds_nothing_out_leaves_the_try_to_the_next(end: str) -> None:
    doubles = Refused(OWING)
    async with await doubles.open(health_check_interval=10, max_lifetime=1e9, idle_timeout=1e9) as manager:
        await doubles.refused_at_once(manager)
        await doubles.clock.advance(310.0)
        doubles.failure = LLMServerError("down", retryable=False)
        client = manager.get_client()
        tasks = [asyncio.get_running_loop().create_task(client.chat("hello")) for _ in range(2)]
        await doubles.clock.advance(0.5)
        assert doubles.first.in_flight == 1
        if end == "cancelled":
            for task in tasks:
                task.cancel()
        await doubles.clock.advance(1.0)
        assert sound(manager) == [False, True]
        doubles.failure = None
        await doubles.ask(manager, 2)
        assert doubles.first.calls == 3
        assert sound(manager) == [True, True]


async def test_the_only_key_without_credit_refuses_all_but_the_call_that_tries() -> None:
    doubles = Refused(OWING)
    register_provider("doubles", doubles.make)
    section = {"type": "doubles", "api_keys": ["k1"], "models": ["m"]}
    async with LLMManager.open(
        {"pool": {"health_check_interval": 10}, "providers": {"doubles": section}}, clock=doubles.clock
    ) as manager:
        for _ in range(2):
            (task,) = await doubles.ask(manager)
            assert isinstance(task.exception(), LLMQuotaExceededError)
        assert doubles.first.calls == 1
        await doubles.clock.advance(310.0)
        doubles.failure = None
        ends = [task.exception() for task in await doubles.ask(manager, 3)]
        assert [type(end) for end in ends].count(LLMQuotaExceededError) == 2
        assert ends.count(None) == 1
        assert [task.exception() for task in await doubles.ask(manager, 3)] == [None] * 3


async def test_a_call_says_in_its_log_that_it_tried_a_key_that_had_been_refused() -> None:
    doubles = Refused(OWING)
    async with await doubles.open(health_check_interval=10, max_lifetime=1e9, idle_timeout=1e9) as manager:
        await doubles.refused_at_once(manager)
        await doubles.clock.advance(310.0)
        await doubles.ask(manager, 2)
        last = manager.get_status()["calls"]
        assert any(step["event"] == "trial" for call in last for step in call["log"])
