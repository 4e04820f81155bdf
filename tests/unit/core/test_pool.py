"""One attempt through a key: settled by what was sent, learned from what came; clients kept, and made anew in time."""

# ruff: noqa: ANN401 - helpers hand on what a test gives them
from __future__ import annotations

import asyncio
from decimal import Decimal
from traceback import format_exception
from typing import TYPE_CHECKING, Any

import pytest

from llm import LLMManager, register_provider
from llm.core.call import Charge
from llm.core.exceptions import (
    LLMAuthenticationError,
    LLMConnectionError,
    LLMException,
    LLMInvalidRequestError,
    LLMPoolExhaustedError,
    LLMQuotaExceededError,
    LLMRateLimitError,
    LLMServerError,
    LLMTimeoutError,
)
from llm.core.stream import LLMStream
from llm.core.types import LLMRequest, LLMResponse, StreamChunk, TokenUsage
from llm.testing import FakeClock, FakeProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from llm import LLMClient
    from llm.core.protocols import Provider, ProviderSettings
    from llm.core.standing import HealthStatus

LIMITS = {"tokens_per_minute": 1000, "requests_per_minute": 10, "algorithm": "sliding_window"}


class Bench:
    """A manager whose provider has two keys, and the doubles that were made for each."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.make: Callable[[str], Provider] = lambda _: FakeProvider()
        self.made: dict[str, list[Any]] = {}
        self.manager: LLMManager

    async def open(
        self, *, keys: int = 2, models: list[str] | None = None, timeouts: dict[str, int] | None = None, **sections: Any
    ) -> None:
        def factory(settings: ProviderSettings) -> Provider:
            assert settings.key is not None
            name = settings.key.reveal()
            self.made.setdefault(name, []).append(self.make(name))
            made: Provider = self.made[name][-1]
            return made

        register_provider("fake", factory)
        section = {"api_keys": [f"k{i}" for i in range(keys)], "models": models or ["m"], "rate_limits": LIMITS}
        config = {"providers": {"fake": section}, "global": {"timeouts": timeouts or {}}, **sections}
        self.manager = await LLMManager.open(config, clock=self.clock)

    @property
    def once(self) -> LLMClient:
        """A client that makes one attempt."""
        return self.manager.get_client(middleware=["rate_limit"])

    def key(self, index: int) -> Any:
        return self.manager.get_status()["providers"]["fake"]["keys"][index]

    def taken(self, index: int, model: str = "m") -> Any:
        return self.key(index)["models"][model]

    async def run(self, work: Coroutine[Any, Any, Any], seconds: float = 0.0) -> Any:
        """Let so many seconds pass, then return what came of it."""
        task = asyncio.get_running_loop().create_task(work)
        await self.clock.advance(seconds)
        if not task.done():
            task.cancel()
            await self.clock.advance(0.0)
        return task.result()

    async def fails(self, work: Coroutine[Any, Any, Any], seconds: float = 0.0) -> LLMException:
        with pytest.raises(LLMException) as caught:
            await self.run(work, seconds)
        return caught.value


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.manager.close(0.0)


async def read(client: LLMClient, *, text: str = "hello", max_tokens: int = 10, **options: Any) -> str:
    async with client.stream_complete(text, max_tokens=max_tokens, **options) as stream:
        return "".join([str(chunk) async for chunk in stream])


async def ask(client: LLMClient, *, text: str = "hello", max_tokens: int = 10, **options: Any) -> str:
    return str(await client.chat(text, max_tokens=max_tokens, **options))


CALLS = pytest.mark.parametrize("call", [ask, read])

# --- settling ---------------------------------------------------------------------------------------------------------


@CALLS
async def test_what_was_certainly_not_sent_is_refunded_whole(bench: Bench, call: Any) -> None:
    bench.make = lambda _: FakeProvider([LLMConnectionError("no route", sent=False)])
    await bench.open()
    await bench.fails(call(bench.once, max_tokens=500))
    assert bench.taken(0) == {"tokens_per_minute": 0.0, "requests_per_minute": 0.0}
    assert bench.key(0)["calls"] == 0


PROMPT = "four" * 100


@CALLS
@pytest.mark.parametrize(
    ("error", "tokens"),
    [
        (
            LLMConnectionError("cut", sent=True),
            604,
        ),  # the prompt may be longer than estimated, the answer go on to its end
        (LLMServerError("a senseless answer", status=200), 100),
        (LLMServerError("down", status=500), 100),
        (LLMRateLimitError("slow down", status=429), 0),
        (LLMRateLimitError("slow down"), 0),
    ],
)
async def test_what_was_sent_in_vain_stays_charged_as_a_request_and_its_prompt_unless_the_provider_refused_it(
    bench: Bench, call: Any, error: LLMException, tokens: int
) -> None:
    bench.make = lambda _: FakeProvider([error])
    await bench.open()
    await bench.fails(call(bench.once, text=PROMPT, max_tokens=498))
    taken = bench.taken(0)
    assert (taken["tokens_per_minute"], taken["requests_per_minute"]) == (tokens / 1000, 0.1)


@CALLS
async def test_of_a_call_that_was_cancelled_upstream_its_key_keeps_what_the_provider_may_go_on_to_use(
    bench: Bench, call: Any
) -> None:
    bench.make = lambda _: FakeProvider(latency=60.0, clock=bench.clock)
    await bench.open()
    with pytest.raises(asyncio.CancelledError):
        await bench.run(call(bench.once, text=PROMPT, max_tokens=500), 30.0)
    # the prompt's hundred tokens were estimated, and nobody will ever say what they were
    assert bench.taken(0) == {"tokens_per_minute": 0.606, "requests_per_minute": 0.1}


@CALLS
async def test_an_answer_settles_to_what_was_used(bench: Bench, call: Any) -> None:
    await bench.open()
    await bench.run(call(bench.once, max_tokens=900))
    assert 0.0 < bench.taken(0)["tokens_per_minute"] < 0.02
    assert bench.taken(0)["requests_per_minute"] == 0.1


async def test_a_stream_that_was_left_settles_to_no_more_than_an_answer_of_the_usual_length(bench: Bench) -> None:
    bench.make = lambda _: FakeProvider("x" * 4000)
    await bench.open()

    async def leave() -> None:
        async with bench.once.stream_complete("hello", max_tokens=900) as stream:
            await anext(stream)

    await bench.run(leave())
    assert 0.5 < bench.taken(0)["tokens_per_minute"] < 0.55  # of 900 that were reserved
    assert bench.key(0)["calls"] == 0


# --- learning ---------------------------------------------------------------------------------------------------------


@CALLS
async def test_a_401_takes_only_that_key_out_and_calls_go_on_with_the_others(bench: Bench, call: Any) -> None:
    bench.make = lambda key: FakeProvider([LLMAuthenticationError("wrong key")] if key == "k0" else None)
    await bench.open()
    error = await bench.fails(call(bench.once))
    assert error.retryable
    assert (error.provider, error.model) == ("fake", "m")
    assert error.key == bench.key(0)["key"]
    assert [bench.key(i)["state"] for i in range(2)] == ["rejected", "available"]
    for _ in range(3):
        await bench.run(call(bench.once))
    assert [bench.made[key][0].calls for key in ("k0", "k1")] == [1, 3]


async def test_the_last_key_out_makes_the_failure_final(bench: Bench) -> None:
    bench.make = lambda _: FakeProvider([LLMAuthenticationError("wrong key")])
    await bench.open(keys=1)
    assert not (await bench.fails(ask(bench.once))).retryable
    assert isinstance(await bench.fails(ask(bench.once)), LLMAuthenticationError)
    assert bench.made["k0"][0].calls == 1


async def test_a_403_about_a_model_takes_only_that_pair_out(bench: Bench) -> None:
    def answer(request: LLMRequest) -> Any:
        return LLMAuthenticationError("not this model", model_only=True) if request.model == "a" else "yes"

    bench.make = lambda key: FakeProvider(answer if key == "k0" else None)
    await bench.open(models=["*", "*"])
    assert (await bench.fails(ask(bench.once, model="a"))).retryable
    assert bench.key(0)["state"] == "available"
    for _ in range(4):
        await bench.run(ask(bench.once, model="a"))
    assert [bench.made[key][0].calls for key in ("k0", "k1")] == [1, 4]
    for _ in range(2):
        await bench.run(ask(bench.once, model="b"))
    assert [bench.made[key][0].calls for key in ("k0", "k1")] == [2, 5]


async def test_credit_that_is_gone_takes_the_key_out_as_that(bench: Bench) -> None:
    bench.make = lambda key: FakeProvider([LLMQuotaExceededError("pay first")] if key == "k0" else None)
    await bench.open()
    assert (await bench.fails(ask(bench.once))).retryable
    assert [bench.key(i)["state"] for i in range(2)] == ["out_of_credit", "available"]


@CALLS
async def test_a_429_cools_only_its_account_and_the_others_are_used_at_once(bench: Bench, call: Any) -> None:
    refusal = LLMRateLimitError("slow down", retry_after=20.0)
    bench.make = lambda key: FakeProvider([refusal, "again"] if key == "k0" else None)
    await bench.open()
    assert (await bench.fails(call(bench.once))).retryable
    assert [bench.key(i)["cooling_seconds"] for i in range(2)] == [20.0, 0.0]
    assert [bench.key(i)["state"] for i in range(2)] == ["cooling", "available"]
    await bench.run(call(bench.once))
    await bench.run(call(bench.once))
    assert [bench.made[key][0].calls for key in ("k0", "k1")] == [1, 2]


async def test_a_429_cools_the_whole_quota_group(bench: Bench) -> None:
    bench.make = lambda key: FakeProvider([LLMRateLimitError("slow down", retry_after=20.0)] if key == "k0" else None)
    register_provider("fake", lambda _: FakeProvider())
    await bench.open(keys=3)
    await bench.manager.close()
    bench.made.clear()
    section = {
        "api_keys": ["k0", "k1", "k2"], "models": ["m"], "rate_limits": LIMITS, "quota_groups": ["one", "one", "two"],
    }  # fmt: skip
    bench.manager = await LLMManager.open({"providers": {"fake": section}}, clock=bench.clock)
    await bench.fails(ask(bench.once))
    assert [bench.key(i)["cooling_seconds"] for i in range(3)] == [20.0, 20.0, 0.0]


async def test_a_refusal_that_no_wait_helps_stays_final(bench: Bench) -> None:
    bench.make = lambda _: FakeProvider([LLMRateLimitError("larger than the limit", retryable=False)])
    await bench.open()
    assert not (await bench.fails(ask(bench.once))).retryable


async def test_a_stream_that_breaks_teaches_too(bench: Bench) -> None:
    bench.make = lambda _: FakeProvider([["some", " text", LLMRateLimitError("enough", retry_after=9.0)]])
    await bench.open()
    error = await bench.fails(read(bench.once))
    assert error.key == bench.key(0)["key"]
    assert bench.key(0)["cooling_seconds"] == 9.0


# --- health -----------------------------------------------------------------------------------------------------------


async def test_a_health_check_brings_a_rejected_key_back(bench: Bench) -> None:
    bench.make = lambda key: FakeProvider([LLMAuthenticationError("wrong key"), "back"] if key == "k0" else None)
    await bench.open()
    await bench.fails(ask(bench.once))
    bench.made["k0"][0].healthy = False
    assert (await bench.manager.health_check())["fake"].healthy  # by the other key
    assert bench.key(0)["state"] == "rejected"
    bench.made["k0"][0].healthy = True
    await bench.manager.health_check()
    assert bench.key(0)["state"] == "available"
    assert {await bench.run(ask(bench.once)) for _ in range(2)} == {"hello", "back"}


async def test_health_without_a_healthy_key_says_why_of_each(bench: Bench) -> None:
    class Broken(FakeProvider):
        async def health_check(self) -> HealthStatus:
            raise OSError("no route to the host")

    class Down(FakeProvider):
        async def health_check(self) -> HealthStatus:
            raise LLMServerError("it is down")

    bench.make = lambda key: Broken() if key == "k0" else Down()
    await bench.open()
    status = (await bench.manager.health_check())["fake"]
    assert not status.healthy
    assert "no route to the host" in str(status.error)
    assert "it is down" in str(status.error)


# --- clients ----------------------------------------------------------------------------------------------------------


async def test_recycling_never_closes_a_client_with_calls_in_flight(bench: Bench) -> None:
    bench.make = lambda _: FakeProvider(latency=50.0, clock=bench.clock)
    await bench.open(keys=1, pool={"max_lifetime": 100, "idle_timeout": 1000})
    await bench.clock.advance(90.0)
    long = asyncio.get_running_loop().create_task(ask(bench.once))
    await bench.clock.advance(20.0)
    short = asyncio.get_running_loop().create_task(ask(bench.once))
    await bench.clock.advance(20.0)
    old, new = bench.made["k0"]
    assert (old.in_flight, new.in_flight) == (1, 1)
    assert not old.closed
    await bench.clock.advance(10.0)
    assert await long == "hello"
    assert old.closed
    assert not new.closed
    await bench.clock.advance(20.0)
    assert await short == "hello"


async def test_an_idle_client_is_replaced_and_closed(bench: Bench) -> None:
    await bench.open(keys=1, pool={"idle_timeout": 30})
    await bench.run(ask(bench.once))
    await bench.clock.advance(30.0)
    await bench.run(ask(bench.once))
    old, new = bench.made["k0"]
    assert (old.closed, new.closed) == (True, False)


@CALLS
async def test_many_first_calls_initialise_once_and_after_a_failure_again(bench: Bench, call: Any) -> None:
    class Slow(FakeProvider):
        tried = 0

        async def initialize(self) -> None:
            self.tried += 1
            await bench.clock.sleep(1.0)
            if self.tried == 1:
                raise OSError("not yet")

    bench.make = lambda _: Slow()
    await bench.open(keys=1)
    error = await bench.fails(call(bench.once), 1.0)
    assert isinstance(error, LLMServerError)
    assert isinstance(error.__cause__, OSError)
    assert bench.taken(0)["requests_per_minute"] == 0.0
    tasks = [asyncio.get_running_loop().create_task(call(bench.once)) for _ in range(5)]
    await bench.clock.advance(1.0)
    assert [await task for task in tasks] == ["hello"] * 5
    assert bench.made["k0"][0].tried == 2


async def test_a_factory_that_fails_to_make_a_new_client_costs_that_call_only(bench: Bench) -> None:
    await bench.open(keys=1, pool={"idle_timeout": 30})
    await bench.clock.advance(30.0)

    def broken(_: str) -> Provider:
        raise OSError("too many open files")

    bench.make = broken
    error = await bench.fails(ask(bench.once))
    assert isinstance(error, LLMServerError)
    assert bench.taken(0)["requests_per_minute"] == 0.0
    assert bench.key(0)["calls"] == 0
    bench.make = lambda _: FakeProvider()
    assert await bench.run(ask(bench.once)) == "hello"


async def test_a_client_that_fails_as_it_is_closed_keeps_nothing_else_open(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    class Stuck(FakeProvider):
        async def close(self) -> None:
            await super().close()
            raise OSError("it is stuck")

    bench.make = lambda _: Stuck()
    await bench.open(keys=2, pool={"idle_timeout": 30})
    await bench.run(ask(bench.once))
    await bench.clock.advance(30.0)
    assert [await bench.run(ask(bench.once)) for _ in range(2)] == ["hello"] * 2
    await bench.manager.close()
    assert bench.manager.closed
    assert all(client.closed for of_key in bench.made.values() for client in of_key)
    assert {record.name for record in caplog.records if record.exc_info} == {"llm.keys"}


# --- time and foreign failures ----------------------------------------------------------------------------------------


async def test_a_stream_without_a_first_chunk_in_time_fails_as_that(bench: Bench) -> None:
    bench.make = lambda _: FakeProvider(latency=100.0, clock=bench.clock)
    await bench.open(timeouts={"first_token": 5, "attempt": 50})
    error = await bench.fails(read(bench.once), 5.0)
    assert isinstance(error, LLMTimeoutError)
    assert (error.phase, error.sent, error.retryable) == ("first_token", True, True)
    assert "timeouts.first_token" in str(error)
    assert bench.made["k0"][0].in_flight == 0


async def test_an_attempt_without_an_answer_in_time_fails_as_that(bench: Bench) -> None:
    bench.make = lambda _: FakeProvider(latency=100.0, clock=bench.clock)
    await bench.open(timeouts={"first_token": 5, "attempt": 50})
    error = await bench.fails(ask(bench.once), 50.0)
    assert isinstance(error, LLMTimeoutError)
    assert (error.phase, error.retryable) == ("total", True)
    assert "timeouts.attempt" in str(error)


@CALLS
@pytest.mark.parametrize("kind", [ValueError, TimeoutError])
async def test_a_foreign_failure_of_a_providers_code_is_ours_with_its_cause_and_not_repeated(
    bench: Bench, call: Any, kind: type[Exception]
) -> None:
    bench.make = lambda _: FakeProvider([kind("a bug")])
    await bench.open()
    error = await bench.fails(call(bench.manager.get_client()))
    assert isinstance(error, LLMServerError)
    assert isinstance(error.__cause__, kind)
    assert (error.retryable, error.attempts) == (False, 1)


@pytest.mark.parametrize("usage", [("5", "6"), (None, 5), (5, None)])
async def test_tokens_that_are_no_numbers_are_an_error_of_ours_and_hold_no_place(bench: Bench, usage: Any) -> None:
    bench.make = lambda _: FakeProvider([LLMResponse(content="hello", usage=TokenUsage(*usage)), "hello"])
    await bench.open(keys=1, pool={"max_size": 1})
    error = await bench.fails(ask(bench.once))
    assert isinstance(error, LLMServerError)
    assert isinstance(error.__cause__, TypeError)
    assert await bench.run(ask(bench.once)) == "hello"


@pytest.mark.parametrize("cost", ["0.1", Decimal("0.1")])
async def test_a_cost_that_is_no_number_of_python_is_an_error_of_ours(bench: Bench, cost: Any) -> None:
    bench.make = lambda _: FakeProvider([LLMResponse(content="hello", usage=TokenUsage(5, 6), cost=cost)])
    await bench.open(keys=1)
    error = await bench.fails(ask(bench.once))
    assert isinstance(error, LLMServerError)
    assert "return US dollars as a float" in error.message


@pytest.mark.parametrize("usage", [(-50, -50), (-50, 50), (float("nan"), 5)])
async def test_what_no_answer_takes_leaves_what_was_reserved(bench: Bench, usage: Any) -> None:
    bench.make = lambda _: FakeProvider([LLMResponse(content="hello", usage=TokenUsage(*usage))])
    await bench.open(keys=1)
    await bench.run(ask(bench.once, max_tokens=98))
    assert bench.taken(0)["tokens_per_minute"] == 0.1


class Miscounting(FakeProvider):
    """Fails as it says what an answer took."""

    def charge(self, request: LLMRequest, expected_output: int) -> Charge:  # noqa: ARG002 - the protocol's
        return Charge(10, expected_output, 10 + expected_output)

    def used(self, usage: TokenUsage) -> Charge:  # noqa: ARG002 - the protocol's
        raise ValueError("a bug")


async def test_an_answer_whose_provider_fails_to_count_it_is_an_error_of_ours(bench: Bench) -> None:
    bench.make = lambda _: Miscounting()
    await bench.open(keys=1)
    error = await bench.fails(ask(bench.once))
    assert isinstance(error, LLMServerError)
    assert isinstance(error.__cause__, ValueError)


async def test_a_stream_whose_provider_fails_to_count_it_gives_its_client_back(bench: Bench) -> None:
    bench.make = lambda _: Miscounting()
    await bench.open(keys=1, pool={"idle_timeout": 30})
    assert await bench.run(read(bench.once)) == "hello"
    assert bench.key(0)["calls"] == 0
    assert bench.taken(0)["tokens_per_minute"] == 0.02  # as reserved


async def test_a_provider_that_fails_to_say_what_a_call_takes_is_an_error_of_ours(bench: Bench) -> None:
    class Silent(Miscounting):
        def charge(self, request: LLMRequest, expected_output: int) -> Charge:  # noqa: ARG002 - the protocol's
            raise ValueError("a bug")

    bench.make = lambda _: Silent()
    await bench.open(keys=1)
    error = await bench.fails(ask(bench.once))
    assert isinstance(error, LLMServerError)
    assert isinstance(error.__cause__, ValueError)


# --- the pool alone ---------------------------------------------------------------------------------------------------


@CALLS
@pytest.mark.parametrize("answer", [None, "hi", {"content": "hi"}])
async def test_what_is_no_answer_of_ours_is_told_with_what_to_return(bench: Bench, call: Any, answer: object) -> None:
    class Careless(FakeProvider):
        async def complete(self, request: LLMRequest) -> Any:
            del request
            return answer

        stream = complete

    bench.make = lambda _: Careless()
    await bench.open()
    error = await bench.fails(call(bench.manager.get_client()))
    assert type(error) is LLMServerError
    assert "return an LLMResponse from complete" in error.message
    assert not error.retryable
    assert bench.manager.get_status()["pool"]["calls"] == 0


async def test_a_foreign_failure_in_the_middle_of_a_stream_is_ours_too(bench: Bench) -> None:
    class Source:
        id = model = ""

        def __init__(self) -> None:
            self.chunks = iter([StreamChunk("a")])

        async def __anext__(self) -> StreamChunk:
            for chunk in self.chunks:
                return chunk
            raise ZeroDivisionError("ours to tell")

        def waiting(self) -> bool:
            return False

        def close(self) -> None:
            pass

    class Failing(FakeProvider):
        async def stream(self, request: LLMRequest) -> LLMStream:
            del request
            return await LLMStream(Source()).begin()

    bench.make = lambda _: Failing()
    await bench.open()
    error = await bench.fails(read(bench.manager.get_client()))
    assert type(error) is LLMServerError
    assert "ZeroDivisionError: ours to tell" in error.message
    assert (error.provider, error.retryable) == ("fake", False)


class Telling(FakeProvider):
    """Tells its key wherever it fails."""

    def __init__(self, settings: ProviderSettings) -> None:
        super().__init__()
        self.key = "" if settings.key is None else settings.key.reveal()

    async def complete(self, request: LLMRequest) -> Any:
        del request
        raise RuntimeError(self.key)

    async def stream(self, request: LLMRequest) -> LLMStream:
        del request
        provider = self

        class Source:
            id = model = ""

            def __init__(self) -> None:
                self.begun = False

            async def __anext__(self) -> StreamChunk:
                if self.begun:
                    raise RuntimeError(provider.key)
                self.begun = True
                return StreamChunk("a")

            def waiting(self) -> bool:
                return False

            def close(self) -> None:
                pass

        return await LLMStream(Source()).begin()

    async def health_check(self) -> HealthStatus:
        raise RuntimeError(self.key)


async def test_a_provider_of_ones_own_that_tells_its_key_is_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    register_provider("telling", Telling)
    config = {"providers": {"telling": {"api_keys": ["planted.key.of.a.provider"], "models": ["m"]}}}
    async with LLMManager.open(config) as manager:
        client = manager.get_client()
        for call in (ask, read):
            with pytest.raises(LLMServerError, match="the provider's code failed with RuntimeError") as failed:
                await call(client)
            assert "planted" not in "".join(format_exception(failed.value))
        assert "planted" not in repr(await manager.health_check()) + repr(manager.get_status()) + caplog.text


async def test_a_health_that_is_none_is_told(bench: Bench) -> None:
    class Careless(FakeProvider):
        async def health_check(self) -> Any:
            return True

    bench.make = lambda _: Careless()
    await bench.open(keys=1)
    health = (await bench.manager.health_check())["fake"]
    assert not health.healthy
    assert "health_check returned a bool; return a HealthStatus" in str(health.error)


@CALLS
async def test_without_rate_limit_in_the_chain_turns_and_counts_still_hold(bench: Bench, call: Any) -> None:
    await bench.open()
    client = bench.manager.get_client(middleware=[])
    for _ in range(2):
        await bench.run(call(client))
    assert [bench.made[key][0].calls for key in ("k0", "k1")] == [1, 1]
    error = await bench.fails(call(client, model="other"))
    assert isinstance(error, LLMInvalidRequestError)


async def test_no_more_than_max_size_calls_are_in_flight(bench: Bench) -> None:
    bench.make = lambda _: FakeProvider(latency=10.0, clock=bench.clock)
    await bench.open(pool={"max_size": 3, "acquire_timeout": 5})
    tasks = [asyncio.get_running_loop().create_task(ask(bench.once)) for _ in range(4)]
    await bench.clock.advance(1.0)
    assert sum(made[0].in_flight for made in bench.made.values()) == 3
    await bench.clock.advance(9.0)
    assert isinstance(tasks[3].exception(), LLMPoolExhaustedError)
    assert [await task for task in tasks[:3]] == ["hello"] * 3


async def test_what_takes_no_part_in_the_limits_gets_a_provider_of_a_key_that_is_left(bench: Bench) -> None:
    bench.make = lambda _: FakeProvider([LLMAuthenticationError("wrong key")])
    await bench.open()
    client = bench.manager.get_client()
    assert await client.count_tokens("some text") > 0
    with pytest.raises(LLMInvalidRequestError, match="there are: m"):
        await client.count_tokens("some text", model="other")
    for _ in range(2):
        await bench.fails(ask(bench.once))
    with pytest.raises(LLMAuthenticationError, match="no key of 'fake' is left for 'm': wrong key"):
        await client.count_tokens("some text")


class Counter(FakeProvider):
    """Counts as it is told, once it is open."""

    def __init__(self, says: int | Exception) -> None:
        super().__init__()
        self.says = says
        self.opened = 0
        self.asked = 0

    async def initialize(self) -> None:
        self.opened += 1

    async def count_tokens(self, request: LLMRequest) -> int:
        assert (self.opened, request.model) == (1, "m")
        self.asked += 1
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


async def test_counts_are_asked_by_turns_of_providers_that_are_open(bench: Bench) -> None:
    bench.make = lambda _: Counter(7)
    await bench.open(keys=3)
    assert [await bench.once.count_tokens("x") for _ in range(6)] == [7] * 6
    assert [bench.made[key][0].asked for key in ("k0", "k1", "k2")] == [2, 2, 2]
    assert bench.taken(0)["requests_per_minute"] == 0.0


@pytest.mark.parametrize(
    ("error", "state"),
    [(LLMAuthenticationError("no"), "rejected"), (LLMQuotaExceededError("no"), "out_of_credit")],
)
async def test_a_key_that_is_refused_a_count_leaves_and_the_next_one_is_asked(
    bench: Bench, error: LLMException, state: str
) -> None:
    bench.make = lambda name: Counter(error if name == "k0" else 7)
    await bench.open()
    assert [await bench.once.count_tokens("x") for _ in range(3)] == [7] * 3
    assert [bench.made[key][0].asked for key in ("k0", "k1")] == [1, 3]
    assert [bench.key(index)["state"] for index in (0, 1)] == [state, "available"]
    bench.made["k1"][0].says = error
    for _ in range(2):
        with pytest.raises(type(error), match="no key of 'fake' is left for 'm': no"):
            await bench.once.count_tokens("x")
    assert bench.made["k1"][0].asked == 4


async def test_a_model_that_a_key_may_not_use_is_counted_by_another(bench: Bench) -> None:
    bench.make = lambda name: Counter(LLMAuthenticationError("not yours", model_only=True) if name == "k0" else 7)
    await bench.open()
    assert await bench.once.count_tokens("x") == 7
    assert bench.key(0)["state"] == "available"
    assert [await bench.once.count_tokens("x") for _ in range(2)] == [7, 7]
    assert bench.made["k0"][0].asked == 1


@pytest.mark.parametrize("error", [KeyError("of a provider's own"), LLMConnectionError("no route")])
async def test_a_count_that_fails_is_an_error_of_ours_that_says_where(bench: Bench, error: Exception) -> None:
    bench.make = lambda _: Counter(error)
    await bench.open()
    with pytest.raises(LLMException) as caught:
        await bench.once.count_tokens("x")
    failure = caught.value
    assert isinstance(failure, LLMServerError if isinstance(error, KeyError) else LLMConnectionError)
    assert (failure.provider, failure.model, failure.key) == ("fake", "m", bench.key(0)["key"])
    assert bench.key(0)["state"] == "available"


async def test_a_client_that_idled_too_long_is_made_anew_for_a_count_too(bench: Bench) -> None:
    bench.make = lambda _: Counter(7)
    await bench.open(keys=1, pool={"idle_timeout": 10, "health_check_interval": 10_000})
    await bench.once.count_tokens("x")
    await bench.clock.advance(11)
    await bench.once.count_tokens("x")
    assert [made.asked for made in bench.made["k0"]][-1] == 1
    assert len(bench.made["k0"]) == 2


async def test_a_request_that_came_past_the_client_is_refused(bench: Bench) -> None:
    await bench.open()
    pool = bench.manager.get_client().prepare(LLMRequest("x"))[0].chain.pool
    with pytest.raises(LLMInvalidRequestError, match="through a client"):
        await pool(LLMRequest("x", model="m"))
