"""What is kept of calls between runs: exact sums, many processes, and files that are damaged, locked or strange."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from llm.cli.ledger import KEPT_FOR, Grouping, Ledger, LedgerError, Usage

if TYPE_CHECKING:
    from pathlib import Path

WALL = 1_800_000_000.0
MODEL = (Grouping.MODEL,)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "state")


def test_what_is_added_is_summed_by_each_grouping_and_their_combinations(ledger: Ledger) -> None:
    ledger.add("chat", [("openai", "a", Usage(calls=1, cost=0.5)), ("local", "", Usage(failed=1))], wall=WALL)
    ledger.add("batch", [("openai", "a", Usage(calls=2, input_tokens=7, cost=0.25))], wall=WALL + 86_400)
    both = Usage(calls=3, input_tokens=7, cost=0.75)
    assert ledger.totals(MODEL, since=0) == [(("local",), Usage(failed=1)), (("openai/a",), both)]
    assert ledger.totals([Grouping.PROVIDER], since=0) == [(("local",), Usage(failed=1)), (("openai",), both)]
    assert [names for names, _ in ledger.totals([Grouping.COMMAND], since=0)] == [("batch",), ("chat",)]
    days = ledger.totals([Grouping.DAY, Grouping.COMMAND], since=0)
    assert [(names[1], usage.calls) for names, usage in days] == [("chat", 1), ("batch", 2)]
    assert days[0][0][0] < days[1][0][0]


def test_only_what_is_young_enough_is_told_and_what_is_too_old_is_forgotten(ledger: Ledger) -> None:
    ledger.add("chat", [("openai", "a", Usage(calls=1))], wall=WALL)
    ledger.add("chat", [("openai", "a", Usage(calls=2))], wall=WALL + 3600)
    assert [usage.calls for _, usage in ledger.totals(MODEL, since=WALL + 3600)] == [2]
    ledger.add("chat", [("openai", "b", Usage(calls=4))], wall=WALL + KEPT_FOR + 1800)
    assert [usage.calls for _, usage in ledger.totals(MODEL, since=0)] == [2, 4]


def test_nothing_is_made_by_looking_and_the_file_is_the_owners_alone(ledger: Ledger) -> None:
    assert ledger.totals(MODEL, since=0) == []
    ledger.clear()
    assert not ledger.path.parent.exists()
    ledger.add("chat", [("openai", "a", Usage(calls=1))], wall=WALL)
    assert stat.S_IMODE(ledger.path.stat().st_mode) == 0o600


def test_clearing_forgets_all_and_counting_begins_anew(ledger: Ledger) -> None:
    ledger.add("chat", [("openai", "a", Usage(calls=1))], wall=WALL)
    ledger.clear()
    assert ledger.totals(MODEL, since=0) == []
    ledger.add("chat", [("openai", "a", Usage(calls=5))], wall=WALL)
    assert [usage.calls for _, usage in ledger.totals(MODEL, since=0)] == [5]


def test_a_damaged_file_is_told_and_clearing_removes_it(ledger: Ledger) -> None:
    ledger.add("chat", [("openai", "a", Usage(calls=1))], wall=WALL)
    ledger.path.write_bytes(b"no database at all" * 100)
    for use in (lambda: ledger.totals(MODEL, since=0), lambda: ledger.add("chat", [], wall=WALL)):
        with pytest.raises(LedgerError, match=r"is damaged .*stats --clear` removes it"):
            use()
    ledger.clear()
    assert not ledger.path.exists()
    ledger.add("chat", [("openai", "a", Usage(calls=1))], wall=WALL)


def test_a_file_of_a_later_version_is_left_alone(ledger: Ledger) -> None:
    ledger.add("chat", [], wall=WALL)
    with closing(sqlite3.connect(ledger.path)) as base:
        base.execute("PRAGMA user_version = 99")
    with pytest.raises(LedgerError, match="another version"):
        ledger.add("chat", [], wall=WALL)


def test_a_file_that_somebody_holds_is_told_soon(ledger: Ledger) -> None:
    ledger.add("chat", [], wall=WALL)
    with closing(sqlite3.connect(ledger.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="cannot be used: database is locked"):
            ledger.add("chat", [("openai", "a", Usage(calls=1))], wall=WALL)
        assert ledger.totals(MODEL, since=0) == []  # who only reads waits for nobody


def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(LedgerError, match="cannot be used: "):
        Ledger(tmp_path / "file" / "state").add("chat", [], wall=WALL)


def test_processes_that_add_at_once_lose_nothing(ledger: Ledger, root: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(root / "src")!r})
from pathlib import Path
from llm.cli.ledger import Ledger, LedgerError, Usage
ledger = Ledger(Path({str(ledger.path.parent)!r}))
sys.stdin.readline()
for _ in range(5):
    while True:
        try:
            ledger.add("batch", [("openai", "a", Usage(calls=1, cost=0.25))], wall={WALL})
            break
        except LedgerError as error:
            assert "locked" in str(error), error
"""
    programs = [subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) for _ in range(3)]  # noqa: S603 - our own code
    for program in programs:
        assert program.stdin is not None
        program.stdin.write(b"\n")
        program.stdin.close()
    assert [program.wait(30) for program in programs] == [0, 0, 0]
    assert ledger.totals(MODEL, since=0) == [(("openai/a",), Usage(calls=15, cost=3.75))]


def test_numbers_as_json_have_their_names() -> None:
    told: dict[str, Any] = Usage(calls=2, cost=0.1 + 0.2).as_json()
    assert (told["calls"], told["cost"], told["cost_saved"]) == (2, 0.3, 0.0)
