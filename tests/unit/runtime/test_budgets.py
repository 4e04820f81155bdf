"""Whose limits refuse, whose wait, for how long to the second, and what of them comes back."""

# ruff: noqa: ANN401 - options as they come
from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import pytest

from llm import LLMException, LLMInvalidRequestError, LLMManager, LLMRateLimitError, LLMRequest
from llm.testing import FakeClock, Fault, MockUpstream

if TYPE_CHECKING:
    from llm import LLMClient

MODEL = "gpt-4o-mini"
DAY = 86_400.0
GUARD = 0.1  # seconds that our view stays behind the vendor's

# Each call takes 25 tokens of prompt and 75 of answer; OpenAI's rule reserves 75, the larger.
PROMPT, ANSWER, MOST = "four" * 25, "four" * 75, 75
PRICES = {MODEL: {"input": 100.0, "output": 200.0}}  # US dollars per million tokens
COST = (25 * 100 + 75 * 200) / 1e6

LEVELS = ("global", "user", "key")
THREE_CALLS = {
    "requests_per_day": 3,
    "tokens_per_day": 300,
    "input_tokens_per_day": 75,
    "output_tokens_per_day": 225,
    "cost_per_day": 3 * COST,
}


def stated(level: str, **limits: Any) -> dict[str, Any]:
    """Return the sections that state limits at a level."""
    match level:
        case "global":
            return {"limits": {"global": limits}}
        case "user":
            return {"limits": {"users": {"default": limits}}}
        case _:
            return {"rate_limits": limits}


class Bench:
    """A manager on a virtual clock, in front of a mock without a socket."""

    def __init__(self, answer: str = ANSWER, **upstream: Any) -> None:
        def say(_: LLMRequest) -> str:
            return answer

        self.clock = FakeClock()
        self.upstream = MockUpstream("openai", clock=self.clock, answer=say, **upstream)

    def open(self, **sections: Any) -> Any:
        return LLMManager.open(self.config(**sections), transport=self.upstream.transport(), clock=self.clock)

    def config(self, *, keys: int = 1, rate_limits: Any = (), **sections: Any) -> dict[str, Any]:
        provider: dict[str, Any] = {
            "base_url": "http://upstream.test/v1",
            "api_keys": [f"sk-test-{i}" for i in range(keys)],
            "models": [MODEL, "my-own-model"] if "prices" in sections and not sections["prices"] else [MODEL],
            "rate_limits": rate_limits,
        }
        config: dict[str, Any] = {"providers": {"openai": provider}, "prices": PRICES, **sections}
        config["pool"] = {"health_check_interval": 3600}
        config["retry"] = {"max_attempts": 1}
        return config

    async def ask(self, client: LLMClient) -> str:
        """Make a call, which ends at once or waits for the clock."""
        task = asyncio.get_running_loop().create_task(client.chat(PROMPT, max_tokens=MOST))
        await self.clock.advance(0.0)
        if not task.done():
            task.cancel()
            await self.clock.advance(0.0)
        return str(task.result())

    async def refused(self, client: LLMClient) -> LLMRateLimitError:
        sent = len(self.upstream.requests)
        with pytest.raises(LLMRateLimitError) as caught:
            await self.ask(client)
        assert len(self.upstream.requests) == sent
        return caught.value

    async def seconds(self, client: LLMClient) -> float:
        """Return for how long a call is refused."""
        seconds = (await self.refused(client)).retry_after
        assert seconds is not None
        return seconds


def levels(manager: LLMManager) -> dict[str, Any]:
    """Return how full every limit of every level is."""
    status = manager.get_status()
    return {**status["limits"], "keys": [key["models"] for key in status["providers"]["openai"]["keys"]]}


