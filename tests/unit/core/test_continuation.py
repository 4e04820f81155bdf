"""A stream that breaks in the middle goes on where the caller asked so: by whom, how often, and what is told of it."""

# ruff: noqa: ANN401 - scripts and options as they come
from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from llm import LLMManager, LLMRequest, TokenUsage, register_provider
from llm.core.choices import Continuation
from llm.core.exceptions import (
    LLMConnectionError,
    LLMContentFilterError,
    LLMException,
    LLMInvalidRequestError,
    LLMServerError,
    LLMStreamInterruptedError,
    LLMTimeoutError,
)
from llm.core.types import StreamChunk
from llm.testing import FakeClock, FakeProvider

if TYPE_CHECKING:
    from llm import LLMStream
    from llm.core.protocols import Provider, ProviderSettings


def cut() -> LLMStreamInterruptedError:
    return LLMStreamInterruptedError("cut")


class Bench:
    """Providers `a`, `b` and `c`, each with a script; the alias `both` goes to `a`, then `b`."""

    def __init__(self) -> None:
        self.clock = FakeClock(auto=True)
        self.doubles: dict[str, FakeProvider] = {}

    def says(self, name: str, *answers: Any, **options: Any) -> None:
        self.doubles[name] = FakeProvider(answers, clock=self.clock, **options)

    def open(self, **sections: Any) -> Any:
        providers = {
            name: {"type": "carrying", "api_keys": [f"sk-of-{name}-012345"], "models": [f"m{name}"]}
            for name in self.doubles
        }
        config: dict[str, Any] = {
            "providers": providers,
            "retry": {"max_attempts": 1},
            "aliases": {"all": {"targets": [f"{name}/m{name}" for name in self.doubles]}},
            **sections,
        }
        return LLMManager.open(config, clock=self.clock)

    def asked(self, name: str) -> list[LLMRequest]:
        return self.doubles[name].requests

    def leaks(self) -> list[int]:
        return [double.in_flight + double.open_streams for double in self.doubles.values()]


@pytest.fixture
def bench() -> Bench:
    made = Bench()

    def carrying(settings: ProviderSettings) -> Provider:
        return made.doubles[settings.name]

    register_provider("carrying", carrying)
    return made


def ask(manager: LLMManager, **options: Any) -> LLMStream:
    asked: dict[str, Any] = {"model": "all", "continue_stream": True, **options}
    return manager.get_client().stream_complete("tell me", **asked)


async def test_the_next_target_goes_on_from_the_text_so_far_and_the_response_says_so(bench: Bench) -> None:
    bench.says("a", ["Once ", "upon ", cut()])
    bench.says("b", ["a ", "time"])
    prices = {"ma": {"input": 1e6, "output": 1e6}, "mb": {"input": 1e3, "output": 1e3}}
    async with bench.open(prices=prices) as manager:
        stream = ask(manager, max_tokens=100)
        response = await stream.response()
        status = manager.get_status()
    assert (response.content, stream.text) == ("Once upon a time", "Once upon a time")
    assert (response.provider, response.model, response.finish_reason) == ("a", "ma", "stop")
    [went_on] = response.continued
    assert went_on == Continuation(10, "b", "mb", went_on.key)
    assert went_on.key not in {None, response.key}
    assert response.attempts == 2
    [second] = bench.asked("b")
    assert [(turn.role, turn.text) for turn in second.messages[:2]] == [
        ("user", "tell me"),
        ("assistant", "Once upon "),
    ]
    assert second.messages[2].role == "user"  # some vendors refuse a conversation that ends with the assistant's turn
    assert "broke off" in second.messages[2].text
    assert second.max_tokens == 98
    # Of the part that broke, what came is counted; of the other, what it told.
    assert response.usage.output_tokens == 3 + 2
    assert response.usage.input_tokens > 4
    assert response.cost is not None
    assert 3.0 < response.cost < response.usage.total_tokens
    metrics = status["metrics"]
    assert (metrics["total_requests"], metrics["successful_requests"], metrics["retries"]) == (1, 1, 1)
    assert {model: counted["requests"] for model, counted in metrics["models"].items()} == {"ma": 1}
    log = [(entry["event"], entry["detail"]) for entry in status["calls"][-1]["log"]]
    assert ("fell_back", "from a/ma to b/mb: LLMStreamInterruptedError") in log
    assert ("continued", "b/mb goes on at character 10") in log
    assert bench.leaks() == [0, 0]
    assert status["pool"]["calls"] == 0


