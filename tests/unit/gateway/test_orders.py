"""What signals order."""

from __future__ import annotations

import os
import signal

import pytest
from tests.patience import until

from llm.gateway.orders import Orders
from llm.utils.clock import SystemClock

CLOCK = SystemClock()


class Told:
    """Who is told."""

    def __init__(self, drain: float = 30.0, *, alone: bool = True) -> None:
        self.stops: list[float] = []
        self.reloads = 0
        self.ends: list[int] = []
        self.leaves: list[bool] = []
        self.orders = Orders(
            *(self.stops.append, self.reload, lambda: drain),
            leave=lambda: self.leaves.append(True),
            alone=alone,
            end=self.ends.append,
        )

    def reload(self) -> None:
        self.reloads += 1


async def test_sigterm_leaves_the_drain_and_a_second_one_ends_at_once() -> None:
    told = Told(drain=20.0)
    with told.orders as orders:
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: told.stops)
        assert (told.stops, orders.status, told.ends) == ([20.0], 143, [])
        os.kill(os.getpid(), signal.SIGINT)
        await until(lambda: told.ends)
    assert told.ends == [130]
    assert told.stops == [20.0]
    restore()


async def test_sigusr1_has_clients_leave_and_ends_nothing() -> None:
    told = Told()
    with told.orders as orders:
        os.kill(os.getpid(), signal.SIGUSR1)
        await until(lambda: told.leaves)
    assert (told.stops, told.ends, orders.received) == ([], [], None)


async def test_ctrl_c_leaves_nothing() -> None:
    told = Told()
    with told.orders as orders:
        os.kill(os.getpid(), signal.SIGINT)
        await until(lambda: told.stops)
    assert (told.stops, orders.status) == ([0.0], 130)
    restore()


async def test_the_process_ends_a_second_after_the_deadline_whatever_is_left() -> None:
    told = Told(drain=0.1)
    began = CLOCK.now()
    with told.orders:
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: told.ends)
    assert told.ends == [143]
    assert CLOCK.now() - began > 1.0
    restore()


async def test_sighup_reads_the_configuration_again_and_ends_nothing() -> None:
    told = Told()
    before = signal.getsignal(signal.SIGHUP)
    with told.orders as orders:
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: told.reloads)
    assert (told.stops, told.ends, orders.status) == ([], [], 0)
    assert signal.getsignal(signal.SIGHUP) is before


async def test_a_worker_hears_the_same_signal_twice_and_ends_in_good_order() -> None:
    told = Told(alone=False)
    with told.orders as orders:
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: told.stops)
        os.kill(os.getpid(), signal.SIGTERM)
        orders.end(signal.SIGTERM)
        await CLOCK.sleep(0.02)
    assert (told.stops, told.ends) == ([30.0], [])
    restore()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
async def test_a_signal_that_is_ignored_stays_so(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    told = Told()
    try:
        with told.orders:
            os.kill(os.getpid(), number)
            await CLOCK.sleep(0.02)
    finally:
        signal.signal(number, before)
    assert (told.stops, told.reloads) == ([], 0)


def restore() -> None:
    """Give the process its own signals back, as its end would have."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
