"""A vendor whose every byte is the test's, in each dialect, over real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pytest
from tests.patience import until

from llm.core.messages import TextPart, ToolCall
from llm.core.types import LLMResponse
from llm.testing import Fault, MockUpstream
from llm.utils.clock import SystemClock
from llm.utils.gateway_key import new_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping

    from llm.core.messages import Message
    from llm.core.types import LLMRequest

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
    await until(lambda: peer.open == 0)


# --- the gateway, as a program --------------------------------------------------------------------------------------

_LISTENS: Final = re.compile(r"listening on (http://[^\s;]+)")
_LIMITED: Final = 16


_PARIS: Final = '{"name": "Paris", "people": 2100000}'


def _speak(request: LLMRequest) -> LLMResponse | str:
    """Call the first tool, tell what it found, answer in JSON where that is asked for, else say the same again."""
    if request.embed is not None:
        return ""  # the vectors are the mock's
    last = request.messages[-1]
    if last.role == "tool":
        return f"It is {_text(last)} there."
    if request.response_format is not None:
        return _PARIS
    if request.tools:
        tool: Any = request.tools[0]
        arguments = '{"city": "Paris"}' if tool.name == "weather" else _PARIS
        call = ToolCall("call_1", tool.name, arguments)
        return LLMResponse(tool_calls=(call,), finish_reason="tool_calls")
    return _text(last)


def _text(message: Message) -> str:
    content = message.content
    return content if isinstance(content, str) else "".join(p.text for p in content if isinstance(p, TextPart))


@dataclass
class Served:
    """`manifold serve` as a program of its own, in front of two vendors.

    Attributes:
        url: Where it listens.
        openai: The vendor of `gpt-4o-mini` and of `slow-gpt`, whose streams stall.
        anthropic: The vendor of `claude-haiku-4-5` and of `slow-claude`.
        key: A key that may do anything.
        folder: Where its configuration is.
        pid: Its process.
        limited: Keys that nobody took yet.
    """

    url: str
    openai: MockUpstream
    anthropic: MockUpstream
    key: str = field(repr=False)
    folder: Path
    pid: int
    limited: list[str] = field(repr=False)

    def limited_key(self) -> str:
        """Return a key, of a user of its own, that may call once in an hour."""
        return self.limited.pop()

    def upstream(self, model: str) -> MockUpstream:
        """Return the vendor of a model."""
        return self.openai if "gpt" in model else self.anthropic


def _gateway_config(openai: MockUpstream, anthropic: MockUpstream, keys: Mapping[str, str]) -> dict[str, Any]:
    # A fault of the mock's meets one key.
    def section(kind: str, up: MockUpstream, key: str, *models: str) -> dict[str, Any]:
        return {"type": kind, "base_url": up.base_url, "api_keys": [key], "models": models}

    users = {name: {"requests_per_hour": 1} for name in keys if name != "alice"}
    return {
        "providers": {
            "openai": section("openai", openai, "k1", "gpt-4o-mini"),
            "vectors": section("openai", openai, "k1", "text-embedding-3-small"),
            "anthropic": section("anthropic", anthropic, "k1", "claude-haiku-4-5"),
            "stalls": section("openai", openai, "k-stalls", "slow-gpt"),
            "stalls-too": section("anthropic", anthropic, "k-stalls", "slow-claude"),
        },
        "limits": {"users": users},
        "gateway": {"api_keys": {name: {"key": key, "user": name} for name, key in keys.items()}},
    }


@contextmanager
def _in_a_thread(*servers: MockUpstream) -> Generator[None]:
    """Run servers where a test that blocks does not block them."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        for server in servers:
            asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(10)
        yield
        for server in servers:
            asyncio.run_coroutine_threadsafe(server.__aexit__(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def _serving(folder: Path, root: Path, **variables: str) -> Generator[tuple[str, int]]:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(root / "src"), "HOME": str(folder), **variables}
    command = [sys.executable, "-m", "llm", "serve", "--port", "0"]
    with (folder / "log").open("w", encoding="utf-8") as log:
        program = subprocess.Popen(command, cwd=folder, env=environ, stderr=log)  # noqa: S603 - our own program
    try:
        while (found := _LISTENS.search((folder / "log").read_text(encoding="utf-8"))) is None:
            assert program.poll() is None, (folder / "log").read_text(encoding="utf-8")
            threading.Event().wait(0.02)
        yield found[1], program.pid
    finally:
        program.terminate()
        program.wait(60)


@pytest.fixture(scope="session")
def served_alone(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[str]:
    """The address of a `manifold serve` with nothing configured: the model on the box answers.

    Tests that share it are of the group `served_alone`, for each worker starts its own.
    """
    kept = {name: os.environ[name] for name in ("HOME", "XDG_CACHE_HOME", "LLM_MODELS_DIR") if name in os.environ}
    with _serving(tmp_path_factory.mktemp("alone"), root, OMP_NUM_THREADS="1", **kept) as (url, _):
        yield url


@pytest.fixture(scope="module")
def gateway_process(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[Served]:
    """`manifold serve`, for all tests of a module."""
    folder = tmp_path_factory.mktemp("served")
    stall = [Fault("stalled", key="k-stalls", every=1, after_chunks=3)]
    openai, anthropic = (MockUpstream(kind, faults=stall, answer=_speak) for kind in ("openai", "anthropic"))
    keys = {name: new_key() for name in ("alice", *(f"limited-{n}" for n in range(_LIMITED)))}
    with _in_a_thread(openai, anthropic):
        (folder / "llm.yaml").write_text(json.dumps(_gateway_config(openai, anthropic, keys)), encoding="utf-8")
        with _serving(folder, root) as (url, pid):
            key = keys.pop("alice")
            yield Served(url, openai, anthropic, key, folder, pid, [*keys.values()])
