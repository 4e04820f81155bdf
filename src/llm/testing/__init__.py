"""Doubles for programs that use this package: a clock, a provider, a recording layer, and a server that plays faults.

`docs/testing.md` shows each at work. With pytest they are there as fixtures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .clock import FakeClock
from .provider import FakeProvider
from .recording import RecordingMiddleware

if TYPE_CHECKING:
    from .faults import Fault
    from .upstream import MockUpstream

__all__ = ["FakeClock", "FakeProvider", "Fault", "MockUpstream", "RecordingMiddleware"]


def __getattr__(name: str) -> object:
    """Import the server when it is first asked for."""
    if name == "MockUpstream":
        from .upstream import MockUpstream  # noqa: PLC0415 - heavy

        return MockUpstream
    if name == "Fault":
        from .faults import Fault  # noqa: PLC0415 - heavy

        return Fault
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
