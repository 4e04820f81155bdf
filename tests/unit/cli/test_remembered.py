"""What a conversation leaves for the next one, and what happens where that is damaged or cannot be."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from llm.cli.remembered import Memory
from llm.cli.shell import Shell
from llm.cli.talk import Conversation
from llm.core.exceptions import LLMConfigurationError
from llm.core.messages import Message, MessageRole, TextPart

if TYPE_CHECKING:
    from pathlib import Path

SHELL = Shell(None, json=False, quiet=False)
SAID = Conversation("openai", "gpt-4o", "Be kind.", [Message(MessageRole.USER, "Hi"), Message("assistant", "Hello")])  # type: ignore[arg-type]  # text is taken too


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLM_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.mark.usefixtures("state")
def test_a_conversation_comes_back_as_it_was_its_parts_as_text() -> None:
    Memory(SHELL, keeps=True).keep(SAID)
    assert Memory(SHELL, keeps=False).last() == SAID
    parts = Conversation(turns=[Message(MessageRole.ASSISTANT, (TextPart("one"), TextPart("two")))])
    Memory(SHELL, keeps=True).keep(parts)
    assert [turn.content for turn in Memory(SHELL, keeps=True).last().turns] == ["onetwo"]


def test_who_does_not_keep_leaves_nothing(state: Path) -> None:
    memory = Memory(SHELL, keeps=False)
    memory.keep(SAID)
    memory.add_line("hello")
    assert memory.lines() == []
    assert not state.exists()
    with pytest.raises(LLMConfigurationError, match="no conversation to go on with"):
        memory.last()


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"turns": [{"role": "nobody", "content": ""}]}', '{"turns": 1}'])
def test_a_damaged_conversation_is_told(state: Path, text: str) -> None:
    state.mkdir()
    (state / "conversation.json").write_text(text, encoding="utf-8")
    with pytest.raises(LLMConfigurationError, match="it is damaged; begin anew without --continue"):
        Memory(SHELL, keeps=True).last()


def test_the_last_thousand_lines_are_kept(state: Path) -> None:
    memory = Memory(SHELL, keeps=True)
    memory.add_line("one\ntwo")
    (state / "chat-history").write_text("".join(f"line {n}\n" for n in range(2500)), encoding="utf-8")
    assert (len(memory.lines()), memory.lines()[-1]) == (1000, "line 2499")
    assert (state / "chat-history").read_text(encoding="utf-8").count("\n") == 1000


def test_a_line_that_is_no_text_is_kept_as_far_as_it_is_one(state: Path) -> None:
    memory = Memory(SHELL, keeps=True)
    memory.add_line("caf\udce9, as a terminal of another encoding sends it")
    memory.add_line("next")
    assert memory.lines() == ["caf?, as a terminal of another encoding sends it", "next"]
    assert (state / "chat-history").stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_kept_is_one_remark(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state.write_text("no folder", encoding="utf-8")
    memory = Memory(SHELL, keeps=True)
    memory.keep(SAID)
    memory.add_line("hello")
    told = capsys.readouterr().err
    assert told.startswith("this conversation is not kept: ")
    assert told.count("\n") == 1


def test_without_a_state_folder_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_STATE_DIR", os.devnull)
    memory = Memory(SHELL, keeps=True)
    memory.keep(SAID)
    memory.add_line("hello")
    assert memory.lines() == []
    with pytest.raises(LLMConfigurationError):
        memory.last()