async def test_a_call_with_one_target_asks_that_again(bench: Bench) -> None:
    bench.says("a", ["Once ", cut()], ["upon ", "a time"])
    async with bench.open() as manager:
        response = await ask(manager, model="ma").response()
        [entry] = manager.get_status()["calls"]
    assert response.content == "Once upon a time"
    events = [decision["event"] for decision in entry["log"]]
    assert events.count("ticketed") == 2  # the longer prompt has a ticket of its own
    assert [(part.at, part.provider, part.model) for part in response.continued] == [(5, "a", "ma")]
    assert bench.leaks() == [0]


async def test_it_goes_on_at_most_as_often_as_there_are_targets(bench: Bench) -> None:
    bench.says("a", ["1 ", cut()])
    bench.says("b", ["2 ", cut()], ["3 ", cut()], ["never"])
    async with bench.open() as manager:
        stream = ask(manager)
        with pytest.raises(LLMStreamInterruptedError) as caught:
            await stream.response()
    assert (caught.value.partial, stream.text) == ("1 2 3 ", "1 2 3 ")
    assert caught.value.attempts == 3
    assert bench.leaks() == [0, 0]


async def test_where_nobody_can_go_on_the_break_is_told_with_what_came(bench: Bench) -> None:
    bench.says("a", ["Once ", cut()])
    bench.says("b", LLMServerError("down"))
    bench.says("c", LLMContentFilterError("no"))
    async with bench.open() as manager:
        with pytest.raises(
            LLMStreamInterruptedError, match=r"could not be continued \(LLMContentFilterError\)"
        ) as caught:
            await ask(manager).response()
        metrics = manager.get_status()["metrics"]
    assert caught.value.partial == "Once "
    assert (metrics["failed_requests"], metrics["errors"]) == (1, {"LLMStreamInterruptedError": 1})
    assert bench.leaks() == [0, 0, 0]


async def test_a_stream_that_does_not_break_is_as_any_other(bench: Bench) -> None:
    bench.says("a", ["whole ", "answer"], ["whole ", "answer"])
    async with bench.open() as manager:
        with_it, without = await ask(manager).response(), await ask(manager, continue_stream=False).response()
    assert with_it.continued == ()
    assert (with_it.content, with_it.usage, with_it.model) == (without.content, without.usage, without.model)


async def test_a_break_before_any_text_is_asked_anew_as_it_was(bench: Bench) -> None:
    bench.says("a", [StreamChunk(), cut()])
    bench.says("b", ["all of it"])
    async with bench.open() as manager:
        response = await ask(manager, max_tokens=50).response()
    assert (response.content, response.continued[0].at) == ("all of it", 0)
    [asked] = bench.asked("b")
    assert (len(asked.messages), asked.max_tokens) == (1, 50)


@pytest.mark.parametrize(
    "pieces",
    [
        ["all", StreamChunk(finish_reason="stop"), cut()],
        [StreamChunk("one"), StreamChunk("other", index=1), cut()],
        ["text", LLMContentFilterError("no more")],
        ["text", LLMInvalidRequestError("no more")],
        ["text", LLMTimeoutError("over", phase="total")],
    ],
)
async def test_what_has_no_one_end_to_go_on_from_or_would_break_again_is_not_carried_on(
    bench: Bench, pieces: list[Any]
) -> None:
    bench.says("a", pieces)
    bench.says("b", ["never"])
    async with bench.open() as manager:
        with pytest.raises(LLMException, match=r"no more|over|cut"):
            await ask(manager).response()
    assert bench.asked("b") == []


async def test_a_stream_that_stalls_is_carried_on(bench: Bench) -> None:
    bench.says("a", ["Once ", ...])
    bench.says("b", ["upon"])
    async with bench.open() as manager:
        response = await ask(manager).response()
    assert (response.content, bench.clock.now() >= 60.0) == ("Once upon", True)


