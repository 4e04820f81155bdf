"""`manifold` on a terminal: a conversation with history, Ctrl-D, Ctrl-C, and tables that fit."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import stat
import sys
import termios
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llm import LLMInvalidRequestError
from llm.cache import DiskCache
from llm.testing import Fault, MockUpstream
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

CTRL_C, CTRL_D, ARROW_UP = "\x03", "\x04", "\x1b[A"
SETTING = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@dataclass
class Terminal:
    """A person's side of a terminal that the program runs on."""

    program: asyncio.subprocess.Process
    side: int
    seen: str = ""

    def type(self, text: str) -> None:
        os.write(self.side, text.encode())

    async def until(self, text: str) -> None:
        """Read until the program has shown this."""
        async with SystemClock().timeout(30):
            while text not in self.seen:
                assert await self._read(), f"it ended before it said {text!r}: {self.seen}"

    async def until_it_waits(self) -> None:
        """Wait for it to wait: Python misses a Ctrl-C that comes after its prompt and before it looks for a key."""
        async with SystemClock().timeout(30):
            while runs(self.program.pid):
                await SystemClock().sleep(0.01)

    async def end(self) -> int:
        """Read to the end and return the exit status."""
        async with SystemClock().timeout(30):
            while await self._read():
                pass
            return await self.program.wait()

    async def _read(self) -> bool:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self.side, lambda: None if ready.done() else ready.set_result(None))
        try:
            await ready
            self.seen += SETTING.sub("", os.read(self.side, 65536).decode()).replace("\r\n", "\n")
        except OSError:  # the other side is closed
            return False
        finally:
            loop.remove_reader(self.side)
        return True


def runs(process: int) -> bool:
    """Tell whether it has work to do; only Linux can say."""
    told = Path(f"/proc/{process}/stat")
    return told.exists() and told.read_text(encoding="ascii").rpartition(") ")[2][0] == "R"


@asynccontextmanager
async def terminal(root: Path, folder: Path, *words: str, columns: int = 60) -> AsyncGenerator[Terminal]:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "COVERAGE"))}
    on_terminal = f"import os; os.login_tty(0); os.execv({sys.executable!r}, {[sys.executable, '-m', 'llm', *words]})"
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", on_terminal),
        cwd=folder,
        env=kept | {"PYTHONPATH": str(root / "src"), "PYTHONUTF8": "1", "HOME": str(folder), "TERM": "xterm"},
        stdin=theirs,
    )
    os.close(theirs)
    try:
        yield Terminal(program, ours)
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
        os.close(ours)


def configure(folder: Path, base_url: str) -> None:
    section = f"{{base_url: '{base_url}', api_keys: [sk-a-long-secret-key], models: [gpt-4o-mini]}}"
    text = f"providers: {{openai: {section}}}\nretry: {{max_attempts: 1}}\n"
    (folder / "llm.yaml").write_text(text, encoding="utf-8")


async def test_a_conversation_has_a_history_and_ends_with_ctrl_d(root: Path, tmp_path: Path) -> None:
    async with MockUpstream(answer=lambda request: f"turn {len(request.messages)}") as up:
        configure(tmp_path, up.base_url)
        async with terminal(root, tmp_path, "chat", "--system", "Be kind.") as person:
            await person.until("> ")
            person.type("hello\n")
            await person.until("turn 2\n> ")
            person.type("and again\n")
            await person.until("turn 4\n> ")
            person.type(CTRL_D)
            assert await person.end() == 0
        said = [[message["content"] for message in request.body["messages"]] for request in up.requests]
    assert said == [["Be kind.", "hello"], ["Be kind.", "hello", "turn 2", "and again"]]


async def test_a_turn_that_fails_is_told_and_the_conversation_goes_on_without_it(root: Path, tmp_path: Path) -> None:
    async with MockUpstream(faults=[Fault("server_error", at=1)]) as up:
        configure(tmp_path, up.base_url)
        async with terminal(root, tmp_path, "chat") as person:
            await person.until("> ")
            person.type("lost\n")
            await person.until("error: ")
            await person.until("attempts 1)\n> ")
            person.type("found\n")
            await person.until("found\n> ")
            person.type(CTRL_D)
            assert await person.end() == 0
        assert [message["content"] for message in up.requests[-1].body["messages"]] == ["found"]


