"""Who answers: vendors over HTTP, each a dialect on a transport, and models on the box.

The names below are for providers of one's own; `docs/providers.md` shows how they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .compatible import SERVERS, OpenAICompatible, Server
    from .openai.body import Flavor
    from .structured import Way, shaped

__all__ = ["SERVERS", "Flavor", "OpenAICompatible", "Server", "Way", "shaped"]

_HOMES: Final = {
    "SERVERS": "compatible",
    "Flavor": "openai.body",
    "OpenAICompatible": "compatible",
    "Server": "compatible",
    "Way": "structured",
    "shaped": "structured",
}


def __getattr__(name: str) -> object:
    """Load them when they are asked for: what uses no such server does without."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
