"""Progress on a real terminal: bytes of a pseudo-terminal on an emulated screen."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import pty
import sys
import termios
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pyte
import pytest
from rich.console import Console

from llm.core.types import TokenUsage
from llm.progress import Progress, ProgressTracker, show
from llm.progress.terminal import Terminal, drawn, moved_to
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

HALFWAY = Progress(
    total=10_000,
    answered=1202,
    failed=2,
    in_flight=64,
    elapsed=38.4,
    rows_per_second=31.2,
    overall_rows_per_second=28.75,
    input_tokens_per_second=4120.0,
    output_tokens_per_second=910.0,
    usage=TokenUsage(156_400, 34_600),
    cache_hits=217,
    cost=0.41,
    expected_cost=3.4,
    errors={"LLMTimeoutError": 1, "LLMAPIError": 1},
    saturation={"openai/0": 1.0, "東京 [bold]/0": 0.5},
    seconds_left=240.0,
    waiting="openai is overloaded [503]",
)


def shown(progress: Progress, *, columns: int = 80, lines: int = 24, ended: bool = False, colour: bool = True) -> str:
    environment = {"TERM": "xterm-256color"} | ({} if colour else {"NO_COLOR": "1"})
    console = Console(
        file=io.StringIO(), force_terminal=True, width=columns, height=lines, _environ=environment, record=True
    )
    console.print(drawn(progress, console, ended=ended))
    return console.export_text(styles=colour)


def plain(progress: Progress, *, columns: int = 80, lines: int = 24, ended: bool = False) -> list[str]:
    text = shown(progress, columns=columns, lines=lines, ended=ended, colour=False)
    return [line.rstrip() for line in text.splitlines()]


def test_all_of_it_fits_eighty_columns() -> None:
    bar, *others = plain(HALFWAY)
    assert bar.startswith("━━━━━")
    assert bar.endswith("  1,204 of 10,000 rows (12 %)")
    assert len(bar) <= 79
    assert others == [
        "rate     31.2 rows/s, 4 min left, 38 s so far, 64 running",
        "tokens   4,120/s in, 910/s out; 156,400 in, 34,600 out",
        "cache    18 % (217 rows)",
        "cost     $0.41 of about $3.40",
        "failed   2: LLMAPIError 1, LLMTimeoutError 1",
        "waiting  openai is overloaded [503]",
        "keys     openai/0       ━━━━━━━━━━━━━━━━━━━━  100 %",
        "         東京 [bold]/0  ━━━━━━━━━━             50 %",
    ]


def test_the_last_state_has_the_whole_run_and_no_keys() -> None:
    done = replace(HALFWAY, answered=9998, waiting=None)
    bar, *others = plain(done, ended=True)
    assert bar.startswith("━━━━━━━━━━")
    assert bar.endswith("10,000 of 10,000 rows (100 %)")
    assert others[0] == "rate    28.8 rows/s in 38 s"
    assert [line.split()[0] for line in others] == ["rate", "tokens", "cache", "cost", "failed"]


@pytest.mark.parametrize("columns", [140, 60, 40, 24])
def test_no_line_is_wider_than_the_terminal(columns: int) -> None:
    text = shown(HALFWAY, columns=columns, colour=False)
    assert max(Console().measure(line).maximum for line in text.splitlines()) <= columns
    assert "1,204 of 10,000" in text


def test_colours_are_the_terminals_own_and_none_where_nobody_wants_them() -> None:
    assert "\x1b[36m" in shown(HALFWAY)  # cyan as the terminal's light or dark theme has it
    assert "38;2" not in shown(HALFWAY)
    assert "38;5" not in shown(HALFWAY)
    console = Console(file=io.StringIO(), force_terminal=True, width=80, _environ={"NO_COLOR": "1", "TERM": "xterm"})
    console.print(drawn(HALFWAY, console))
    assert isinstance(console.file, io.StringIO)
    assert "\x1b[3" not in console.file.getvalue()


def test_of_very_many_keys_the_fullest_are_shown() -> None:
    keys = {f"openai/{number}": number / 100 for number in range(18)}
    text = plain(replace(HALFWAY, saturation=keys))
    assert [line.split()[-4] for line in text[7:13]][1:] == [f"openai/{number}" for number in range(13, 18)]
    assert text[13:] == ["         and 12 more"]


@pytest.mark.parametrize("lines", [6, 10, 12])
def test_a_low_terminal_shows_fewer_keys(lines: int) -> None:
    keys = {f"openai/{number}": number / 100 for number in range(18)}
    assert len(plain(replace(HALFWAY, saturation=keys, waiting=None), lines=lines)) <= max(lines, 6)


def test_a_total_that_nobody_counted_is_a_bar_that_moves() -> None:
    assert plain(replace(HALFWAY, total=None))[0].endswith("  1,204 rows")
    assert plain(replace(HALFWAY, total=None), ended=True)[0] == "1,204 rows"


PROGRAM = """
import asyncio, logging, sys
from llm.core.types import TokenUsage
from llm.progress import ProgressTracker, show
from llm.utils.clock import SystemClock

