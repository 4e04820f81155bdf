"""What a dry run counts of a file's rows, and what it leaves alone."""

# ruff: noqa: ANN401 - what a row may hold
from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import pytest

from llm import LLMAuthenticationError, LLMManager
from llm.batch.forecast import Forecast, forecast
from llm.batch.values import CHAT, EMBEDDINGS, BadRow, Row
from llm.core.keys import KeyState
from llm.testing import FakeClock, MockUpstream
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from llm.utils.clock import Clock

MINI, LARGE = "gpt-4o-mini", "gpt-4o"
TEXT = "what is the answer to this question?"  # nine tokens, by four characters


def row(number: int, text: str = TEXT, *, url: str = CHAT, **body: Any) -> Row:
    given = {"messages": [{"role": "user", "content": text}]} if url == CHAT else {"input": text}
    return Row(number, f"row-{number}", url, {**given, **body}, number + 1)


async def portions_of(rows: Sequence[Row | BadRow], size: int = 3) -> AsyncIterator[Sequence[Row | BadRow]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


class Desk:
    """A server, and a manager that knows it."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Any = clock or FakeClock()
        self.up = MockUpstream(clock=self.clock)

    def open(
        self,
        *,
        models: Sequence[str] = (MINI,),
        of_keys: Sequence[Any] = ({},),
        keys: Sequence[str] = ("k",),
        **more: Any,
    ) -> Any:
        section: dict[str, Any] = {"base_url": self.up.base_url, "api_keys": list(keys), "models": list(models)}
        config = {"providers": {"openai": {**section, "rate_limits": list(of_keys)}}, **more}
        return LLMManager.open(config, transport=self.up.transport(), clock=self.clock)

    async def tell(
        self,
        manager: LLMManager,
        *rows: Row | BadRow,
        default_model: str | None = None,
        finished: Callable[[str | int], bool] | None = None,
        provider: str | None = None,
    ) -> Forecast:
        return await forecast(
            manager,
            portions_of(rows),
            concurrency=8,
            provider=provider,
            default_model=default_model,
            finished=finished,
            clock=self.clock,
        )


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_rows_tokens_and_dollars_are_told_by_model_and_nothing_is_sent(desk: Desk) -> None:
    prices = {MINI: {"input": 1.0, "output": 2.0}, LARGE: {"input": 10.0, "output": 20.0}}
    async with desk.open(models=[MINI, LARGE], prices=prices) as manager:
        told = await desk.tell(
            manager,
            row(0, model=MINI, max_tokens=100),
            row(1, model=LARGE, max_tokens=50),
            row(2, model=MINI, max_tokens=1),
        )
    assert desk.up.requests == []
    assert told.as_json() == {
        "rows": 3,
        "invalid_rows": 0,
        "cache_hits": 0,
        "input_tokens": 27,
        "output_tokens": 151,
        "cost": pytest.approx((18 + 202 + 90 + 1000) / 1e6),
        "seconds": 0.01,
        "models": {
            MINI: {"rows": 2, "input_tokens": 18, "output_tokens": 101, "cost": pytest.approx(220e-6)},
            LARGE: {"rows": 1, "input_tokens": 9, "output_tokens": 50, "cost": pytest.approx(1090e-6)},
        },
    }
    assert told.bases == {"max_tokens": 3}


async def test_rows_that_cannot_be_sent_are_invalid_each_for_its_reason(desk: Desk) -> None:
    limits = [{"tokens_per_minute": 1000}]
    async with desk.open(of_keys=limits) as manager:
        told = await desk.tell(
            manager,
            row(0, model=MINI),
            BadRow(1, 2, None, "invalid_json", "no JSON"),
            row(2, model="unheard-of"),
            row(3, model=MINI, max_tokens=1001),
            Row(4, "row-4", CHAT, {"model": MINI}),
            row(0, model=MINI),
        )
    assert (told.rows, told.invalid_rows, told.models[MINI].rows) == (6, 5, 1)
    assert told.invalid == {"invalid_json": 1, "invalid_request": 2, "too_large": 1, "duplicate_custom_id": 1}


async def test_rows_that_an_earlier_run_has_done_are_in_no_other_number(desk: Desk) -> None:
    async with desk.open() as manager:
        done: set[str | int] = {"row-0", "row-2", 5, 7}  # a bad row's name is its line, or its place from 1
        bad = BadRow(4, 5, "bad", "invalid_url", "no such path")
        made = replace(bad, order=6, line=None)
        rows = [row(number, model=MINI) for number in range(4)]
        told = await desk.tell(manager, *rows, bad, made, finished=done.__contains__)
    assert (told.rows, told.finished_rows, told.invalid_rows, told.models[MINI].rows) == (2, 4, 0, 2)


async def test_rows_that_the_cache_answers_cost_nothing_and_looking_is_no_use_of_it(desk: Desk) -> None:
    async with desk.open(cache={"backend": "memory"}, prices={MINI: {"input": 1.0, "output": 1.0}}) as manager:
        await manager.get_client().complete(TEXT, model=MINI, max_tokens=10)
        await desk.clock.advance(0.1)
        before = manager.get_status()["cache"]
        told = await desk.tell(
            manager,
            row(0, model=MINI, max_tokens=10),
            row(1, "another", model=MINI, max_tokens=10),
            row(2, "another", model=MINI, max_tokens=10),
            row(3, "another", model=MINI, max_tokens=11),
            row(4, "another", model=MINI, max_tokens=10),
        )
        assert manager.get_status()["cache"] == before
    assert len(desk.up.requests) == 1
    assert (told.rows, told.cache_hits, told.models[MINI].rows) == (5, 3, 2)
    assert (told.input_tokens, told.output_tokens) == (4, 21)
    assert (told.saved.calls, told.saved.input_tokens, told.saved.output_tokens) == (3, 13, 30)
    assert told.saved.cost == pytest.approx(43e-6)


async def test_without_a_cache_each_row_is_sent_and_a_broken_one_answers_nothing(desk: Desk) -> None:
    twice = [row(0, model=MINI), row(1, model=MINI)]
    async with desk.open() as manager:
        assert (await desk.tell(manager, *twice)).cache_hits == 0
    redis = {"backend": "redis", "url": "redis://127.0.0.1:1/0"}  # where nothing listens
    async with desk.open(cache=redis) as manager:
        told = await desk.tell(manager, *twice)
    assert told.cache_hits == 1  # the one that repeats the other


async def test_rows_without_a_model_have_the_default_one_or_those_of_the_provider_in_turn(desk: Desk) -> None:
    rows = [row(number) for number in range(4)]
    async with desk.open(models=[MINI, LARGE]) as manager:
        assert set((await desk.tell(manager, *rows, default_model=LARGE)).models) == {LARGE}
        told = await desk.tell(manager, *rows)
        assert {name: model.rows for name, model in told.models.items()} == {MINI: 2, LARGE: 2}
        before = manager.parts.chains["openai"].pool.queue.choose_model()
    assert before == MINI  # no turn was taken


async def test_rows_without_a_model_go_where_they_fit(desk: Desk) -> None:
    limits = [{"tokens_per_minute": 100}, {"tokens_per_minute": 1000}]
    async with desk.open(models=[MINI, LARGE], keys=["k", "l"], of_keys=limits) as manager:
        told = await desk.tell(manager, *[row(number, max_tokens=500) for number in range(2)])
    assert {name: model.rows for name, model in told.models.items()} == {LARGE: 2}


async def test_a_provider_that_takes_any_model_needs_one_named(desk: Desk) -> None:
    async with desk.open(models=["*"]) as manager:
        told = await desk.tell(manager, row(0), row(1, model="some/model"))
    assert (told.invalid, list(told.models)) == ({"invalid_request": 1}, ["some/model"])


async def test_models_of_one_name_at_two_providers_are_told_apart(desk: Desk) -> None:
    section = {"type": "openai", "base_url": desk.up.base_url, "api_keys": ["k"], "models": [MINI]}
    config = {
        "providers": {"one": section, "other": {**section, "api_keys": ["l"]}},
        "global": {"default_provider": "one"},
    }
    async with LLMManager.open(config, transport=desk.up.transport(), clock=desk.clock) as manager:
        told = await desk.tell(manager, row(0, model=MINI), row(1, model=f"other/{MINI}"))
        assert list(told.models) == [f"one/{MINI}", f"other/{MINI}"]
        # who is asked by default may be said, as for a run
        told = await desk.tell(manager, row(0), row(1, model=MINI), row(2, model=f"one/{MINI}"), provider="other")
    assert {name: model.rows for name, model in told.models.items()} == {f"other/{MINI}": 2, f"one/{MINI}": 1}


async def test_embeddings_have_no_answer_in_words(desk: Desk) -> None:
    async with desk.open(models=["text-embedding-3-small", MINI]) as manager:
        told = await desk.tell(manager, row(0, url=EMBEDDINGS), row(1, url=EMBEDDINGS, model="text-embedding-3-small"))
    assert list(told.models) == ["text-embedding-3-small"]
    assert (told.input_tokens, told.output_tokens, told.bases) == (18, 0, {"none": 2})


async def test_a_model_without_a_price_is_named_and_counts_as_nothing(desk: Desk) -> None:
    async with desk.open(models=["home-made"]) as manager:
        told = await desk.tell(manager, row(0, model="home-made"))
    assert (told.cost, told.unpriced, told.models["home-made"].cost) == (0.0, ("home-made",), None)


async def test_nothing_is_taken_from_the_limits(desk: Desk) -> None:
    async with desk.open(of_keys=[{"requests_per_minute": 2, "tokens_per_minute": 100000}]) as manager:
        told = await desk.tell(manager, *[row(number, model=MINI) for number in range(20)])
        (key,) = manager.get_status()["providers"]["openai"]["keys"]
        assert set(key["models"][MINI].values()) == {0.0}
    assert told.seconds == pytest.approx(540.0, rel=0.01)
    assert (told.brakes[0].limit, len(told.brakes[0].keys)) == ("requests_per_minute", 1)


async def test_a_limit_per_day_that_is_too_small_is_said_with_how_far_it_reaches(desk: Desk) -> None:
    async with desk.open(of_keys=[{"requests_per_day": 5}]) as manager:
        told = await desk.tell(manager, *[row(number, model=MINI) for number in range(8)])
    assert told.refused_after == 5
    assert told.seconds == pytest.approx(86400.0, rel=0.01)


async def test_a_budget_in_dollars_counts_what_rows_cost(desk: Desk) -> None:
    prices = {MINI: {"input": 0.0, "output": 1000.0}}
    async with desk.open(prices=prices, limits={"global": {"cost_per_day": 1.0}}) as manager:
        told = await desk.tell(manager, *[row(number, "x" * 4000, model=MINI, max_tokens=400) for number in range(4)])
    assert told.refused_after == 2
    assert told.cost == pytest.approx(1.6)


async def test_that_no_key_is_left_is_an_error(desk: Desk) -> None:
    async with desk.open() as manager:
        manager.parts.chains["openai"].pool.queue.slots[0].key.refuse(
            LLMAuthenticationError("this key is gone"), state=KeyState.REJECTED
        )
        with pytest.raises(LLMAuthenticationError, match="no key of 'openai' is left"):
            await desk.tell(manager, row(0, model=MINI))


async def test_a_semantic_cache_is_said_to_be_left_out(desk: Desk) -> None:
    more: dict[str, Any] = {
        "cache": {"backend": "memory"},
        "features": {"semantic_cache": True},
        "semantic_cache": {"model": "openai/text-embedding-3-small"},
    }
    async with desk.open(models=[MINI, "text-embedding-3-small"], **more) as manager:
        told = await desk.tell(manager, row(0, model=MINI))
    assert told.semantic_cache


async def test_a_file_without_rows_takes_nothing(desk: Desk) -> None:
    async with desk.open() as manager:
        told = await desk.tell(manager)
    assert [getattr(told, each.name) for each in fields(Forecast)[:7]] == [0, 0, 0, 0, 0, 0, 0.0]
    assert told.notes() == []


async def test_limits_that_processes_share_are_rehearsed_as_this_one_knows_them(redis_server: Any) -> None:
    desk = Desk(SystemClock())
    with redis_server("valkey") as server:
        async with desk.open(
            of_keys=[{"requests_per_minute": 60, "algorithm": "token_bucket"}],
            limits={"store": "redis", "url": server.url},
        ) as manager:
            await manager.get_client().complete(TEXT, model=MINI)
            told = await desk.tell(manager, *[row(number, model=MINI) for number in range(79)])
    assert told.seconds == pytest.approx(20.0, abs=1.0)
