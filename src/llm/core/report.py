"""What the status tells of a provider and of each of its keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .keys import KeyState
from .protocols import RunsModels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .keys import Key, Slot
    from .pool import Pool
    from .standing import EngineStanding


def provider_status(pool: Pool) -> dict[str, Any]:
    """Return a provider's health, how many calls wait for it, and its keys by fingerprint; JSON-serialisable."""
    slots_of: dict[Key, list[Slot]] = {}
    for slot in pool.queue.slots:
        slots_of.setdefault(slot.key, []).append(slot)
    healthy = any(slot.key.serves(slot.model) for slot in pool.queue.slots)
    told: dict[str, Any] = {
        "health": "healthy" if healthy else "unhealthy",
        "waiting": pool.queue.waiting,
        "keys": [_key_status(pool, key, slots) for key, slots in slots_of.items()],
    }
    engine = next((found for key in slots_of if (found := _engine(key))), None)
    if engine is not None:
        told["engine"] = dict(engine.figures)
    return told


def _key_status(pool: Pool, key: Key, slots: list[Slot]) -> dict[str, Any]:
    rests = [pool.queue.cooling(slot) for slot in slots]
    cooling = key.state is KeyState.AVAILABLE and min(rests) > 0.0
    engine = _engine(key)
    own: Mapping[str, Mapping[str, float]] = {} if engine is None else engine.saturation
    return {
        "key": key.fingerprint,
        "state": "cooling" if cooling else key.state.value,
        "cooling_seconds": round(max(rests), 3),
        "reason": key.reason(cooling=cooling),
        "forbidden_models": sorted(key.forbidden),
        "calls": key.calls,
        "models": {slot.model: {**pool.queue.saturation(slot), **own.get(slot.model, {})} for slot in slots},
    }


def _engine(key: Key) -> EngineStanding | None:
    provider = key.client.provider
    return provider.engine_standing() if isinstance(provider, RunsModels) else None
