"""`manifold stats`: its table, its moments, and how all of it is forgotten."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

import pytest
import typer

from llm.cli.ledger import Ledger, Usage
from llm.cli.stats import Since
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Program = Callable[..., Any]

DAY = 86_400.0


@pytest.fixture
def used(manifold: Program, tmp_path: Path) -> Program:
    """Two models and two commands, one of them last month."""
    ledger, now = Ledger(tmp_path / "state"), SystemClock().wall()
    ledger.add("chat", [("openai", "a", Usage(calls=1200, failed=1, cost=2.5, input_tokens=7000))], wall=now)
    ledger.add("batch", [("local", "b", Usage(calls=3, unpriced=2, cache_hits=1, cost_saved=0.01))], wall=now)
    ledger.add("batch", [("openai", "a", Usage(calls=5, cost=1.0))], wall=now - 40 * DAY)
    return manifold


def test_the_table_has_a_line_for_each_model_and_a_total(used: Program) -> None:
    told = used("stats")
    assert [line.split("\t") for line in told.out.splitlines()] == [
        ["local/b", "3", "0", "1", "0", "0", "-", "$0.0100"],
        ["openai/a", "1,200", "1", "0", "7,000", "0", "$2.50", "$0.00"],
        ["total", "1,203", "1", "1", "7,000", "0", "$2.50", "$0.0100"],
    ]
    assert told.err.startswith("the cost is without 2 calls of models whose price is not known\nsince ")


def test_rows_are_by_what_is_asked_for_and_from_when(used: Program) -> None:
    by_both = used("stats", "--by", "provider", "--by", "command", "--by", "provider", "--since", "60d", "--json").json
    assert by_both["by"] == ["provider", "command"]
    told = [(row["provider"], row["command"], row["calls"]) for row in by_both["rows"]]
    assert told == [("local", "batch", 3), ("openai", "batch", 5), ("openai", "chat", 1200)]
    assert (by_both["total"]["calls"], by_both["total"]["cost"]) == (1208, 3.5)
    days = used("stats", "--by", "day", "--since", "2001-01-01", "--json").json
    assert [row["calls"] for row in days["rows"]] == [5, 1203]
    assert used("stats", "--since", "0s", "--json").json["total"]["calls"] == 1203  # of this quarter of an hour


@pytest.mark.parametrize("text", ["2026-13-01", "0000-01-01", "soon", "2026-1-1"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        Since.of(text)


def test_nothing_counted_is_said_and_nowhere_to_count_is_wrong_usage(
    manifold: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (manifold("stats").status, manifold("stats").out) == (0, "")
    monkeypatch.setenv("LLM_STATE_DIR", os.devnull)
    told = manifold("stats")
    assert (told.status, "null device" in told.err) == (2, True)


def test_clearing_asks_first(used: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    class Person(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert (used("stats", "--clear").status, used("stats", "--json").json["total"]["calls"]) == (2, 1203)
    monkeypatch.setattr("sys.stdin", Person("no\n"))
    refused = used("stats", "--clear")
    assert (refused.status, "nothing was removed" in refused.err) == (1, True)
    monkeypatch.setattr("sys.stdin", Person("y\n"))
    assert used("stats", "--clear").err.endswith("all that was counted is forgotten\n")
    assert used("stats", "--json").json["rows"] == []
    assert used("stats", "--clear", "--yes", "--json").json["cleared"].endswith("usage.sqlite3")


def test_a_damaged_file_is_told(used: Program, tmp_path: Path) -> None:
    (tmp_path / "state" / "usage.sqlite3").write_bytes(b"nonsense" * 1000)
    told = used("stats")
    assert (told.status, told.out, told.err.count("\n")) == (1, "", 1)
