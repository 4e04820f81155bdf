"""The list of models on a virtual clock: once for all, renewed beside the calls, and never in their way."""

# ruff: noqa: ANN401 - options and JSON as they come
from __future__ import annotations

import asyncio
import logging
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from llm.core.exceptions import LLMConnectionError
from llm.core.protocols import ProviderSettings
from llm.providers.openrouter.listing import PATIENCE, Listing
from llm.providers.openrouter.models import Accepted
from llm.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Mapping

URL = "http://upstream.test/api/v1/models"
HOUR = 3600.0


def listed(*parameters: str) -> bytes:
    return orjson.dumps({"data": [{"id": "m", "supported_parameters": parameters}]})


class Answer:
    """A reply that is there at once."""

    headers: Mapping[str, str] = {}

    def __init__(self, body: bytes, status: int) -> None:
        self.status = status
        self._body = body

    async def read(self) -> bytes:
        return self._body

    async def chunk(self) -> bytes:
        return b""

    def waiting(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing is open."""


class Upstream:
    """A transport that takes its time, and then answers or fails as it is told."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.seconds = 0.1
        self.says: bytes | Exception = listed("seed")
        self.status = 200
        self.asked: list[tuple[str, str, float]] = []

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None) -> Answer:
        assert (dict(headers), body) == ({"x": "y"}, None)
        self.asked.append((method, url, self.clock.now()))
        await self.clock.sleep(self.seconds)
        if isinstance(self.says, Exception):
            raise self.says
        return Answer(self.says, self.status)

    async def close(self) -> None:
        """Nothing is open."""


class Bench:
    def __init__(self, **settings: Any) -> None:
        self.clock = FakeClock(1000.0)
        self.upstream = Upstream(self.clock)
        of = ProviderSettings(name="router", models=("m",), clock=self.clock, transport=self.upstream, **settings)
        self.listing = Listing(of, URL, {"x": "y"})
        self.listing.join()

    async def waited(self) -> float:
        """Return seconds that a call waits for the list."""
        task = asyncio.get_running_loop().create_task(self.listing.ready())
        started = self.clock.now()
        await self.clock.advance(0)
        while not task.done():
            await self.clock.advance(0.1)
        return round(self.clock.now() - started, 3)

    @property
    def knows(self) -> set[str] | None:
        accepted = self.listing.accepted("m")
        return None if accepted is None else set(accepted.parameters)


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_nothing_is_asked_before_the_first_call_which_waits_for_the_answer(bench: Bench) -> None:
    await bench.clock.advance(100)
    assert bench.upstream.asked == []
    assert await bench.waited() == 0.1
    assert bench.upstream.asked == [("GET", URL, 1100.0)]
    assert bench.listing.accepted("m") == Accepted(frozenset({"seed"}))


async def test_a_hundred_first_calls_ask_once(bench: Bench) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(100):
            group.create_task(bench.listing.ready())
        await bench.clock.advance(1)
    assert len(bench.upstream.asked) == 1
    assert bench.knows == {"seed"}


async def test_a_first_caller_who_leaves_takes_nobodys_list_away(bench: Bench) -> None:
    leaver = asyncio.get_running_loop().create_task(bench.listing.ready())
    stayer = asyncio.get_running_loop().create_task(bench.listing.ready())
    await bench.clock.advance(0)
    leaver.cancel()
    await bench.clock.advance(1)
    assert stayer.done()
    assert bench.knows == {"seed"}


async def test_it_is_renewed_beside_the_calls_when_its_time_is_over(bench: Bench) -> None:
    await bench.waited()
    bench.upstream.says = listed("stop")
    await bench.clock.advance(HOUR - 1)
    assert await bench.waited() == 0
    assert len(bench.upstream.asked) == 1
    await bench.clock.advance(1)
    assert await bench.waited() == 0
    assert bench.knows == {"seed"}
    await bench.clock.advance(0.1)
    assert bench.knows == {"stop"}
    assert len(bench.upstream.asked) == 2


async def test_its_time_is_the_configurations() -> None:
    bench = Bench(models_ttl=60.0)
    await bench.waited()
    await bench.clock.advance(60)
    await bench.waited()
    assert len(bench.upstream.asked) == 2
    await bench.listing.leave()


async def test_a_renewal_keeps_nobody_waiting_however_soon_it_comes() -> None:
    bench = Bench(models_ttl=0.5)
    await bench.waited()
    await bench.clock.advance(0.5)
    assert await bench.waited() == 0
    assert len(bench.upstream.asked) == 2
    await bench.clock.advance(1)


