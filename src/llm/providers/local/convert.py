"""GGUF files into folders that transformers loads in a fraction of a second: bf16 safetensors, made once and kept."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from llm.core.exceptions import LLMConfigurationError

from .store import sha256_of, unobserved

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import IO

    from .store import ModelProgress, ModelStore

_SCRIPT = Path(__file__).with_name("gguf_script.py")
_MAGIC = b"GGUF"
_PERCENT = re.compile(r"(\d+)%\|")
_READING = 0.9  # share of the conversion that its first step is given
_TOLD = 800  # characters of what the script says last, of which an error repeats one line


def missing_extra(module: str | None) -> LLMConfigurationError:
    """Return the error for a module of the `local` extra that is not installed."""
    return LLMConfigurationError(
        f"a model on the box needs {module or 'packages that are not installed'}: pip install 'llm-manifold[local]'"
    )


def converted(store: ModelStore, gguf: Path, progress: ModelProgress = unobserved) -> Path:
    """Return the folder made from a GGUF file, making it the first time; the file's content decides, not its name.

    Raises:
        LLMConfigurationError: No GGUF file, one that transformers does not know, or the `local` extra is missing.
    """
    with gguf.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise LLMConfigurationError(f"{gguf} is no GGUF file; expected one, or a folder with safetensors")
    folder = store.folder(gguf.stem, sha256_of(gguf))
    if folder.is_dir():
        return folder
    with store.writing() as staging:
        if not folder.is_dir():  # another process may have made it while this one waited
            convert(gguf, staging / "model", progress=progress).rename(folder)
    return folder


def convert(
    gguf: Path,
    folder: Path,
    *,
    generation: Mapping[str, float | bool] | None = None,
    progress: ModelProgress = unobserved,
) -> Path:
    """Make `folder` with bf16 safetensors, tokenizer and chat template of a GGUF file, and return it.

    A process of its own does it: the memory for it is given back, and what transformers prints stays out of ours.
    `generation` holds generation defaults to add, in transformers' names.

    Raises:
        LLMConfigurationError: No GGUF file, one that transformers does not know, or the `local` extra is missing.
    """
    for module in ("torch", "transformers", "gguf", "accelerate"):
        if find_spec(module) is None:
            raise missing_extra(module)
    folder.mkdir()
    command = [sys.executable, "-P", "-W", "ignore", str(_SCRIPT), str(gguf), str(folder)]
    with subprocess.Popen(  # noqa: S603 - our own script
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8", errors="replace"
    ) as process:
        try:
            words = _follow(process.stderr, progress)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise LLMConfigurationError(
            f"{gguf} could not be converted; is it whole, and of a model that the installed transformers knows? "
            f"It said: {words}"
        )
    if generation is not None:
        _add_generation_defaults(folder / "generation_config.json", generation)
    return folder


def _follow(stderr: IO[str] | None, progress: ModelProgress) -> str:
    progress("converting", 0.0)
    words, share = "", 0.0
    for piece in stderr or ():  # a progress bar ends its states with \r, of which text mode makes lines
        words = (words + piece)[-_TOLD:]
        if percent := _PERCENT.search(piece):  # one bar for reading, which takes longest, and short ones after it
            share = max(share, _READING * int(percent[1]) / 100)
            progress("converting", share)
    progress("converting", 1.0)
    return words.strip().rpartition("\n")[2]  # of a traceback, the error


def _add_generation_defaults(file: Path, generation: Mapping[str, float | bool]) -> None:
    known: dict[str, object] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    file.write_text(json.dumps({**known, **generation}, indent=2), encoding="utf-8")
