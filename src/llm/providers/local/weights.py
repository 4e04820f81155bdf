"""From what a user writes in `models:` to a folder on disk that loads; the network is never asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llm.core.exceptions import LLMConfigurationError

from .catalogue import BUNDLED
from .convert import converted, missing_extra
from .layout import CONFIG, MODULES
from .store import ModelStore, unobserved

if TYPE_CHECKING:
    from .store import ModelProgress


def find_weights(name: str, *, directory: Path | None = None, progress: ModelProgress = unobserved) -> Path:
    """Return the folder with the weights of a model.

    Args:
        name: A bundled model's name, a folder with safetensors, a GGUF file (converted the first time), or a hub id
            that is in the hub's cache on this disk.
        directory: Where bundled and converted models are kept; None: the usual place.
        progress: Is told how far a conversion is.

    Raises:
        LLMConfigurationError: It is none of these, or not there yet; the message says what to do.
    """
    store = ModelStore(directory)
    if name in BUNDLED:
        return _bundled(name, store)
    path = Path(name).expanduser()
    if path.is_file():
        return converted(store, path, progress)
    if path.is_dir():
        return _folder(path)
    return _from_hub_cache(name)


def _bundled(name: str, store: ModelStore) -> Path:
    folder = store.folder(name, BUNDLED[name].sha256)
    if not folder.is_dir():
        raise LLMConfigurationError(
            f"the model {name} is not on this machine yet (looked in {store.directory}); "
            f"run `manifold models fetch {name}`",
            model=name,
        )
    return folder


def _folder(path: Path) -> Path:
    if not any((path / name).is_file() for name in (CONFIG, MODULES)):
        raise LLMConfigurationError(
            f"the folder {path} holds no model: it has no config.json; name the one that has it", model=str(path)
        )
    return path


def _from_hub_cache(name: str) -> Path:
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError as error:
        raise missing_extra(error.name) from error
    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        found = None
    if not isinstance(found, str):
        raise LLMConfigurationError(
            f"no model {name!r} on this machine; expected {', '.join(BUNDLED)}, a folder with safetensors, a GGUF "
            "file, or a hub id whose files are in the hub's cache on this disk (models are never downloaded by a call)",
            model=name,
        )
    return Path(found).parent