async def test_what_a_server_says_of_a_failure_is_one_line_and_controls_no_terminal(root: Path, tmp_path: Path) -> None:
    wrong = LLMInvalidRequestError("no such\x1b]0;title\x07 voice\r\n  in here", status=400)
    async with MockUpstream(answer=lambda _: wrong) as up:
        configure(tmp_path, up.base_url)
        async with terminal(root, tmp_path, "chat", "hello", "--no-stream", "--quiet", columns=400) as person:
            assert await person.end() == 2
    assert "no such]0;title voice in here; " in person.seen
    assert not any(character in person.seen.removesuffix("\n") for character in "\n\r\x07\x1b")


async def test_a_conversation_has_commands_and_texts_of_several_lines(root: Path, tmp_path: Path) -> None:
    async with MockUpstream(answer=lambda request: f"turn {len(request.messages)}") as up:
        configure(tmp_path, up.base_url)
        async with terminal(root, tmp_path, "chat", "--system", "Be kind.") as person:
            for typed, told in (
                ("/help\n", "/save FILE"),
                ("/nonsense\n", "error: there is no /nonsense; /help tells"),
                ('"""one\ntwo"""\n', "turn 2\n> "),
                ("/save said.md\n", "written to said.md"),
                ("/save said.md\n", "error: said.md is there already"),
                ("/save\n", "error: no file is named"),
                ("/save ~no.such.user/said.md\n", "error: ~no.such.user/said.md begins with no user's name"),
                ("/save said.json\n", "written to said.json"),
                ("/clear\n", "forgotten"),
                ("/etc/hosts is a file\n", "turn 2\n> "),
            ):
                await person.until("> ")
                person.seen = ""
                person.type(typed)
                await person.until(told)
            person.type("/exit\n")
            assert await person.end() == 0
        said = [[message["content"] for message in request.body["messages"]] for request in up.requests]
    assert said == [["Be kind.", "one\ntwo"], ["Be kind.", "/etc/hosts is a file"]]
    markdown = "**System**\n\nBe kind.\n\n**User**\n\none\ntwo\n\n**Assistant**\n\nturn 2\n"
    assert (tmp_path / "said.md").read_text(encoding="utf-8") == markdown
    saved = json.loads((tmp_path / "said.json").read_text(encoding="utf-8"))
    assert [turn["role"] for turn in saved] == ["system", "user", "assistant"]


async def test_the_last_conversation_goes_on_and_lines_are_remembered(root: Path, tmp_path: Path) -> None:
    state = tmp_path / ".local" / "state" / "llm-manifold"
    async with MockUpstream(answer=lambda request: f"turn {len(request.messages)}") as up:
        configure(tmp_path, up.base_url)
        async with terminal(root, tmp_path, "chat", "-m", "gpt-4o-mini") as person:
            await person.until("> ")
            person.type("a line to come back to\n")
            await person.until("turn 1\n> ")
            person.type(CTRL_D)
            assert await person.end() == 0
        async with terminal(root, tmp_path, "chat", "-c", "and one word more") as person:
            assert await person.end() == 0
        async with terminal(root, tmp_path, "chat", "--continue") as person:
            await person.until("> ")
            person.type(f"{ARROW_UP}\n")
            await person.until("turn 5\n> ")
            person.type(CTRL_D)
            assert await person.end() == 0
        async with terminal(root, tmp_path, "chat", "--no-history", "not to be kept") as person:
            assert await person.end() == 0
        said = [[message["content"] for message in request.body["messages"]] for request in up.requests]
    typed = ["a line to come back to", "turn 1", "and one word more", "turn 3", "a line to come back to"]
    assert said == [typed[:1], typed[:3], typed, ["not to be kept"]]
    kept = {path.name: path for path in state.iterdir()}
    assert [name for name, path in kept.items() if stat.S_IMODE(path.stat().st_mode) != 0o600] == []
    assert "not to be kept" not in "".join(path.read_text(encoding="utf-8", errors="replace") for path in kept.values())
    assert kept["chat-history"].read_text(encoding="utf-8") == "a line to come back to\n" * 2


