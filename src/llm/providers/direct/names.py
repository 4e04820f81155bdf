"""Addresses of hosts, looked up in a thread, once for all who ask at the same time."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm.utils.clock import Clock

Address: TypeAlias = "tuple[int, int, int, str, tuple[str | int | bytes, ...]]"
"""What `socket.getaddrinfo` gives."""

_FRESH: Final = 10.0
"""Seconds that an answer is good for: enough for a burst of connections, too short to miss a change."""


class Names:
    """Looks up names for one event loop."""

    def __init__(self, clock: Clock) -> None:
        """Start with nothing known."""
        self._clock = clock
        self._known: dict[tuple[str, int], tuple[float, Sequence[Address]]] = {}
        self._asked: dict[tuple[str, int], asyncio.Future[Sequence[Address]]] = {}

    async def find(self, host: str, port: int) -> Sequence[Address]:
        """Return the addresses of a host.

        Raises:
            OSError: There are none.
        """
        literal = _literal(host, port)
        if literal is not None:
            return [literal]
        key = host, port
        until, known = self._known.get(key, (0.0, ()))
        if until > self._clock.now():
            return known
        # Shielded: others may wait for the same answer when this one leaves.
        return await asyncio.shield(self._asked.get(key) or self._ask(key))

    def _ask(self, key: tuple[str, int]) -> asyncio.Future[Sequence[Address]]:
        looking = asyncio.get_running_loop().run_in_executor(None, _look_up, *key)
        self._asked[key] = looking
        looking.add_done_callback(lambda done: self._answered(key, done))
        return looking

    def _answered(self, key: tuple[str, int], done: asyncio.Future[Sequence[Address]]) -> None:
        del self._asked[key]
        if not done.cancelled() and done.exception() is None:
            self._known = {name: known for name, known in self._known.items() if known[0] > self._clock.now()}
            self._known[key] = self._clock.now() + _FRESH, done.result()


def _look_up(host: str, port: int) -> Sequence[Address]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)


def _literal(host: str, port: int) -> Address | None:
    try:
        version = ip_address(host).version
    except ValueError:
        return None
    if version == 4:  # noqa: PLR2004 - the name of a protocol
        return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port)
    return None if "%" in host else (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port, 0, 0))
