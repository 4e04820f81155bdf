"""Engines that are servers: the process, and streams of its OpenAI route."""

from __future__ import annotations

import asyncio
import socket
from asyncio.subprocess import DEVNULL, PIPE, create_subprocess_exec
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import orjson

from benchmarks.local.shape import OTHER, Engine, NotHereError
from benchmarks.programs import ROOT
from llm.utils.clock import SystemClock

from .together import together

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

    from benchmarks.local.shape import Ask, Request

_PYTHON: Final = OTHER / "bin" / "python"
_STARTS: Final = 120.0  # seconds at most
_LOOK: Final = 0.1
_WORDS: Final = 2000  # characters of its last words


@asynccontextmanager
async def served(
    arguments: Sequence[str], port: int, body: Mapping[str, Any], environment: Mapping[str, str] | None = None
) -> AsyncGenerator[Engine]:
    """Run a program of the other environment's Python that serves `/v1/completions`; `body` is added to requests.

    `environment` is the process's; None: as this one's.

    Raises:
        NotHereError: It is not installed, or does not start.
    """
    if not _PYTHON.exists():
        raise NotHereError("not installed; `make bench-local` installs it")
    root = f"http://127.0.0.1:{port}"
    async with started([str(_PYTHON), *arguments], root, environment) as process, serving(root, body) as ask:
        yield Engine(process, ask)


@asynccontextmanager
async def started(
    command: Sequence[str], root: str, environment: Mapping[str, str] | None = None
) -> AsyncGenerator[int]:
    """Run a server until it is healthy, give its process's number, and kill it at the end.

    Raises:
        NotHereError: It does not start.
    """
    process = await create_subprocess_exec(
        *command, cwd=ROOT, env=environment, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE
    )
    said = _Said(process)
    try:
        await _ready(root, process, said)
        yield process.pid
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await said.end()


@asynccontextmanager
async def serving(root: str, body: Mapping[str, Any]) -> AsyncGenerator[Ask]:
    """Give what has a server answer, over streams of its OpenAI route."""
    timeout = aiohttp.ClientTimeout(total=None)
    # While others have their turns, a server closes connections that rest: each request has its own.
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:

        async def one(request: Request, came: Callable[[], None]) -> int:
            fixed = {"prompt": request.prompt, "max_tokens": request.tokens, "temperature": 0, "stream": True}
            return await _stream(http, f"{root}/v1/completions", {**fixed, **body}, came)

        yield together(one)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


class _Said:
    """The last words of a process, read as they come so that it never waits for a reader."""

    def __init__(self, process: Process) -> None:
        self._last = b""
        self._reading = asyncio.create_task(self._read(process))

    @property
    def line(self) -> str:
        """The last line that holds anything."""
        lines = self._last.decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else "it said nothing"

    async def end(self) -> None:
        """Read to the end."""
        await self._reading

    async def _read(self, process: Process) -> None:
        if process.stderr is None:
            raise RuntimeError("the process was started without a pipe from it")
        while words := await process.stderr.read(4096):
            self._last = (self._last + words)[-_WORDS:]


async def _ready(root: str, process: Process, said: _Said) -> None:
    clock = SystemClock()
    end = clock.now() + _STARTS
    async with aiohttp.ClientSession() as http:
        while clock.now() < end:
            if process.returncode is not None:
                await said.end()
                raise NotHereError(f"it does not start: {said.line}")
            with suppress(aiohttp.ClientError):
                async with http.get(f"{root}/health") as response:
                    if response.status == 200:
                        return
            await clock.sleep(_LOOK)
    raise NotHereError(f"it did not start in {_STARTS:.0f} s: {said.line}")


async def _stream(http: aiohttp.ClientSession, url: str, body: Mapping[str, Any], came: Callable[[], None]) -> int:
    """Have one text streamed and return its number of tokens, as the server counts them."""
    tokens, rest = 0, b""
    async with http.post(url, data=orjson.dumps(body), headers={"content-type": "application/json"}) as response:
        if response.status != 200:
            raise RuntimeError(f"it answered {response.status}: {(await response.text())[:300]}")
        async for data in response.content.iter_any():
            *events, rest = (rest + data).split(b"\n\n")
            for event in events:
                tokens = _read(event, came) or tokens
    return tokens


def _read(event: bytes, came: Callable[[], None]) -> int:
    data = event.partition(b"data: ")[2]
    if not data or data == b"[DONE]":
        return 0
    told: dict[str, Any] = orjson.loads(data)
    if "error" in told:
        raise RuntimeError(f"a stream failed: {told['error']}")
    if any(choice.get("text") for choice in told["choices"]):
        came()
    usage: dict[str, int] = told.get("usage") or {}
    return usage.get("completion_tokens", 0)
