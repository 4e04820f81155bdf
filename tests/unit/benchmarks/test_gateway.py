"""What the benchmark of the gateway makes of its turns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.gateway import cli
from benchmarks.gateway.measure import BARE, GATEWAY, LITELLM, Measured, Turn, measure

if TYPE_CHECKING:
    import pytest


def measured(per_second: float, p99: float) -> Measured:
    return Measured(
        {
            BARE: [Turn(1000, 1e-4, 0.01, 0.02), Turn(500, 2e-4, 0.02, 0.04)],
            GATEWAY: [Turn(per_second, 1e-4, 0.01, p99), Turn(per_second / 2, 1e-4, 0.01, p99 * 2)],
            LITELLM: [Turn(10, 1e-2, 1, 2), Turn(5, 1e-2, 1, 2)],
        }
    )


def test_each_turn_is_set_beside_its_neighbour() -> None:
    assert measured(800, 0.03).beside(GATEWAY, BARE, "per_second") == 0.8
    assert measured(800, 0.03).of(GATEWAY, "per_second") == 600


def test_a_missed_target_is_said() -> None:
    met = [row[-1] for row in cli.targets(measured(800, 0.03)).rows]
    missed = [row[-1] for row in cli.targets(measured(150, 0.05)).rows]
    assert met == ["met", "met", "met"]
    assert missed == ["missed", "missed", "missed"]


def test_all_servers_are_asked(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[str] = []
    found = measure(1, 64, 4, told.append)
    assert [turn.per_second > 0 for turns in found.turns.values() for turn in turns] == [True] * len(found.turns)
    assert told[:2] == [BARE, GATEWAY]
    assert "manifold serve" in cli.ways(found, 4).markdown()
    assert capsys.readouterr().out == ""
