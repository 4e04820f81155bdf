"""The life of one serving process: a manager, the entry in front of it, the server in front of that."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import TYPE_CHECKING

from llm.core.exceptions import LLMException
from llm.core.manager import LLMManager

from .entry import Entry
from .guards import Guards
from .listening import make_room
from .orders import Orders
from .server import GatewayServer

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from .container import Container

_logger = logging.getLogger("llm.gateway")


class Life:
    """One serving process.

    Attributes:
        manager: What it serves.
        server: What serves it.
    """

    def __init__(self, manager: LLMManager, container: Container, ready: Callable[[], object] = lambda: None) -> None:
        """Put an entry and a server in front of a manager; `ready` is called once it listens."""
        self.manager: LLMManager = manager
        self.entry: Entry = Entry(manager, max_length=container.max_tokens, temperature=container.temperature)
        self.entry.desk.asking.default = container.model
        if not container.metrics:
            self.entry.routes.pop(("GET", "/v1/metrics"), None)
        self._room = make_room()
        self._reloading: set[asyncio.Task[None]] = set()
        self.server: GatewayServer = GatewayServer(
            self.entry, self.guards, clock=manager.parts.clock, refused=self.entry.desk.counts.refused, ready=ready
        )

    def guards(self) -> Guards:
        """Return the bounds in force."""
        return Guards.of(self.manager.config.gateway, room=self._room)

    def reload(self) -> None:
        """Begin to read the configuration again."""
        task = asyncio.get_running_loop().create_task(self._reload())
        self._reloading.add(task)
        task.add_done_callback(self._reloading.discard)

    async def _reload(self) -> None:
        try:
            await self.manager.reload()
        except LLMException as error:
            _logger.warning("the configuration was read again, and the one before stays in force: %s", error)
        except Exception as error:  # noqa: BLE001 - what a provider's own code raises may hold a key, and is no end
            told = type(error).__name__
            _logger.warning("the configuration was read again, and the one before stays in force: it raised %s", told)
        else:
            _logger.info("the configuration was read again, and is in force")

    async def serve(self, sockets: list[socket.socket]) -> None:
        """Serve until the server is told to stop."""
        await self.server.serve(sockets)
        for task in self._reloading:
            task.cancel()
        if self._reloading:
            await asyncio.wait(self._reloading)


async def live(
    config: Path | None,
    sockets: list[socket.socket],
    container: Container,
    *,
    ready: Callable[[], object],
    parent: socket.socket | None = None,
) -> int:
    """Open a manager, serve it until a signal comes, and close it; return the exit status.

    Args:
        config: Where its configuration is.
        sockets: Where to listen.
        container: What the environment says.
        ready: Called once it listens.
        parent: Ends when the process does that this one works for.

    Raises:
        LLMException: The manager could not be opened.
    """
    async with LLMManager.open(config) as manager:
        life = Life(manager, container, ready)
        with Orders(
            life.server.stop, life.reload, lambda: manager.config.gateway.drain, alone=parent is None
        ) as orders:
            if parent is not None:
                _follow(parent, orders)
            await life.serve(sockets)
            await manager.close(drain=0.0)
            return orders.status


def _follow(parent: socket.socket, orders: Orders) -> None:
    """End as after SIGTERM once the parent is gone."""
    loop = asyncio.get_running_loop()

    def look() -> None:
        if not parent.recv(1):
            loop.remove_reader(parent)
            orders.end(signal.SIGTERM)

    parent.settimeout(0.0)
    loop.add_reader(parent, look)
