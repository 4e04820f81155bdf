"""The engines that are compared, a module each; one that is not needed is not imported."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from benchmarks.local.shape import AS_CAME, LLAMA, LLAMA_Q8, NAIVE, NO_HALVES, NO_LOOKUP, OURS, SERVE, STATIC

if TYPE_CHECKING:
    from benchmarks.local.shape import Way

_WHERE: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    OURS: ("ours", {}),
    NO_LOOKUP: ("ours", {"without": 1}),
    NO_HALVES: ("ours", {"without": 2}),
    AS_CAME: ("ours", {"without": 3}),
    NAIVE: ("plain", {"batched": False}),
    STATIC: ("plain", {"batched": True}),
    SERVE: ("serve", {}),
    LLAMA: ("llama", {"eight_bits": False}),
    LLAMA_Q8: ("llama", {"eight_bits": True}),
}


def way(name: str) -> Way:
    """Return what starts an engine."""
    module, options = _WHERE[name]
    return partial(getattr(import_module(f"{__name__}.{module}"), module), **options)
