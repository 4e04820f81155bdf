"""A manager of any kind and any loop, used in the background loop."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from tests.patience import until

import llm
from llm import LLMPoolExhaustedError, register_provider
from llm.sync import LLMManager, get_llm_manager, portal
from llm.sync.here import manager_here
from llm.testing import FakeClock, FakeProvider, RecordingMiddleware
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from llm.testing import MockUpstream

    Of = Callable[..., dict[str, Any]]
    Upstream = Callable[..., MockUpstream]

CLOCK = SystemClock()
CACHED = {"backend": "memory"}


def ask(
    manager: llm.LLMManager | LLMManager | None, text: str, *, model: str | None = None
) -> tuple[str, llm.LLMManager]:
    """What a batch does with what it is given: it calls in the background loop."""

    async def work() -> tuple[str, llm.LLMManager]:
        async with manager_here(manager) as here:
            return (await here.get_client(model=model).chat(text)).content, here

    return portal.run(work())


def counted(manager: llm.LLMManager | LLMManager) -> int:
    requests: int = manager.get_status()["metrics"]["total_requests"]
    return requests


@pytest.fixture
def loop_elsewhere() -> Iterator[portal.Portal]:
    """A loop that runs in another thread, as a server's does."""
    made = portal.Portal()
    yield made
    made.end()


def test_a_blocking_managers_own_one_is_given(upstream: Upstream, of: Of) -> None:
    with LLMManager.open(of(upstream())) as manager:
        text, here = ask(manager, "Hello")
        assert text == "Hello"
        assert here is manager.inner
        assert not here.closed
        assert counted(manager) == 1


@pytest.mark.usefixtures("nobodys")
def test_for_none_the_process_has_one(upstream: Upstream, of: Of) -> None:
    manager = get_llm_manager(of(upstream()))
    text, here = ask(None, "Hello")
    assert (text, here) == ("Hello", manager.inner)
    assert not here.closed


def test_an_asynchronous_manager_of_a_loop_that_is_closed(upstream: Upstream, of: Of) -> None:
    async def make() -> llm.LLMManager:
        manager = await llm.LLMManager.open(of(upstream()))
        await manager.get_client().chat("before")
        return manager

    manager = asyncio.run(make())
    text, here = ask(manager, "Hello")
    assert (text, here is manager, here.closed) == ("Hello", False, True)
    assert not manager.closed
    assert counted(manager) == 2
    asyncio.run(manager.close())


def test_an_asynchronous_manager_of_the_loop_that_runs_in_this_very_thread(upstream: Upstream, of: Of) -> None:
    async def cell() -> None:
        async with llm.LLMManager.open(of(upstream(), cache=CACHED)) as manager:
            await manager.get_client().chat("asked before")
            await until(lambda: manager.get_status()["cache"]["stored"] == 1)
            assert [ask(manager, text)[0] for text in ("asked before", "new")] == ["asked before", "new"]
            assert (await manager.get_client().chat("new")).cached
            assert counted(manager) == 4
            assert manager.get_status()["metrics"]["cache"]["hits"] == 2
            cache = manager.get_status()["cache"]
            assert (cache["entries"], cache["hits"], cache["misses"], cache["stored"]) == (2, 2, 2, 2)

    asyncio.run(cell())


def test_an_asynchronous_manager_of_a_loop_in_another_thread_goes_on_meanwhile(
    upstream: Upstream, of: Of, loop_elsewhere: portal.Portal
) -> None:
    async def make() -> llm.LLMManager:
        return await llm.LLMManager.open(of(upstream(), cache=CACHED))

    async def many(text: str) -> list[str]:
        client = manager.get_client()
        return [(await client.chat(f"{text} {turn % 40}")).content for turn in range(120)]

    async def many_here() -> list[str]:
        async with manager_here(manager) as here:
            client = here.get_client()
            return [(await client.chat(f"here {turn % 40}")).content for turn in range(120)]

    manager = loop_elsewhere.run(make())
    answers: list[list[str]] = []
    thread = threading.Thread(target=lambda: answers.append(loop_elsewhere.run(many("there"))))
    thread.start()
    answers.append(portal.run(many_here()))
    thread.join(30)
    told = {text for each in answers for text in each}
    assert told == {f"{where} {turn}" for where in ("here", "there") for turn in range(40)}
    metrics = manager.get_status()["metrics"]
    assert (metrics["total_requests"], metrics["successful_requests"]) == (240, 240)
    assert metrics["cache"]["hits"] == 160
    loop_elsewhere.run(manager.close())


