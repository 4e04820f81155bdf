from __future__ import annotations

import sys
from importlib import metadata
from typing import TYPE_CHECKING

import pytest

import llm
from llm.utils.distribution import namesake_notice

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def _namesake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = tmp_path / "llm-0.27.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: llm\nVersion: 0.27\n", encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])


def test_alone_there_is_nothing_to_say() -> None:
    assert namesake_notice() is None


@pytest.mark.usefixtures("_namesake")
def test_another_program_of_the_name_is_named_with_the_remedy() -> None:
    notice = namesake_notice()
    assert notice is not None
    assert "`llm` 0.27 is installed as well" in notice
    assert "pip uninstall llm" in notice


@pytest.mark.usefixtures("_namesake")
def test_who_misses_a_name_of_the_other_program_is_told() -> None:
    with pytest.warns(RuntimeWarning, match="installed as well"), pytest.raises(AttributeError):
        vars(llm)["__getattr__"]("get_model")


def test_the_version_is_the_distributions() -> None:
    try:
        assert llm.__version__ == metadata.version("llm-manifold")
    except metadata.PackageNotFoundError:
        assert llm.__version__ == "0+checkout"
