"""How a fault spoils an answer that was admitted."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from .exchange import Frame

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .exchange import Ending, Play
    from .faults import Fault
    from .vendor import Stamp, Vendor

_PAGE: Final = b"<html><head><title>Sign in</title></head><body>Please sign in to the network.</body></html>"
_BODIES: Final[Mapping[str, bytes]] = {"garbage": b'{"id": "x", "choi', "wrong_type": b"[1, 2, 3]", "html": _PAGE}
_ENDINGS: Final[Mapping[str, Ending]] = {"truncated": "cut", "polite_cut": "whole", "stalled": "stall"}


def spoil(play: Play, fault: Fault, vendor: Vendor, stamp: Stamp, *, stream: bool) -> Play:
    """Return the answer with the fault in it; a `slow` one was made so, and a refused one stays as it is."""
    if play.status >= 300 or fault.kind == "slow":  # noqa: PLR2004 - HTTP
        return play
    if fault.kind == "reset_after":
        return replace(play, frames=[], ending="reset")
    if fault.kind in _ENDINGS:
        return _cut(play, fault, stream=stream)
    if stream and fault.kind in {"garbage", "wrong_type", "error_event"}:
        return _instead(play, fault, vendor)
    return _replaced(play, fault, vendor, stamp)


def _cut(play: Play, fault: Fault, *, stream: bool) -> Play:
    ending = _ENDINGS[fault.kind]
    if stream:
        return replace(play, frames=_before(play, fault), ending=ending)
    frame = play.frames[0]
    half = frame.data[: len(frame.data) // 2]
    length = len(half) if ending == "whole" else play.length
    return replace(play, frames=[Frame(frame.at, half)], ending=ending, length=length)


def _before(play: Play, fault: Fault) -> list[Frame]:
    # The last piece closes the answer, so it is never among what comes before a fault.
    return play.frames[: min(fault.after_chunks, len(play.frames) - 1)]


def _instead(play: Play, fault: Fault, vendor: Vendor) -> Play:
    frames = _before(play, fault)
    if fault.kind == "error_event":
        event = vendor.error_event(vendor.failure("overloaded"), b"".join(frame.data for frame in frames))
    else:
        event = vendor.garbage_event(b'{"choices": [{"del' if fault.kind == "garbage" else b"[1, 2, 3]")
    at = frames[-1].at if frames else play.head_at
    return replace(play, frames=[*frames, Frame(at, event)])


def _replaced(play: Play, fault: Fault, vendor: Vendor, stamp: Stamp) -> Play:
    if fault.kind == "empty":
        return replace(play, frames=[], length=None if play.length is None else 0)
    data = _BODIES.get(fault.kind) or vendor.envelope(vendor.failure("overloaded"), stamp)
    kind = "text/html" if fault.kind == "html" else "application/json"
    headers = {**play.headers, "content-type": kind}
    return replace(play, headers=headers, frames=[Frame(play.head_at, data)], length=len(data))
