"""Questions that mean the same share an answer: through a manager, over sockets, with vectors of a server."""

# ruff: noqa: ANN401 - options as they come
from __future__ import annotations

import re
import zlib
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.steps import counted

from llm import CachePolicy, LLMManager, LLMRequest, LLMResponse, Message, MessageRole
from llm.testing import Fault, MockUpstream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from llm.core.client import LLMClient

VECTORS: Final = "text-embedding-3-small"
MODEL: Final = "gpt-4o-mini"
ASKED: Final = "How do I reset my password?"
AGAIN: Final = "How can I reset my password please?"
# What a model of meanings knows, and a bag of words does not.
SAME: Final = {"can": "do", "could": "do", "please": "", "change": "reset", "the": "", "whats": "what's", "i'd": "i"}


def meaning(text: str) -> tuple[float, ...]:
    """Return a bag of hashed words: texts with nearly the same words are alike, whatever their order."""
    bag = [0.0] * 256
    for word in re.findall(r"[\w']+", text.lower()):
        said = SAME.get(word, word)
        if said:
            bag[zlib.crc32(said.encode()) % len(bag)] += 1.0
    return tuple(bag)


def answer(request: LLMRequest) -> LLMResponse | str:
    if request.embed is not None:
        return LLMResponse(embeddings=tuple(map(meaning, request.embed.texts)))
    return f"answer to: {request.messages[-1].text}"


def config(url: str, **sections: Any) -> dict[str, Any]:
    return {
        "providers": {"openai": {"base_url": url, "api_keys": ["sk-one"], "models": [MODEL, "gpt-4o", VECTORS]}},
        "cache": {},
        "semantic_cache": {"model": f"openai/{VECTORS}", "threshold": 0.7},
        "features": {"semantic_cache": True},
        **sections,
    }


class Bench:
    """A manager before a server that makes vectors as well as answers."""

    def __init__(self, upstream: MockUpstream, manager: LLMManager) -> None:
        self.upstream = upstream
        self.manager = manager

    def client(self, **options: Any) -> LLMClient:
        return self.manager.get_client(model=f"openai/{MODEL}", **options)

    async def kept(self) -> None:
        """Wait until what is done beside the calls is done."""
        outbox: Any = self.manager._routes.outbox  # pyright: ignore[reportPrivateUsage]
        await outbox.drain()

    async def asks(self, text: str, ask: Callable[[str], Awaitable[LLMResponse]] | None = None) -> LLMResponse:
        response = await (ask or self.client().chat)(text)
        await self.kept()
        return response

    @property
    def questions(self) -> list[str]:
        """What came to the server, vectors left out."""
        return [
            request.body["messages"][-1]["content"] for request in self.upstream.requests if "input" not in request.body
        ]

    @property
    def vectors(self) -> list[str]:
        return [text for request in self.upstream.requests for text in request.body.get("input", ())]

    def cache(self) -> dict[str, Any]:
        counts: dict[str, Any] = self.manager.get_status()["cache"]
        return counts


@asynccontextmanager
async def bench(*, faults: Any = (), **sections: Any) -> AsyncGenerator[Bench]:
    async with (
        MockUpstream("openai", answer=answer, faults=faults) as upstream,
        LLMManager.open(config(upstream.base_url, **sections)) as manager,
    ):
        yield Bench(upstream, manager)


async def test_a_question_that_means_the_same_gets_the_answer_marked_counted_and_noted() -> None:
    async with bench() as it:
        first = await it.asks(ASKED)
        second = await it.asks(AGAIN)
        assert (first.cached, second.cached) == (False, True)
        assert (second.content, second.cost, second.attempts) == (f"answer to: {ASKED}", 0.0, 0)
        assert it.questions == [ASKED]
        assert it.vectors == [ASKED, AGAIN]
        counted = ("hits", "misses", "semantic_hits", "semantic_skipped", "stored")
        assert {name: it.cache()[name] for name in counted} == {
            "hits": 0, "misses": 3, "semantic_hits": 1, "semantic_skipped": 0, "stored": 3,
        }  # fmt: skip
        # Two vectors were paid for as calls of their own.
        metrics = it.manager.get_status()["metrics"]
        assert (metrics["total_requests"], metrics["cache"]["hits"]) == (4, 1)
        assert metrics["models"][VECTORS]["requests"] == 2


async def test_the_log_of_the_call_says_how_alike_the_questions_were() -> None:
    async with bench() as it:
        await it.asks(ASKED)
        route, request, hops = it.client().prepare(LLMRequest(AGAIN, model=f"openai/{MODEL}"))
        assert not hops
        await route.chain.call(request)
        assert request.call is not None
        (told,) = [each.detail for each in request.call.log if each.event == "similar"]
        assert re.fullmatch(r"0\.[89]\d+ like the question answered under [0-9a-f]{12}|1\.0000 like .*", told)


