"""The help in its sections, and wrong usage in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from llm.cli.main import app
from llm.cli.sections import Sections

if TYPE_CHECKING:
    from collections.abc import Callable


def test_the_help_has_every_command_in_its_section(manifold: Callable[..., Any]) -> None:
    done = manifold("--help")
    assert done.status == 0
    sections = [line for line in done.out.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert sections == ["Options:", "Ask:", "Serve:", "Look:", "Set up:"]
    assert manifold().err == done.out
    assert manifold().status == 2


def test_a_command_of_no_section_comes_last(manifold: Callable[..., Any]) -> None:
    app.command("later", short_help="Something new.")(lambda: None)
    try:
        told = manifold("-h").out
    finally:
        app.registered_commands.pop()
    assert told.index("More:\n  later   Something new.") > told.index("Set up:")
    assert app.info.cls is Sections


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("nonsense", "error: no such command 'nonsense'; `manifold -h` shows what there is\n"),
        ("models fetch", "error: missing argument 'NAME'; `manifold models fetch -h` shows what there is\n"),
    ],
)
def test_wrong_usage_is_one_line(manifold: Callable[..., Any], words: str, said: str) -> None:
    done = manifold(*words.split())
    assert (done.status, done.out, done.err) == (2, "", said)


def test_who_looked_on_and_is_gone_changes_nothing(fresh_python: Callable[[str], str]) -> None:
    code = """
import os
from llm.cli.shell import Shell

read, write = os.pipe()
os.dup2(write, 2)
os.close(write)
os.close(read)
shell = Shell(None, False, False)
shell.remark("nobody reads this")
shell.error("nor this")
print("done")
"""
    assert fresh_python(code) == "done\n"