# --- who refuses, and until when ------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("limit", list(THREE_CALLS))
async def test_a_budget_refuses_at_once_and_says_whose_which_and_to_the_second_until_when(
    level: str, limit: str
) -> None:
    bench = Bench()
    async with bench.open(**stated(level, **{limit: THREE_CALLS[limit]})) as manager:
        client = manager.get_client(user="alice")
        for _ in range(3):
            assert await bench.ask(client) == ANSWER
            await bench.clock.advance(1000.0)
        error = await bench.refused(client)
        assert (error.scope, error.limit, error.retryable, error.attempts) == (level, limit, False, 0)
        seconds = await bench.seconds(client)
        assert seconds == pytest.approx(DAY + GUARD - 3000.0, abs=0.001)
        await bench.clock.advance(seconds - 1.0)
        assert await bench.seconds(client) == pytest.approx(1.0, abs=0.001)
        await bench.clock.advance(1.0)
        assert await bench.ask(client) == ANSWER


async def test_a_budget_that_refills_says_when_it_has_enough_again() -> None:
    bench = Bench()
    async with bench.open(rate_limits={"requests_per_day": 24, "algorithm": "token_bucket"}) as manager:
        client = manager.get_client()
        for _ in range(24):
            await bench.ask(client)
        seconds = await bench.seconds(client)
        assert seconds == pytest.approx(3600.0 + GUARD, abs=0.001)
        await bench.clock.advance(seconds - 1.0)
        await bench.refused(client)
        await bench.clock.advance(1.0)
        assert await bench.ask(client) == ANSWER


async def test_the_key_whose_budget_has_room_first_says_until_when() -> None:
    bench = Bench()
    async with bench.open(keys=2, rate_limits={"requests_per_day": 1}) as manager:
        client = manager.get_client()
        await bench.ask(client)
        await bench.clock.advance(5000.0)
        await bench.ask(client)
        error = await bench.refused(client)
        assert (error.scope, error.limit) == ("key", "requests_per_day")
        assert error.retry_after == pytest.approx(DAY + GUARD - 5000.0, abs=0.001)


@pytest.mark.parametrize(("level", "advice"), [("user", "raise the limit"), ("key", "give more keys")])
async def test_a_refusal_says_what_helps_and_a_time_that_is_long_enough(level: str, advice: str) -> None:
    bench = Bench()
    async with bench.open(**stated(level, requests_per_day=1)) as manager:
        client = manager.get_client(user="alice")
        await bench.ask(client)
        message = (await bench.refused(client)).message
    assert message.startswith(f"requests_per_day of the {level} is used up")
    assert "86401 seconds" in message  # 86,400.1, rounded so that waiting so long is enough
    assert advice in message
    assert ("more keys" in message) == (level == "key")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("span", "seconds"), [("minute", 60.0), ("hour", 3600.0)])
@pytest.mark.parametrize(("unit", "amount"), [("requests", 1), ("tokens", 100), ("input_tokens", 25)])
async def test_shorter_limits_wait(level: str, span: str, seconds: float, unit: str, amount: int) -> None:
    bench = Bench()
    async with bench.open(**stated(level, **{f"{unit}_per_{span}": amount})) as manager:
        client = manager.get_client(user="alice")
        await bench.ask(client)
        waiting = asyncio.get_running_loop().create_task(client.chat(PROMPT, max_tokens=MOST))
        await bench.clock.advance(seconds - 1.0)
        assert not waiting.done()
        await bench.clock.advance(1.0 + GUARD + 0.01)
        assert str(waiting.result()) == ANSWER


async def test_what_can_never_fit_is_refused_with_the_limit_and_no_time_to_wait() -> None:
    bench = Bench()
    async with bench.open(**stated("user", tokens_per_day=74)) as manager:
        error = await bench.refused(manager.get_client(user="alice"))
        assert (error.scope, error.limit, error.retry_after) == ("user", "tokens_per_day", None)
        assert "75 total tokens" in error.message


