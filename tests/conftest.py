"""What holds for every test: no task left behind, no blocking call in the loop, and a line on what was left out."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from blockbuster import blockbuster_ctx
from pytest_asyncio import is_async_test

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

_ROOT = Path(__file__).resolve().parents[1]
_TICKS_TO_END = 20
_LEFT_OUT = ("node", "browser", "ray", "soak")


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


@pytest.fixture
def no_blocking_call() -> Iterator[None]:
    """A blocking call that starts in our package, while a loop runs, is an error."""
    with blockbuster_ctx("llm") as blocking:
        # Coverage's own lock, taken now and then where one of our lines runs in several threads.
        blocking.functions["threading.Lock.acquire"].can_block_in("coverage/collector.py", {"lock_data"})
        yield


def pytest_configure() -> None:
    # A shell starts what it puts in the background with Ctrl-C ignored, and programs inherit that; those that the tests
    # interrupt must not.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Threads of torch wait for each other by spinning: beside another worker's tests, two are far slower than one.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and is_async_test(item):
            item.fixturenames[:0] = ["no_task_left", "no_blocking_call"]  # first in, so last out


def pytest_collection_finish() -> None:
    # What the collection has loaded, torch among it, stays to the end: each later pass for garbage need not look at it.
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if "not (" in terminalreporter.config.option.markexpr:
        terminalreporter.write_line(f"left out: tests marked {', '.join(_LEFT_OUT)}; `make test-all` runs them")