async def test_streams_and_whole_answers_serve_each_other_and_a_stream_comes_in_its_chunks() -> None:
    async with bench() as it:
        first = [str(chunk) async for chunk in it.client().stream_complete(ASKED)]
        await it.kept()
        assert (await it.asks(AGAIN)).cached
        stream = it.client().stream_complete("How could I reset my password?")
        assert [str(chunk) async for chunk in stream] == first
        assert len(first) > 2
        assert (await stream.response()).cached
        await it.kept()
        assert it.questions == [ASKED]
        assert it.cache()["semantic_hits"] == 2


async def test_what_was_answered_for_another_question_is_not_kept_as_the_answer_to_this_one() -> None:
    async with bench() as it:
        await it.asks(ASKED)
        await it.asks(AGAIN)
        [_ async for _ in it.client().stream_complete("How could I reset my password?")]
        await it.kept()
        parts: Any = it.manager._routes.parts  # pyright: ignore[reportPrivateUsage]
        backend = parts._layers._semantic_layers["openai"]._backend
        (kept,) = [key async for key, _ in backend.scan(tags=(f"model:{MODEL}",))]
        await backend.delete(kept)
        # The one answer is gone, and so for all that were like it; a fresh one takes its place.
        assert not (await it.asks(AGAIN)).cached
        assert it.questions == [ASKED, AGAIN]


async def test_the_same_words_are_made_a_vector_of_once() -> None:
    async with bench() as it:
        for model in (MODEL, "gpt-4o", MODEL, "gpt-4o"):
            await it.asks(ASKED, it.manager.get_client(model=f"openai/{model}").chat)
        assert it.vectors == [ASKED]
        assert it.questions == [ASKED, ASKED]


HISTORY: Final = (Message(MessageRole.USER, "Hi"), Message(MessageRole.ASSISTANT, "Yes?"))
OTHERS: Final[dict[str, Callable[[Bench], Awaitable[LLMResponse]]]] = {
    "another tenant": lambda it: it.client(user="bob").chat(AGAIN),
    "no tenant": lambda it: it.client().chat(AGAIN),
    "another model": lambda it: it.manager.get_client(model="openai/gpt-4o", user="alice").chat(AGAIN),
    "another system prompt": lambda it: it.client(user="alice").chat(AGAIN, system="Be brief."),
    "another history": lambda it: it.client(user="alice").chat(AGAIN, history=HISTORY),
    "sampling": lambda it: it.client(user="alice").chat(AGAIN, temperature=0.1),
    "a length": lambda it: it.client(user="alice").chat(AGAIN, max_tokens=50),
    "a format": lambda it: it.client(user="alice").chat(AGAIN, response_format="json_object"),
    "a scope of its own": lambda it: it.client(user="alice").chat(AGAIN, cache=CachePolicy(scope="user")),
    "no cache": lambda it: it.client(user="alice").chat(AGAIN, cache=False),
    "a refresh": lambda it: it.client(user="alice").chat(AGAIN, cache=CachePolicy(refresh=True)),
    "vendors' fields": lambda it: it.client(user="alice").chat(AGAIN, extra={"n": 1}),
    "a high temperature": lambda it: it.client(user="alice").chat(AGAIN, temperature=1.5),
}  # fmt: skip


@pytest.mark.parametrize("way", OTHERS)
async def test_nothing_is_shared_with(way: str) -> None:
    async with bench() as it:
        asked = it.client(user="alice")
        await it.asks(ASKED, asked.chat)
        assert not (await OTHERS[way](it)).cached
        await it.kept()
        assert it.questions == [ASKED, AGAIN]
        assert (await asked.chat("How could I reset my password?")).cached


ASKED_APART: Final = [
    ("Is it safe to take 2 of these pills a day?", "Is it safe to take 20 of these pills a day?"),
    ("Is it safe to take two of these pills?", "Is it safe to take twenty of these pills?"),
    ("Can I eat this with milk?", "Can I eat this without milk?"),
    ("Why is my account active?", "Why is my account not active?"),
    ("Why does the server start?", "Why doesn't the server start?"),
    ("Is ibuprofen safe for dogs?", "Is ibuprofen safe for cats?"),
    ("What is the capital of France?", "What is the capital of Germany?"),
    ("How do I convert euros to dollars?", "How do I convert dollars to euros?"),
    ("Does Alice owe Bob money?", "Does Bob owe Alice money?"),
    ("How do I enable the firewall?", "How do I disable the firewall?"),
    ("What happened in the market today?", "What happened in the market yesterday?"),
    ('What does "foo" mean here?', 'What does "bar" mean here?'),
    ("Summarise https://a.example/x please", "Summarise https://a.example/y please"),
    ("Is it legal to park here?", "Is it illegal to park here?"),
    ("When was the company founded there?", "Where was the company founded there?"),
]


@pytest.mark.parametrize(("one", "other"), ASKED_APART)
async def test_questions_that_only_look_alike_are_asked_apart(one: str, other: str) -> None:
    async with bench(semantic_cache={"model": f"openai/{VECTORS}", "threshold": 0.1}) as it:
        await it.asks(one)
        assert not (await it.asks(other)).cached
        assert it.questions == [one, other]


