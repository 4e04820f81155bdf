"""A file that is there whole, or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from llm.core.exceptions import LLMInvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Generator


@contextmanager
def written(path: Path) -> Generator[TextIO]:
    """Write beside the file and put that in its place at the end, for the owner's eyes alone; on a failure nothing.

    Raises:
        LLMInvalidRequestError: It is there and no plain file, or nothing can be written beside it.
        OSError: Writing failed.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        raise LLMInvalidRequestError(f"{path} is no plain file; name one, or - for stdout")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # its mode is 0600
    except OSError as error:
        raise LLMInvalidRequestError(f"{path} cannot be written: {error.strerror}; name another file") from error
    try:
        with open(handle, "w", encoding="utf-8") as file:  # noqa: PTH123 - it is open already
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(target)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def replaced(path: Path, text: str) -> None:
    """Put a text in the place of a file's, whole or not at all; who might read it still may.

    Raises:
        LLMInvalidRequestError: As for `written`.
        OSError: Writing failed.
    """
    with written(path) as file:
        if path.exists():
            os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
        file.write(text)