logging.basicConfig(format="%(levelname)s %(message)s")  # a handler that holds stderr, as programs have it

async def main():
    tracker = ProgressTracker()
    tracker.begin(100)
    tracker.saturation = lambda: {"openai/0 [b]": 0.5}
    async with show(tracker):
        for row in range(40):
            tracker.answered(TokenUsage(12, 3), 0.0001, cached=row % 4 == 0)
            if row == 20:
                logging.warning("a line of a log")
                print("a line on stderr", file=sys.stderr)
                print("a line on stdout")
            await SystemClock().sleep(0.01)
        tracker.waiting("openai is overloaded")
        await SystemClock().sleep(60)

try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("bye")
    sys.exit(130)
"""


class Person:
    """Somebody who looks at a terminal."""

    def __init__(self, program: asyncio.subprocess.Process, side: int, columns: int) -> None:
        self.program = program
        self.screen = pyte.Screen(columns, 24)
        self._side = side
        self._stream = pyte.ByteStream(self.screen)

    @property
    def lines(self) -> list[str]:
        """What there is to read."""
        return [line.rstrip() for line in self.screen.display if line.strip()]

    async def until(self, text: str) -> list[str]:
        """Look until this is there."""
        async with SystemClock().timeout(30):
            while not any(text in line for line in self.lines):
                assert await self._read(), f"it ended before it showed {text!r}: {self.lines}"
        return self.lines

    async def end(self) -> int:
        """Look until it ends, and return its status."""
        async with SystemClock().timeout(30):
            while await self._read():
                pass
            return await self.program.wait()

    def resize(self, columns: int) -> None:
        """Make the window another width."""
        self.screen.resize(24, columns)
        termios.tcsetwinsize(self._side, (24, columns))

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        os.write(self._side, b"\x03")

    async def _read(self) -> bool:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._side, lambda: None if ready.done() else ready.set_result(None))
        try:
            await ready
            self._stream.feed(os.read(self._side, 65536))
        except OSError:  # the other side is closed
            return False
        finally:
            loop.remove_reader(self._side)
        return True


@contextmanager
def sides(columns: int) -> Generator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    try:
        yield ours, theirs
    finally:
        os.close(ours)


async def started(root: Path, program: str, sides: tuple[int, int], *, into: int | None = None) -> Person:
    ours, theirs = sides
    columns = termios.tcgetwinsize(theirs)[1]
    kept = {"PATH": os.environ["PATH"]}
    code = f"import os, sys; sys.path.insert(0, {str(root / 'src')!r}); out = os.dup(1); os.login_tty(0)\n"
    code += f"if {into is not None}: os.dup2(out, 1)\n"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code + program),
        env=kept | {"TERM": "xterm-256color", "PYTHONUTF8": "1"},
        cwd=root,
        stdin=theirs,
        stdout=into,
    )
    os.close(theirs)
    return Person(process, ours, columns)


async def test_the_display_stays_below_other_lines_and_gives_the_terminal_back(root: Path) -> None:
    with sides(80) as both:
        person = await started(root, PROGRAM, both)
        lines = await person.until("waiting  openai is overloaded")
        above, bar = lines.index("a line on stdout"), next(n for n, line in enumerate(lines) if "rows (40 %)" in line)
        assert lines[above - 2 : above + 1] == ["WARNING a line of a log", "a line on stderr", "a line on stdout"]
        assert bar == above + 1
        assert sum("of 100 rows" in line for line in lines) == 1  # nothing of an older state is left
        assert lines[-1].startswith("keys     openai/0 [b]  ━")
        assert person.screen.cursor.hidden
        person.resize(120)
        wider = await person.until("━" * 35)  # of 60, where it were 52
        assert sum("of 100 rows" in line for line in wider) == 1
        person.interrupt()
        assert await person.end() == 130, "\n".join(person.lines)
        assert person.lines[-1] == "bye"
        assert any("40 of 100 rows (40 %)" in line for line in person.lines)
        assert not any("waiting" in line or "keys" in line for line in person.lines)
        assert not person.screen.cursor.hidden


async def test_data_on_stdout_goes_into_its_file_and_nothing_else_does(root: Path, tmp_path: Path) -> None:
    with sides(80) as both:
        with (tmp_path / "out").open("wb") as out:
            person = await started(root, PROGRAM, both, into=out.fileno())
        await person.until("waiting  openai is overloaded")
        person.interrupt()
        assert await person.end() == 130, "\n".join(person.lines)
    assert (tmp_path / "out").read_text(encoding="utf-8") == "a line on stdout\nbye\n"


async def test_a_dumb_terminal_gets_plain_lines(root: Path) -> None:
    code = "import os; os.environ['TERM'] = 'dumb'\nfrom llm.progress import *\nt = ProgressTracker(); t.begin(2)\n"
    with sides(80) as both:
        person = await started(root, f"{code}with show(t): t.failed('LLMAPIError')", both)
        assert await person.end() == 0
    assert len(person.lines) == 1
    assert person.lines[0].startswith("1 of 2 rows (50 %) in ")


async def test_a_program_that_never_leaves_it_ends_with_its_cursor(root: Path) -> None:
    code = "from llm.progress import *\nt = ProgressTracker(); t.begin(2)\nshow(t).__enter__(); t.failed('LLMAPIError')"
    with sides(80) as both:
        person = await started(root, code, both)
        assert await person.end() == 0
    assert any("1 of 2 rows (50 %)" in line for line in person.lines)
    assert not person.screen.cursor.hidden


def seen(ours: int, columns: int = 80) -> pyte.Screen:
    screen = pyte.Screen(columns, 24)
    pyte.ByteStream(screen).feed(os.read(ours, 65536))
    return screen


def test_each_state_takes_the_place_of_the_one_before() -> None:
    with sides(80) as (ours, theirs), os.fdopen(theirs, "w") as stream:
        terminal = Terminal(stream)
        terminal.begin(Progress(total=4), 0.0)
        assert seen(ours).cursor.hidden
        terminal.paint(Progress(total=4, answered=3), 0.0)
        terminal.end(Progress(total=4, answered=4))
        screen = seen(ours)
    assert not screen.cursor.hidden
    assert sum("of 4 rows" in line for line in screen.display) == 1
    assert any("4 of 4 rows (100 %)" in line for line in screen.display)


def test_a_terminal_is_drawn_on_and_a_dumb_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = ProgressTracker()
    for term, drawn_on in (("xterm", True), ("dumb", False)):
        monkeypatch.setenv("TERM", term)
        with sides(80) as (ours, theirs), os.fdopen(theirs, "w") as stream:
            with show(tracker, stream=stream):
                pass
            assert (b"\x1b" in os.read(ours, 65536)) is drawn_on


def test_logs_that_hold_stderr_go_above_the_display_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    held, other, above = io.StringIO(), io.StringIO(), io.StringIO()
    handlers = [logging.StreamHandler(held), logging.StreamHandler(other), logging.NullHandler()]
    logger = logging.getLogger("llm")
    monkeypatch.setattr(logger, "handlers", handlers)
    moved = moved_to({held: above})
    logger.warning("a line")
    for handler, stream in moved:
        handler.setStream(stream)
    logger.warning("another")
    assert above.getvalue() == "a line\n"
    assert held.getvalue() == "another\n"
    assert other.getvalue() == "a line\nanother\n"


def test_handlers_move_while_it_draws_and_are_back_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnTerminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stderr = OnTerminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    handler = logging.StreamHandler(stderr)
    monkeypatch.setattr(logging.getLogger("llm"), "handlers", [handler])
    terminal = Terminal(stderr)
    terminal.begin(Progress(), 0.0)
    assert handler.stream is sys.stderr is not stderr
    terminal.end(Progress())
    assert handler.stream is sys.stderr is stderr
