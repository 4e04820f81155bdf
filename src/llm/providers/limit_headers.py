"""What an answer's headers say of the provider's limits. What makes no sense is passed over, and never an error.

Sources: https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers,
https://docs.claude.com/en/api/rate-limits#response-headers, https://openrouter.ai/docs/api-reference/limits
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from llm.core.call import LimitReport

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm.core.call import ReportedUnit

_MOST: Final = 1e12
"""Requests or tokens in a period; a limit of more is none."""

_LONGEST: Final = 40 * 86400.0
"""Seconds; no limit that we know of is counted for longer than a month."""

_SECONDS_SINCE_1970: Final = 1e9
"""What is larger is no duration but a date, and again a thousand times as large, one in milliseconds."""


class Told(NamedTuple):
    """When an answer came, to read dates by.

    Attributes:
        wall: Seconds since 1970 on our clock, as it came.
        elapsed: Seconds since its request was sent.
        refused: Whether it is a refusal for a limit.
    """

    wall: float
    elapsed: float
    refused: bool = False


class _Names(NamedTuple):
    unit: ReportedUnit
    limit: str
    remaining: str
    reset: str
    rounding: float = 0.0


def _openai(unit: ReportedUnit, suffix: str) -> _Names:
    return _Names(unit, f"x-ratelimit-limit{suffix}", f"x-ratelimit-remaining{suffix}", f"x-ratelimit-reset{suffix}")


def _anthropic(unit: ReportedUnit, name: str, rounding: float) -> _Names:
    start = f"anthropic-ratelimit-{name}"
    return _Names(unit, f"{start}-limit", f"{start}-remaining", f"{start}-reset", rounding)


_OPENAI: Final = (_openai("requests", "-requests"), _openai("total_tokens", "-tokens"))
_PLAIN: Final = _openai("requests", "")
_THOUSAND: Final = 1000.0  # the vendor rounds what is left of tokens
_ANTHROPIC: Final = (
    _anthropic("requests", "requests", 0.0),
    _anthropic("input_tokens", "input-tokens", _THOUSAND),
    _anthropic("output_tokens", "output-tokens", _THOUSAND),
)
_ANTHROPIC_TOKENS: Final = _anthropic("total_tokens", "tokens", _THOUSAND)


def openai_reports(headers: Mapping[str, str], told: Told) -> tuple[LimitReport, ...]:
    """Read `x-ratelimit-…-requests` and `-tokens`, else the plain `x-ratelimit-…` that OpenRouter sends.

    Args:
        headers: The answer's, found in any case of letters.
        told: When it came.
    """
    reports = _read(headers, told, _OPENAI)
    return reports or _read(headers, told, (_PLAIN,))


def anthropic_reports(headers: Mapping[str, str], told: Told) -> tuple[LimitReport, ...]:
    """Read `anthropic-ratelimit-…`.

    `…-tokens-…` repeats the tightest of the others without saying which, so it is read only where it stands alone.

    Args:
        headers: The answer's, found in any case of letters.
        told: When it came.
    """
    reports = _read(headers, told, _ANTHROPIC)
    if len(reports) > 1:
        return reports
    return reports + _read(headers, told, (_ANTHROPIC_TOKENS,))


def _read(headers: Mapping[str, str], told: Told, several: tuple[_Names, ...]) -> tuple[LimitReport, ...]:
    found: list[LimitReport] = []
    sent: float | None = None
    for unit, limit_name, remaining_name, reset_name, rounding in several:
        left = headers.get(remaining_name)
        if left is None:
            continue
        remaining, limit = _number(left), _number(headers.get(limit_name))
        if remaining is None or limit is None or limit < 1 or remaining > limit + rounding:
            continue
        text = headers.get(reset_name)
        seconds = None if text is None else _seconds(text)
        if seconds is not None and seconds > _SECONDS_SINCE_1970:
            if sent is None:
                sent = _sent(headers, told)
            seconds = max(0.0, seconds - sent) // 1  # dates are no better than that
        reset = seconds if seconds is not None and 0 <= seconds <= _LONGEST else None
        found.append(LimitReport(unit, limit, min(remaining, limit), reset, rounding, told.refused))
    return tuple(found)


def _sent(headers: Mapping[str, str], told: Told) -> float:
    # By the sender's clock, where its answer tells it: ours may be wrong.
    date = headers.get("date")
    return ((None if date is None else _date(date)) or told.wall) - told.elapsed


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 <= number <= _MOST else None  # false for what is no number, too


_UNITS: Final = (3600.0, 60.0, 1.0, 0.001)
_DURATION: Final = re.compile(
    r"(?:(\d{1,9})h)?(?:(\d{1,9})m(?!s))?(?:(\d{1,9}(?:\.\d{1,9})?)s)?(?:(\d{1,9}(?:\.\d{1,9})?)ms)?"
)


@lru_cache(maxsize=256)  # dates repeat for a second, durations at the same fill
def _seconds(text: str) -> float | None:
    """Read a duration (`6m0s`, `20ms`, plain seconds) or a moment (RFC 3339, seconds or milliseconds since 1970)."""
    if text[4:5] == "-":
        return _moment(text)
    if text.endswith(("s", "m", "h")):
        return _duration(text)
    try:
        number = float(text)
    except ValueError:
        return None
    return number / 1000 if number > _SECONDS_SINCE_1970 * 1000 else number


def _duration(text: str) -> float | None:
    found = _DURATION.fullmatch(text)
    if found is None:
        return None
    return sum(float(part) * unit for part, unit in zip(found.groups(), _UNITS, strict=True) if part is not None)


def _moment(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@lru_cache(maxsize=16)
def _date(text: str) -> float | None:
    """Return the middle of the second that `Sun, 06 Nov 1994 08:49:37 GMT` names, in seconds since 1970.

    Source: RFC 9110, section 5.6.7; whoever sends a date sends this form.
    """
    try:
        day, month, year = int(text[5:7]), _MONTHS.index(text[8:11]) + 1, int(text[12:16])
        hour, minute, second = int(text[17:19]), int(text[20:22]), int(text[23:25])
        return datetime(year, month, day, hour, minute, second, 500_000, UTC).timestamp()
    except (ValueError, OverflowError):
        return None
