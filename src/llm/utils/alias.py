"""`src.llm` is `llm`: one set of modules under both names.

A program in a checkout's root may say `from src.llm import …`. Loaded a second time under that name, every class would
exist twice, and so would the process-wide manager. So the package, when it finds itself imported as `src.llm`, calls
`install_alias`; from then on the import system answers `src.llm.x` with the module `llm.x`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType

_SOURCES = Path(__file__).resolve().parents[2]


class _AliasLoader(Loader):
    """Hands out a module that has another name already."""

    def __init__(self, target: ModuleSpec) -> None:
        self._target = target
        self._own_spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        del spec
        module = importlib.import_module(self._target.name)
        self._own_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has just written the alias's spec into the module; reloading goes by its own.
        module.__spec__ = self._own_spec

    def get_code(self, fullname: str) -> CodeType | None:
        """Answer `python -m src.llm`, which asks a loader for code, not for a module."""
        del fullname
        get_code = getattr(self._target.loader, "get_code", None)
        return get_code(self._target.name) if get_code else None


class _AliasFinder:
    """Answers `src.llm.x` with the module `llm.x`."""

    def __init__(self, alias: str) -> None:
        self.prefix = f"{alias}."

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if not fullname.startswith(self.prefix):
            return None
        found = importlib.util.find_spec(f"llm.{fullname.removeprefix(self.prefix)}")
        if found is None:
            return None
        is_package = found.submodule_search_locations is not None
        return ModuleSpec(fullname, _AliasLoader(found), origin=found.origin, is_package=is_package)


def install_alias(alias: str) -> None:
    """Make `alias`, and all below it, the very modules of `llm`.

    Where `llm` is not installed, or another copy is, the folder of these sources goes to the front of `sys.path`.

    Args:
        alias: Full name under which the package was imported, such as `src.llm`.

    Raises:
        ImportError: When `llm` has been imported from somewhere else before.
    """
    _make_these_sources_llm(alias)
    for name in [name for name in sys.modules if name.startswith(f"{alias}.")]:
        del sys.modules[name]  # this module's own twin, loaded to get here
    sys.meta_path[:] = [finder for finder in sys.meta_path if getattr(finder, "prefix", None) != f"{alias}."]
    sys.meta_path.insert(0, _AliasFinder(alias))
    sys.modules[alias] = importlib.import_module("llm")


def _make_these_sources_llm(alias: str) -> None:
    loaded = sys.modules.get("llm")
    found = loaded.__file__ if loaded else getattr(importlib.util.find_spec("llm"), "origin", None)
    if found and Path(found).resolve() == _SOURCES / "llm" / "__init__.py":
        return
    if loaded:
        raise ImportError(f"{alias} cannot stand beside the `llm` imported from {found}: import one of the two only")
    sys.path.insert(0, str(_SOURCES))
