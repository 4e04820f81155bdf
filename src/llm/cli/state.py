"""The folder in which the command line keeps what outlives a run, for its owner's eyes alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

VARIABLE: Final = "LLM_STATE_DIR"
"""The variable that names the folder; the null device: nothing is kept."""


def state_folder(environ: Mapping[str, str] | None = None, *, home: Callable[[], Path] = Path.home) -> Path | None:
    """Return `$LLM_STATE_DIR`, else `llm-manifold` in `$XDG_STATE_HOME` or `~/.local/state`; None: nothing is kept.

    Source: https://specifications.freedesktop.org/basedir-spec/latest/
    """
    environ = os.environ if environ is None else environ
    named = environ.get(VARIABLE)
    if named:
        return None if named == os.devnull else Path(named).expanduser()
    everybody = environ.get("XDG_STATE_HOME", "")
    if not Path(everybody).is_absolute():  # others are to be ignored
        try:
            everybody = str(home() / ".local" / "state")
        except RuntimeError:  # a user without a home folder
            return None
    return Path(everybody) / "llm-manifold"


def private_file(folder: Path, name: str) -> Path:
    """Return the path of a file of that folder, made empty where it is missing: only its owner may read it.

    Raises:
        OSError: It cannot be made.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / name
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    return path
