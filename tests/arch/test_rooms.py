"""The import contracts of pyproject.toml, and what else holds for every module."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

import llm

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MOST_LINES = 400

# The contracts name these modules before they are written; what stands here and exists by now can go.
PLANNED = {
    "llm.gateway",
    "llm.core.structured",
}


@pytest.fixture
def source(root: Path) -> Path:
    return root / "src" / "llm"


def test_imports_go_down_and_every_room_is_listed(root: Path, tmp_path: Path) -> None:
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    contracts: list[dict[str, Any]] = settings.pop("contracts")
    absent: set[str] = set()
    written = ["[tool.importlinter]", *(f"{key} = {json.dumps(value)}" for key, value in settings.items())]
    for contract in contracts:
        _leave_out_absent(contract, root / "src", absent)
        written += ["[[tool.importlinter.contracts]]", *(f"{k} = {json.dumps(v)}" for k, v in contract.items())]
    config = tmp_path / "pyproject.toml"
    config.write_text("\n".join(written), encoding="utf-8")

    # In a process of its own: the linter's logging configuration would switch off every logger of the tests after it.
    code = f"from importlinter.cli import lint_imports as lint\nraise SystemExit(lint({str(config)!r}, no_cache=True))"
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert absent <= PLANNED, f"the contracts name modules that do not exist: {sorted(absent - PLANNED)}"


def _leave_out_absent(contract: dict[str, Any], src: Path, absent: set[str]) -> None:
    """The linter stops at a name without a module, so names of modules to come are taken out before it runs."""

    def exists(name: str) -> bool:
        path = src.joinpath(*name.split("."))
        there = path.is_dir() or path.with_suffix(".py").is_file()
        if not there:
            absent.add(name)
        return there

    if "source_modules" in contract:
        contract["source_modules"] = [name for name in contract["source_modules"] if exists(name)]
    if "layers" in contract:
        container = contract["containers"][0]
        layers = [_kept(layer, lambda name: exists(f"{container}.{name}")) for layer in contract["layers"]]
        contract["layers"] = [layer for layer in layers if layer]


def _kept(layer: str, exists: Callable[[str], bool]) -> str:
    between = " : " if ":" in layer else " | "
    return between.join(name for name in re.split(r" [|:] ", layer) if exists(name))


def test_src_is_no_package(root: Path) -> None:
    assert not (root / "src" / "__init__.py").exists()


def test_every_package_is_one(source: Path) -> None:
    """A folder without `__init__` is invisible to the contracts."""
    folders = {path.parent for path in source.rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]


def test_no_module_is_too_long_to_hold_in_the_head(source: Path) -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in source.rglob("*.py")}
    assert not {path: length for path, length in lengths.items() if length > MOST_LINES}


@pytest.mark.parametrize("name", llm.__all__)
def test_every_public_name_says_what_it_is(name: str) -> None:
    thing = getattr(llm, name)
    if inspect.isclass(thing) or inspect.isfunction(thing):
        said = vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__
        assert said
        assert not said.startswith(f"{name}("), "a dataclass's own listing of its fields is no docstring"


def test_the_front_door_has_what_it_lists_and_nothing_else() -> None:
    own = {name for name, value in vars(llm).items() if name[0] != "_" and not inspect.ismodule(value)}
    assert own - {"annotations", "TYPE_CHECKING"} <= set(llm.__all__) <= set(dir(llm))
