"""A decision among many accounts costs little more than among few, in Python's instructions."""

from __future__ import annotations

import math
from typing import Any

import pytest
from benchmarks.scale.cost import Saturated

pytestmark = pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again

FEW = 100
MANY = 3_000
WARM = 100
DECISIONS = 600
Instructions = Any


async def decided(counting: Instructions, accounts: int) -> float:
    queue = Saturated(accounts, seed=7)
    await queue.fill()
    await queue.decide(WARM)
    before = queue.decisions
    with counting() as made:
        await queue.decide(DECISIONS)
    await queue.leave()
    return float(made.count) / (queue.decisions - before)


async def test_a_decision_grows_no_faster_than_the_logarithm_of_the_accounts(counting: Instructions) -> None:
    few, many = await decided(counting, FEW), await decided(counting, MANY)
    assert many <= few * math.log(MANY) / math.log(FEW)
