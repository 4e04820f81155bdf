"""The first signal ends a task, the second the process."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from llm.cli.signals import Signals
from llm.utils.clock import SystemClock

CLOCK = SystemClock()


@pytest.fixture(autouse=True)
def _handlers() -> object:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_the_first_cancels_and_the_second_ends_the_process_at_once(number: signal.Signals, status: int) -> None:
    ended: list[int] = []
    with Signals(end=ended.append) as signals:
        os.kill(os.getpid(), number)
        with pytest.raises(asyncio.CancelledError):
            await CLOCK.sleep(30)
        assert (signals.received, signals.status, ended) == (number, status, [])
        os.kill(os.getpid(), signal.SIGINT)
        assert ended == [130]
    while len(ended) < 2:  # whatever a thread still waits for
        await CLOCK.sleep(0.02)
    assert ended == [130, status]


async def test_without_one_all_is_as_before_and_what_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    before = signal.getsignal(signal.SIGTERM)
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        await CLOCK.sleep(0)
        assert (signals.received, signals.status) == (None, 0)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == (signal.SIG_IGN, before)


def test_outside_of_a_loop_there_is_nothing_to_cancel() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        Signals()
