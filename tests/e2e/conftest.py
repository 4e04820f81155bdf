"""A vendor whose every byte is the test's, in each dialect, over real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pytest

from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping

CLOCK: Final = SystemClock()
WIRE: Final = Path(__file__).parents[1] / "wire"
KEY: Final = "sk-test-broken-0123456789abcdef"

_MEASURED: Final = {"test_cli.py", "test_cli_terminal.py"}
"""What only whole programs reach."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Tests of units reach the same lines, and being measured takes as long again.
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.path.name not in _MEASURED:
            item.add_marker("no_cover")


Pieces: TypeAlias = "Iterable[bytes | float]"
"""What is sent, a write each; a number is a pause of so many seconds."""


Failing: TypeAlias = "Callable[[str], bytes]"
"""Writes an event that tells of a failure of this code."""


@dataclass(frozen=True)
class Spoken:
    """A dialect, and one exchange of it.

    Attributes:
        section: Of the configuration; its name is the provider's.
        whole: The answer at once.
        stream: The same in events; the last is the closing one.
        field: What a whole answer must have.
        failure: An error event that tells of a code.
    """

    name: str
    section: dict[str, Any]
    whole: bytes
    stream: bytes
    field: bytes
    failure: Failing

    @property
    def events(self) -> list[bytes]:
        """The events, each with its blank line."""
        return [event + b"\n\n" for event in self.stream.strip(b"\n").split(b"\n\n")]

    @property
    def provider(self) -> str:
        """The section's name."""
        return "openai" if self.name == "responses" else self.name

    @staticmethod
    def answer(body: bytes, *, status: int = 200, kind: str = "application/json", **fields: str) -> bytes:
        """Return an answer of a stated length; `fields` are more of its head, or others."""
        named = {"content_type": kind, "content_length": str(len(body)), **fields}
        lines = "".join([f"{name.replace('_', '-')}: {value}\r\n" for name, value in named.items()])
        return f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + body

    def streamed(self, *events: bytes, **fields: str) -> list[bytes]:
        """Return an answer in chunks, that in each of them is `events`; its end is not there."""
        named = {"content_type": "text/event-stream", "transfer_encoding": "chunked", **fields}
        lines = "".join([f"{name.replace('_', '-')}: {value}\r\n" for name, value in named.items()])
        return [f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode(), *map(self.chunk, events)]

    @staticmethod
    def chunk(data: bytes) -> bytes:
        """Return a chunk; that of no bytes ends an answer."""
        return b"%x\r\n%b\r\n" % (len(data), data)


def _openai_failure(code: str) -> bytes:
    return b'data: {"error": {"code": "%b", "message": "no, %b"}}\n\n' % (code.encode(), KEY.encode())


def _responses_failure(code: str) -> bytes:
    return b'event: error\ndata: {"type": "error", "code": "%b", "message": "no, %b"}\n\n' % (
        code.encode(),
        KEY.encode(),
    )


def _anthropic_failure(code: str) -> bytes:
    kind = {"server_is_overloaded": "overloaded_error", "rate_limit_exceeded": "rate_limit_error"}.get(code, code)
    return b'event: error\ndata: {"type": "error", "error": {"type": "%b", "message": "no, %b"}}\n\n' % (
        kind.encode(),
        KEY.encode(),
    )


def _openrouter_failure(code: str) -> bytes:
    status = {"server_is_overloaded": 503, "rate_limit_exceeded": 429}.get(code, 500)
    return (
        b'data: {"id": "gen-1", "error": {"code": %d, "message": "no, %b"}, "choices": [{"index": 0, "delta": '
        b'{"content": ""}, "finish_reason": "error"}]}\n\n' % (status, KEY.encode())
    )


def _wire(name: str) -> bytes:
    return (WIRE / name).read_bytes()


_DIALECTS: Final = {
    spoken.name: spoken
    for spoken in (
        Spoken("openai", {}, _wire("openai/answer.json"), _wire("openai/stream.sse"), b"choices", _openai_failure),
        Spoken(
            "responses",
            {"api": "responses"},
            _wire("responses/answer.json"),
            _wire("responses/answer.sse"),
            b"output",
            _responses_failure,
        ),
        Spoken(
            "anthropic", {}, _wire("anthropic/text.json"), _wire("anthropic/text.sse"), b"content", _anthropic_failure
        ),
        Spoken(
            "openrouter",
            {},
            _wire("openrouter/answer.json"),
            _wire("openrouter/stream.sse"),
            b"choices",
            _openrouter_failure,
        ),
    )
}


@pytest.fixture(params=_DIALECTS)
def spoken(request: pytest.FixtureRequest) -> Spoken:
    """Each dialect in turn."""
    return _DIALECTS[request.param]


@dataclass
class Script:
    """What is sent in answer to a request, and how the connection ends: `keep`, `close`, `reset` or `hold`."""

    pieces: Pieces
    end: str = "keep"


