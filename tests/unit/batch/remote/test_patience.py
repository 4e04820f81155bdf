from __future__ import annotations

import pytest

from llm import LLMAuthenticationError, LLMConnectionError, LLMException, LLMServerError, LLMTimeoutError
from llm.batch.remote.patience import Patience
from llm.batch.remote.values import Pace
from llm.progress import ProgressTracker
from llm.testing import FakeClock


class Asked:
    def __init__(self, clock: FakeClock, *failures: LLMException, seconds: float = 0.0) -> None:
        self.clock = clock
        self.failures = list(failures)
        self.seconds = seconds
        self.times: list[float] = []

    async def __call__(self) -> str:
        self.times.append(self.clock.now())
        if self.failures:
            raise self.failures.pop(0)
        return "answer"


def patience(clock: FakeClock) -> Patience:
    return Patience(Pace(first=1.0, most=60.0, patience=600.0), clock, ProgressTracker(clock=clock), dice=lambda: 1.0)


async def test_it_asks_again_after_longer_and_longer_pauses() -> None:
    clock = FakeClock(auto=True)
    asked = Asked(clock, LLMServerError("a"), LLMTimeoutError("b", phase="connect"), LLMServerError("c"))
    assert await patience(clock).ask(asked) == "answer"
    assert asked.times == [0.0, 2.0, 5.0, 10.0]


async def test_it_waits_as_long_as_it_is_told() -> None:
    clock = FakeClock(auto=True)
    asked = Asked(clock, LLMServerError("a", retry_after=30.0))
    await patience(clock).ask(asked)
    assert asked.times == [0.0, 31.0]
    with pytest.raises(LLMServerError):
        await patience(clock).ask(Asked(clock, LLMServerError("a", retry_after=601.0)))


async def test_what_cannot_pass_is_raised_at_once() -> None:
    clock = FakeClock(auto=True)
    with pytest.raises(LLMAuthenticationError):
        await patience(clock).ask(Asked(clock, LLMAuthenticationError("no")))
    assert clock.now() == 0.0


async def test_it_is_over_where_nobody_answers_for_long() -> None:
    clock = FakeClock(auto=True)
    patient = patience(clock)
    await patient.ask(Asked(clock))
    with pytest.raises(LLMConnectionError):
        await patient.ask(Asked(clock, *[LLMConnectionError("gone") for _ in range(99)]))
    assert 600.0 <= clock.now() <= 661.0


async def test_it_is_over_sooner_where_nobody_ever_answered() -> None:
    clock = FakeClock(auto=True)
    with pytest.raises(LLMConnectionError):
        await patience(clock).ask(Asked(clock, *[LLMConnectionError("gone") for _ in range(99)]))
    assert clock.now() == 15.0