@pytest.mark.parametrize("names", ["a", "ab"], ids=["the same target", "the next"])
async def test_a_stream_that_stalls_is_carried_on_where_answers_are_kept_too(bench: Bench, names: str) -> None:
    bench.says("a", ["Hel", ...], "lo")
    if "b" in names:
        bench.says("b", "lo")
    async with bench.open(cache={}) as manager:
        response = await ask(manager).response()
        assert (response.content, [part.at for part in response.continued]) == ("Hello", [3])
    assert not any(bench.leaks())


async def test_a_stall_of_a_stream_that_several_calls_read_is_carried_on_for_each(bench: Bench) -> None:
    bench.says("a", ["Hel", ...])
    bench.says("b", *["lo"] * 2)
    async with bench.open(cache={}) as manager, asyncio.TaskGroup() as group:

        async def read(wait: float) -> str:
            await bench.clock.sleep(wait)
            return (await ask(manager).response()).content

        tasks = [group.create_task(read(wait)) for wait in (0.0, 5.0)]
    assert [task.result() for task in tasks] == ["Hello"] * 2
    assert len(bench.asked("a")) == 1
    assert not any(bench.leaks())


async def test_usage_that_a_broken_part_told_counts_and_an_unknown_price_leaves_the_cost_unknown(
    bench: Bench,
) -> None:
    told = StreamChunk(usage=TokenUsage(1000, 1))
    bench.says("a", [told, "eight ch", cut()])
    bench.says("b", ["!"])
    async with bench.open(prices={"ma": {"input": 1, "output": 1}}) as manager:
        response = await ask(manager).response()
    assert response.usage.input_tokens > 1000
    assert response.usage.output_tokens == 2 + 1
    assert response.cost is None


async def test_a_broken_part_that_several_calls_read_is_paid_for_by_the_one_that_asked(bench: Bench) -> None:
    bench.says("a", ["Hel", cut()], latency=1.0)
    bench.says("b", *["lo"] * 3)
    prices = {name: {"input": 1e6, "output": 1e6} for name in ("ma", "mb")}
    async with bench.open(cache={}, prices=prices) as manager, asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(manager).response()) for _ in range(3)]
    one, *others = [(task.result().usage.total_tokens, task.result().cost) for task in tasks]
    assert len(bench.asked("a")) == 1
    assert others[0] == others[1]
    assert one[0] > others[0][0]
    assert [cost for _, cost in (one, *others)] == [tokens for tokens, _ in (one, *others)]


async def test_no_part_is_kept_by_the_cache_nor_the_whole(bench: Bench) -> None:
    bench.says("a", *[["Once ", cut()]] * 2)
    bench.says("b", *[["upon"]] * 2)
    async with bench.open(cache={}) as manager:
        for _ in range(2):
            assert (await ask(manager).response()).content == "Once upon"
        assert manager.get_status()["cache"]["stored"] == 0


# --- ends ----------------------------------------------------------------------------------------------------------


async def test_it_never_goes_on_after_the_deadline(bench: Bench) -> None:
    bench.says("a", ["Once ", cut()])
    bench.says("b", ["upon"], latency=100.0)
    async with bench.open() as manager:
        with pytest.raises(LLMTimeoutError) as caught:
            await ask(manager, timeout=10.0).response()
        assert bench.clock.now() == pytest.approx(10.0)
        assert caught.value.phase == "total"
        assert manager.get_status()["pool"]["calls"] == 0
    assert bench.leaks() == [0, 0]


async def test_a_break_at_the_deadline_is_told_as_it_is(bench: Bench) -> None:
    bench.says("a", ["Once ", cut()])
    bench.says("b", ["never"])
    async with bench.open() as manager:
        stream = ask(manager, timeout=10.0)
        await anext(stream)
        bench.clock._now += 10.0  # pyright: ignore[reportPrivateUsage]  # before any timer is due
        with pytest.raises(LLMStreamInterruptedError):
            await stream.response()
    assert bench.asked("b") == []


