"""`docs/tutorial.md` from top to bottom: its files are written, and its commands typed, as they stand there.

`make test` types them where the package is, with a server in the place of the vendor; `make test-all` on nothing: a new
environment, the built wheel with all it needs, and the model on the box.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from contextlib import AbstractContextManager

    from llm.testing import MockUpstream

    Served = Callable[..., AbstractContextManager[MockUpstream]]

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
HERE: Final = "127.0.0.1:8000"
CLOCK: Final = SystemClock()
SERVES: Final = "manifold serve"


class Step(NamedTuple):
    """A block of the page: a file, or what is typed.

    Attributes:
        file: Its name, as the sentence above it says; empty for what is typed.
    """

    heading: str
    file: str
    text: str


def steps() -> Iterator[Step]:
    """Give the blocks of the page in their order."""
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        heading = section.partition("\n")[0]
        for above, language, text in re.findall(r"([^\n]*)\n\n```(\w+)\n(.*?)^```", section, re.MULTILINE | re.DOTALL):
            name = re.findall(r"`([\w.]+)`[^`]*$", above)
            yield Step(heading, "" if language == "sh" else name[-1], text)


class Shell:
    """A folder, the environment of its reader, and what was typed there so far."""

    def __init__(self, folder: Path, **variables: str) -> None:
        """Begin with nothing typed."""
        self.folder = folder
        self.changes: dict[str, str] = {}
        self._environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONUTF8": "1"} | variables
        self._lasting = "set -e\n"  # what later blocks need: variables, and the environment that is active

    def write(self, name: str, text: str) -> None:
        """Write a file."""
        (self.folder / name).write_text(self._changed(text), encoding="utf-8")

    def type(self, text: str) -> str:
        """Type a block; returns what it printed on stdout."""
        command = ["bash", "-c", self._lasting + self._changed(text)]
        done = subprocess.run(  # noqa: S603 - our own page
            command,
            cwd=self.folder,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, text + done.stdout + done.stderr
        self._lasting += "".join(line + "\n" for line in text.splitlines() if line.startswith(("export ", ". ")))
        return done.stdout

    @contextmanager
    def serving(self, text: str) -> Generator[None]:
        """Type what serves until it is ended, and wait until it listens."""
        log = self.folder / "log"
        log.touch()
        command = ["bash", "-c", f"{self._lasting}exec {text.strip()} 2> log"]
        with subprocess.Popen(command, cwd=self.folder, env=self._environ, stdin=subprocess.DEVNULL) as program:  # noqa: S603 - our own page
            due = CLOCK.now() + 120.0
            while (found := re.search(r"listening on http://([\d.:]+)", log.read_text(encoding="utf-8"))) is None:
                assert program.poll() is None, log.read_text(encoding="utf-8")
                assert CLOCK.now() < due
                Event().wait(0.02)
            self.changes[HERE] = found[1]
            try:
                yield
            finally:
                program.send_signal(signal.SIGINT)

    def _changed(self, text: str) -> str:
        for old, new in self.changes.items():
            text = text.replace(old, new)
        return text


def walk(shell: Shell, *, without: str = "") -> dict[str, str]:
    """Do what the page says; returns what each section printed."""
    printed: dict[str, str] = {}
    with ExitStack() as served:
        for step in steps():
            if step.heading == without:
                continue
            if step.file:
                shell.write(step.file, step.text)
            elif step.text.strip() == SERVES:
                served.enter_context(shell.serving(step.text))
            else:
                printed[step.heading] = printed.get(step.heading, "") + shell.type(step.text)
    return printed


def test_its_commands_and_programs_run(tmp_path: Path, served: Served) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, words in {"python": "", "manifold": " -m llm"}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{words} "$@"\n', encoding="utf-8")
        (programs / name).chmod(0o755)
    with served(dialect="openai") as up:
        shell = Shell(
            tmp_path,
            PATH=f"{programs}:{os.environ['PATH']}",
            PYTHONPATH=str(ROOT / "src"),
            PORT="0",
            OPENAI_BASE_URL=up.base_url,
            OPENAI_API_KEY="sk-of-nobody",  # answers before the page comes to keys
            LLM_MODELS_DIR=str(
                Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "llm-manifold", "models")
            ),
        )
        shell.changes["  openai:\n"] = f"  openai:\n    base_url: {up.base_url}\n"
        printed = walk(shell, without="Install")
    assert "Name a colour. (openai/gpt-4o-mini, 4 tokens)\nName three more." in printed["A first answer"]
    assert "Name a colour. (openai/gpt-4o-mini, 4 tokens)\nName three more." in printed["Two keys"]
    keys = [request.key for request in up.requests]
    assert keys.count("sk-of-nobody") == 3
    assert {"sk-your-first-key", "sk-your-second-key"} <= {*keys}
    assert keys.count("sk-of-nobody") + 2 + 3 + 2 == len(keys)  # the program; the batch, once; the gateway
    assert printed["A batch"].splitlines()[-1].split("\t")[1] == "4"  # a chat and three rows
    assert printed["A gateway"].endswith("}gpt-4o-mini\nHello!\n")  # curl's, then the models, then the answer


@pytest.mark.soak
def test_on_nothing_it_comes_to_an_answer_a_batch_and_a_gateway(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(wheels),
        str(ROOT),
    ]
    subprocess.run(build, check=True)  # noqa: S603 - our own words
    index = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    index["PIP_FIND_LINKS"] = f"{index.get('PIP_FIND_LINKS', '')} {wheels}"
    index["PIP_CONSTRAINT"] = str(ROOT / "constraints.txt")
    settings = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")  # pip's own, of this machine
    shell = Shell(tmp_path, PORT="0", XDG_CONFIG_HOME=settings, **index)
    printed = walk(shell, without="Two keys")
    assert "(local/smollm2-135m, " in printed["A first answer"]
    assert "smollm2-135m" in printed["A gateway"]
    answers = (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(answers) == 3
