"""Where models live on disk, and the two ways to put something there: whole, or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from llm.core.exceptions import LLMConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

ModelProgress: TypeAlias = "Callable[[str, float], None]"
"""Is told what is being done, such as `downloading`, and how much of that is done, 0 to 1."""

_STAGING = ".partial-"
_DIGEST_LENGTH = 12  # hex digits in a folder's name; 48 bits tell the models of one machine apart


def unobserved(step: str, share: float) -> None:
    """Take progress that nobody wants to see."""
    del step, share


def models_directory() -> Path:
    """Return `$LLM_MODELS_DIR`, else `$XDG_CACHE_HOME/llm-manifold/models`, else `~/.cache/llm-manifold/models`."""
    if chosen := os.environ.get("LLM_MODELS_DIR"):
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "llm-manifold" / "models"


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in 64 lower-case hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ModelStore:
    """One directory of models.

    What is in it under its final name is whole: everything is made under a temporary name beside it and renamed. A
    process that was killed leaves only temporary names behind, which the next writer removes.
    """

    def __init__(self, directory: Path | None = None) -> None:
        """Use `directory`, else `models_directory()`; nothing is made before the first write."""
        self.directory: Path = models_directory() if directory is None else directory

    def folder(self, name: str, digest: str) -> Path:
        """Return where the model made from the file with this SHA-256 is, or will be."""
        return self.directory / f"{name}-{digest[:_DIGEST_LENGTH]}"

    @contextmanager
    def writing(self) -> Generator[Path]:
        """Be the only writer, across processes too, and get an empty folder to make something in.

        The folder is gone at the end, with whatever was not renamed out of it.

        Raises:
            LLMConfigurationError: The directory cannot be written.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            lock = (self.directory / ".lock").open("ab")
        except OSError as error:
            raise LLMConfigurationError(
                f"the models directory {self.directory} cannot be written ({error.strerror}); "
                "set LLM_MODELS_DIR to one that can"
            ) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel gives it back when the process dies, however it dies
            for leftover in self.directory.glob(f"{_STAGING}*"):
                shutil.rmtree(leftover, ignore_errors=True)
            staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=self.directory))
            try:
                yield staging
            finally:
                shutil.rmtree(staging, ignore_errors=True)
