"""Doubles for programs that use this package: a clock, a provider, a recording layer, and a server that plays faults.

`docs/testing.md` shows each at work. With pytest they are there as fixtures.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .batches import BatchScript
    from .clock import FakeClock
    from .faults import Fault
    from .provider import FakeProvider
    from .recording import RecordingMiddleware
    from .upstream import MockUpstream

__all__ = ["BatchScript", "FakeClock", "FakeProvider", "Fault", "MockUpstream", "RecordingMiddleware"]

_MODULES = {
    "BatchScript": "batches",
    "FakeClock": "clock",
    "FakeProvider": "provider",
    "Fault": "faults",
    "MockUpstream": "upstream",
    "RecordingMiddleware": "recording",
}


def __getattr__(name: str) -> object:
    """Import a double when it is first asked for: pytest imports this package at every start."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
