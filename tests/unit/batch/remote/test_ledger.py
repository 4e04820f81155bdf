from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from llm import LLMConfigurationError
from llm.batch.remote.ledger import Ledger, Plan, State, left_beside

if TYPE_CHECKING:
    from pathlib import Path

PLAN = Plan(1, "openai", "/v1/chat/completions", "m", 10)


def opened(folder: Path, engine: str = "openai-batch") -> Ledger:
    ledger = Ledger(folder / "out.jsonl", engine)
    ledger.open()
    return ledger


def _sent(folder: Path) -> Ledger:
    ledger = opened(folder)
    assert ledger.number() == 1
    asyncio.run(ledger.planned([PLAN]))
    asyncio.run(ledger.uploaded(ledger.parts[1], "key-1", "file-1"))
    asyncio.run(ledger.sending(ledger.parts[1], "key-1", "batch-0", 7.0))
    return ledger


def test_what_was_noted_is_known_again(tmp_path: Path) -> None:
    ledger = _sent(tmp_path)
    first = ledger.parts[1]
    ledger.close()
    again = opened(tmp_path)
    assert again.parts == {1: first}
    assert (first.state, first.key, first.file, first.newest, first.at) == (
        State.SENDING,
        "key-1",
        "file-1",
        "batch-0",
        7.0,
    )
    assert (again.run, again.number(), first.mark) == (ledger.run, 2, f"{ledger.run}-1")
    asyncio.run(again.sent(again.parts[1], "batch-1"))
    again.close()
    left = left_beside(tmp_path / "out.jsonl")
    assert left is not None
    assert (left.engine, left.rows, left.submitted, left.batches) == ("openai-batch", 10, 10, 1)


def test_a_part_is_over_and_its_heirs_are_planned_in_one_step(tmp_path: Path) -> None:
    ledger = _sent(tmp_path)
    asyncio.run(ledger.over(ledger.parts[1], [Plan(2, "openai", "/v1/chat/completions", "m", 3, 1)]))
    assert list(ledger.parts) == [2]
    ledger.close()
    again = opened(tmp_path)
    assert [(part.plan.rows, part.plan.tries, part.state) for part in again.parts.values()] == [(3, 1, State.PLANNED)]
    last = (tmp_path / "out.batches/journal.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["event"] == "over"
    again.close()


def test_a_step_that_was_noted_by_half_never_happened(tmp_path: Path) -> None:
    ledger = _sent(tmp_path)
    asyncio.run(ledger.sent(ledger.parts[1], "batch-1"))
    ledger.close()
    path = tmp_path / "out.batches/journal.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    again = opened(tmp_path)
    assert again.parts[1].state is State.SENDING
    asyncio.run(again.sent(again.parts[1], "batch-2"))
    again.close()
    assert opened(tmp_path).parts[1].batch == "batch-2"


def test_of_several_tries_with_a_key_the_first_knows_what_was_there_before(tmp_path: Path) -> None:
    ledger = _sent(tmp_path)
    part = ledger.parts[1]
    asyncio.run(ledger.refused(part))
    asyncio.run(ledger.sending(part, "key-1", "batch-5", 8.0))
    assert (part.newest, part.file) == ("batch-0", "file-1")
    asyncio.run(ledger.refused(part))
    asyncio.run(ledger.sending(part, "key-2", "batch-9", 9.0))
    assert (part.newest, part.file) == ("batch-9", None)  # another key sees other batches, and not the file
    asyncio.run(ledger.refused(part, file=False))
    assert part.state is State.PLANNED
    ledger.close()


def test_where_nothing_is_left_nothing_stays(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    assert left_beside(tmp_path / "out.jsonl") is None
    ledger.close()
    ledger.close()
    assert list(tmp_path.iterdir()) == []


def test_another_engine_is_refused(tmp_path: Path) -> None:
    _sent(tmp_path).close()
    with pytest.raises(LLMConfigurationError, match="go on with --engine openai-batch"):
        opened(tmp_path, "anthropic-batch")


@pytest.mark.parametrize("wrong", ["{no json\n", '{"event": "sent", "part": 9, "batch": "b"}\n', '{"event": "sent"}\n'])
def test_damaged_notes_are_told_and_nothing_is_guessed(tmp_path: Path, wrong: str) -> None:
    _sent(tmp_path).close()
    with (tmp_path / "out.batches/journal.jsonl").open("a") as file:
        file.write(wrong)
    with pytest.raises(LLMConfigurationError, match="is damaged, so it is not known what is at the vendor"):
        opened(tmp_path)
    with pytest.raises(LLMConfigurationError, match="is damaged"):
        left_beside(tmp_path / "out.jsonl")


def test_notes_of_another_version_are_refused(tmp_path: Path) -> None:
    _sent(tmp_path).close()
    path = tmp_path / "out.batches/journal.jsonl"
    path.write_text(path.read_text().replace('"version":1', '"version":2'))
    with pytest.raises(LLMConfigurationError, match="another version"):
        opened(tmp_path)
