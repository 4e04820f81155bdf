"""What the calls of all workers came to, each of which knows its own alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from .stock import Hand
    from .values import View


class Seen:
    """The views of workers, those of lost ones included, as one."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._views: dict[Hand, View] = {}
        self._gone: Mapping[str, Any] = {}

    def note(self, hand: Hand, view: View) -> None:
        """Know what the worker with this hand told last."""
        self._views[hand] = view

    def lose(self, hand: Hand) -> None:
        """Know that a worker is gone: what it told counts, and how full it saw the limits does not."""
        view = self._views.pop(hand, None)
        if view is not None:
            self._gone = added(self._gone, view.models)

    def status(self) -> dict[str, Any]:
        """Return `models` of a manager's `get_status()`, of all workers together."""
        models = self._gone
        for view in self._views.values():
            models = added(models, view.models)
        return {"models": models}

    def saturation(self) -> dict[str, float]:
        """Return how full each key's limits are, 0 to 1, as the worker sees it that sees most."""
        fullest: dict[str, float] = {}
        for view in self._views.values():
            for name, share in view.saturation.items():
                fullest[name] = max(share, fullest.get(name, 0.0))
        return fullest


def added(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sums of numbers that stand at the same places; what is unknown in one is unknown in the sum."""
    return {
        name: _sum(one[name], other[name]) if name in one and name in other else one.get(name, other.get(name))
        for name in (*one, *(name for name in other if name not in one))
    }


def _sum(one: object, other: object) -> object:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return added(cast("Mapping[str, Any]", one), cast("Mapping[str, Any]", other))
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return one + other
    return None