# --- of one call --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
async def test_a_call_that_would_cost_more_than_its_budget_is_refused_before_it_is_sent(level: str) -> None:
    bench = Bench()
    async with bench.open(**stated(level, cost_per_call=COST)) as manager:
        client = manager.get_client(user="alice")
        for _ in range(5):
            assert await bench.ask(client) == ANSWER
        with pytest.raises(LLMRateLimitError) as caught:
            await client.chat(PROMPT, max_tokens=2 * MOST)
        error = caught.value
        assert (error.scope, error.limit, error.retry_after, error.retryable) == (level, "cost_per_call", None, False)
        assert f"needs {(25 * 100 + 2 * 75 * 200) / 1e6:g} US dollars" in error.message
        assert f"cost_per_call of the {level} is {COST:g}" in error.message
        assert "lower max_tokens" in error.message
        with pytest.raises(LLMRateLimitError, match="cost_per_call"):
            manager.explain(LLMRequest(PROMPT, user="alice", max_tokens=2 * MOST))
        assert len(bench.upstream.requests) == 5


async def test_a_call_goes_to_the_key_whose_budget_for_a_call_is_wide_enough() -> None:
    bench = Bench()
    limits = [{"cost_per_call": COST}, {"cost_per_call": 2 * COST}]
    async with bench.open(keys=2, rate_limits=limits) as manager:
        for _ in range(4):
            await manager.get_client().chat(PROMPT, max_tokens=MOST + 1)
        assert {record.key for record in bench.upstream.requests} == {"sk-test-1"}


@pytest.mark.parametrize("budget", ["cost_per_call", "cost_per_day"])
@pytest.mark.parametrize("level", LEVELS)
async def test_an_unknown_price_under_a_budget_is_refused_and_names_prices(level: str, budget: str) -> None:
    bench = Bench()
    async with bench.open(**stated(level, **{budget: 1.0}), prices={}) as manager:
        with pytest.raises(LLMInvalidRequestError, match="`prices:`"):
            await manager.get_client(user="alice").chat("hello", model="openai/my-own-model")
    assert bench.upstream.requests == []


async def test_a_budget_for_a_call_is_lowered_by_a_reload_also_for_who_waits() -> None:
    bench = Bench(service=10.0)
    narrow: Any = {"rate_limits": {"concurrent_requests": 1}}
    async with bench.open(**narrow, **stated("user", cost_per_call=1.0)) as manager:
        client = manager.get_client(user="alice")
        running, waiting = (
            asyncio.get_running_loop().create_task(client.chat(PROMPT, max_tokens=MOST)) for _ in range(2)
        )
        await bench.clock.advance(1.0)
        await manager.reload(bench.config(**narrow, **stated("user", cost_per_call=COST / 2)))
        await bench.clock.advance(20.0)
        assert str(running.result()) == ANSWER
        assert isinstance(waiting.exception(), LLMRateLimitError)


# --- together, or not at all --------------------------------------------------------------------------------------


@pytest.mark.parametrize("span", ["day", "minute"])
@pytest.mark.parametrize("tight", LEVELS)
async def test_what_one_level_refuses_or_lets_wait_takes_nothing_at_the_others(tight: str, span: str) -> None:
    bench = Bench()
    wide = {f"{unit}_per_{span}": 1000 for unit in ("requests", "tokens", "input_tokens")} | {"cost_per_day": 1.0}
    of = {level: wide | ({f"requests_per_{span}": 1} if level == tight else {}) for level in LEVELS}
    limits = {"global": of["global"], "users": {"default": of["user"]}}
    async with bench.open(keys=2, rate_limits={**of["key"]}, limits=limits) as manager:
        client = manager.get_client(user="alice")
        for _ in range(2 if tight == "key" else 1):
            await bench.ask(client)
        before = levels(manager)
        if span == "day":
            assert (await bench.refused(client)).scope == tight
        else:
            waiting = asyncio.get_running_loop().create_task(client.chat(PROMPT, max_tokens=MOST))
            await bench.clock.advance(1.0)
            assert not waiting.done()
            assert levels(manager) == before
            waiting.cancel()
            await bench.clock.advance(0.0)
        assert levels(manager) == before


async def test_asking_what_would_happen_takes_nothing() -> None:
    bench = Bench()
    async with bench.open(**stated("user", cost_per_day=1.0, requests_per_day=2)) as manager:
        before = levels(manager)
        assert manager.explain(LLMRequest(PROMPT, user="alice", max_tokens=MOST)).admitted
        assert [value for value in levels(manager)["user alice"].values() if value] == []
        assert levels(manager)["keys"] == before["keys"]


