"""What a caller's limits still let through, as headers of a dialect.

Source: https://platform.openai.com/docs/guides/rate-limits and https://docs.claude.com/en/api/rate-limits
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llm.core.standing import Room

_OPENAI: Final = {"requests": b"requests", "total_tokens": b"tokens"}
_ANTHROPIC: Final = {
    "requests": b"requests",
    "total_tokens": b"tokens",
    "input_tokens": b"input-tokens",
    "output_tokens": b"output-tokens",
}


def openai_headers(rooms: Iterable[Room]) -> list[tuple[bytes, bytes]]:
    """Return OpenAI's headers; it has none for input and output apart."""
    headers: list[tuple[bytes, bytes]] = []
    for unit, limit, remaining, reset in rooms:
        if (name := _OPENAI.get(unit)) is not None:
            headers += [
                (b"x-ratelimit-limit-" + name, b"%d" % limit),
                (b"x-ratelimit-remaining-" + name, b"%d" % remaining),
                (b"x-ratelimit-reset-" + name, duration(reset).encode()),
            ]
    return headers


def anthropic_headers(rooms: Iterable[Room], wall: float) -> list[tuple[bytes, bytes]]:
    """Return Anthropic's headers; `wall` is now, in seconds since 1970."""
    headers: list[tuple[bytes, bytes]] = []
    for unit, limit, remaining, reset in rooms:
        if (name := _ANTHROPIC.get(unit)) is not None:
            when = datetime.fromtimestamp(math.floor(wall), UTC) + timedelta(seconds=math.ceil(reset))
            headers += [
                (b"anthropic-ratelimit-" + name + b"-limit", b"%d" % limit),
                (b"anthropic-ratelimit-" + name + b"-remaining", b"%d" % remaining),
                (b"anthropic-ratelimit-" + name + b"-reset", when.strftime("%Y-%m-%dT%H:%M:%SZ").encode()),
            ]
    return headers


def duration(seconds: float) -> str:
    """Return seconds as OpenAI's headers have them: `20ms`, `1.5s`, `6m0s`, `1h0m0s`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000 - 1e-6)}ms"
    total = math.ceil(seconds * 1000 - 1e-6) / 1000
    hours, rest = divmod(total, 3600)
    minutes, rest = divmod(rest, 60)
    text = f"{round(rest, 3):g}s"
    if minutes or hours:
        text = f"{minutes:.0f}m{text}"
    return f"{hours:.0f}h{text}" if hours else text
