"""A bound on one call by itself."""

from __future__ import annotations

import math

from llm.limits.per_call import PerCall


def test_what_fits_takes_nothing_however_often_and_what_does_not_never_will() -> None:
    limit = PerCall("cost_per_call", "cost", 0.5, level="user")
    for _ in range(100):
        assert limit.wait(0.0, 0.5) == 0.0
        limit.settle(1.0, limit.take(0.0, 0.5), 0.7)
    assert limit.saturation(1.0) == 0.0
    assert limit.wait(1.0, 0.51) == math.inf
    assert (limit.level, limit.refuses, limit.timed) == ("user", False, True)