async def test_no_call_waits_longer_than_the_bound_and_only_the_first_ones_wait(bench: Bench) -> None:
    bench.upstream.seconds = 10.0
    assert await bench.waited() == PATIENCE
    assert bench.knows is None
    assert await bench.waited() == 0
    await bench.clock.advance(10)
    assert bench.knows == {"seed"}
    assert len(bench.upstream.asked) == 1


async def test_a_call_that_comes_while_others_wait_waits_no_longer_than_they(bench: Bench) -> None:
    bench.upstream.seconds = 10.0
    early = asyncio.get_running_loop().create_task(bench.listing.ready())
    await bench.clock.advance(1.5)
    assert await bench.waited() == 0.5
    assert early.done()
    await bench.clock.advance(10)


async def test_a_list_that_never_comes_is_given_up_and_asked_for_again(bench: Bench) -> None:
    bench.upstream.seconds = 1e6
    await bench.waited()
    await bench.clock.advance(30 + 15)
    bench.upstream.seconds = 0.1
    assert await bench.waited() == 0
    await bench.clock.advance(0.1)
    assert bench.knows == {"seed"}


FAILURES: list[Any] = [
    pytest.param((LLMConnectionError("gone", sent=False), 200), id="unreachable"),
    pytest.param((RuntimeError("a transport of one's own"), 200), id="broken"),
    pytest.param((listed("stop"), 500), id="status"),
    pytest.param((b'{"error":{"code":401,"message":"no"}}', 200), id="error inside"),
    pytest.param((b"<html>", 200), id="no list"),
    pytest.param((b'{"data":[]}', 200), id="empty"),
]


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_failure_keeps_the_old_list_and_is_told_once(
    bench: Bench, failure: tuple[Any, int], caplog: pytest.LogCaptureFixture
) -> None:
    await bench.waited()
    bench.upstream.says, bench.upstream.status = failure
    for _ in range(3):
        await bench.clock.advance(HOUR)
        assert await bench.waited() == 0
        await bench.clock.advance(1)
    assert len(bench.upstream.asked) == 4
    assert bench.knows == {"seed"}
    (told,) = caplog.messages
    assert told.startswith("router: the list of models could not be fetched (")
    assert "calls go on with the old one" in told


async def test_a_first_failure_lets_calls_go_on_without(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.upstream.says = LLMConnectionError("gone", sent=False)
    assert await bench.waited() == 0.1
    assert bench.knows is None
    assert "calls go on with none" in caplog.text
    assert await bench.waited() == 0
    assert len(bench.upstream.asked) == 1


async def test_it_is_tried_again_after_pauses_that_double_and_then_forgets_them(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.upstream.seconds = 0.0
    bench.upstream.says = LLMConnectionError("gone", sent=False)
    for _ in range(1200):
        await bench.listing.ready()
        await bench.clock.advance(1)
    tried = [at - 1000 for _, _, at in bench.upstream.asked]
    assert [later - earlier for earlier, later in pairwise(tried)] == [15, 30, 60, 120, 240, 480]
    assert len(caplog.records) == 1
    bench.upstream.says = listed("seed")
    await bench.clock.advance(960)
    await bench.waited()
    bench.upstream.says = LLMConnectionError("gone again", sent=False)
    await bench.clock.advance(HOUR)
    await bench.waited()
    await bench.clock.advance(15)
    await bench.waited()
    asked = [at for _, _, at in bench.upstream.asked]
    assert asked[-1] - asked[-2] == 15
    assert len(caplog.records) == 2


async def test_what_is_left_out_is_warned_of_once_for_a_model_and_a_parameter(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    for model, parameters in (("m", ["seed"]), ("m", ["seed"]), ("m", ["seed", "stop"]), ("n", ["seed"])):
        bench.listing.dropped(model, parameters)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 3
    assert [message.partition(";")[0] for message in caplog.messages] == [
        "router: m does not take seed",
        "router: m does not take stop",
        "router: n does not take seed",
    ]


async def test_the_fetch_ends_with_the_last_who_uses_it(bench: Bench) -> None:
    bench.upstream.seconds = 1e6
    bench.listing.join()
    await bench.waited()
    await bench.listing.leave()
    await bench.clock.advance(1)
    assert bench.clock.timers == 2  # the fetch, and its bound
    await bench.listing.leave()
    assert bench.clock.timers == 0
    await bench.listing.ready()
    assert len(bench.upstream.asked) == 1


async def test_a_fetch_that_has_not_begun_ends_as_well_and_another_may_follow(bench: Bench) -> None:
    waiting = asyncio.get_running_loop().create_task(bench.listing.ready())
    await bench.clock.sleep(0)  # it has made its task, which has not run
    await bench.listing.leave()
    await waiting
    bench.listing.join()
    await bench.waited()
    assert bench.knows == {"seed"}
