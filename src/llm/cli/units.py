"""Ages and sizes as people write and read them."""

from __future__ import annotations

import math
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


def dollars_of(number: float | None) -> str:
    """Return US dollars with cents, or with as many digits as it takes to see them; `-` where they are not known."""
    if number is None:
        return "-"
    if not number or number >= 1:
        return f"${number:,.2f}"
    digits = max(4, 1 - math.floor(math.log10(number)))
    return f"${number:.{digits}f}"


def count_of(number: int, noun: str) -> str:
    """Return a number with its noun, such as `1 row` and `2,000 rows`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def span_of(seconds: float) -> str:
    """Return seconds in their two largest units: `0.4 s`, `42 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`."""
    if seconds < 9.95:  # noqa: PLR2004 - a digit after the point
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_beside = divmod(minutes, 60)
    days, hours_beside = divmod(hours, 24)
    if days:
        return f"{days} d {hours_beside} h"
    if hours:
        return f"{hours} h {minutes_beside} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
