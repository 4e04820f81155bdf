"""Answers that wait until they are many, or somebody asks: to count them together takes half the time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections import deque

    from llm.core.types import TokenUsage

_Name = TypeVar("_Name")
Waiting: TypeAlias = "deque[tuple[_Name, TokenUsage, float | None, float]]"
"""What each counts for, its tokens, its US dollars (None where the price is unknown), its seconds."""

MANY: Final = 64


class Lot:
    """Answers that count for the same.

    Attributes:
        input: Tokens of their prompts.
        output: Tokens of the answers.
        cached_input: Those of the prompts that the provider had in its cache.
        cost: US dollars of those whose price is known.
        priced: Whether one is.
        seconds: How long each took.
    """

    __slots__ = ("cached_input", "cost", "input", "output", "priced", "seconds")

    def __init__(self) -> None:
        """Start with none."""
        self.input: int = 0
        self.output: int = 0
        self.cached_input: int = 0
        self.cost: float = 0.0
        self.priced: bool = False
        self.seconds: list[float] = []


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
        lot.input += usage.input_tokens
        lot.output += usage.output_tokens
        lot.cached_input += usage.cached_input_tokens
        if cost is not None:
            lot.cost += cost
            lot.priced = True
        lot.seconds.append(seconds)
