"""Records `docs/pictures/batch.svg`: the real `manifold batch` on a terminal, against a server in this process.

`make picture` runs it.
"""

from __future__ import annotations

import asyncio
import fcntl
import io
import json
import os
import pty
import re
import struct
import sys
import tempfile
import termios
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyte
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import DEFAULT_TERMINAL_THEME
from rich.text import Text

from llm.testing import MockUpstream

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT: Final = Path(__file__).parents[2]
COLUMNS: Final = 92
LINES: Final = 32
ROWS: Final = 4000
KEYS: Final = {"sk-picture-1": 500, "sk-picture-2": 500, "sk-picture-3": 1000}  # requests a minute
TWICE: Final = 10  # of so many rows the second asks what the first did
SHARE: Final = 75  # percent, at which the picture is taken
NAMES: Final = {"brown": "yellow", "brightbrown": "bright_yellow"}


def write_files(folder: Path, base_url: str) -> None:
    """Write the configuration and the questions; one in ten is asked twice."""
    limits = ", ".join(f"{{requests_per_minute: {most}, algorithm: token_bucket}}" for most in KEYS.values())
    keys = f"base_url: '{base_url}', api_keys: [{', '.join(KEYS)}], models: [gpt-4o-mini], rate_limits: [{limits}]"
    text = f"providers: {{openai: {{{keys}}}}}\ncache: {{backend: memory}}\n"
    (folder / "llm.yaml").write_text(text, encoding="utf-8")
    with (folder / "reviews.jsonl").open("w", encoding="utf-8") as file:
        for number in range(ROWS):
            asked = number - number % TWICE if number % TWICE == 1 else number
            text = f"Is review {asked} kind? The soup was warm, the waiter was not."
            body = {"messages": [{"role": "user", "content": text}], "max_tokens": 16}
            row = {"custom_id": f"review-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(row) + "\n")


async def typed(
    screen: pyte.Screen, folder: Path, line: str, *, until: Callable[[str], bool] = lambda _: False
) -> None:
    """Type a command on the screen and show what it shows, to its end or until the screen is as is wished."""
    stream = pyte.ByteStream(screen)
    stream.feed(f"\x1b[1m$ {line}\x1b[0m\r\n".encode())
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    path = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src")}
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "llm", *line.split()[1:]),
        cwd=folder,
        env=path | {"HOME": str(folder), "TERM": "xterm-256color", "COLORTERM": "", "PYTHONUTF8": "1"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    loop = asyncio.get_running_loop()
    while not until("\n".join(screen.display)):
        try:
            stream.feed(await loop.run_in_executor(None, os.read, ours, 65536))
        except OSError:  # it has ended, and closed its side
            break
    if program.returncode is None:
        program.terminate()
    os.close(ours)
    await program.wait()


def is_far(shown: str) -> bool:
    """Tell whether the display shows the share at which the picture is taken."""
    found = re.findall(r"(\d+) ?%\)", shown)
    return bool(found) and int(found[-1]) >= SHARE


def drawn(screen: pyte.Screen) -> str:
    """Return the screen as SVG, without its empty lines at the end and without a font from elsewhere."""
    used = max(number for number, line in enumerate(screen.display) if line.strip()) + 2
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for number in range(used):
        cells = [screen.buffer[number][column] for column in range(COLUMNS)]
        text = Text(end="")
        for (fg, bold), alike in groupby(cells, key=lambda cell: (cell.fg, cell.bold)):
            text.append("".join(cell.data for cell in alike), Style(color=colour(fg), bold=bold))
        console.print(text, overflow="crop", no_wrap=True)
    svg = console.export_svg(title="", theme=DEFAULT_TERMINAL_THEME, unique_id="manifold")
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)


def colour(name: str) -> str | None:
    """Return what `rich` calls a colour of the screen."""
    if name == "default":
        return None
    if re.fullmatch("[0-9a-f]{6}", name):
        return f"#{name}"
    name = NAMES.get(name, name)
    return name.replace("bright", "bright_") if name.startswith("bright") and "_" not in name else name


async def main() -> None:
    """Record the picture."""
    screen = pyte.Screen(COLUMNS, LINES)
    limits = {key: {"requests_per_minute": most} for key, most in KEYS.items()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with MockUpstream(limits=limits, service=0.3) as up:
            write_files(folder, up.base_url)
            await typed(screen, folder, "manifold batch reviews.jsonl -o answers.jsonl --dry-run")
            await typed(screen, folder, "manifold batch reviews.jsonl -o answers.jsonl", until=is_far)
    (ROOT / "docs" / "pictures" / "batch.svg").write_text(drawn(screen), encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main())
