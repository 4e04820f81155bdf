"""A file that is there whole, or not at all."""

from __future__ import annotations

import os
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
        LLMInvalidRequestError: It is there and no plain file.
        OSError: It cannot be written.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        raise LLMInvalidRequestError(f"{path} is no plain file; name one, or - for stdout")
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # its mode is 0600
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
