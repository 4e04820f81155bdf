"""A conversation at a terminal: what is typed is a turn, or a command that begins with a stroke."""

from __future__ import annotations

import asyncio
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llm.core.exceptions import LLMConfigurationError, LLMException, LLMInvalidRequestError
from llm.core.manager import LLMManager
from llm.core.messages import MessageRole

from .counting import Counting
from .errors import told
from .writing import written

if TYPE_CHECKING:
    from collections.abc import Callable

    from .remembered import Memory
    from .talk import Conversation, Talk

_BLOCK: Final = '"""'
_HELP: Final = f"""\
/help         this list
/clear        forget what was said so far
/save FILE    write the conversation to a new file, as Markdown, or as JSON where the name ends so
/exit         end, as Ctrl-D does
{_BLOCK}           begins and ends a text of several lines
Ctrl-C        stops an answer; at the prompt it ends"""


class Prompt:
    """Asks for turns and has them answered."""

    def __init__(self, talk: Talk, memory: Memory) -> None:
        """Take the conversation, and what it and the lines typed are kept in."""
        self._talk = talk
        self._memory = memory
        self._shell = talk.shell
        self._commands: dict[str, Callable[[str], object]] = {
            "/help": lambda _: self._shell.remark(_HELP),
            "/clear": lambda _: self._clear(),
            "/save": self._save,
        }

    def converse(self) -> None:
        """Ask for a turn, answer it, and again; the loop rests while the user types, so that Ctrl-C is heard."""
        readline: Any = import_module("readline")  # gives input() its line editing and its history
        for line in self._memory.lines():
            readline.add_history(line)
        with asyncio.Runner() as runner:
            manager = runner.run(_opened(self._talk))
            counting = Counting(self._shell, "chat", manager.get_status)
            try:
                self._shell.remark("A conversation. /help tells what can be typed, Ctrl-D ends it.")
                while (text := self._ask()) is not None:
                    if text and not self._command(text):
                        self._turn(runner, manager, text)
                        counting.add()
            finally:
                runner.run(manager.close(drain=0.0))
                counting.add()

    def _turn(self, runner: asyncio.Runner, manager: LLMManager, text: str) -> None:
        """Answer one turn; of a call that failed or was stopped the conversation goes on without it."""
        try:
            runner.run(self._talk.answer(manager, text))
        except LLMConfigurationError:
            raise
        except LLMException as error:
            self._shell.error(told(error))
        except KeyboardInterrupt:
            self._shell.remark("stopped; that turn is not part of the conversation")
        else:
            self._memory.keep(self._talk.conversation)

    def _ask(self) -> str | None:
        """Return what the user types, a block of several lines as one text; None at the end of it."""
        line = self._line("> ")
        if line is None or line.strip() == "/exit":
            return None
        if not line.startswith(_BLOCK):
            return line.strip()
        lines = [line.removeprefix(_BLOCK)]
        while not lines[-1].endswith(_BLOCK):
            line = self._line("… ")
            if line is None:
                return None
            lines.append(line.rstrip())
        return "\n".join(lines).removesuffix(_BLOCK).strip()

    def _line(self, prompt: str) -> str | None:
        try:
            line = input(prompt)
        except EOFError:
            print(file=sys.stderr)  # noqa: T201 - the line that Ctrl-D left open
            return None
        if line.strip():
            self._memory.add_line(line)
        return line

    def _command(self, text: str) -> bool:
        """Do what a command says; tell whether it was one."""
        name, _, rest = text.partition(" ")
        if not name.startswith("/") or "/" in name[1:]:  # a path is no command
            return False
        command = self._commands.get(name)
        if command is None:
            self._shell.error(f"there is no {name}; /help tells what there is")
            return True
        try:
            command(rest.strip())
        except (LLMInvalidRequestError, OSError) as error:
            self._shell.error(str(error))
        return True

    def _clear(self) -> None:
        self._talk.conversation.turns = []
        self._shell.remark("what was said so far is forgotten")

    def _save(self, name: str) -> None:
        if not name:
            raise LLMInvalidRequestError("no file is named; type /save FILE")
        try:
            path = Path(name).expanduser()
        except RuntimeError as error:
            raise LLMInvalidRequestError(f"{name} begins with no user's name; name another file") from error
        if path.exists():
            raise LLMInvalidRequestError(f"{name} is there already; name another file")
        with written(path) as file:
            file.write(_text_of(self._talk.conversation, as_json=path.suffix == ".json"))
        self._shell.remark(f"written to {path}")


async def _opened(talk: Talk) -> LLMManager:
    return await LLMManager.open(talk.shell.config)


def _text_of(said: Conversation, *, as_json: bool) -> str:
    turns = [(turn.role, turn.text) for turn in said.turns]
    if said.system is not None:
        turns.insert(0, (MessageRole.SYSTEM, said.system))
    if as_json:
        messages = [{"role": role, "content": text} for role, text in turns]
        return json.dumps(messages, indent=2, ensure_ascii=False) + "\n"
    return "\n".join(f"**{role.capitalize()}**\n\n{text}\n" for role, text in turns)
