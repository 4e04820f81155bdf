# ruff: noqa: ANN401 - options as they come
from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest

from llm.cache.memory import InMemoryCache
from llm.cache.vectors import VectorIndex
from llm.core.call import Call
from llm.core.exceptions import LLMRateLimitError, LLMServerError
from llm.core.messages import ImagePart, Message, MessageRole, TextPart
from llm.core.stream import LLMStream
from llm.core.types import CachePolicy, LLMRequest, LLMResponse, ToolDefinition
from llm.core.vendor import CachePoint
from llm.middleware.cache import CacheMiddleware
from llm.middleware.comparable import Terms, comparable
from llm.middleware.semantic import SemanticMiddleware, SemanticStats
from llm.testing import FakeClock, FakeProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from llm.cache.base import CacheBackend
    from llm.core.stream import LLMResult

TERMS: Final = Terms("p/vectors", 0.9, 2.0, 60.0, "shared", streams=True)
ASKED: Final = "How do I reset my password?"
AGAIN: Final = "How can I reset my password?"
THIRD: Final = "How could I reset my password?"


class Rig:
    """The cache's layer and the semantic one before a scripted provider; all texts are alike unless told otherwise."""

    def __init__(
        self, backend: CacheBackend | None = None, *, durable: bool = False, answers: Any = None, **terms: Any
    ) -> None:
        self.clock = FakeClock(auto=True)
        self.provider = FakeProvider(answers, name="p", latency=1.0, clock=self.clock, chunk_size=4)
        self.backend = backend if backend is not None else InMemoryCache(clock=self.clock)
        self.index = VectorIndex(100)
        self.stats = SemanticStats()
        self.asked: list[LLMRequest] = []
        self.vector: Callable[[str], tuple[float, ...]] = lambda _: (1.0, 2.0)
        self.trouble: BaseException | None = None
        self.outbox: set[asyncio.Task[None]] = set()
        self.exact = CacheMiddleware(
            self.backend, provider="p", clock=self.clock, ttl=60, scope="shared", single_flight=True, streams=True,
            spawn=self.spawn,
        )  # fmt: skip
        self.layer = SemanticMiddleware(
            self.backend, self.index, TERMS._replace(**terms), provider="p", clock=self.clock, ask=self.ask,
            spawn=self.spawn, durable=durable, stats=self.stats,
        )  # fmt: skip
        self.calls: list[Call] = []

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.outbox.add(task)
        task.add_done_callback(self.outbox.discard)

    async def ask(self, request: LLMRequest) -> LLMResponse:
        self.asked.append(request)
        if self.trouble is not None:
            raise self.trouble
        assert request.embed is not None
        return LLMResponse(embeddings=(self.vector(request.embed.texts[0]),))

    async def kept(self) -> None:
        while self.outbox:
            await asyncio.wait(self.outbox)

    async def __call__(self, messages: Any, *, stream: bool = False, **options: Any) -> LLMResponse:
        call = Call(self.clock.now(), user=options.get("user"))
        self.calls.append(call)
        request = LLMRequest(messages, model="m", stream=stream, call=call, **options)

        async def dispatch(given: LLMRequest) -> LLMResult:
            return await (self.provider.stream(given) if given.stream else self.provider.complete(given))

        def inner(given: LLMRequest) -> Any:
            return self.layer(given, dispatch)

        try:
            result = await self.exact(request, inner)
            response = await result.response() if isinstance(result, LLMStream) else result
        finally:
            call.ended(self.clock.now(), None)
        await self.kept()
        return response

    @property
    def questions(self) -> int:
        return len(self.provider.requests)


async def test_the_vector_is_asked_for_by_a_call_of_the_same_tenant_with_a_bound() -> None:
    rig = Rig()
    await rig(ASKED, user="alice", priority=3, cache=CachePolicy(scope="user", ttl=30))
    (asked,) = rig.asked
    assert asked.embed is not None
    assert asked.embed.texts == (ASKED,)
    assert (asked.model, asked.timeout, asked.user, asked.priority) == ("p/vectors", 2.0, "alice", 3)
    assert asked.cache == CachePolicy(scope="user")