async def test_below_the_threshold_a_question_is_asked() -> None:
    async with bench(semantic_cache={"model": f"openai/{VECTORS}", "threshold": 0.99}) as it:
        await it.asks(ASKED)
        assert not (await it.asks("How do I reset my forgotten password quickly?")).cached


async def test_without_the_feature_or_the_cache_no_vector_is_made() -> None:
    for sections in ({"features": {"semantic_cache": False}}, {"cache": None}, {"cache": {"backend": "none"}}):
        async with bench(**sections) as it:
            await it.asks(ASKED)
            assert not (await it.asks(AGAIN)).cached
            assert it.vectors == []


async def test_a_reload_switches_it_on_and_off_and_what_it_knew_it_knows_again() -> None:
    async with bench() as it:
        await it.asks(ASKED)
        off = config(it.upstream.base_url, features={"semantic_cache": False})
        await it.manager.reload(off)
        assert not (await it.asks(AGAIN)).cached
        await it.manager.reload(config(it.upstream.base_url))
        assert (await it.asks("How could I reset my password?")).cached


async def test_a_server_that_makes_no_vectors_costs_no_call_its_answer() -> None:
    aliases = {"vectors": {"targets": [f"broken/{VECTORS}"]}}
    faults = [Fault("server_error", at=at) for at in range(1, 40)]
    async with MockUpstream("openai", faults=faults) as broken, MockUpstream("openai", answer=answer) as upstream:
        settings = config(upstream.base_url, aliases=aliases, semantic_cache={"model": "vectors"})
        settings["providers"]["broken"] = {
            "type": "openai", "base_url": broken.base_url, "api_keys": ["sk-two"], "models": [VECTORS],
        }  # fmt: skip
        settings["retry"] = {"max_attempts": 1}
        async with LLMManager.open(settings) as manager:
            it = Bench(upstream, manager)
            assert str(await it.asks(ASKED)) == f"answer to: {ASKED}"
            assert str(await it.asks(AGAIN)) == f"answer to: {AGAIN}"
            assert it.cache()["semantic_skipped"] == 2
            assert len(broken.requests) == 1  # the second time nobody asked: it rests


async def test_chains_of_ones_own_share_what_was_asked() -> None:
    async with bench() as it:
        await it.asks(ASKED)
        assert (await it.client(middleware=["rate_limit", "cache"]).chat(AGAIN)).cached
        assert not (await it.client(middleware=["rate_limit"]).chat(AGAIN)).cached


async def test_a_layer_makes_no_call_before_somebody_lends_it_a_client() -> None:
    async with bench() as it:
        parts: Any = it.manager._routes.parts  # pyright: ignore[reportPrivateUsage]
        parts.lend(None)
        with pytest.raises(RuntimeError, match="lent"):
            parts._layers._asked(LLMRequest("x"))
        assert not (await it.asks(ASKED)).cached
        assert it.cache()["semantic_skipped"] == 1


async def test_a_tenants_budget_pays_for_vectors() -> None:
    async with bench() as it:
        await it.asks(ASKED, it.client(user="alice").chat)
        assert it.manager.get_status()["users"]["alice"]["requests"] == 2


async def test_a_call_that_is_over_leaves_its_question_even_where_the_manager_closes_at_once() -> None:
    async with MockUpstream("openai", answer=answer) as upstream:
        async with LLMManager.open(config(upstream.base_url)) as manager:
            await manager.get_client(model=MODEL).chat(ASKED)
            parts: Any = manager._routes.parts  # pyright: ignore[reportPrivateUsage]
        assert len(parts._layers._questions) == 1


async def test_what_is_asked_in_other_words_again_and_again_is_answered_once() -> None:
    async with bench() as it:
        await it.asks(ASKED)
        client = it.client()
        hits: list[int] = []
        for _ in range(100):
            with counted() as steps:
                assert (await client.chat(AGAIN)).cached
            hits.append(steps.count)
        assert it.questions == [ASKED]
        assert min(hits[90:]) < 1.1 * min(hits[:10])  # nor does one make the next dearer


@pytest.mark.usefixtures("patient_cache")
@pytest.mark.parametrize("backend", ["disk", "redis"])
async def test_what_was_asked_before_a_restart_is_found_after_it(
    backend: str, tmp_path: Path, redis_server: Callable[[str], Any]
) -> None:
    async with MockUpstream("openai", answer=answer) as upstream:
        with redis_server("valkey") if backend == "redis" else nullcontext() as server:
            kept = {"path": str(tmp_path / "cache")} if server is None else {"url": server.url}
            settings = config(upstream.base_url, cache={"backend": backend, **kept})
            async with LLMManager.open(settings) as manager:
                await Bench(upstream, manager).asks(ASKED)
            async with LLMManager.open(settings) as manager:
                it = Bench(upstream, manager)
                assert (await it.asks(AGAIN)).cached
                assert it.questions == [ASKED]
            async with LLMManager.open(settings) as manager:
                it = Bench(upstream, manager)
                stream = it.client().stream_complete("How could I reset my password?")
                assert "".join([str(chunk) async for chunk in stream]) == f"answer to: {ASKED}"
                assert not (await it.asks(AGAIN, it.client(user="bob").chat)).cached
