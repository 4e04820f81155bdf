"""What `manifold chat` keeps in the state folder: the last conversation, and the lines that were typed.

Only what the user typed and got is in it, and only its owner may read it. What cannot be kept is one remark.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

from llm.core.exceptions import LLMConfigurationError, LLMInvalidRequestError
from llm.core.messages import Message, MessageRole

from .state import private_file, state_folder
from .talk import Conversation
from .writing import written

if TYPE_CHECKING:
    from collections.abc import Generator

    from .shell import Shell

_CONVERSATION: Final = "conversation.json"
_LINES: Final = "chat-history"
_MOST_LINES: Final = 1000


class Memory:
    """The files of one user; without a state folder nothing is kept and nothing is there."""

    def __init__(self, shell: Shell, *, keeps: bool) -> None:
        """Take the state folder; where it does not keep, it only reads."""
        self._shell = shell
        self._folder = state_folder()
        self._keeps = keeps and self._folder is not None

    def last(self) -> Conversation:
        """Return the last conversation.

        Raises:
            LLMConfigurationError: There is none, or it cannot be read.
        """
        path = None if self._folder is None else self._folder / _CONVERSATION
        if path is None or not path.exists():
            raise LLMConfigurationError("there is no conversation to go on with; begin one with `manifold chat`")
        try:
            return _read(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError, KeyError, LLMInvalidRequestError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is damaged"
            raise LLMConfigurationError(f"{path} cannot be read: {why}; begin anew without --continue") from error

    def keep(self, conversation: Conversation) -> None:
        """Keep a conversation in place of the one before."""
        if self._keeps and self._folder is not None:
            with self._telling(), written(private_file(self._folder, _CONVERSATION)) as file:
                json.dump(_shown(conversation), file, ensure_ascii=False)

    def lines(self) -> list[str]:
        """Return the lines that were typed, the latest last."""
        if self._folder is None or not (path := self._folder / _LINES).exists():
            return []
        lines: list[str] = []
        with self._telling():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            if self._keeps and len(lines) > 2 * _MOST_LINES:
                with written(path) as file:
                    file.writelines(f"{line}\n" for line in lines[-_MOST_LINES:])
        return lines[-_MOST_LINES:]

    def add_line(self, line: str) -> None:
        """Keep a line that was typed."""
        if self._keeps and self._folder is not None:
            typed = f"{' '.join(line.splitlines())}\n".encode(errors="replace")  # it may be no text
            with self._telling(), private_file(self._folder, _LINES).open("ab") as file:
                file.write(typed)

    @contextmanager
    def _telling(self) -> Generator[None]:
        try:
            yield
        except (OSError, LLMInvalidRequestError) as error:
            self._keeps = False
            self._shell.remark(f"this conversation is not kept: {error}")


def _shown(conversation: Conversation) -> dict[str, Any]:
    return {
        "provider": conversation.provider,
        "model": conversation.model,
        "system": conversation.system,
        "turns": [{"role": turn.role, "content": turn.text} for turn in conversation.turns],
    }


def _read(text: str) -> Conversation:
    kept = cast("dict[str, Any]", json.loads(text))
    turns = [Message(MessageRole(turn["role"]), turn["content"]) for turn in kept["turns"]]
    return Conversation(kept["provider"], kept["model"], kept["system"], turns)
