"""One process of all changes a file."""

from __future__ import annotations

import errno
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from llm.cli.writing import Turn, replaced

if TYPE_CHECKING:
    from pathlib import Path


def test_of_many_that_change_a_file_none_loses_what_another_wrote(tmp_path: Path) -> None:
    file = tmp_path / "counts"
    file.write_text("0", encoding="utf-8")

    def count() -> None:
        for _ in range(10):
            with closing(Turn(file)):
                replaced(file, str(int(file.read_text(encoding="utf-8")) + 1))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert file.read_text(encoding="utf-8") == "40"
    assert [path.name for path in tmp_path.iterdir()] == ["counts"]


def test_where_there_are_no_locks_all_may(tmp_path: Path) -> None:
    def refuses(_descriptor: int, _how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with closing(Turn(tmp_path / "counts", lock=refuses)), closing(Turn(tmp_path / "counts", lock=refuses)):
        pass
    assert list(tmp_path.iterdir()) == []


def test_another_failure_of_the_lock_is_told(tmp_path: Path) -> None:
    def fails(_descriptor: int, _how: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        Turn(tmp_path / "counts", lock=fails)
