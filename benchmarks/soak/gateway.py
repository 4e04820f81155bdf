"""`manifold serve` as a process: what it says, what it takes, and how it ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from benchmarks.programs import ROOT
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncGenerator, Callable, Mapping

_CLOCK: Final = SystemClock()
_START: Final = 30.0  # seconds
_END: Final = 10.0
_LISTENS: Final = re.compile(rb"listening on (http://[^\s;]+)")
_RESIDENT: Final = re.compile(r"VmRSS:\s+(\d+) kB")


class Served:
    """A gateway that runs.

    Attributes:
        url: Where it listens.
        status: Its exit status, once it was ended.
    """

    def __init__(self, process: Process, url: str, file: Path) -> None:
        """Look after a process that listens."""
        self.url: str = url
        self.status: int | None = None
        self._process = process
        self._file = file

    @property
    def memory(self) -> int:
        """Bytes of memory that it takes."""
        found = _RESIDENT.search(Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8"))
        return 0 if found is None else int(found[1]) * 1024

    @property
    def files(self) -> int:
        """How many files and sockets it has open."""
        return len(list(Path(f"/proc/{self._process.pid}/fd").iterdir()))

    def reload(self, config: Mapping[str, Any] | bytes) -> None:
        """Have it read another configuration."""
        _write(self._file, config)
        self._process.send_signal(signal.SIGHUP)

    async def end(self) -> None:
        """End it as its operator would."""
        self._process.terminate()
        async with _CLOCK.timeout(_END):
            self.status = await self._process.wait()


@asynccontextmanager
async def serving(config: Mapping[str, Any], folder: Path, hear: Callable[[bytes], object]) -> AsyncGenerator[Served]:
    """Run a gateway; `hear` gets each line that it writes once it listens."""
    file = folder / "llm.yaml"
    _write(file, config)
    path = os.pathsep.join(filter(None, ("src", os.environ.get("PYTHONPATH"))))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "llm", "serve", "--port", "0", "--config", str(file)),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    lines: Any = process.stderr
    try:
        async with _CLOCK.timeout(_START):
            said: bytes = await lines.readline()
        found = _LISTENS.search(said)
        if found is None:
            raise RuntimeError(f"the gateway does not listen: {said.decode()}")
        async with asyncio.TaskGroup() as group:
            group.create_task(_listen(lines, hear))
            yield Served(process, found[1].decode(), file)
            _kill(process)
    finally:
        _kill(process)
        await process.wait()


async def _listen(lines: asyncio.StreamReader, hear: Callable[[bytes], object]) -> None:
    while line := await lines.readline():
        hear(line)


def _kill(process: Process) -> None:
    if process.returncode is None:
        process.kill()


def _write(file: Path, config: Mapping[str, Any] | bytes) -> None:
    file.write_bytes(config if isinstance(config, bytes) else orjson.dumps(config))