async def test_where_there_is_nothing_to_compare_with_the_answer_does_not_wait_for_the_vector() -> None:
    rig = Rig()
    come = asyncio.Event()
    ask = rig.ask

    async def slow(request: LLMRequest) -> LLMResponse:
        await come.wait()
        return await ask(request)

    rig.layer._ask = slow  # pyright: ignore[reportPrivateUsage]
    task = asyncio.get_running_loop().create_task(rig(ASKED))
    for _ in range(20):
        await asyncio.sleep(0)  # noqa: TID251 - a turn of the loop
    assert rig.questions == 1
    come.set()
    await task
    assert (await rig(AGAIN)).cached


async def test_an_answer_that_is_over_or_gone_is_forgotten_and_the_question_asked() -> None:
    rig = Rig()
    await rig(ASKED)
    assert (await rig(AGAIN)).cached
    await rig.clock.advance(61.0)
    assert not (await rig(AGAIN)).cached
    assert len(rig.index) == 1  # the one over is gone, the new one is there
    await rig.backend.clear()
    await rig.clock.advance(6.0)
    assert not (await rig(THIRD)).cached
    assert rig.questions == 3


async def test_an_answer_on_its_way_to_the_backend_is_not_forgotten() -> None:
    rig = Rig()
    await rig(ASKED)
    kept = [pair async for pair in rig.backend.scan()]
    await rig.backend.clear()
    assert not (await rig(AGAIN)).cached
    for key, entry in kept:
        await rig.backend.put(key, entry.value, ttl=entry.ttl)
    assert (await rig(THIRD)).cached


async def test_a_damaged_answer_is_not_given() -> None:
    rig = Rig()
    await rig(ASKED)
    async for key, _ in rig.backend.scan():
        await rig.backend.put(key, b"\x80\x04damage", ttl=60)
    assert not (await rig(AGAIN)).cached


async def test_an_answer_is_as_young_as_the_call_wants_it_and_as_its_own_call_allowed() -> None:
    rig = Rig()
    await rig(ASKED, cache=CachePolicy(ttl=30))
    await rig.clock.advance(20.0)
    assert not (await rig(AGAIN, cache=CachePolicy(ttl=10))).cached
    assert len(rig.index) == 2
    rig = Rig()
    await rig(ASKED, cache=CachePolicy(ttl=30))
    async for key, entry in rig.backend.scan():  # as a backend that keeps it on for a time when it may be stale
        await rig.backend.put(key, entry.value, ttl=300)
    await rig.clock.advance(31.0)
    assert not (await rig(AGAIN)).cached


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_what_failed_or_stopped_for_its_content_is_not_remembered(stream: bool) -> None:
    rig = Rig(answers=[LLMServerError("down"), LLMResponse(content="…", finish_reason="content_filter")])
    with pytest.raises(LLMServerError):
        await rig(ASKED, stream=stream)
    await rig.kept()
    await rig(ASKED, stream=stream)
    assert len(rig.index) == 0


async def test_an_answer_of_another_provider_is_not_remembered() -> None:
    rig = Rig()

    async def elsewhere(_: LLMRequest) -> LLMResult:
        return LLMResponse(content="x", provider="other", finish_reason="stop")

    await rig.layer(LLMRequest(ASKED, model="m"), elsewhere)
    await rig.kept()
    assert len(rig.index) == 0


async def test_a_hit_without_a_calls_record_is_given_all_the_same() -> None:
    rig = Rig()
    await rig(ASKED)

    async def nobody(_: LLMRequest) -> LLMResult:
        raise AssertionError

    result = await rig.layer(LLMRequest(AGAIN, model="m"), nobody)
    assert isinstance(result, LLMResponse)
    assert result.cached


