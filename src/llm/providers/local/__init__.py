"""A model on the box: transformers behind one thread, as an engine of its own and as a provider.

Importing this door loads neither torch nor transformers; the engine does when it loads its first model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .engine import InferenceEngine

__all__ = ["InferenceEngine"]


def __getattr__(name: str) -> object:
    """Load the engine's module when it is asked for."""
    if name in __all__:
        from .engine import InferenceEngine

        return InferenceEngine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
