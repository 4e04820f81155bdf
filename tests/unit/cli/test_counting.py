"""What calls come to is added as it comes, once, whatever the file of it does."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest

from llm.cli.counting import Counting
from llm.cli.ledger import Grouping, Ledger
from llm.cli.shell import Shell
from llm.testing import FakeClock

if TYPE_CHECKING:
    from pathlib import Path


def shown(answered: int, cost: float | None = 0.5) -> dict[str, Any]:
    return {
        "models": {
            "openai/a": {
                "calls": {"answered": answered, "cached": 2, "failed": 1, "cancelled": 0},
                "tokens": {"input": 10 * answered, "output": answered, "cached_input": 3},
                "cost": cost,
                "saved": {"tokens": 7, "cost": 0.25},
            }
        }
    }


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("LLM_STATE_DIR", str(tmp_path))
    return Shell(None, json=False, quiet=False)


def calls(folder: Path) -> list[int]:
    return [usage.calls for _, usage in Ledger(folder).totals([Grouping.MODEL], since=0)]


async def test_it_is_added_each_half_minute_and_the_rest_at_the_end(shell: Shell, tmp_path: Path) -> None:
    status, clock = shown(1), FakeClock()
    async with Counting(shell, "batch", lambda: status, clock=clock):
        await clock.advance(29.0)
        assert await asyncio.to_thread(calls, tmp_path) == []
        await clock.advance(2.0)
        while await asyncio.to_thread(calls, tmp_path) != [4]:
            await clock.advance(0.0)
        status = shown(6)
    assert await asyncio.to_thread(calls, tmp_path) == [9]
    ((_, usage),) = await asyncio.to_thread(Ledger(tmp_path).totals, [Grouping.COMMAND], since=0)
    told = (usage.failed, usage.cache_hits, usage.input_tokens, usage.cached_input_tokens, usage.cost, usage.cost_saved)
    assert told == (1, 2, 60, 3, 0.5, 0.25)


def test_what_has_no_known_price_is_counted_as_that(shell: Shell, tmp_path: Path) -> None:
    Counting(shell, "chat", lambda: shown(3, cost=None)).add()
    ((_, usage),) = Ledger(tmp_path).totals([Grouping.MODEL], since=0)
    assert (usage.unpriced, usage.cost) == (3, 0.0)


def test_a_file_that_cannot_be_used_is_told_once_and_what_was_missed_is_added_later(
    shell: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "usage.sqlite3").mkdir()
    counting = Counting(shell, "chat", lambda: shown(1))
    counting.add()
    counting.add()
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith("what this run comes to is not in `manifold stats`: ")
    (tmp_path / "usage.sqlite3").rmdir()
    counting.add()
    counting.add()
    assert calls(tmp_path) == [4]


async def test_nothing_is_kept_where_that_is_wished(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_STATE_DIR", os.devnull)
    async with Counting(shell, "chat", lambda: shown(1)):
        pass