@dataclass
class Peer:
    """The other side. It answers each request by `script`, and counts."""

    url: str = ""
    script: Script = field(default_factory=lambda: Script([]))
    requests: int = 0
    connections: int = 0
    open: int = 0
    sent: int = 0

    def plays(self, *pieces: bytes | float, end: str = "keep") -> None:
        """Send these from now on."""
        self.script = Script(pieces, end)

    def section(self, spoken: Spoken) -> dict[str, Any]:
        """Return the section of a provider that is this server."""
        return {"base_url": f"{self.url}/v1", "api_keys": [KEY], "models": ["m"], **spoken.section}

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection."""
        self.connections += 1
        self.open += 1
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET "):  # the list of models
            writer.write(Spoken.answer(b'{"data": []}'))
            return True
        lengths = [line for line in head.split(b"\r\n") if line.startswith(b"content-length:")]
        await reader.readexactly(int(lengths[0].split(b":")[1]))
        self.requests += 1
        script = self.script
        for piece in script.pieces:
            if isinstance(piece, bytes):
                writer.write(piece)
                self.sent += len(piece)
                await writer.drain()
            else:
                await self._pause(reader, piece)
        return await self._ended(script.end, reader, writer)

    async def _pause(self, reader: asyncio.StreamReader, seconds: float) -> None:
        with suppress(TimeoutError):
            async with CLOCK.timeout(seconds):
                if not await reader.read(1):
                    raise ConnectionResetError  # the client is gone

    async def _ended(self, how: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if how == "hold":
            await reader.read()
        elif how == "reset":
            await CLOCK.sleep(0.01)  # so that what was sent arrives before the reset drops it
            own: socket.socket = writer.get_extra_info("socket")
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif how == "close" and writer.can_write_eof():
            writer.write_eof()
            await reader.read()
        return how == "keep"


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    """A server on 127.0.0.1 whose answers the test writes."""
    peer = Peer()
    server = await asyncio.start_server(peer.handle, "127.0.0.1", 0)
    peer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield peer
    server.close()
    async with CLOCK.timeout(5.0):
        while peer.open:
            await CLOCK.sleep(0.002)


@dataclass(frozen=True)
class Ended:
    """A program that has ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - JSON
        """What it printed."""
        return json.loads(self.out)


_FORKING = """
import asyncio, encodings.idna, gc, json, os, sqlite3, sys, traceback
import llm.__main__, llm.cli.main, llm.cli.running, llm.cli.foretelling, llm.gateway.starting

async def warm():
    provider = {"base_url": "http://127.0.0.1:9/v1", "api_keys": ["k"], "models": ["gpt-4o-mini"]}
    async with llm.LLMManager.open({"providers": {"openai": provider}}) as manager:
        await manager.get_client().count_tokens("Hi")
        await manager.health_check()

asyncio.run(warm())  # what is loaded late is loaded once; no thread is left that a child would lack
gc.freeze()
for line in open(0, "rb", buffering=0, closefd=False):
    asked = json.loads(line)
    child = os.fork()
    if child:
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    for number, name in enumerate(asked["streams"]):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
        stream = open(number, "w" if number else "r", encoding="utf-8", closefd=False, buffering=1)
        setattr(sys, ("stdin", "stdout", "stderr")[number], stream)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environ"])
    sys.argv = ["manifold", *asked["words"]]
    status = 0
    try:
        llm.__main__.main()
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status or 0)
"""


class Forking:
    """The real program, each time in a process of its own that has its modules already: a hundredth of a second."""

    def __init__(self, root: Path) -> None:
        """Load the modules once."""
        kept = {name: value for name, value in os.environ.items() if name.startswith("PATH")}
        self.environ = kept | {"PYTHONPATH": str(root / "src"), "PYTHONUTF8": "1", "COLUMNS": "200"}
        command = [sys.executable, "-c", _FORKING]
        self._parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self.environ)  # noqa: S603 - our own program

    def __call__(
        self,
        folder: Path,
        *words: str,
        stdin: str = "",
        during: Callable[[int], object] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run it to its end; `during` is called with the process's number while it runs."""
        streams = [str(folder / f".{name}") for name in ("stdin", "stdout", "stderr")]
        for name, text in zip(streams, (stdin, "", ""), strict=True):
            Path(name).write_text(text, encoding="utf-8")
        environ = self.environ | {"HOME": str(folder)} | dict(variables or {})
        asked = {"words": words, "folder": str(folder), "environ": environ, "streams": streams}
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.write(json.dumps(asked).encode() + b"\n")
        self._parent.stdin.flush()
        child = int(self._parent.stdout.readline())
        if during is not None:
            try:
                during(child)
            except BaseException:
                os.kill(child, signal.SIGKILL)
                self._parent.stdout.readline()
                raise
        status = int(self._parent.stdout.readline())
        out, err = (Path(name).read_text(encoding="utf-8") for name in streams[1:])
        return Ended(status, out, err)

    def close(self) -> None:
        """End it."""
        self._parent.communicate()


@pytest.fixture(scope="session")
def forking(root: Path) -> Iterator[Forking]:
    """Runs the real program quickly."""
    forking = Forking(root)
    yield forking
    forking.close()
