"""What is deployed, run as it stands: commands of the files, in folders that stand for a container's."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING

import pytest

from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_CLOCK = SystemClock()


@dataclass
class Stage:
    """One stage of a Dockerfile.

    Attributes:
        base: What it is built from: an image, or another stage.
        steps: Its instructions in order: the word, and what follows it in one line.
    """

    base: str
    steps: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def all(self, word: str) -> list[str]:
        """Return what follows a word, wherever it stands."""
        return [text for name, text in self.steps if name == word]


def _stages(path: Path) -> dict[str, Stage]:
    text = re.sub(r"^\s*#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    stages: dict[str, Stage] = {}
    stage = Stage("")
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stage = stages[name] = Stage(base)
        elif word:
            stage.steps.append((word, rest))
    return stages


@pytest.fixture(scope="session")
def stages(root: Path) -> dict[str, Stage]:
    """The Dockerfile's stages, by name; the last is what is built by default."""
    return _stages(root / "Dockerfile")


@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], object]], None]:
    """Waits for something that another process does."""

    def wait(true: Callable[[], object]) -> None:
        due = _CLOCK.now() + 20.0
        while not true():
            assert _CLOCK.now() < due
            Event().wait(0.01)

    return wait


@pytest.fixture(scope="session")
def tool() -> Callable[..., str]:
    """Runs a program that must be content; returns what it printed."""

    def run(*words: str | Path, cwd: Path | None = None) -> str:
        command = [str(word) for word in words]
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)  # noqa: S603 - our own words
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
