"""One look at a manager: a point of the charts, what the page's sections say, and the calls that ended meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from llm.core.report import provider_status

from .window import Window, totals

if TYPE_CHECKING:
    from llm.core.keys import Slot
    from llm.core.manager import LLMManager
    from llm.core.measured import Measured
    from llm.core.pool import Pool

    from .window import Totals

FOR_OPERATORS: Final = frozenset({"cost", "reasons"})
"""Sections that are shown to operators alone."""

_MOST_CALLS: Final = 8  # a look; a second of many is no reading matter
_MOST_MODELS: Final = 12


class Look(NamedTuple):
    """What was seen at one moment.

    Attributes:
        point: Seconds since 1970, calls that wait, calls that run, calls a second, failures a second, p50 and p95 in
            seconds, tokens of answers a second.
        sections: JSON values, by name.
        calls: Calls that ended since the look before, oldest first.
    """

    point: list[float | None]
    sections: dict[str, Any]
    calls: list[dict[str, Any]]


class Sight:
    """Looks at a manager, also across its reloads."""

    def __init__(self, manager: LLMManager) -> None:
        """Look at `manager` when asked."""
        self._manager = manager
        self._window = Window()
        self._turn = 0

    def open(self) -> None:
        """Begin to look: calls that go straight through are kept from now on."""
        self._window.clear()
        self._manager.parts.journal.watch(plain=True)

    def close(self) -> None:
        """Look no more."""
        self._manager.parts.journal.watch(plain=False)

    def look(self) -> Look:
        """Return what there is to see now."""
        parts = self._manager.parts
        clock = parts.clock
        measured = parts.measured()
        counted = totals(measured)
        rates = self._window.add(clock.now(), counted)
        calls = parts.journal.latest(self._turn, _MOST_CALLS)
        if calls:
            self._turn = calls[-1]["turn"]
        pools = {name: chain.pool for name, chain in parts.chains.items()}
        providers = {name: provider_status(pool) | parts.provider_status(name) for name, pool in pools.items()}
        waiting = sum(pool.queue.waiting for pool in pools.values())
        wall = clock.wall()
        sections = {
            "providers": list(pools),
            "rates": _rounded(rates._asdict()),
            "totals": _totals(measured, counted),
            "errors": _errors(measured),
            "reasons": _reasons(providers),
            "cost": _cost(measured),
            "models": _models(measured),
            "cache": _cache(parts.status("cache")["cache"], measured),
            **{f"provider {name}": _provider(pools[name], told, wall) for name, told in providers.items()},
        }
        running = sum(key["calls"] for told in providers.values() for key in told["keys"])
        point = [round(wall, 1), waiting, running, rates.calls, rates.failures, rates.p50, rates.p95, rates.output]
        return Look([_short(value) for value in point], sections, calls)


def _totals(measured: Measured, counted: Totals) -> dict[str, int]:
    return {
        "answered": counted.answered,
        "failed": counted.failed,
        "cancelled": counted.cancelled,
        "retries": sum(model.retries for model in measured.models),
        "input": counted.input,
        "output": counted.output,
    }


def _errors(measured: Measured) -> dict[str, int]:
    found: dict[str, int] = {}
    for model in measured.models:
        for name, number in model.errors.items():
            found[name] = found.get(name, 0) + number
    return found


def _cost(measured: Measured) -> dict[str, float]:
    return {
        "total": round(sum(model.cost for model in measured.models), 6),
        "saved": round(sum(model.cost_saved for model in measured.models), 6),
    }


def _models(measured: Measured) -> list[dict[str, Any]]:
    """Return the models that are asked most."""
    used = [model for model in measured.models if model.model and sum(model.calls.values())]
    used.sort(key=lambda model: -sum(model.calls.values()))
    return [
        {
            "model": model.model,
            "provider": model.provider,
            "calls": sum(model.calls.values()),
            "input": model.usage.input_tokens,
            "output": model.usage.output_tokens,
            "pace": _short(model.streamed_tokens / model.streaming_seconds) if model.streaming_seconds else None,
        }
        for model in used[:_MOST_MODELS]
    ]


def _cache(told: dict[str, Any], measured: Measured) -> dict[str, Any]:
    saved = sum(model.tokens_saved for model in measured.models)
    return {**told, "tokens_saved": saved}


def _reasons(providers: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return what providers said of keys that rest or left the rotation, by provider and key."""
    return {
        f"{name} {key['key']}": key["reason"]
        for name, told in providers.items()
        for key in told["keys"]
        if key["reason"]
    }


def _provider(pool: Pool, told: dict[str, Any], wall: float) -> dict[str, Any]:
    slots: dict[tuple[str, str], Slot] = {(slot.key.fingerprint, slot.model): slot for slot in pool.queue.slots}
    return {
        "health": told["health"],
        "waiting": told["waiting"],
        "keys": [_key(pool, slots, key, wall) for key in told["keys"]],
        "breakers": told["breakers"],
        "retry_budget": told["retry_budget"],
        "engine": told.get("engine"),
    }


def _key(pool: Pool, slots: dict[tuple[str, str], Slot], told: dict[str, Any], wall: float) -> dict[str, Any]:
    name, rest = told["key"], told["cooling_seconds"]
    return {
        "key": name,
        "state": told["state"],
        "until": round(wall + rest) if rest else None,
        "forbidden": told["forbidden_models"],
        "calls": told["calls"],
        "limits": {
            model: [
                [limit, _short(share), pool.queue.capacities(slots[name, model]).get(limit)]
                for limit, share in of.items()
            ]
            for model, of in told["models"].items()
        },
    }


def _rounded(rates: dict[str, float | None]) -> dict[str, float | None]:
    return {name: _short(value) for name, value in rates.items()}


def _short(value: float | None) -> float | None:
    """Return a number with as many digits as a page shows."""
    if value is None or not value % 1.0:
        return None if value is None else int(value)
    return round(value, 3 if abs(value) < 10 else 1)  # noqa: PLR2004 - three significant digits, about
