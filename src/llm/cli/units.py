"""Ages and sizes as people write and read them."""

from __future__ import annotations

import re
from typing import Final

import typer

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_PARTS: Final = re.compile(r"(?:\d+(?:\.\d+)?[smhdw])+")
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_THOUSAND: Final = 1000


def seconds_of(text: str) -> float:
    """Return the seconds of `90`, `90s`, `30m`, `1h30m`, `7d` or `2w`.

    Raises:
        typer.BadParameter: It is none of these.
    """
    stated = text.strip().lower()
    if re.fullmatch(r"\d+(?:\.\d+)?", stated):
        return float(stated)
    if not _PARTS.fullmatch(stated):
        raise typer.BadParameter(f"{text!r} is no age; write seconds, or such as 90s, 30m, 1h30m, 7d, 2w")
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(stated))


def age_of(seconds: float) -> str:
    """Return the seconds in the largest unit of which there is at least one."""
    unit = next((unit for unit in "wdhm" if seconds >= _UNITS[unit]), "s")
    return f"{int(seconds / _UNITS[unit])}{unit}"


def size_of(number: float) -> str:
    """Return bytes in B, kB, MB, …, with a digit after the point where there are few."""
    unit = "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if number < _THOUSAND:
            break
        number, unit = number / _THOUSAND, larger
    return f"{number:.0f} {unit}" if unit == "B" or number >= 10 else f"{number:.1f} {unit}"  # noqa: PLR2004 - two digits
