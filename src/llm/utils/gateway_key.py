"""Keys of the gateway: what they look like, and what is kept of them.

`sk-manifold-`, 43 random letters and digits, and 6 that are the CRC-32 of those to the base of 62. A scanner for leaked
secrets knows one without asking anybody, and whatever hides `sk-…` in logs hides these, too.
"""

from __future__ import annotations

import hashlib
import secrets
import string
from typing import Final
from zlib import crc32

_PREFIX: Final = "sk-manifold-"
_DIGITS: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_BYTES: Final = 32
_RANDOM: Final = 43  # digits that 32 bytes take
_CHECK: Final = 6  # digits that a CRC-32 takes


def new_key() -> str:
    """Return a new key, from the system's own randomness."""
    body = _in_digits(secrets.randbits(8 * _BYTES), _RANDOM)
    return f"{_PREFIX}{body}{_in_digits(crc32(body.encode()), _CHECK)}"


def hash_of(key: str) -> str:
    """Return what is kept of a key: `sha256:` and 64 lower-case hex digits.

    A key of 32 random bytes cannot be guessed, so nothing slower than one hash is needed.
    """
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def _in_digits(number: int, length: int) -> str:
    digits: list[str] = []
    for _ in range(length):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
