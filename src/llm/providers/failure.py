"""What a vendor says about a failure, in whichever form: its words, its codes, and when to come again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, cast

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Failure:
    """What a vendor says went wrong.

    Attributes:
        message: Its words.
        codes: Its codes and types, the most exact first.
        status: HTTP status that the body itself claims, as OpenRouter's do.
        behind: Of a router such as OpenRouter: who failed behind it, and that one's words, which speak of the router's
            account there and not of ours.
    """

    message: str = ""
    codes: tuple[str, ...] = ()
    status: int | None = None
    behind: str = ""


def read_failure(body: object) -> Failure:
    """Read an error body, bytes or JSON, of any of the dialects; one that says nothing gives an empty `Failure`."""
    said: Any = body
    if isinstance(body, bytes):
        try:
            said = orjson.loads(body)
        except orjson.JSONDecodeError:
            return Failure()
    match said:
        case [{"error": {}} as first, *_]:  # Gemini's compatible endpoint puts it into a list
            return _failure(first["error"])
        case {"error": {}}:
            return _failure(said["error"])
        case {"message": str()}:
            return _failure(said)
        case {"error": str(message)} | {"detail": str(message)}:
            return Failure(message)
        case _:
            return Failure()


def _failure(error: Mapping[Any, Any]) -> Failure:
    code = error.get("code")
    message = error.get("message")
    codes: list[object] = [code, error.get("type")]
    match error:
        case {"details": {"error_code": str(detail)}}:
            codes.insert(0, detail)
        case {"innererror": {"code": str(inner)}}:
            codes.append(inner)
        case {"details": [{"reason": str(reason)}, *_]}:  # Google's ErrorInfo, source: https://google.aip.dev/193
            codes.insert(0, reason)
        case {"metadata": {"reasons": [_, *_]}} | {"metadata": {"flagged_input": str()}}:
            codes.insert(0, "moderation")
        case {"metadata": {"limit_source": str(source)}}:
            codes.insert(0, source)
        case _:
            pass
    metadata = error.get("metadata")
    behind = _behind(cast("dict[str, Any]", metadata), codes) if isinstance(metadata, dict) else ""
    status = int(code) if isinstance(code, (int, str)) and re.fullmatch(r"[45]\d\d", str(code)) else None
    return Failure(
        message if isinstance(message, str) else "",
        tuple(word for word in codes if isinstance(word, str)),
        status,
        behind,
    )


# Of what is said behind a router, only what is about the request itself is ours to act on.
_OF_THE_REQUEST: Final = frozenset({"context_length_exceeded", "content_filter", "content_policy_violation"})


def _behind(metadata: Mapping[str, Any], codes: list[object]) -> str:
    """Return who failed behind a router and why, in a line; add to `codes` what is about the request."""
    name, reasons, raw = (metadata.get(field) for field in ("provider_name", "reasons", "raw"))
    inner = read_failure(raw.encode(errors="replace") if isinstance(raw, str) else raw) if raw else Failure()
    codes.extend(_OF_THE_REQUEST.intersection(inner.codes))
    said = inner.message or (raw if isinstance(raw, str) else "")
    if isinstance(reasons, list):
        said = (
            ", ".join([f"flagged for {why}" for why in cast("list[object]", reasons) if isinstance(why, str)]) or said
        )
    return ": ".join([word for word in (name, said) if isinstance(word, str) and word])


_LONGEST_WAIT: Final = 7 * 24 * 3600.0
"""Seconds; what asks for more is a mistake of the sender, not a hint."""


def retry_after(headers: Mapping[str, str], now_wall: float) -> float | None:
    """Return the seconds that an answer asks to wait, or None where it says nothing of use.

    `retry-after-ms` (milliseconds) is more exact than `retry-after` (seconds, also decimal, or an HTTP date), and
    goes first. What is negative, no number or more than a week is passed over; a date gone by is no wait.

    Source: RFC 9110, section 10.2.3.

    Args:
        headers: The answer's, found in any case of letters.
        now_wall: Seconds since 1970.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None and (seconds := _sensible(milliseconds / 1000)) is not None:
        return seconds
    value = headers.get("retry-after")
    if value is None:
        return None
    number = _number(value)
    return _sensible(_until(value, now_wall) if number is None else number)


def _sensible(seconds: float | None) -> float | None:
    # The comparison is false for what is no number, too.
    return seconds if seconds is not None and 0 <= seconds <= _LONGEST_WAIT else None


def _number(value: str | None) -> float | None:
    try:
        return None if value is None or "_" in value else float(value)
    except ValueError:
        return None


def _until(value: str, now_wall: float) -> float | None:
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now_wall)
    except (ValueError, OverflowError, OSError):
        return None
