"""The life of one serving process: a manager, the entry in front of it, the server in front of that."""

from __future__ import annotations

import asyncio
import logging
import os
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
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from .container import Container
    from .siblings import Siblings

_logger = logging.getLogger("llm.gateway")


class Life:
    """One serving process: what it is told before it is ready, it does as soon as it is."""

    def __init__(self, container: Container, ready: Callable[[], object], *, siblings: Siblings | None = None) -> None:
        """Wait for a manager; `ready` is called once it is served. `siblings` serve beside this process."""
        self._siblings = siblings
        self._container = container
        self._ready = ready
        self._manager: LLMManager | None = None
        self._server: GatewayServer | None = None
        self._changed = False
        self._grace: float | None = None
        self._beside: set[asyncio.Task[None]] = set()

    async def serve(self, manager: LLMManager, sockets: list[socket.socket]) -> None:
        """Serve a manager until it is told to stop, and close it."""
        container, room = self._container, make_room()
        entry = Entry(manager, max_length=container.max_tokens, temperature=container.temperature)
        entry.desk.asking.default = container.model
        entry.dashboard.alone = self._siblings is None
        if not container.metrics:
            entry.routes.pop(("GET", "/v1/metrics"), None)
        elif self._siblings is not None:
            entry.desk.siblings = self._siblings
            self._siblings.listen(entry.desk.write_own_metrics)
        self._manager = manager
        self._server = GatewayServer(
            entry,
            lambda: Guards.of(manager.config.gateway, room=room),
            clock=manager.parts.clock,
            refused=entry.desk.counts.refused,
            ready=self._ready,
        )
        if self._changed:
            self.reload()
        if self._grace is not None:
            self.stop(self._grace)
        self._spawn(_load(manager))
        try:
            await self._server.serve(sockets)
        finally:
            await self._close(manager)

    async def _close(self, manager: LLMManager) -> None:
        if self._siblings is not None:
            self._siblings.close()
        for task in self._beside:
            task.cancel()
        if self._beside:
            await asyncio.wait(self._beside)
        await manager.close(drain=0.0)

    def stop(self, grace: float) -> None:
        """End; answers that run have so many seconds."""
        self._grace = grace
        if self._server is not None:
            self._server.stop(grace)

    def leave(self) -> None:
        """Have clients go elsewhere, before the end comes."""
        if self._server is not None:
            self._server.leave()

    def grace(self) -> float:
        """Return how many seconds the configuration leaves to answers that run."""
        return 0.0 if self._manager is None else self._manager.config.gateway.drain

    def reload(self) -> None:
        """Begin to read the configuration again."""
        self._changed = True
        if self._manager is not None:
            self._spawn(_reload(self._manager))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)


async def _load(manager: LLMManager) -> None:
    """Have the models on the box in memory before somebody asks."""
    parts = manager.parts
    for name, section in parts.config.providers.items():
        if section.type == "local":
            found = await parts.chains[name].pool.health_check()
            if not found.healthy:
                _logger.warning("the provider %s is not ready: %s", name, found.error)


async def _reload(manager: LLMManager) -> None:
    try:
        await manager.reload()
    except LLMException as error:
        _logger.warning("the configuration was read again, and the one before stays in force: %s", error)
    except Exception as error:  # noqa: BLE001 - what a provider's own code raises may hold a key, and is no end
        told = type(error).__name__
        _logger.warning("the configuration was read again, and the one before stays in force: it raised %s", told)
    else:
        _logger.info("the configuration was read again, and is in force")


async def live(  # noqa: PLR0913 - a process's surroundings, each with its default
    config: Path | None,
    sockets: list[socket.socket],
    container: Container,
    *,
    ready: Callable[[], object],
    parent: socket.socket | None = None,
    siblings: Siblings | None = None,
    end: Callable[[int], object] = os._exit,
) -> int:
    """Open a manager, serve it until a signal comes, and close it; return the exit status.

    Args:
        config: Where its configuration is.
        sockets: Where to listen.
        container: What the environment says.
        ready: Called once it listens.
        parent: Ends when the process does that this one works for.
        siblings: The workers beside this one.
        end: Ends this process at once, with a status.

    Raises:
        LLMException: The manager could not be opened.
    """
    life = Life(container, ready, siblings=siblings)
    orders = Orders(life.stop, life.reload, life.grace, leave=life.leave, alone=parent is None, end=end)
    with orders:
        if parent is not None:
            _follow(parent, orders)
        async with LLMManager.open(config) as manager:
            await life.serve(manager, sockets)
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
