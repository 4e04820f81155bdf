"""Answers that are taken out of the cache: which ones go, which ones stay, and what is refused."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from llm import CachePolicy, LLMConnectionError, LLMInvalidRequestError, LLMManager, LLMRequest
from llm.testing import FakeClock, MockUpstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from llm import LLMClient


class Bench:
    """Two providers with a cache, on a fake clock."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.upstream = MockUpstream("openai", clock=self.clock)
        self.manager: LLMManager

    async def open(self, **sections: Any) -> LLMManager:  # noqa: ANN401 - sections as they come
        def provider(*models: str) -> dict[str, Any]:
            address = "http://upstream.test/v1"
            return {"type": "openai", "base_url": address, "api_keys": ["sk-test-1"], "models": list(models)}

        providers = {"one": provider("gpt-4o-mini", "gpt-4o"), "two": provider("gpt-4o")}
        config = {"providers": providers, "cache": {"scope": "user"}, **sections}
        self.manager = await LLMManager.open(config, transport=self.upstream.transport(), clock=self.clock)
        return self.manager

    @property
    def sent(self) -> int:
        return len(self.upstream.requests)

    async def asks(self, client: LLMClient, text: str = "hello", **options: Any) -> bool:  # noqa: ANN401 - options as they come
        """Ask, and tell whether the provider was asked."""
        before = self.sent
        await client.complete(text, **options)
        return self.sent > before


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    async with bench.upstream, await bench.open():
        yield bench


@pytest.mark.parametrize(
    ("chosen", "gone"),
    [
        ({"provider": "one"}, {"mini", "big", "alice"}),
        ({"model": "gpt-4o"}, {"big", "two"}),
        ({"model": "one/gpt-4o"}, {"big"}),
        ({"provider": "one", "model": "one/gpt-4o"}, {"big"}),
        ({"user": "alice"}, {"alice"}),
        ({"tags": "model:gpt-4o"}, {"big", "two"}),
        ({"tags": ["provider:two", "model:gpt-4o"]}, {"two"}),
        ({"provider": "two", "older_than": 10}, set[str]()),
        ({"model": "meta-llama/llama"}, set[str]()),
    ],
)
async def test_what_fits_all_that_is_said_goes_and_the_rest_stays(
    bench: Bench, chosen: dict[str, Any], gone: set[str]
) -> None:
    clients = {
        "mini": bench.manager.get_client("one", model="gpt-4o-mini"),
        "big": bench.manager.get_client("one", model="gpt-4o"),
        "two": bench.manager.get_client("two", model="gpt-4o"),
        "alice": bench.manager.get_client("one", model="gpt-4o-mini", user="alice"),
    }
    for client in clients.values():
        assert await bench.asks(client)
    assert await bench.manager.invalidate_cache(**chosen) == len(gone)
    assert {name for name, client in clients.items() if await bench.asks(client)} == gone


async def test_what_is_old_enough_goes(bench: Bench) -> None:
    client = bench.manager.get_client("two")
    await client.complete("old")
    await bench.clock.advance(60.0)
    await client.complete("young")
    assert await bench.manager.invalidate_cache(older_than=60) == 1
    assert [await bench.asks(client, text) for text in ("old", "young")] == [True, False]


async def test_an_answer_that_is_still_being_written_goes_too(bench: Bench) -> None:
    client = bench.manager.get_client("two")
    await client.complete("hello")  # nothing has run since
    assert await bench.manager.invalidate_cache(provider="two") == 1
    assert await bench.asks(client)


async def test_an_answer_goes_by_its_request_as_the_client_asked_it(bench: Bench) -> None:
    alice, bob = (bench.manager.get_client("two", user=user) for user in ("alice", "bob"))
    for client in (alice, bob):
        await client.complete("hello", temperature=0.5)
    asked = LLMRequest("hello", temperature=0.5)
    assert await bench.manager.invalidate_cache(request="hello", provider="two", user="alice") == 0
    assert await bench.manager.invalidate_cache(request=asked, provider="two", user="alice") == 1
    assert await bench.asks(alice, temperature=0.5)
    assert not await bench.asks(bob, temperature=0.5)


