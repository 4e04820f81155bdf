"""Who answers: vendors over HTTP, each a dialect on a transport, and models on the box.

The names below are for providers of one's own at servers that speak OpenAI's dialect; `docs/providers.md` has more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .compatible import SERVERS, OpenAICompatible, Server
    from .openai.body import Flavor

__all__ = ["SERVERS", "Flavor", "OpenAICompatible", "Server"]


def __getattr__(name: str) -> object:
    """Load them when they are asked for: what uses no such server does without."""
    if name in __all__:
        from . import compatible  # noqa: PLC0415 - lazy

        return getattr(compatible, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
