"""Answers that wait until they are many, or somebody asks: to count them together takes half the time."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from .tally import Lot

if TYPE_CHECKING:
    from collections import deque

    from llm.core.types import TokenUsage

_logger = logging.getLogger("llm.client")

_Name = TypeVar("_Name")
Waiting: TypeAlias = "deque[tuple[_Name, TokenUsage, float | None, float]]"
"""What each counts for, its tokens, its US dollars (None where the price is unknown), its seconds."""

MANY: Final = 64


def in_lots(waiting: Waiting[_Name]) -> dict[_Name, Lot]:
    """Take all that wait, and return them by what they count for."""
    lots: dict[_Name, Lot] = {}
    while True:
        try:
            name, usage, cost, seconds = waiting.popleft()
        except IndexError:  # not looked for before: a signal's handler may count what was there then
            return lots
        lot = lots.get(name)
        if lot is None:
            lot = lots[name] = Lot()
        lot.requests += 1
        lot.seconds.append(seconds)
        try:
            lot.spend(usage, cost)
        except Exception:  # what a provider's own code told, which is no affair of those it is counted with
            _logger.exception("the tokens or the cost of an answer are no numbers; the call itself did not fail")