async def test_a_request_that_named_no_model_is_forgotten_of_each(bench: Bench) -> None:
    client = bench.manager.get_client("one")
    for _ in range(4):
        await client.complete("hello", cache=CachePolicy(scope="shared"))
    asked = LLMRequest("hello", cache=CachePolicy(scope="shared"))
    assert await bench.manager.invalidate_cache(request=asked) == 2
    assert await bench.manager.invalidate_cache(request=asked, model="gpt-4o") == 0


async def test_a_request_to_an_alias_is_forgotten_of_each_target() -> None:
    bench = Bench()
    alias = {"targets": ["one/gpt-4o-mini", "two/gpt-4o"], "strategy": "weighted"}
    async with await bench.open(aliases={"fast": alias}) as manager:
        for model in ("one/gpt-4o-mini", "two/gpt-4o"):
            await manager.get_client().complete("hello", model=model)
        assert await manager.invalidate_cache(request="hello", model="fast") == 2
        with pytest.raises(LLMInvalidRequestError, match="one/gpt-4o-mini, two/gpt-4o"):
            await manager.invalidate_cache(model="fast")


async def test_an_answer_goes_by_its_key(bench: Bench) -> None:
    client = bench.manager.get_client("two")
    await client.complete("hello")
    answers = bench.manager._routes.parts.answers  # pyright: ignore[reportPrivateUsage] - which tells keys nowhere else
    assert answers is not None
    key = answers.key("two", LLMRequest("hello", model="gpt-4o"))
    assert await bench.manager.invalidate_cache(key=key) == 1
    assert await bench.manager.invalidate_cache(key=key) == 0


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        ({}, "clear_cache"),
        ({"older_than": 0}, "clear_cache"),
        ({"key": "abc"}, "64 hex digits"),
        ({"key": "0" * 64, "model": "gpt-4o"}, "nothing beside"),
        ({"key": "0" * 64, "request": "hello"}, "nothing beside"),
        ({"request": "hello", "tags": "x"}, "tags or older_than"),
        ({"request": "hello", "older_than": 5}, "tags or older_than"),
        ({"provider": "two", "model": "one/gpt-4o"}, "not the same"),
        ({"model": ""}, "model is ''"),
        ({"user": 7}, "user is 7"),
        ({"older_than": -1}, "older_than is -1"),
        ({"older_than": float("nan")}, "older_than is nan"),
        ({"older_than": True}, "older_than is True"),
        ({"tags": ["a", ""]}, "tags is"),
        ({"tags": 7}, "tags is 7"),
    ],
)
async def test_nothing_said_and_what_does_not_go_together_is_refused(
    bench: Bench, chosen: dict[str, Any], told: str
) -> None:
    client = bench.manager.get_client("two")
    await client.complete("hello")
    with pytest.raises(LLMInvalidRequestError, match=told):
        await bench.manager.invalidate_cache(**chosen)
    assert not await bench.asks(client)


async def test_clearing_removes_everything(bench: Bench) -> None:
    client = bench.manager.get_client("two")
    await client.complete("hello")
    await bench.manager.clear_cache()
    assert await bench.asks(client)


async def test_without_a_cache_nothing_is_there_to_remove() -> None:
    bench = Bench()
    async with await bench.open(cache={"backend": "none"}) as manager:
        await manager.clear_cache()
        assert await manager.invalidate_cache(model="gpt-4o") == 0
        assert await manager.invalidate_cache(key="0" * 64) == 0
        assert await manager.invalidate_cache(request="hello", provider="two") == 0


async def test_a_store_that_hangs_on_a_write_does_not_hold_an_invalidation_for_long(bench: Bench) -> None:
    answers = bench.manager._routes.parts.answers  # pyright: ignore[reportPrivateUsage] - where writes come by
    never = asyncio.Event()

    async def hang() -> None:
        await never.wait()

    assert answers is not None
    answers.write(hang())  # type: ignore[attr-defined]  # the runtime's own
    removing = asyncio.create_task(bench.manager.invalidate_cache(provider="two"))
    await bench.clock.advance(1.0)
    assert await removing == 0
    never.set()


async def test_a_store_that_fails_is_told_without_its_password() -> None:
    bench = Bench()
    url = "redis://:hunter2-hunter2@127.0.0.1:1/0"
    async with await bench.open(cache={"backend": "redis", "url": url}) as manager:
        with pytest.raises(LLMConnectionError, match=r"redis://127\.0\.0\.1:1/0") as failure:
            await manager.invalidate_cache(model="gpt-4o")
        assert "hunter2" not in repr(failure.value)
