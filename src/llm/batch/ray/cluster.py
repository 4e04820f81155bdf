"""Ray itself: a cluster that is joined or started, and its actors as workers."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from llm.batch.outlast import outlast
from llm.core.exceptions import LLMConfigurationError, LLMConnectionError

from .answering import Answering
from .values import Team, WorkerLostError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from llm.batch.values import Row

    from .values import Duty, News

_HERE: Final = "local"
_CLIENT: Final = "ray://"
_CALL: Final = 5.0  # seconds


class RayCluster:
    """A `Place` that is a cluster of Ray."""

    def __init__(self, address: str | None = None) -> None:
        """Know where it is; nothing is joined or started yet.

        Args:
            address: As `RAY_ADDRESS` has it: `auto` on a machine that is part of one, or `host:port`. None: one is
                started on this machine; or a program that is part of a cluster uses that.

        Raises:
            LLMConfigurationError: Ray is not installed, or cannot be used by such an address.
        """
        if address is not None and address.startswith(_CLIENT):
            raise LLMConfigurationError(
                f"{address} is the address of a Ray Client server, which this cannot use; run it on a machine of the "
                "cluster with the address `auto`, or as a job: ray job submit -- manifold batch …"
            )
        if find_spec("ray") is None:
            raise LLMConfigurationError(
                "--engine ray needs ray, which is not installed; type: pip install 'llm-manifold[ray]'"
            )
        self._address = None if address in {None, "", _HERE} else address

    @asynccontextmanager
    async def team(self, workers: int | None) -> AsyncGenerator[Team]:
        """Be part of it in the block, as `Place` says.

        Raises:
            LLMConnectionError: It cannot be reached, or does not start.
        """
        loop = asyncio.get_running_loop()
        began = False

        def begin() -> Team:
            nonlocal began
            began = _begin(self._address, workers)
            return _found(here=began and self._address is None)

        try:
            found = await outlast(loop.run_in_executor(None, begin), lambda: None)
            _hear_sigterm_again()
            yield found
        finally:
            if began:
                await outlast(loop.run_in_executor(None, _end), lambda: None)


class Actor:
    """A `Worker` that is an actor of Ray."""

    def __init__(self, duty: Duty) -> None:
        """Ask for one that does `duty`, wherever a processor is free."""
        import ray

        self._duty = duty
        made = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD")(Answering)
        self._handle = made.remote()

    async def begin(self) -> None:
        """Wait until it is there."""
        # To its process and no further: what an actor is made with is kept by the cluster, and may go to a disk.
        await _heard(self._handle.begin.remote(*self._duty.parts()))

    async def put(self, rows: Sequence[Row]) -> None:
        """Hand it rows."""
        await _heard(self._handle.put.remote(rows))

    async def news(self) -> News:
        """Wait until it has something to tell."""
        news: News = await _heard(self._handle.news.remote())
        return news

    async def close(self) -> News:
        """Have it close its manager; returns what it has still to tell."""
        news: News = await _heard(self._handle.close.remote())
        return news

    def dismiss(self) -> None:
        """End its process."""
        import ray

        with suppress(Exception):  # it is gone, or the cluster is
            ray.kill(self._handle)


async def _heard(answer: Any) -> Any:  # noqa: ANN401 - what a method returns
    from ray.exceptions import RayError

    try:
        return await answer
    except RayError as error:
        raise WorkerLostError(_said(error)) from None


def _said(error: Exception) -> str:
    """Return the line of an error that tells most: of one of the worker's own program the last, else the first."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1 if 'Traceback' in str(error) else 0].strip()}" if lines else repr(error)


def _begin(address: str | None, workers: int | None) -> bool:
    """Join a cluster, or start one; return whether that has to be ended: else this program had joined before."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    if ray.is_initialized():
        return False
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # what matters comes as an error to who called
    try:
        if address is None:
            ray.init(_HERE, num_cpus=workers, include_dashboard=False, log_to_driver=False, configure_logging=False)
        else:
            _call(address)
            ray.init(address, log_to_driver=False, configure_logging=False)
    except Exception as error:  # noqa: BLE001 - Ray raises many kinds, each the end of this
        where = "no cluster of Ray starts here" if address is None else f"there is no cluster of Ray at {address}"
        raise LLMConnectionError(f"{where}: {_said(error)}") from None
    _hush()
    return True


def _call(address: str) -> None:
    """Ask whether anybody is there; Ray itself asks for minutes.

    Raises:
        OSError: Nobody is.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CALL).close()


def _found(*, here: bool) -> Team:
    """Return what there is of the cluster that this process is part of."""
    import ray

    machines = sum(1 for node in ray.nodes() if node["Alive"])
    processors = int(ray.cluster_resources().get("CPU", 1))
    return Team(None if here else ray.get_runtime_context().gcs_address, processors, machines, Actor)


def _hear_sigterm_again() -> None:
    """Take the signal back from Ray's own code, which prints a stack of it and breaks what is in memory."""
    handler = signal.getsignal(signal.SIGTERM)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _hush() -> None:
    """Have Ray not print, on stdout, that a worker died; it is an error to who waits for the worker."""
    from ray._private import worker

    worker.__dict__["_worker_logs_enabled"] = False


def _end() -> None:
    import ray

    ray.shutdown()
