"""Between calls: refused keys are asked again, and clients that idle are closed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from llm import LLMAuthenticationError, LLMManager, register_provider
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

    async def open(self, **pool: Any) -> LLMManager:  # noqa: ANN401 - any field of the section
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


async def test_closing_the_manager_ends_the_upkeep() -> None:
    doubles = Doubles()
    manager = await doubles.open()
    assert doubles.clock.timers == 1
    await manager.close()
    assert doubles.clock.timers == 0