# --- users ----------------------------------------------------------------------------------------------------------


async def test_default_is_an_account_for_each_user_and_who_is_named_has_own_limits() -> None:
    bench = Bench()
    users = {"default": {"requests_per_day": 1}, "vip": {"requests_per_day": 2}}
    async with bench.open(limits={"users": users}) as manager:
        for user, calls in (("alice", 1), ("bob", 1), ("vip", 2)):
            for _ in range(calls):
                await bench.ask(manager.get_client(user=user))
            assert (await bench.refused(manager.get_client(user=user))).scope == "user"


async def test_a_call_without_a_user_pays_no_users_limit() -> None:
    bench = Bench()
    async with bench.open(**stated("user", requests_per_day=1)) as manager:
        for _ in range(3):
            await bench.ask(manager.get_client())
        assert levels(manager) == {"keys": [{MODEL: {}}]}


# --- what is reserved, and what comes back ----------------------------------------------------------------------------


def spent(manager: LLMManager) -> tuple[Any, Any, Any]:
    """Return requests, tokens and dollars that count for alice, as shares of 10, 1000 and 1."""
    of = manager.get_status()["limits"]["user alice"]
    return of["requests_per_day"], of["tokens_per_day"], of["cost_per_day"]


BUDGET = {"requests_per_day": 10, "tokens_per_day": 1000, "cost_per_day": 1.0}
DEAR = {MODEL: {"input": 1000.0, "output": 2000.0}}
PROMPT_COST = 25 * 1000 / 1e6


async def test_dollars_are_reserved_for_input_and_max_tokens_and_settle_to_the_real_cost() -> None:
    bench = Bench(service=10.0, answer="four" * 5)
    async with bench.open(limits={"users": {"default": BUDGET}}, prices=DEAR) as manager:
        client = manager.get_client(user="alice")
        running = asyncio.get_running_loop().create_task(client.chat(PROMPT, max_tokens=400))
        await bench.clock.advance(1.0)
        assert spent(manager) == (0.1, 0.4, pytest.approx(PROMPT_COST + 0.8))
        await bench.clock.advance(10.0)
        assert running.result().cost == pytest.approx(PROMPT_COST + 0.01)
        assert spent(manager) == (0.1, 0.03, pytest.approx(PROMPT_COST + 0.01))


async def test_without_max_tokens_dollars_are_reserved_for_what_the_models_answers_took_also_before_a_reload() -> None:
    bench = Bench(answer="four" * 40)
    async with bench.open(limits={"users": {"default": {"cost_per_day": 1000.0}}}, prices=DEAR) as manager:
        for _ in range(20):
            await manager.get_client().chat(PROMPT)
        await manager.reload(manager.config)
        parts: Any = manager._routes.parts  # pyright: ignore[reportPrivateUsage]
        request = LLMRequest(PROMPT, model=MODEL, user="alice")
        assert parts.chains["openai"].ticket(request, MODEL).charge.cost == pytest.approx(PROMPT_COST + 0.08)


async def test_a_call_that_is_cancelled_in_the_queue_gives_all_back() -> None:
    bench = Bench(service=10.0)
    limits = {"users": {"default": BUDGET}}
    async with bench.open(limits=limits, rate_limits={"concurrent_requests": 1}) as manager:
        running = asyncio.get_running_loop().create_task(manager.get_client().chat(PROMPT, max_tokens=MOST))
        await bench.clock.advance(1.0)
        waiting = asyncio.get_running_loop().create_task(manager.get_client(user="alice").chat(PROMPT))
        await bench.clock.advance(1.0)
        waiting.cancel()
        await bench.clock.advance(0.0)
        assert waiting.cancelled()
        assert spent(manager) == (0.0, 0.0, 0.0)
        await bench.clock.advance(10.0)
        assert str(running.result()) == ANSWER


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_that_is_cancelled_upstream_pays_its_request_and_its_prompt(*, stream: bool) -> None:
    bench = Bench(service=10.0)
    async with bench.open(limits={"users": {"default": BUDGET}}, prices=DEAR) as manager:
        client = manager.get_client(user="alice")
        work = client.stream_complete(PROMPT, max_tokens=400).begin() if stream else client.chat(PROMPT, max_tokens=400)
        task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(work)
        await bench.clock.advance(0.01)
        assert spent(manager)[2] == pytest.approx(PROMPT_COST + 0.8)
        task.cancel()
        await bench.clock.advance(0.0)
        assert task.cancelled()
        assert spent(manager) == (0.1, 0.025, pytest.approx(PROMPT_COST))


