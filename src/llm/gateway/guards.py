"""What one client may do to the server: seconds, bytes and connections, all of them bounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from llm.core.config import GatewayConfig

MOST_HEAD: Final = 65_536
"""Bytes of a request's head, and of the trailers of a body in chunks."""

MOST_TARGET: Final = 8_192
"""Bytes of a request's path and query."""

MOST_HEADERS: Final = 100

MOST_HELD: Final = 65_536
"""Bytes of a body that are held before somebody asks for them; the rest waits in the network."""

MOST_PIPELINED: Final = 16
"""Requests that wait on a connection behind the one that is answered."""

MOST_DISCARDED: Final = 64 * 1024 * 1024
"""Bytes that are thrown away of a body that was refused, so that its client reads why."""


@dataclass(frozen=True, slots=True)
class Guards:
    """The bounds that are in force.

    Attributes:
        header_timeout: Seconds until a request's head must be there, from the first moment of its connection on.
        body_timeout: Seconds until its body must be there.
        max_body_bytes: Bytes of a body.
        max_connections: Connections at once.
        idle: Seconds that a connection is kept between two requests. More than the minute after which proxies give up
            theirs, so that no request crosses with our goodbye.
        stall: Seconds for which a client may take nothing of what was written.
        linger: Seconds that a client has to read why it was refused.
    """

    header_timeout: float = 10.0
    body_timeout: float = 30.0
    max_body_bytes: int = 10_485_760
    max_connections: int = 2048
    idle: float = 75.0
    stall: float = 60.0
    linger: float = 2.0

    @classmethod
    def of(cls, config: GatewayConfig, *, room: int) -> Guards:
        """Return those of a configuration; `room` is how many connections the process may have open at all."""
        return cls(
            header_timeout=config.header_timeout,
            body_timeout=config.body_timeout,
            max_body_bytes=config.max_body_bytes,
            max_connections=min(config.max_connections, room),
        )

    @property
    def interval(self) -> float:
        """Seconds between two looks at all connections: one, or less where a bound is that short."""
        shortest = min(self.header_timeout, self.body_timeout, self.idle, self.stall, self.linger)
        return min(1.0, max(0.02, shortest / 4))