@pytest.mark.parametrize(
    "error",
    [LLMServerError("down"), LLMRateLimitError("not now", retry_after=1.0), RuntimeError("a bug"), LookupError()],
    ids=lambda error: type(error).__name__,
)
async def test_a_failure_is_counted_noted_logged_once_a_minute_and_then_it_rests(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig()
    await rig(ASKED)
    rig.trouble = error
    with caplog.at_level(logging.WARNING, "llm.cache"):
        for text in (AGAIN, THIRD):
            assert not (await rig(text)).cached
    assert rig.stats.skipped == 2
    assert len(rig.asked) == 2  # for ASKED and AGAIN; THIRD came while it rested
    assert [each.detail for each in rig.calls[1].log if each.event == "not_compared"] == [
        f"{type(error).__name__} while asking for a vector"
    ]
    await rig.clock.advance(5.0)
    assert not (await rig("How do I get to reset my password?")).cached
    assert len(caplog.records) == 1
    rig.trouble = None
    assert (await rig("How do I reset my password, please?", user="bob")).cached is False
    assert len(rig.asked) == 4  # another tenant's does not rest
    await rig.clock.advance(5.0)
    assert (await rig("How do I reset my password, please?")).cached


async def test_tenants_at_rest_are_bounded() -> None:
    rig = Rig()
    rig.trouble = LLMServerError("down")
    resting = rig.layer._resting  # pyright: ignore[reportPrivateUsage]
    resting.update({str(number): 0.0 for number in range(10_000)})
    await rig(ASKED, user="alice")
    assert list(resting) == ["alice"]


async def test_a_vector_without_a_direction_is_none() -> None:
    rig = Rig()
    rig.vector = lambda _: (math.nan,)
    await rig(ASKED)
    assert len(rig.index) == 0


async def test_a_call_that_is_cancelled_while_it_waits_for_its_vector_is_cancelled() -> None:
    rig = Rig()
    await rig(ASKED)

    async def never(_: LLMRequest) -> LLMResponse:
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    rig.layer._ask = never  # pyright: ignore[reportPrivateUsage]
    task = asyncio.get_running_loop().create_task(rig(AGAIN))
    for _ in range(20):
        await asyncio.sleep(0)  # noqa: TID251 - a turn of the loop
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert rig.stats.skipped == 0


# --- after a restart -------------------------------------------------------------------------------------------------


async def test_what_was_asked_before_a_restart_is_read_once_per_conversation() -> None:
    store = Scanned()
    await Rig(store, durable=True)(ASKED)
    fresh = Rig(store, durable=True)
    assert (await fresh(AGAIN)).cached
    assert (await fresh(THIRD)).cached
    assert store.scans == 2  # one of each process
    assert not (await fresh(AGAIN, user="bob")).cached
    assert (fresh.questions, store.scans) == (1, 3)


async def test_where_the_backend_is_this_processs_nothing_is_kept_beside_the_answers() -> None:
    rig = Rig()
    await rig(ASKED)
    assert (await rig.backend.usage()).entries == 1


async def test_questions_go_with_their_model_and_their_tenant() -> None:
    rig = Rig(durable=True)
    await rig(ASKED, user="alice")
    tags = [entry.tags for _, entry in [pair async for pair in rig.backend.scan(tags=("user:alice",))]]
    assert [tag for tag in tags[0] if not tag.startswith("semantic:")] == ["provider:p", "model:m", "user:alice"]


async def test_planted_questions_are_passed_over() -> None:
    store = Scanned()
    await Rig(store, durable=True)(ASKED)
    async for key, entry in store.scan():
        if key.startswith("semantic:"):
            await store.put(key, b"\x80\x04K\x01.", ttl=60, tags=entry.tags)
    fresh = Rig(store, durable=True)
    assert not (await fresh(AGAIN)).cached
    assert fresh.stats.skipped == 0


async def test_conversations_whose_questions_were_read_are_bounded() -> None:
    rig = Rig(durable=True)
    known = rig.layer._known  # pyright: ignore[reportPrivateUsage]
    known.update({str(number): None for number in range(10_000)})
    await rig(ASKED)
    assert (len(known), "0" in known, "1" in known) == (10_000, False, True)


class Scanned(InMemoryCache):
    """Counts how often it is read through."""

    scans = 0

    def scan(self, **which: Any) -> Any:
        self.scans += "tags" in which
        return super().scan(**which)


class Broken(InMemoryCache):
    """Fails in all that it is told to fail in."""

    failing: frozenset[str] = frozenset()

    def _meet(self, doing: str) -> None:
        if doing in self.failing:
            raise OSError(f"no {doing}")

    async def get(self, key: str) -> Any:
        self._meet("get")
        return await super().get(key)

    async def put(self, key: str, value: bytes, **options: Any) -> None:
        self._meet("put")
        await super().put(key, value, **options)

    def scan(self, **which: Any) -> Any:
        self._meet("scan")
        return super().scan(**which)


@pytest.mark.parametrize("doing", ["get", "put", "scan"])
async def test_a_broken_backend_costs_no_call_its_answer(doing: str) -> None:
    store = Broken()
    rig = Rig(store, durable=True)
    await rig(ASKED)
    store.failing = frozenset({doing})
    assert (await rig(AGAIN, user="bob" if doing != "get" else None)).content
    assert rig.stats.skipped == 1


# --- what is compared ------------------------------------------------------------------------------------------------

SYSTEM: Final = Message(MessageRole.SYSTEM, "Be brief.")
TOOL: Final = ToolDefinition("look")


def asks(messages: Any, **options: Any) -> str | None:
    asked = comparable(LLMRequest(messages, model="m", **options), "p", TERMS)
    return None if asked is None else asked.text


def test_texts_are_compared_whole_or_in_parts() -> None:
    assert asks(ASKED) == ASKED
    parts = (TextPart("one"), CachePoint(), TextPart("two"))
    assert asks([SYSTEM, Message(MessageRole.USER, parts)]) == "one\ntwo"
    assert asks(ASKED, temperature=1.0, stream=True, metadata={"a": 1}, priority=2) == ASKED
    assert asks("x" * 2000) == "x" * 2000


@pytest.mark.parametrize(
    ("messages", "options"),
    [
        (ASKED, {"tools": [TOOL]}),
        (ASKED, {"tool_choice": "none"}),
        (ASKED, {"response_model": dict}),
        (ASKED, {"extra": {"logprobs": True}}),
        (ASKED, {"temperature": 1.1}),
        (ASKED, {"response_format": {"no": object()}}),
        (ASKED, {"cache": False}),
        (ASKED, {"cache": CachePolicy(refresh=True)}),
        (ASKED, {"cache": CachePolicy(ttl=0)}),
        ([Message(MessageRole.USER, ASKED), Message(MessageRole.ASSISTANT, "By")], {}),
        ([Message(MessageRole.USER, (TextPart(ASKED), ImagePart(url="https://a.example/b.png")))], {}),
        ("x" * 2001, {}),
        (" ", {}),
        ("half of a pair: \ud83d", {}),
    ],
)
def test_what_is_not_compared(messages: Any, options: dict[str, Any]) -> None:
    assert asks(messages, **options) is None


def test_streams_are_compared_only_where_they_are_cached() -> None:
    request = LLMRequest(ASKED, model="m", stream=True)
    assert comparable(request, "p", TERMS) is not None
    assert comparable(request, "p", TERMS._replace(streams=False)) is None


def test_only_what_is_asked_the_same_way_by_the_same_tenant_is_one_group() -> None:
    request = LLMRequest([SYSTEM, Message(MessageRole.USER, ASKED)], model="m", user="alice")
    base = comparable(request, "p", TERMS)
    assert base is not None
    alike = replace(request, messages=(SYSTEM, Message(MessageRole.USER, AGAIN)), stream=True, priority=5, timeout=9.0)
    same = comparable(alike, "p", TERMS)
    assert same is not None
    assert (same.base, same.group) == (base.base, base.group)
    assert same.key != base.key
    others = [
        comparable(replace(request, **change), "p", TERMS)
        for change in (
            {"user": "bob"}, {"user": None}, {"model": "n"}, {"temperature": 0.5}, {"top_p": 0.5},
            {"max_tokens": 5}, {"stop": ("x",)}, {"seed": 1}, {"response_format": "json_object"},
            {"reasoning_effort": "low"}, {"cache": CachePolicy(scope="user")},
            {"messages": (Message(MessageRole.USER, ASKED),)},
            {"messages": (Message(MessageRole.SYSTEM, "Be long."), Message(MessageRole.USER, ASKED))},
            {"messages": (SYSTEM, Message(MessageRole.USER, ASKED, name="al"))},
        )
    ]  # fmt: skip
    more = [comparable(request, "q", TERMS), comparable(request, "p", TERMS._replace(model="q/vectors"))]
    bases = {each.base for each in (base, *others, *more) if each is not None}
    assert len(bases) == 1 + len(others) + len(more)


def test_other_numbers_are_another_group_of_the_same_conversation() -> None:
    one, other = (comparable(LLMRequest(f"Take {n} pills?", model="m"), "p", TERMS) for n in (2, 20))
    assert one is not None
    assert other is not None
    assert one.base == other.base
    assert one.group != other.group
