"""The look into a backend that answers at once, before the chain: what it finds, and what it leaves to the chain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm.cache.memory import InMemoryCache
from llm.core.call import Call
from llm.core.source import Replay
from llm.core.stream import LLMStream
from llm.core.types import LLMRequest, LLMResponse, StreamChunk
from llm.middleware.cache import CacheMiddleware
from llm.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from llm.cache.base import CacheBackend, CacheEntry
    from llm.core.stream import LLMResult

LONG = "x" * 5_000_000


class Torn(InMemoryCache):
    """Fails to read."""

    def peek(self, key: str) -> CacheEntry | None:
        raise OSError(f"no memory at {key}")


class Distant:
    """Answers only to who waits."""

    def __init__(self) -> None:
        self._near = InMemoryCache()
        self.get, self.get_many, self.put = self._near.get, self._near.get_many, self._near.put
        self.exists, self.delete = self._near.exists, self._near.delete
        self.clear, self.close = self._near.clear, self._near.close
        self.remove, self.scan, self.usage = self._near.remove, self._near.scan, self._near.usage


def layer(backend: CacheBackend, *, streams: bool = True) -> CacheMiddleware:
    def now(work: Coroutine[object, object, None]) -> None:
        try:
            work.send(None)
        except StopIteration:
            return
        raise AssertionError("the backend waits")

    return CacheMiddleware(
        backend,
        provider="fake",
        clock=FakeClock(),
        ttl=60,
        scope="shared",
        single_flight=True,
        streams=streams,
        spawn=now,
    )


def asked(text: str = "What is it?", *, stream: bool = False) -> LLMRequest:
    return LLMRequest(text, call=Call(0.0), stream=stream)


async def kept(cache: CacheMiddleware, text: str, answer: str) -> None:
    await cache(asked(text), lambda _: answered(answer))


async def answered(text: str) -> LLMResponse:
    return LLMResponse(content=text, provider="fake")


async def streamed(*texts: str) -> LLMStream:
    return LLMStream(Replay([StreamChunk(text) for text in texts]), provider="fake")


def whole(found: LLMResult | None) -> LLMResponse:
    assert isinstance(found, LLMResponse)
    return found


async def never(_: LLMRequest) -> LLMResponse:
    raise AssertionError("it was asked")


async def test_what_is_kept_is_found_and_counted() -> None:
    cache = layer(InMemoryCache())
    await kept(cache, "What is it?", "a cat")

    found = [whole(cache.glance(asked())) for _ in range(3)]

    assert [(answer.content, answer.cached) for answer in found] == [("a cat", True)] * 3
    assert (cache.stats.hits, cache.stats.misses, cache.stats.errors) == (3, 1, 0)


async def test_what_is_on_its_way_to_the_backend_is_found() -> None:
    later: list[Coroutine[object, object, None]] = []
    cache = CacheMiddleware(
        InMemoryCache(), provider="fake", clock=FakeClock(), ttl=60, scope="shared", single_flight=True, streams=True,
        spawn=later.append,
    )  # fmt: skip
    await kept(cache, "What is it?", "a cat")
    found = whole(cache.glance(asked()))
    for work in later:
        await work
    assert (found.content, found.cached) == ("a cat", True)


async def test_an_answer_that_is_given_often_is_read_once() -> None:
    cache = layer(InMemoryCache())
    await kept(cache, "What is it?", "a cat")
    assert whole(cache.glance(asked())) is whole(cache.glance(asked()))


async def test_values_of_answers_are_held_within_a_bound() -> None:
    cache = layer(InMemoryCache())
    for text in "abcd":
        await kept(cache, text, LONG + text)
    first = whole(cache.glance(asked("a")))
    for text in "abcd":  # together more than is held as values
        assert whole(cache.glance(asked(text))).content == LONG + text
    again = whole(cache.glance(asked("a")))
    assert first is not again  # read anew
    assert first.content == again.content


async def test_a_miss_is_counted_by_the_chain_alone() -> None:
    cache = layer(InMemoryCache())
    request = asked()
    assert cache.glance(request) is None
    assert cache.stats.misses == 0
    await kept(cache, "What is it?", "a cat")
    assert str(await cache(request, never)) == "a cat"
    assert (cache.stats.hits, cache.stats.misses) == (1, 1)


async def test_what_a_look_in_vain_found_out_is_used_once_and_let_go() -> None:
    cache = layer(InMemoryCache())
    request = asked()
    call = request.call
    assert call is not None
    assert cache.glance(request) is None
    assert call.glanced is not None
    await cache(request, lambda _: answered("a cat"))
    assert call.glanced is None  # the two would hold each other, for the collector to find


async def test_a_request_that_was_changed_on_its_way_is_looked_up_as_it_is() -> None:
    cache = layer(InMemoryCache())
    await kept(cache, "Another?", "a dog")
    request = asked()
    assert cache.glance(request) is None
    changed = LLMRequest("Another?", call=request.call)
    assert str(await cache(changed, never)) == "a dog"


async def test_a_damaged_entry_is_left_to_the_chain() -> None:
    backend = InMemoryCache()
    cache = layer(backend)
    request = asked()
    await kept(cache, "What is it?", "a cat")
    (key,) = [use.key for use in [cache._use(request)] if use is not None]  # pyright: ignore[reportPrivateUsage]
    await backend.put(key, b"{damaged", ttl=60.0)

    assert cache.glance(request) is None
    assert cache.stats.errors == 0
    await kept(cache, "What is it?", "a dog")
    assert cache.stats.errors == 1
    assert whole(cache.glance(asked())).content == "a dog"


async def test_a_backend_that_fails_is_left_to_the_chain() -> None:
    cache = layer(Torn())
    assert cache.glance(asked()) is None
    assert cache.stats.errors == 0


async def test_a_backend_that_must_be_waited_for_is_not_looked_into() -> None:
    cache = layer(Distant())
    await kept(cache, "What is it?", "a cat")
    assert cache.glance(asked()) is None
    assert str(await cache(asked(), never)) == "a cat"


async def test_a_stream_is_given_in_the_chunks_that_it_came_in() -> None:
    cache = layer(InMemoryCache())
    came = await cache(asked(stream=True), lambda _: streamed("a ", "cat"))
    assert isinstance(came, LLMStream)
    assert (await came.response()).cached is False

    found = cache.glance(asked(stream=True))

    assert isinstance(found, LLMStream)
    assert [chunk.content async for chunk in found] == ["a ", "cat"]
    assert ((await found.response()).content, (await found.response()).cached) == ("a cat", True)
    assert whole(cache.glance(asked())).content == "a cat"


async def test_no_stream_is_given_where_streams_are_not_kept() -> None:
    cache = layer(InMemoryCache(), streams=False)
    await kept(cache, "What is it?", "a cat")
    assert cache.glance(asked(stream=True)) is None
    assert cache.glance(asked()) is not None


async def test_what_has_no_call_goes_down_the_chain() -> None:
    cache = layer(InMemoryCache())
    await kept(cache, "What is it?", "a cat")
    assert cache.glance(LLMRequest("What is it?")) is None
