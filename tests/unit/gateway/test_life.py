"""The gateway from its arguments to its exit status, in this very process."""

# ruff: noqa: ANN401 - what is passed through

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import socket
import threading
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from tests.patience import PATIENCE, until

import llm.gateway
from llm.core.exceptions import LLMConfigurationError
from llm.gateway.container import Container
from llm.gateway.life import live
from llm.gateway.listening import bind
from llm.gateway.starting import start
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CLOCK = SystemClock()
CONFIG = "providers: {openai: {base_url: 'http://127.0.0.1:9/v1', api_keys: [k1], models: [gpt-4o-mini]}}\n"


@pytest.fixture(scope="module", autouse=True)
def _what_is_loaded_is_passed_over() -> Iterator[None]:
    """Restore what tests/conftest.py began: a gateway that has ended has the collector look at all again."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Give the process back what a server takes."""
    environ = os.environ.copy()
    logger = logging.getLogger("llm")
    handlers, level = logger.handlers[:], logger.level
    numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
    signals = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in signals.items():
        signal.signal(number, handler)
    logger.handlers[:] = handlers
    logger.setLevel(level)
    os.environ.clear()
    os.environ.update(environ)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "llm.yaml").write_text(CONFIG, encoding="utf-8")
    return tmp_path / "llm.yaml"


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - ours
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def began(config: Path, then: Callable[[str], object], workers: int = 1, **options: Any) -> tuple[int, list[str]]:
    """Start it, do something with what it says in a thread, and return how it ended."""
    said: list[str] = []
    threads: list[threading.Thread] = []

    def say(line: str) -> None:
        said.append(line)
        if line.startswith("listening"):
            thread = threading.Thread(target=then, args=(line,))
            thread.start()
            threads.append(thread)

    status = start(config, options.get("host"), options.get("port", 0), workers, say, end=lambda _: None)
    for thread in threads:
        thread.join()
    return status, said


def terminate(_: object = None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_it_serves_until_a_signal_comes(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    statuses: list[int] = []

    def look(line: str) -> None:
        url = line.removeprefix("listening on ").partition(";")[0]
        statuses.extend(status_of(url + path) for path in ("/livez", "/v1/metrics"))
        terminate()

    status, [said] = began(config, look)
    assert (status, statuses) == (143, [200, 200])
    assert said.endswith("/docs")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["path"] for line in lines] == ["/livez", "/v1/metrics"]


def test_the_collector_passes_over_what_is_loaded_for_as_long_as_it_serves(config: Path) -> None:
    before, seen = gc.get_threshold(), list[tuple[int, int]]()

    def look(_: str) -> None:
        seen.append((gc.get_freeze_count(), gc.get_threshold()[0]))
        terminate()

    began(config, look)
    [(frozen, often)] = seen
    assert frozen > 10_000
    assert often > before[0]
    assert (gc.get_freeze_count(), gc.get_threshold()) == (0, before)


def test_a_model_on_the_box_is_loaded_before_anybody_asks_and_what_is_wrong_with_it_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "llm.yaml").write_text("providers: {local: {models: [no-such-model]}}\n", encoding="utf-8")

    def look(_: str) -> None:
        for _turn in range(500):
            if caplog.messages:
                break
            threading.Event().wait(0.01)
        terminate()

    began(tmp_path / "llm.yaml", look)
    [message] = caplog.messages
    assert message.startswith("the provider local is not ready: ")
    assert "no-such-model" in message


def test_without_metrics_there_are_none(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRICS_ENABLED", "false")
    monkeypatch.setenv("LOG_LEVEL", "error")
    statuses: list[int] = []

    def look(line: str) -> None:
        statuses.append(status_of(line.removeprefix("listening on ").partition(";")[0] + "/v1/metrics"))
        terminate()

    assert began(config, look, host="127.0.0.1")[0] == 143
    assert statuses == [404]


def test_what_is_wrong_is_told_before_anything_is_opened(config: Path) -> None:
    with pytest.raises(LLMConfigurationError, match="manifold keys create NAME"):
        llm.gateway.serve(config, "192.0.2.1", 0)
    os.environ["LLM__LIMITS__GLOBAL__REQUESTS_PER_DAY"] = "1"
    with pytest.raises(LLMConfigurationError, match=r"limits\.global\.requests_per_day: 1 cannot be divided"):
        llm.gateway.serve(config, "127.0.0.1", 0, 2)


async def lived(config: Path, **options: Any) -> int:
    return await live(config, bind("127.0.0.1", 0), Container(), end=lambda _: None, **options)


async def test_a_signal_before_it_is_ready_is_heard(config: Path) -> None:
    serving = asyncio.create_task(lived(config, ready=lambda: None))
    await CLOCK.sleep(0.0)  # it opens the manager now
    terminate()
    async with CLOCK.timeout(PATIENCE):
        assert await serving == 143


async def test_a_change_before_it_is_ready_is_read_as_soon_as_it_is(
    config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "llm.gateway")
    serving = asyncio.create_task(lived(config, ready=lambda: None))
    await CLOCK.sleep(0.0)
    os.kill(os.getpid(), signal.SIGHUP)
    async with CLOCK.timeout(PATIENCE):
        await until(lambda: "is in force" in caplog.text)
        await asyncio.to_thread(config.write_text, "providers: 3", encoding="utf-8")
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: "stays in force: " in caplog.text)
        os.kill(os.getpid(), signal.SIGHUP)
        await CLOCK.sleep(0.0)
        os.kill(os.getpid(), signal.SIGINT)  # whatever is being read
        assert await serving == 130


async def test_a_worker_ends_when_its_parent_is_gone(config: Path) -> None:
    mine, its = socket.socketpair()
    ready = asyncio.Event()
    serving = asyncio.create_task(lived(config, ready=ready.set, parent=its))
    async with CLOCK.timeout(PATIENCE):
        await ready.wait()
        mine.close()
        assert await serving == 143
    its.close()
