"""The parent of the workers. Each test is a program of its own, for it forks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

BEGIN = """
import os, select, signal, sys
sys.path.insert(0, "src")
from llm.gateway.workers import Supervisor, say_ready
said = []
def tell(number):
    os.kill(os.getppid(), number)
def wait(line):
    select.select([line], [], [], 10)
    return 7
def parent(count, work, ready=lambda: None, kind=Supervisor):
    top = os.getpid()
    status = kind(count, work, ready=ready, leave=lambda: said.append("left"), pause=0.05).run()
    if os.getpid() != top:
        sys.exit(status)  # a worker
    return status
"""


def test_the_first_that_listens_is_told_of_once_and_a_signal_ends_all(fresh_python: Callable[[str], str]) -> None:
    told = fresh_python(f"""{BEGIN}
def work(line, place):
    say_ready(line)
    return wait(line)
def ready():
    said.append("ready")
    os.kill(os.getpid(), signal.SIGTERM)
print(parent(3, work, ready), said)
""")
    assert told == "143 ['ready', 'left']\n"


def test_one_that_dies_is_started_again_later_and_later(fresh_python: Callable[[str], str]) -> None:
    told = fresh_python(f"""{BEGIN}
import logging, time
logging.basicConfig(format="%(message)s", stream=sys.stdout)
began = []
def work(line, place):
    say_ready(line)
    return 9
class Watched(Supervisor):
    def _fork(self, worker):
        began.append(time.monotonic())
        if len(began) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return super()._fork(worker)
status = parent(1, work, kind=Watched)
pauses = [later - sooner for sooner, later in zip(began, began[1:])]
print(status, [pause >= least for pause, least in zip(pauses, (0.05, 0.1, 0.2))])
""")
    *lines, last = told.splitlines()
    assert last == "130 [True, True, True]"
    assert [line.partition(" ended with ")[2] for line in lines][:2] == [
        "status 9; another one starts in 0.05 seconds",
        "status 9; another one starts in 0.1 seconds",
    ]


def test_where_none_can_begin_it_ends_with_their_status(fresh_python: Callable[[str], str]) -> None:
    assert fresh_python(f"{BEGIN}\nprint(parent(2, lambda line, place: 2), said)") == "2 ['left']\n"


def test_a_second_signal_kills_them(fresh_python: Callable[[str], str]) -> None:
    told = fresh_python(f"""{BEGIN}
def work(line, place):
    signal.signal(signal.SIGTERM, lambda *_: tell(signal.SIGINT))
    say_ready(line)
    while True:
        select.select([], [], [], 10)
print(parent(2, work, lambda: os.kill(os.getpid(), signal.SIGTERM)))
""")
    assert told == "130\n"


@pytest.mark.parametrize("number", ["SIGHUP", "SIGUSR1"])
def test_other_orders_are_passed_on_and_a_line_that_ends_is_no_death(
    fresh_python: Callable[[str], str], number: str
) -> None:
    told = fresh_python(f"""{BEGIN}
def work(line, place):
    def hear(*_):
        line.close()
        say_ready(line)  # to nobody
        tell(signal.SIGTERM)
    signal.signal(signal.{number}, hear)
    say_ready(line)
    while True:
        select.select([], [], [], 10)
print(parent(1, work, lambda: os.kill(os.getpid(), signal.{number})))
""")
    assert told == "143\n"
