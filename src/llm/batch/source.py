"""Opening what a batch is read from: a path, compressed or not, or a file that is open already."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, TypeAlias, cast

from llm.core.exceptions import LLMConfigurationError

if TYPE_CHECKING:
    from collections.abc import Generator

Source: TypeAlias = "str | os.PathLike[str] | BinaryIO"
"""A path, or a file that is open for reading bytes, such as `sys.stdin.buffer`."""

DAMAGED: Final = (EOFError, zlib.error, gzip.BadGzipFile)
"""What reading raises where packed data are cut or damaged."""

_GZIP: Final = b"\x1f\x8b"
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
_HEAD: Final = 4


def path_of(source: Source) -> str | os.PathLike[str] | None:
    """Return its path, where it can be read more than once, which a pipe with a name (`<(…)`) cannot; else None."""
    if not isinstance(source, (str, os.PathLike)):
        return None
    path = Path(source)
    return None if path.is_fifo() or path.is_char_device() else source


def name_of(source: Source) -> str:
    """Return what to call it in a message."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    name: object = getattr(source, "name", None)
    return name if isinstance(name, str) else "the input"


@contextmanager
def opened(source: Source) -> Generator[BinaryIO]:
    """Open it for reading bytes; what gzip packed comes unpacked. A file that came open stays open.

    Raises:
        LLMConfigurationError: It cannot be read, or not to its end; says why and what to do.
    """
    try:
        if isinstance(source, (str, os.PathLike)):
            with _open(source) as file:
                if file.peek(len(_GZIP)).startswith(_GZIP):
                    with gzip.GzipFile(fileobj=file) as unpacked:
                        yield cast("BinaryIO", unpacked)
                else:
                    yield file
        else:
            yield _checked(source)
    except OSError as error:
        raise LLMConfigurationError(f"{name_of(source)} cannot be read on: {error}; check the disk") from None


def head_of(file: BinaryIO, name: str) -> bytes:
    """Return some of its first bytes, which are read again after this; none where the file cannot look ahead.

    Raises:
        LLMConfigurationError: It is text in UTF-16.
    """
    peek = getattr(file, "peek", None)
    head: bytes = peek(_HEAD) if peek is not None else b""
    if head.startswith(_UTF16):
        raise LLMConfigurationError(f"{name} is text in UTF-16; save it as UTF-8")
    return head


def _checked(file: BinaryIO) -> BinaryIO:
    given: object = file
    if isinstance(given, io.TextIOBase) or not hasattr(given, "read"):
        raise LLMConfigurationError(
            f"the input is a {type(given).__name__}; pass a path, or a file opened for bytes: open(path, 'rb')"
        )
    return file


def _open(path: str | os.PathLike[str]) -> io.BufferedReader:
    try:
        return open(path, "rb")  # noqa: PTH123 - the caller closes it; a path of either kind
    except FileNotFoundError:
        raise LLMConfigurationError(f"there is no file {name_of(path)!r}; check its name and the folder") from None
    except IsADirectoryError:
        raise LLMConfigurationError(f"{name_of(path)!r} is a folder; name a file in it") from None
    except PermissionError:
        raise LLMConfigurationError(
            f"{name_of(path)!r} may not be read by this user; change its permissions, or copy it"
        ) from None
    except (OSError, ValueError) as error:
        raise LLMConfigurationError(f"{name_of(path)!r} cannot be opened: {error}; check its name") from None
