"""What others' linters say of the files for deployment: nothing."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Tool = Callable[..., str]

BESIDE = Path(sys.executable).parent
YAML_RULES = """
extends: default
rules:
  line-length: {max: 140}
  document-start: disable
  comments: {min-spaces-from-content: 1}
  comments-indentation: disable
  truthy: {check-keys: false}
"""


def test_of_the_dockerfile(root: Path, tool: Tool) -> None:
    assert tool(BESIDE / "hadolint", "--failure-threshold", "style", root / "Dockerfile") == ""


def test_of_the_scripts(root: Path, tool: Tool) -> None:
    assert tool(BESIDE / "shellcheck", "--shell", "sh", *(root / "deploy").glob("*.sh")) == ""


def test_of_the_yaml_files(root: Path, tool: Tool) -> None:
    assert tool(sys.executable, "-m", "yamllint", "--strict", "-d", YAML_RULES, root / "deploy") == ""


def test_of_the_unit_for_systemd(root: Path, tool: Tool, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not there")
    text = (root / "deploy" / "systemd" / "llm-manifold.service").read_text(encoding="utf-8")
    unit = tmp_path / "llm-manifold.service"
    unit.write_text(re.sub("(?<=ExecStart=)\\S+", sys.executable, text), encoding="utf-8")
    assert tool(analyze, "verify", unit) == ""
    told = tool(analyze, "security", "--offline=true", "--no-pager", unit)
    found = re.search(r"Overall exposure level for \S+: (\d+\.\d)", told)
    assert found is not None
    assert float(found[1]) < 2.0  # of 10
