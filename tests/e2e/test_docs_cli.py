"""`docs/cli.md` has every command, option, exit status and variable of the program, and no other."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
import typer

from llm.cli.errors import ExitStatus
from llm.cli.main import app

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOT_OURS = {"--help", "-h"}
ALONE = {"chat", "batch", "stats"}
"""Commands with a section of their own."""


@pytest.fixture
def page(root: Path) -> str:
    return (root / "docs" / "cli.md").read_text(encoding="utf-8")


def commands(group: Any, *before: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - typer's copy of click
    for name, command in group.commands.items():
        yield " ".join([*before, name]), command
        if hasattr(command, "commands"):
            yield from commands(command, *before, name)


def options(command: Any) -> set[str]:  # noqa: ANN401 - as above
    return {word for each in command.params for word in (*each.opts, *each.secondary_opts) if word.startswith("-")}


def test_every_command_and_option_is_on_the_page_and_no_other(page: str) -> None:
    group = typer.main.get_command(app)
    everywhere = options(group)
    known = everywhere | NOT_OURS
    for name, command in commands(group):
        assert f"manifold {name}" in page, name
        known |= options(command)
        section = re.findall(rf"^## `manifold {name}\b.*?(?=^## )", page, re.MULTILINE | re.DOTALL)
        told = section[0] if name in ALONE else page
        assert sorted(word for word in options(command) - everywhere if f"`{word}`" not in told) == [], name
    assert sorted(word for word in everywhere if f"`{word}`" not in page.replace(" FILE`", "`")) == []
    assert sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page)) - known) == []


def test_every_command_line_of_the_page_is_taken(page: str) -> None:
    group = typer.main.get_command(app)
    typed = [
        line
        for block in re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]
    assert len(typed) > 20
    for line in typed:
        words = shlex.split(line.rpartition("| ")[2], comments=True)
        assert words[0] == "manifold"
        command: Any = group
        rest = words[1:]
        while hasattr(command, "commands") and rest and rest[0] in command.commands:
            command, rest = command.commands[rest[0]], rest[1:]
        command.make_context(command.name, rest)  # which refuses what there is not


def test_every_exit_status_and_variable_is_on_the_page(page: str, root: Path) -> None:
    assert [status for status in ExitStatus if f"| {int(status)} |" not in page] == []
    read: set[str] = set()
    for path in (root / "src" / "llm").rglob("*.py"):
        read |= set(re.findall(r'"(LLM_[A-Z]+(?:_[A-Z]+)*)"', path.read_text(encoding="utf-8")))
    assert {"LLM_CONFIG", "LLM_MODELS_DIR", "LLM_STATE_DIR"} <= read
    assert sorted(name for name in read if f"`{name}`" not in page) == []
