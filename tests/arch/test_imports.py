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
MOST_TIMES_ASYNCIO = 4


@pytest.mark.parametrize("door", DOORS)
def test_a_door_loads_nothing_heavy(door: str, fresh_python: Callable[[str], str]) -> None:
    loaded = fresh_python(f"""
import sys
sys.path.insert(0, 'src')
import {door}
print(*[name for name in {HEAVY} if name in sys.modules])
""").split()
    assert not loaded


def test_the_front_door_costs_at_most_four_times_what_every_async_program_loads(
    fresh_python: Callable[[str], str],
) -> None:
    # In turns: how fast the machine is changes, and the least of each was had at its fastest.
    turns = [(_cpu_seconds("llm", fresh_python), _cpu_seconds("asyncio, json, ssl", fresh_python)) for _ in range(7)]
    ours, bare = map(min, zip(*turns, strict=True))
    assert ours <= MOST_TIMES_ASYNCIO * bare, f"{ours:.3f} s against {bare:.3f} s"


def _cpu_seconds(modules: str, fresh_python: Callable[[str], str]) -> float:
    code = f"""
import sys, time
sys.path.insert(0, 'src')
before = time.process_time()
import {modules}
print(time.process_time() - before)
"""
    return float(fresh_python(code))
