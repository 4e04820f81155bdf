"""Four processes with the same four unequal keys, against a server that keeps their limits: as one process would."""

# ruff: noqa: ANN401 - configurations as they come
from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from itertools import cycle
from typing import TYPE_CHECKING, Any, Final, Protocol

import pytest
from benchmarks.shared.crowd import Result, Workers, send

from llm import LLMManager, LLMRequest, LLMResponse, TokenUsage
from llm.testing import MockUpstream

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from contextlib import AbstractContextManager

MODEL: Final = "gpt-4o-mini"
TOKENS: Final = 50  # of each job
RATES: Final = (2, 5, 11, 22)  # jobs a second of each key
KEYS: Final = tuple(f"sk-shared-{number}-0123456789" for number in range(len(RATES)))
LIMITS: Final = [{"requests_per_minute": 6000, "tokens_per_minute": rate * TOKENS * 60} for rate in RATES]
PROCESSES: Final = 4
JOBS: Final = 160
BOUND_S: Final = JOBS / sum(RATES)  # of keys that are empty at the start
MOST: Final = (0, 1, 2, *[3] * 7)
"""Whose each of ten jobs is, where the last process needs far more than its quarter of the keys."""
STALL_S: Final = 3.0
"""Seconds that a machine which is busy may take to start, or to stand still."""
SECONDS: Final = 60.0


class Server(Protocol):
    url: str

    def kill(self) -> None: ...

    def start(self) -> None: ...


@pytest.fixture
def store(redis_server: Callable[[], AbstractContextManager[Server]]) -> Iterator[Server]:
    with redis_server() as server:
        yield server


@contextmanager
def served() -> Generator[MockUpstream]:
    """Serve in a loop and a thread of its own."""
    upstream = MockUpstream(limits=dict(zip(KEYS, LIMITS, strict=True)), answer=uses_all, service=0.05)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def on(work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result()

    on(upstream.__aenter__())
    try:
        yield upstream
    finally:
        on(upstream.__aexit__())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def uses_all(request: LLMRequest) -> LLMResponse:
    return LLMResponse("", request.messages[-1].text, usage=TokenUsage(1, (request.max_tokens or 1) - 1))


def config(base_url: str, url: str) -> dict[str, Any]:
    limits = [{**stated, "algorithm": "token_bucket"} for stated in LIMITS]
    keys = {"api_keys": list(KEYS), "quota_groups": list(KEYS)}
    section = {"base_url": base_url, **keys, "models": [MODEL], "rate_limits": limits}
    return {"providers": {"openai": section}, "limits": {"store": "redis", "url": url}}


async def empty(base_url: str, url: str) -> None:
    """Use up what the keys have, so that all that follows goes at the limits' pace."""
    async with LLMManager.open(config(base_url, url)) as manager, asyncio.TaskGroup() as tasks:
        for limits in reversed(LIMITS):  # each fits no smaller key
            tasks.create_task(manager.get_client().chat("all", max_tokens=limits["tokens_per_minute"]))


def works(base_url: str, url: str, whose: Sequence[int]) -> list[dict[str, Any]]:
    jobs = [{"tag": f"job {number}", "prompt": f"job {number}", "max_tokens": TOKENS} for number in range(JOBS)]
    known = {"base_url": base_url, "url": url, "model": MODEL, "keys": KEYS, "groups": KEYS, "limits": LIMITS}
    theirs = [[job for job, who in zip(jobs, cycle(whose), strict=False) if who == each] for each in range(PROCESSES)]
    return [{**known, "jobs": jobs} for jobs in theirs]


def all_from_empty(
    upstream: MockUpstream,
    store: Server,
    beside: Callable[[Workers], None] = lambda _: None,
    *,
    whose: Sequence[int] = range(PROCESSES),
) -> Result:
    todo = works(upstream.base_url, store.url, whose)

    def ready() -> None:
        asyncio.run(empty(upstream.base_url, store.url))

    return send(todo, SECONDS, ready=ready, beside=beside)


def refusals(upstream: MockUpstream) -> int:
    return sum(record.status == 429 for record in upstream.requests)


def admitted(upstream: MockUpstream) -> list[str]:
    """Return the jobs that were admitted; the server admits none that a limit has no room for."""
    texts = [record.body["messages"][-1]["content"] for record in upstream.requests if record.status == 200]
    return [text for text in texts if text != "all"]


def test_four_processes_keep_the_limits_of_shared_keys_as_one_does(store: Server) -> None:
    with served() as upstream:
        result = all_from_empty(upstream, store, whose=MOST)
        assert sorted(result.answered) == sorted(f"job {number}" for number in range(JOBS))
        assert len(admitted(upstream)) == JOBS
        assert refusals(upstream) <= 10
        assert result.finish_s <= 1.10 * BOUND_S + STALL_S


def test_when_one_of_them_is_killed_the_others_go_on_and_still_keep_the_limits(store: Server) -> None:
    def kill_one(workers: Workers) -> None:
        threading.Event().wait(BOUND_S / 3)
        workers[0].kill()

    with served() as upstream:
        result = all_from_empty(upstream, store, kill_one)
        theirs = {f"job {number}" for number in range(JOBS) if number % PROCESSES}
        assert theirs <= set(result.answered)
        assert len(set(admitted(upstream))) == len(admitted(upstream))
        assert refusals(upstream) <= 10
        assert result.finish_s <= 1.10 * BOUND_S + STALL_S


def test_when_the_store_is_lost_and_comes_back_empty_nothing_is_sent_too_much(store: Server) -> None:
    def lose_all(_: Workers) -> None:
        threading.Event().wait(BOUND_S / 3)
        store.kill()
        threading.Event().wait(0.3)
        store.start()

    with served() as upstream:
        result = all_from_empty(upstream, store, lose_all)
        assert sorted(result.answered) == sorted(f"job {number}" for number in range(JOBS))
        assert len(admitted(upstream)) == JOBS
        assert refusals(upstream) <= 10
        assert {seen["losses"] for seen in result.stores} == {1}
        assert result.finish_s <= BOUND_S + 3.0 + STALL_S  # until all know of it, and a second of grace
