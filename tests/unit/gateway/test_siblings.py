"""What workers tell each other, over real sockets, and the one page that comes of it."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.patience import PATIENCE

from llm.gateway.metrics import merged
from llm.gateway.siblings import Mailboxes, Siblings
from llm.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator

OWN = b"# TYPE made counter\nmade_total 2.0\n# TYPE busy gauge\nbusy 1.0\n# EOF\n"
OTHER = b'# TYPE made counter\nmade_total{model="m"} 5.0\n# EOF\n'


@pytest.fixture
def boxes() -> Iterator[Mailboxes]:
    with closing(Mailboxes(3)) as made:
        yield made


def samples(page: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(page.decode())
    return {(each.name, frozenset(each.labels.items())): each.value for one in families for each in one.samples}


async def test_each_hears_all_others(boxes: Mailboxes) -> None:
    workers = [Siblings(boxes, place) for place in range(3)]
    for worker in workers:
        worker.listen(partial(bytes.__mul__, bytes(f"of {worker.place}", "ascii"), 100_000))
    async with asyncio.TaskGroup() as group:
        asked = [(worker.place, group.create_task(worker.ask())) for worker in workers for _ in range(5)]
    for asker, task in asked:
        answers = task.result()
        assert set(answers) == {0, 1, 2} - {asker}
        assert all(answer == bytes(f"of {place}", "ascii") * 100_000 for place, answer in answers.items())
    for worker in workers:
        worker.close()


async def test_one_that_is_away_is_left_out_and_the_next_in_its_place_answers(boxes: Mailboxes) -> None:
    clock = FakeClock(auto=True)
    asking, away = Siblings(boxes, 0, clock), Siblings(boxes, 1)
    assert await asking.ask() == {}
    for _ in range(1_000):  # also with its mailbox full
        assert await asking.ask() == {}
    away.listen(lambda: b"back")
    heard = [await Siblings(boxes, 0).ask() for _ in range(50)]  # once what was full is read
    assert heard[-1] == {1: b"back"}
    away.close()


async def test_one_that_is_busy_costs_a_second(boxes: Mailboxes) -> None:
    clock, go = FakeClock(auto=True), threading.Event()
    busy = Siblings(boxes, 1)
    busy.listen(lambda: bytes(go.wait(PATIENCE)))
    assert await Siblings(boxes, 0, clock).ask() == {}
    assert clock.now() - FakeClock().now() == 1.0
    go.set()
    busy.close()


async def test_who_asked_and_left_disturbs_nobody(boxes: Mailboxes) -> None:
    asked = Siblings(boxes, 1)
    mine, its = socket.socketpair()
    socket.send_fds(boxes.pairs[1][1], [b"?"], [its.fileno()])
    mine.close()
    its.close()
    boxes.pairs[1][1].send(b"?")  # and who sends no end of a pair
    asked.listen(lambda: b"here")
    assert await Siblings(boxes, 0).ask() == {1: b"here"}
    asked.close()


def test_pages_become_one_with_each_workers_place() -> None:
    page, kind = merged({0: OWN, 1: OTHER, 2: b"# TYPE made counter\nmade_to"}, 4, "")
    assert kind.startswith("text/plain")
    assert page.count(b"# TYPE made_total counter") == 1
    told: dict[Any, float] = samples(page)
    assert told == {
        ("made_total", frozenset({("worker", "0")})): 2.0,
        ("busy", frozenset({("worker", "0")})): 1.0,
        ("made_total", frozenset({("worker", "1"), ("model", "m")})): 5.0,
        **{("llm_gateway_worker_answered", frozenset({("worker", str(at))})): float(at < 2) for at in range(4)},
    }
    cut = '# TYPE made counter\nmade_total{model="é'.encode()[:-1]  # in the middle of a character
    assert samples(merged({0: cut}, 1, "")[0]) == {("llm_gateway_worker_answered", frozenset({("worker", "0")})): 0.0}
    assert merged({0: OWN}, 1, "application/openmetrics-text; version=1.0.0")[0].endswith(b"# EOF\n")
