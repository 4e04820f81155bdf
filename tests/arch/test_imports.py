"""Importing a door costs little and loads nothing heavy."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

HEAVY = (
    "openai", "anthropic", "torch", "transformers", "fastapi", "redis", "prometheus_client", "aiohttp",
    "httptools", "httpx2", "opentelemetry",
    "pydantic", "yaml", "rich", "typer", "tenacity",
)  # fmt: skip
DOORS = [
    door
    for door in (
        "llm",
        "llm.cache",
        "llm.middleware",
        "llm.batch",
        "llm.testing",
        "llm.progress",
        "llm.sync",
        "llm.providers",
        "llm.providers.local",
    )
    if importlib.util.find_spec(door)
]
MOST_TIMES_ASYNCIO = 3


@pytest.mark.parametrize("door", DOORS)
def test_a_door_loads_nothing_heavy(door: str, fresh_python: Callable[[str], str]) -> None:
    loaded = fresh_python(f"""
import sys
sys.path.insert(0, 'src')
import {door}
print(*[name for name in {HEAVY} if name in sys.modules])
""").split()
    assert not loaded


def test_the_front_door_takes_at_most_three_times_the_steps_of_what_every_async_program_loads(
    fresh_python: Callable[[str], str],
) -> None:
    ours, bare = (_steps(modules, fresh_python) for modules in ("llm", "asyncio, json, ssl"))
    assert ours <= MOST_TIMES_ASYNCIO * bare, f"{ours} steps against {bare}"


def _steps(modules: str, fresh_python: Callable[[str], str]) -> int:
    """Return how many calls and returns it takes to import them: seconds would say how busy the machine is, too."""
    code = f"""
import sys
sys.path.insert(0, 'src')
steps = 0
def step(*_):
    global steps
    steps += 1
sys.setprofile(step)
import {modules}
sys.setprofile(None)
print(steps)
"""
    return int(fresh_python(code))
