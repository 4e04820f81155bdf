from __future__ import annotations

from llm.core.measured import Spread


def test_a_spread_tells_how_many_took_at_most_so_long() -> None:
    spread = Spread((0.1, 1.0, 5.0), (2, 3, 1), 8.2)
    assert spread.at_most((0.05, 0.1, 0.5, 1.0, 10.0)) == [0, 2, 2, 5, 6]
    assert spread.total == 6


def test_nothing_takes_no_time() -> None:
    assert Spread().at_most((1.0, 2.0)) == [0, 0]
    assert (Spread().total, Spread().seconds) == (0, 0.0)
