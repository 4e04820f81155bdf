"""Where the command line keeps what outlives a run, and who may read it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from llm.cli.state import private_file, state_folder

HOME = Path.home()


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({}, HOME / ".local" / "state" / "llm-manifold"),
        ({"XDG_STATE_HOME": "/var/mine"}, Path("/var/mine/llm-manifold")),
        ({"XDG_STATE_HOME": "not/absolute"}, HOME / ".local" / "state" / "llm-manifold"),
        ({"LLM_STATE_DIR": "~/here", "XDG_STATE_HOME": "/var/mine"}, HOME / "here"),
        ({"LLM_STATE_DIR": "here"}, Path("here")),
        ({"LLM_STATE_DIR": ""}, HOME / ".local" / "state" / "llm-manifold"),
        ({"LLM_STATE_DIR": os.devnull}, None),
    ],
)
def test_the_folder_is_the_one_that_is_named_else_the_users(environ: dict[str, str], folder: Path | None) -> None:
    assert state_folder(environ) == folder


def test_a_user_without_a_home_folder_keeps_nothing() -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    assert state_folder({}, home=homeless) is None
    assert state_folder({"LLM_STATE_DIR": "/here"}, home=homeless) == Path("/here")


def test_a_file_and_the_folders_made_for_it_are_the_owners_alone(tmp_path: Path) -> None:
    path = private_file(tmp_path / "one" / "two", "file")
    path.write_text("kept", encoding="utf-8")
    assert private_file(tmp_path / "one" / "two", "file").read_text(encoding="utf-8") == "kept"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