async def test_ctrl_c_stops_an_answer_and_the_conversation_goes_on_without_it(root: Path, tmp_path: Path) -> None:
    slow = [Fault("slow", at=1, seconds=20)]
    async with MockUpstream(answer=lambda request: f"turn {len(request.messages)}", faults=slow) as up:
        configure(tmp_path, up.base_url)
        async with terminal(root, tmp_path, "chat") as person:
            await person.until("> ")
            person.type("lost\n")
            while not up.requests:
                await SystemClock().sleep(0.01)
            await person.until("waiting")
            person.type(CTRL_C)
            await person.until("conversation\n> ")
            person.type("found\n")
            await person.until("turn 1\n> ")
            person.type(CTRL_D)
            assert await person.end() == 0
        assert [message["content"] for message in up.requests[-1].body["messages"]] == ["found"]


async def test_ctrl_c_at_the_prompt_is_130_without_a_traceback(root: Path, tmp_path: Path) -> None:
    configure(tmp_path, "http://127.0.0.1:9/v1")
    async with terminal(root, tmp_path, "chat") as person:
        await person.until("> ")
        await person.until_it_waits()
        person.type(CTRL_C)
        assert await person.end() == 130
        assert "Traceback" not in person.seen


async def test_ctrl_c_during_an_answer_is_130_without_a_traceback(root: Path, tmp_path: Path) -> None:
    async with MockUpstream(faults=[Fault("slow", at=1, seconds=20)]) as up:
        configure(tmp_path, up.base_url)
        async with terminal(root, tmp_path, "chat", "a text in several pieces") as person:
            await person.until("waiting for the answer")
            while not up.requests:
                await SystemClock().sleep(0.01)
            person.type(CTRL_C)
            assert await person.end() == 130
            assert "Traceback" not in person.seen


async def test_an_answer_cannot_control_the_terminal(root: Path, tmp_path: Path) -> None:
    async with MockUpstream(answer=lambda _: "a\x1b]0;title\x07b\tc") as up:
        configure(tmp_path, up.base_url)
        async with terminal(root, tmp_path, "chat", "Hi") as person:
            assert await person.end() == 0
            assert "a]0;titleb" in person.seen


async def test_clearing_the_cache_asks_first(root: Path, tmp_path: Path) -> None:
    configure(tmp_path, "http://127.0.0.1:9/v1")
    with (tmp_path / "llm.yaml").open("a", encoding="utf-8") as file:
        file.write("cache: {backend: disk, path: store}\n")
    store = DiskCache(tmp_path / "store")
    await store.put("0" * 64, b"{}", ttl=60, tags=["user:a\x1b]0;title\x07b"])
    async with terminal(root, tmp_path, "cache", "list", columns=80) as person:
        assert await person.end() == 0
        assert "000000000000 " in person.seen
        assert "a]0;titleb" in person.seen
        assert max(map(len, person.seen.splitlines())) <= 80
    for answer, status, left in (("n\n", 1, True), (CTRL_C, 130, True), ("y\n", 0, False)):
        async with terminal(root, tmp_path, "cache", "clear") as person:
            await person.until("Remove 1 answer? [y/N]: ")
            await person.until_it_waits()
            person.type(answer)
            assert await person.end() == status
            assert "Traceback" not in person.seen
        assert await store.exists("0" * 64) is left
    await store.close()


async def test_a_table_fits_a_narrow_terminal(root: Path, tmp_path: Path) -> None:
    async with MockUpstream() as up:
        configure(tmp_path, up.base_url)
        async with terminal(root, tmp_path, "status", columns=60) as person:
            assert await person.end() == 0
    assert "healthy" in person.seen
    assert max(map(len, person.seen.splitlines())) <= 60
