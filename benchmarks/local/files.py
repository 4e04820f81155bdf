"""The files that engines read: one model, which no end token stops, in three forms."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

from benchmarks.programs import ROOT
from llm.providers.local.store import models_directory
from llm.providers.local.weights import find_weights

from .shape import MADE, MODEL, Files

if TYPE_CHECKING:
    from pathlib import Path

_ENDS: Final = ("eos_token_id", "eos_token")
_SAMPLING: Final = ("do_sample", "temperature", "top_p", "max_new_tokens")


def files() -> Files:
    """Return the files, making those that are not there.

    Raises:
        LLMConfigurationError: The model is not on this machine.
    """
    source = find_weights(MODEL)
    room = MADE / source.name
    folder = room / "folder"
    if not folder.is_dir():
        without_end(source, room / "folder.new").rename(folder)
    gguf = models_directory() / f"{MODEL}.gguf"
    return Files(folder, *(_rounded(gguf, room / f"{kind}.gguf", kind) for kind in ("BF16", "Q8_0")))


def without_end(source: Path, folder: Path) -> Path:
    """Make a folder of links to a model whose every answer is as long as was asked for, the likeliest tokens alone."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in source.iterdir():
        if file.name.endswith("config.json"):
            told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            left_out = (*_ENDS, *_SAMPLING) if file.name == "generation_config.json" else _ENDS
            kept = {name: value for name, value in told.items() if name not in left_out}
            (folder / file.name).write_text(json.dumps(kept, indent=2), encoding="utf-8")
        else:
            (folder / file.name).symlink_to(file)
    return folder


def _rounded(source: Path, target: Path, kind: str) -> Path:
    """Write a GGUF file's weights anew, in a process of its own."""
    if not target.exists():
        new = target.with_suffix(".new")
        command = [sys.executable, "-m", f"{__package__}.gguf_file", str(source), str(new), kind]
        subprocess.run(command, cwd=ROOT, check=True)  # noqa: S603 - our own program
        new.replace(target)
    return target
