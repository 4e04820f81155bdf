"""Rates and percentiles of the last ten seconds."""

from __future__ import annotations

import pytest

from llm.core.measured import Measured, ModelMeasures, Spread
from llm.core.types import TokenUsage
from llm.gateway.dashboard.window import Rates, Totals, Window, totals


def counted(answered: int = 0, failed: int = 0, cancelled: int = 0, **more: object) -> Totals:
    durations = more.get("durations", {})
    assert isinstance(durations, dict)
    return Totals(answered, failed, cancelled, input=10 * answered, output=5 * answered, durations=durations)


def measures(name: str, spread: Spread) -> ModelMeasures:
    return ModelMeasures(
        provider="p",
        model=name,
        calls={"answered": 2, "cached": 1, "failed": 3, "cancelled": 4},
        errors={},
        retries=0,
        usage=TokenUsage(7, 11),
        cost=0.0,
        durations={"answered": spread, "cached": Spread([0.001], [1], 0.001)},
        first_token=Spread(),
        queue_wait=Spread(),
        streamed_tokens=0,
        streaming_seconds=0.0,
    )


def test_the_totals_are_those_of_all_models_and_outcomes() -> None:
    models = [measures("a", Spread([0.5, 1.0], [1, 1], 1.5)), measures("b", Spread([1.0], [2], 2.0))]
    told = totals(Measured(models=models))
    assert told[:5] == (6, 6, 8, 14, 22)
    assert told.durations == {0.5: 1, 1.0: 3, 0.001: 2}


def test_the_first_look_has_no_rate() -> None:
    assert Window().add(5.0, counted(answered=100)) == Rates()


def test_rates_are_what_came_in_the_time_between() -> None:
    window = Window()
    window.add(0.0, counted(answered=10, failed=1, cancelled=1))
    rates = window.add(2.0, counted(answered=14, failed=2, cancelled=2, durations={0.25: 3, 2.0: 1}))
    assert rates == Rates(calls=3.0, failures=0.5, input=20.0, output=10.0, p50=0.25, p95=2.0, success=0.8)


def test_what_is_older_than_ten_seconds_counts_no_more() -> None:
    window = Window()
    for second in range(24):
        window.add(float(second), counted(answered=min(second, 12) * 100, durations={0.1 * second: 1}))
    rates = window.add(24.0, counted(answered=1200, durations={2.4: 1}))
    assert rates.calls == 0.0
    assert rates.success is None
    window.add(25.0, counted(answered=1300))
    assert window.add(26.0, counted(answered=1300)).calls == pytest.approx(10.0)


def test_percentiles_are_those_of_the_last_seconds_alone() -> None:
    window = Window()
    slow = {9.0: 1000}
    window.add(0.0, counted(answered=1000, durations=slow))
    rates = window.add(1.0, counted(answered=1020, durations={0.1: 19, 0.2: 1, **slow}))
    assert (rates.p50, rates.p95) == (0.1, 0.1)
    rates = window.add(2.0, counted(answered=1021, durations={0.1: 19, 0.2: 2, **slow}))
    assert rates.p95 == 0.2


def test_cleared_it_begins_anew() -> None:
    window = Window()
    window.add(0.0, counted())
    window.clear()
    assert window.add(1.0, counted(answered=5)) == Rates()