async def test_a_stream_that_is_left_pays_for_what_came() -> None:
    bench = Bench(service=10.0, answer="four" * 100)
    async with bench.open(limits={"users": {"default": BUDGET}}, prices=DEAR) as manager:
        stream = manager.get_client(user="alice").stream_complete(PROMPT, max_tokens=400)
        reading = asyncio.get_running_loop().create_task(anext(stream))
        await bench.clock.advance(1.0)
        assert str(reading.result()) == "fourfour"
        await stream.aclose()
        requests, tokens, dollars = spent(manager)
        output = round(tokens * 1000) - 25
        assert requests == 0.1
        assert 2 <= output <= 20
        assert dollars == pytest.approx(PROMPT_COST + output * 0.002)


@pytest.mark.parametrize(
    ("fault", "tokens"), [("server_error", 25), ("rate_limit", 0), ("invalid", 0), ("reset_before", 25)]
)
async def test_a_call_that_fails_pays_its_request_and_the_prompt_only_where_nobody_knows(
    fault: Any, tokens: int
) -> None:
    bench = Bench(faults=[Fault(fault, at=1)])
    async with bench.open(limits={"users": {"default": BUDGET}}, prices=DEAR) as manager:
        with pytest.raises(LLMException):
            await manager.get_client(user="alice", middleware=["rate_limit"]).chat(PROMPT, max_tokens=400)
        assert spent(manager) == (0.1, tokens / 1000, pytest.approx(tokens / 1000))


# --- when a budget is whole again -------------------------------------------------------------------------------------


async def resets(bench: Bench, manager: LLMManager, user: str | None = "alice") -> Any:
    await bench.ask(manager.get_client(user=user))
    return manager.get_status()["users"].get(user, {}).get("resets_in")


async def test_a_users_budget_resets_a_day_after_the_last_call_that_counts() -> None:
    bench = Bench()
    async with bench.open(**stated("user", tokens_per_day=1000, requests_per_minute=100)) as manager:
        assert await resets(bench, manager) == pytest.approx(DAY + GUARD, abs=0.001)
        await bench.clock.advance(1000.0)
        assert manager.get_status()["users"]["alice"]["resets_in"] == pytest.approx(DAY + GUARD - 1000.0, abs=0.001)
        assert await resets(bench, manager) == pytest.approx(DAY + GUARD, abs=0.001)
        await bench.clock.advance(math.ceil(DAY + GUARD))
        assert manager.get_status()["users"]["alice"]["resets_in"] is None


async def test_of_several_budgets_the_first_that_is_whole_counts_and_untouched_ones_do_not() -> None:
    bench = Bench()
    async with bench.open(**stated("user", requests_per_day=1000, cost_per_day=1.0), prices=FREE) as manager:
        assert await resets(bench, manager) == pytest.approx(DAY + GUARD, abs=0.001)


FREE = {MODEL: {"input": 0.0, "output": 0.0}}


@pytest.mark.parametrize("limits", [{}, {"users": {"default": {"requests_per_minute": 5}}}, {"users": {"vip": {}}}])
async def test_a_user_without_a_budget_has_no_reset(limits: dict[str, Any]) -> None:
    bench = Bench()
    async with bench.open(limits=limits) as manager:
        assert await resets(bench, manager) is None
