"""Who a request comes from: the key in its headers, looked up by its hash alone."""

from __future__ import annotations

import hashlib
import math
from datetime import date
from typing import TYPE_CHECKING, Final, NamedTuple

from llm.core.exceptions import LLMAuthenticationError
from llm.providers.endpoints.caller import ANYONE, Caller

from .cors import Origins
from .local import check_local

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llm.core.config import GatewayConfig
    from llm.utils.clock import Clock

_SEND: Final = "send `Authorization: Bearer KEY` or `x-api-key: KEY`"
# These stand where a hash would, and no hash is so short.
_MISSING: Final = b""
_OF_ANOTHER_KIND: Final = b"kind"
_SEVERAL: Final = b"several"
_WHY: Final = {
    _MISSING: f"the request has no key; {_SEND}",
    _OF_ANOTHER_KIND: f"the Authorization header is no `Bearer KEY`; {_SEND}",
    _SEVERAL: f"the headers name different keys; {_SEND}, one of them",
}
_UNKNOWN: Final = f"this gateway does not know the key; {_SEND}, with one that `manifold keys create` made"
_EXPIRED: Final = f"the key has expired; {_SEND}, with one that is still valid"
_DAY: Final = 86400.0
_EPOCH: Final = date(1970, 1, 1).toordinal()


class _Entry(NamedTuple):
    """A key's owner, and when it ends: seconds since 1970 (UTC)."""

    caller: Caller
    ends: float


_NOBODY: Final = _Entry(ANYONE, -math.inf)  # an unknown key is one that ended before all time


class Keyring:
    """The gateway's keys, of which it has only the hashes.

    A key costs the same whether it is known or not: one hash and one look-up. What is compared are hashes, so the
    time that it takes tells nothing of a key.
    """

    __slots__ = ("_clock", "_entries", "_local", "_origins")

    def __init__(self, config: GatewayConfig, clock: Clock) -> None:
        """Take the keys of a configuration; `clock` tells when they expire."""
        self._clock = clock
        self._entries = {
            bytes.fromhex(str(key.key_hash).removeprefix("sha256:")): _Entry(
                Caller(name, key.user or name, key.models, key.operator), _end_of(key.expires)
            )
            for name, key in config.api_keys.items()
        }
        self._local = config.local
        self._origins = Origins(config.cors_origins)

    def caller(self, headers: Sequence[tuple[bytes, bytes]]) -> Caller:
        """Return who sent a request with these headers, their names in lower case.

        Where there are no keys, that is anyone on this machine, but for the pages of other sites in its browsers.

        Raises:
            LLMAuthenticationError: No key is sent, an unknown or expired one, or several that differ.
        """
        if not self._entries:
            check_local(headers, self._origins, local=self._local)
            return ANYONE
        sent = _hash_in(headers)
        entry = self._entries.get(sent, _NOBODY)
        if self._clock.wall() < entry.ends:
            return entry.caller
        del headers  # where a traceback shows local variables, it shows no key
        raise LLMAuthenticationError(_EXPIRED if entry is not _NOBODY else _WHY.get(sent, _UNKNOWN))


def _end_of(expires: date | None) -> float:
    """Return when the day after the last one begins."""
    return math.inf if expires is None else (expires.toordinal() + 1 - _EPOCH) * _DAY


def _hash_in(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the SHA-256 of the key that the headers name, or what stands for none."""
    found = _MISSING
    for name, value in headers:
        if name == b"authorization":
            if value[:7].lower() != b"bearer ":
                return _OF_ANOTHER_KIND
            key = value[7:].strip()
        elif name == b"x-api-key":
            key = value.strip()
        else:
            continue
        if key:
            digest = hashlib.sha256(key).digest()
            if found not in (_MISSING, digest):
                return _SEVERAL
            found = digest
    return found