def test_what_is_asked_in_ones_own_loop_is_asked_of_the_manager_itself(upstream: Upstream, of: Of) -> None:
    async def main() -> bool:
        async with llm.LLMManager.open(of(upstream())) as manager, manager_here(manager) as here:
            return here is manager

    assert asyncio.run(main())


def test_limits_hold_for_both_together(upstream: Upstream, of: Of) -> None:
    config = of(upstream(), limits={"global": {"requests_per_day": 3}})

    async def cell() -> list[str]:
        async with llm.LLMManager.open(config) as manager:
            await manager.get_client().chat("one")
            told = [ask(manager, "two")[0], ask(manager, "three")[0]]
            with pytest.raises(llm.LLMRateLimitError, match="requests_per_day"):
                ask(manager, "four")
            return told

    assert asyncio.run(cell()) == ["two", "three"]


def test_transport_and_clock_and_doubles_go_along(upstream: Upstream, of: Of) -> None:
    up, events = upstream(), list[str]()
    provider = FakeProvider("always this")
    register_provider("sync-scripted", lambda _: provider)
    scripted = {"providers": {"mine": {"type": "sync-scripted", "api_keys": ["k1"], "models": ["m"]}}}

    async def cell() -> None:
        async with llm.LLMManager.open(of(up), transport=up.transport(), clock=FakeClock(auto=True)) as manager:
            assert ask(manager, "Hello")[0] == "Hello"
        async with llm.LLMManager.open(scripted) as manager:
            assert ask(manager, "Hello")[0] == "always this"
            layer = RecordingMiddleware("mine", events)

            async def work() -> None:
                async with manager_here(manager) as here:
                    await here.get_client(middleware=[layer]).chat("Hello")

            portal.run(work())

    asyncio.run(cell())
    assert len(up.requests) == 1
    assert provider.calls == 2
    assert events[0] == "mine:in"


def test_a_semantic_cache_asks_in_the_loop_where_it_is_asked(upstream: Upstream, of: Of) -> None:
    similar = {"features": {"semantic_cache": True}, "semantic_cache": {"model": "openai/text-embedding-3-small"}}
    up = upstream()
    config = of(up, cache=CACHED, **similar)
    config["providers"]["openai"]["models"].append("text-embedding-3-small")

    async def cell() -> None:
        async with llm.LLMManager.open(config) as manager:
            assert ask(manager, "Hello", model="gpt-4o-mini")[0] == "Hello"

    asyncio.run(cell())
    assert {request.path.rpartition("/")[2] for request in up.requests} == {"embeddings", "completions"}


def test_the_ones_beside_may_be_reloaded_and_leave_the_cache_as_it_is(upstream: Upstream, of: Of) -> None:
    up = upstream()

    async def cell() -> None:
        async with llm.LLMManager.open(of(up, cache=CACHED)) as manager:
            await manager.get_client().chat("kept")
            await until(lambda: manager.get_status()["cache"]["stored"] == 1)

            async def work() -> None:
                async with manager_here(manager) as here:
                    await here.reload(of(up, cache={**CACHED, "ttl": 60}))
                    assert (await here.get_client().chat("kept")).cached

            portal.run(work())
            assert (await manager.get_client().chat("kept")).cached

    asyncio.run(cell())


def test_the_one_beside_opens_a_store_on_disk_for_itself(upstream: Upstream, of: Of, tmp_path: Path) -> None:
    async def cell() -> None:
        config = of(upstream(), cache={"backend": "disk", "path": str(tmp_path / "kept")})
        async with llm.LLMManager.open(config) as manager:
            assert ask(manager, "Hello")[0] == "Hello"
            assert (await manager.get_client().chat("Hello")).cached

    asyncio.run(cell())


@pytest.mark.parametrize("kind", ["blocking", "asynchronous"])
def test_a_closed_manager_is_refused(kind: str, upstream: Upstream, of: Of) -> None:
    async def closed() -> llm.LLMManager:
        async with llm.LLMManager.open(of(upstream())) as manager:
            return manager

    with LLMManager.open(of(upstream())) as blocking:
        pass
    with pytest.raises(LLMPoolExhaustedError, match="closed"):
        ask(blocking if kind == "blocking" else asyncio.run(closed()), "Hello")
