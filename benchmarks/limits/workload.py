"""Scenarios by name and seed: the stored ones of seed 7, and those that are made from any other."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

from .generate import SCENARIOS, generate
from .scenario import GroupLimits, Job, Scenario

STORED_SEED: Final = 7
_STORED: Final = Path(__file__).with_name("workload-seed7.json")


def scenario(name: str, seed: int) -> Scenario:
    """Return a scenario.

    Args:
        name: One of `SCENARIOS`.
        seed: `STORED_SEED` for the stored one; any other is made anew.

    Raises:
        ValueError: No scenario has that name; says which there are.
    """
    if name not in SCENARIOS:
        raise ValueError(f"no scenario {name!r}; expected one of {', '.join(SCENARIOS)}")
    return _read(_stored()[name]) if seed == STORED_SEED else generate(name, seed)


def stated_bound_s(name: str) -> float:
    """Return the bound that is written in the stored workload, in seconds."""
    return float(_stored()[name]["bound_s"])


@cache
def _stored() -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(_STORED.read_text())
    return stored


def _read(stored: dict[str, Any]) -> Scenario:
    return Scenario(
        stored["name"],
        stored["seed"],
        stored["dialect"],
        stored["model"],
        tuple(stored["keys"]),
        stored["groups"],
        {group: _read_limits(dict(limits)) for group, limits in stored["limits"].items()},
        tuple(stored["net_s"]),
        tuple(_read_job(dict(zip(stored["jobs"]["columns"], row, strict=True))) for row in stored["jobs"]["rows"]),
    )


def _read_limits(stored: dict[str, Any]) -> GroupLimits:
    mode, phase = stored.pop("mode"), stored.pop("phase_s", 0.0)
    per_minute: Any = stored  # what is left
    return GroupLimits(mode, per_minute, phase)


def _read_job(stored: dict[str, Any]) -> Job:
    return Job(**stored)