@pytest.mark.parametrize("how", ["cancelled", "left", "freed", "closed"])
async def test_leaving_while_the_next_part_opens_leaves_nothing(bench: Bench, how: str) -> None:
    bench.says("a", ["Once ", cut()])
    bench.says("b", ["upon"], latency=100.0)
    async with bench.open() as manager:
        stream = ask(manager)
        reader = asyncio.create_task(stream.response())
        await bench.clock.sleep(1.0)
        assert len(bench.asked("b")) == 1
        if how == "cancelled":
            reader.cancel()
        elif how == "left":
            await stream.aclose()
        elif how == "freed":
            del stream
            reader.cancel()
        else:
            await manager.close(drain=0.0)
        await asyncio.wait([reader])
        assert reader.cancelled() == (how in {"cancelled", "freed"})
        if how == "closed":
            assert isinstance(reader.exception(), LLMConnectionError)
        gc.collect()
        assert manager.get_status()["pool"]["calls"] == 0
    assert bench.leaks() == [0, 0]


async def test_leaving_a_part_while_it_is_read_is_no_break(bench: Bench) -> None:
    bench.says("a", ["Once ", ...])
    bench.says("b", ["never"])
    async with bench.open() as manager:
        stream = ask(manager)
        reader = asyncio.create_task(stream.response())
        await bench.clock.sleep(1.0)
        await stream.aclose()
        with pytest.raises(LLMStreamInterruptedError):
            await reader
    assert bench.asked("b") == []
    assert bench.leaks() == [0, 0]


async def test_leaving_in_a_later_part_closes_it(bench: Bench) -> None:
    bench.says("a", ["Once ", cut()])
    bench.says("b", ["upon ", "a ", "time"])
    async with bench.open() as manager:
        async with ask(manager) as stream:
            assert [str(await anext(stream)) for _ in range(2)] == ["Once ", "upon "]
        assert manager.get_status()["pool"]["calls"] == 0
        assert manager.get_status()["metrics"]["cancelled_requests"] == 1
    assert bench.leaks() == [0, 0]


async def test_a_stream_that_nobody_reads_ends_at_its_deadline_and_asks_nobody(bench: Bench) -> None:
    bench.says("a", ["Once ", "upon"])
    bench.says("b", ["never"])
    async with bench.open() as manager:
        stream = ask(manager, timeout=10.0)
        await anext(stream)
        await bench.clock.sleep(11.0)
        assert manager.get_status()["pool"]["calls"] == 0
        with pytest.raises(LLMTimeoutError):
            await stream.response()
    assert bench.asked("b") == []
    assert bench.leaks() == [0, 0]


async def test_a_slow_reader_with_nothing_waiting_is_not_taken_for_gone(bench: Bench) -> None:
    bench.says("a", ["Once ", "upon"])
    async with bench.open() as manager:
        stream = ask(manager)
        await anext(stream)
        stream.watch(bench.clock, idle=5.0, deadline=None)
        await bench.clock.sleep(20.0)
        assert (await stream.response()).content == "Once upon"


# --- what it does not go with --------------------------------------------------------------------------------------


class Fits(BaseModel):
    n: int


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"stream": False}, "no stream; call stream_complete"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "with tools"),
        ({"response_model": Fits}, "with response_model"),
        ({"response_format": "json_object"}, "with response_format"),
        ({"continue_stream": 1}, "expected True or False"),
    ],
)
def test_what_cannot_be_put_together_of_parts_is_refused_by_name(options: dict[str, Any], told: str) -> None:
    asked: dict[str, Any] = {"stream": True, "continue_stream": True, **options}
    with pytest.raises(LLMInvalidRequestError, match=told):
        LLMRequest("x", **asked)


async def test_a_whole_answer_may_be_gathered_from_a_stream_that_is_carried_on(bench: Bench) -> None:
    bench.says("a", ["Once ", cut()], ["upon"])
    request = LLMRequest("x", model="ma", stream=True, continue_stream=True, response_format="text")
    async with bench.open() as manager:
        assert (await manager.get_client().request(request)).content == "Once upon"
