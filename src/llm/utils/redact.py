"""Secrets that cannot be shown by accident, and text that is shown without them."""

from __future__ import annotations

import hashlib
import hmac
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NoReturn, final
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable

MASK: Final = "**********"

# A shorter value is masked only as a whole word, or one test key `k1` would eat half of every line.
_LONG_ENOUGH_ANYWHERE: Final = 8

_LOOKS_SECRET: Final = (
    (re.compile(r"\bsk-[\w*-]{3,}"), MASK),
    (re.compile(r"(\b(?:bearer|basic)\s+)[\w.~+/=*-]{8,}", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"(\b(?:x-api-key|api[_-]key)\b[\"']?\s*[:=]\s*[\"']?)[^\s\"',;&}\])]+", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"(://[^/?#\s:@]*:)[^/?#\s@]+(?=@)"), rf"\1{MASK}"),
    (re.compile(r"([?&]password=)[^&#\s\"']+", re.IGNORECASE), rf"\1{MASK}"),
)

_SECRET_NAME: Final = re.compile(r"auth|cookie|credential|key|passw|secret|signature|token", re.IGNORECASE)


@final
class Secret:
    """A text that is used but never shown.

    `repr`, `str` and `format` give ten asterisks. Two secrets are equal when their texts are. A copy is the secret
    itself, and pickling is refused: a pickle is a file that holds the text.
    """

    __slots__ = ("_value",)
    _value: str

    def __init__(self, value: str) -> None:
        """Keep the text out of sight."""
        object.__setattr__(self, "_value", value)

    def reveal(self) -> str:
        """Return the text itself; to be called where it is sent, and not to be kept in a variable."""
        return self._value

    @property
    def fingerprint(self) -> str:
        """A stable name for logs, metrics and accounts: `key-` and the first 8 hex digits of the SHA-256."""
        return f"key-{hashlib.sha256(self._value.encode()).hexdigest()[:8]}"

    def __repr__(self) -> str:
        """Return the mask."""
        return MASK

    def __str__(self) -> str:
        """Return the mask."""
        return MASK

    def __format__(self, spec: str, /) -> str:
        """Return the mask, aligned as the specification says; one that cuts text cuts the mask."""
        return format(MASK, spec)

    def __eq__(self, other: object) -> bool:
        """Compare the texts in constant time."""
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        """Hash by value, so that one key is one dictionary entry."""
        return hash((Secret, self._value))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        """Refuse: a secret never changes."""
        message = f"a Secret cannot change: {name!r} was not set"
        raise AttributeError(message)

    def __copy__(self) -> Secret:
        """Return the secret itself."""
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Secret:
        """Return the secret itself."""
        return self

    def __reduce_ex__(self, protocol: object, /) -> NoReturn:
        """Refuse to be pickled."""
        message = "a Secret is not pickled, because the pickle would hold it; pass the configuration's path instead"
        raise TypeError(message)


class Address(str):
    """A URL that is itself to whoever calls it, and without its password to whoever looks at a frame that holds it."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Return it as `redact` shows it."""
        return repr(redact(str(self)))


def redact(text: str, secrets: Iterable[Secret] = ()) -> str:
    """Return the text without secrets.

    Args:
        text: Anything that is about to be shown: a log line, a provider's error message.
        secrets: What must not appear, also not in its URL-quoted form.

    Returns:
        The text with each of them, and whatever else looks like a key (`sk-…`, `Bearer …`, `x-api-key: …`, a password
        in a URL), replaced by ten asterisks.
    """
    for pattern in _patterns(frozenset(secrets)):
        text = pattern.sub(MASK, text)
    for looks_secret, masked in _LOOKS_SECRET:
        text = looks_secret.sub(masked, text)
    return text


def looks_secret(name: str, value: str) -> bool:
    """Return whether the value is to be kept out of sight, by what it is called or by how it looks."""
    return _SECRET_NAME.search(name) is not None or redact(value) != value


@lru_cache(maxsize=64)
def _patterns(secrets: frozenset[Secret]) -> tuple[re.Pattern[str], ...]:
    values = {form for secret in secrets for form in _forms(secret.reveal())}
    if not values:
        return ()
    longest_first = sorted(values, key=lambda value: (-len(value), value))
    return (re.compile("|".join(map(_pattern, longest_first))),)


def _forms(value: str) -> tuple[str, ...]:
    return (value, quote(value, safe="")) if value.strip("*") else ()


def _pattern(value: str) -> str:
    escaped = re.escape(value)
    return escaped if len(value) >= _LONG_ENOUGH_ANYWHERE else rf"(?<!\w){escaped}(?!\w)"
