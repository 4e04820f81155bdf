"""Where a target cannot serve, the next one is asked: when, which, and what is told of it."""

# ruff: noqa: ANN401 - options as they come
from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from llm import LLMManager, LLMRequest, register_provider
from llm.core.exceptions import (
    LLMAuthenticationError,
    LLMCircuitOpenError,
    LLMConnectionError,
    LLMContentFilterError,
    LLMContextLengthError,
    LLMException,
    LLMInvalidRequestError,
    LLMOverloadedError,
    LLMPoolExhaustedError,
    LLMQuotaExceededError,
    LLMRateLimitError,
    LLMServerError,
    LLMStreamInterruptedError,
    LLMTimeoutError,
)
from llm.testing import FakeClock, FakeProvider, RecordingMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm import LLMClient, LLMResponse
    from llm.core.protocols import CallNext, Provider, ProviderSettings
    from llm.core.stream import LLMResult

FAST = {"targets": ["a/m", "b/n", "c/o"]}
KEY = "sk-of-{}-0123456789"


def always(answer: Exception) -> Callable[[LLMRequest], Exception]:
    def say(_: LLMRequest) -> Exception:
        return answer

    return say


class Bench:
    """Providers `a`, `b` and `c` that answer from scripts; by itself each answers with its name."""

    def __init__(self) -> None:
        self.clock = FakeClock(auto=True)
        self.doubles = {name: FakeProvider(f"from {name}", clock=self.clock) for name in "abc"}
        self.models = {"a": ["m"], "b": ["n"], "c": ["o"]}
        self.sections: dict[str, dict[str, Any]] = {"a": {}, "b": {}, "c": {}}

    def says(self, name: str, answers: Any, **options: Any) -> None:
        self.doubles[name] = FakeProvider(answers, clock=self.clock, **options)

    def fails(self, name: str, error: Exception) -> None:
        self.says(name, always(error))

    def config(self, **sections: Any) -> dict[str, Any]:
        def section(name: str) -> dict[str, Any]:
            stated = {"type": "scripted", "api_keys": [KEY.format(name)], "models": self.models[name]}
            return {**stated, **self.sections[name]}

        return {
            "providers": {name: section(name) for name in self.sections},
            "retry": {"max_attempts": 1},
            "aliases": {"fast": FAST},
            **sections,
        }

    def open(self, **sections: Any) -> Any:
        return LLMManager.open(self.config(**sections), clock=self.clock)

    def asked(self) -> str:
        return " ".join(f"{name}{double.calls}" for name, double in self.doubles.items() if double.calls)


@pytest.fixture
def bench() -> Bench:
    made = Bench()

    def scripted(settings: ProviderSettings) -> Provider:
        return made.doubles[settings.name]

    register_provider("scripted", scripted)
    return made


async def call(client: LLMClient, text: str = "x", *, stream: bool = False, **options: Any) -> LLMResponse:
    if stream:
        return await client.stream_complete(text, **options).response()
    return await client.complete(text, **options)


both_ways = pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])

MOVING = [
    LLMServerError("down", status=500),
    LLMServerError("no answer", retryable=False),
    LLMOverloadedError("full", status=529),
    LLMConnectionError("reset", sent=True),
    LLMStreamInterruptedError("cut before the first token"),
    LLMTimeoutError("slow", phase="first_token", retryable=True),
    LLMTimeoutError("no connection", phase="connect", sent=False, retryable=True),
    LLMAuthenticationError("refused", status=401),
    LLMAuthenticationError("not this model", status=403, model_only=True),
    LLMQuotaExceededError("no credit", status=402),
    LLMRateLimitError("429", status=429),
    LLMRateLimitError("the provider's", scope="provider", retryable=False),
    LLMCircuitOpenError("open"),
    LLMPoolExhaustedError("none free"),
]
STAYING = [
    LLMInvalidRequestError("wrong", status=400),
    LLMContentFilterError("no", status=400),
    LLMRateLimitError("the user's", scope="user", retryable=False),
    LLMRateLimitError("everything's", scope="global", retryable=False),
    LLMTimeoutError("a layer's own end", phase="total"),
    LLMException("something"),
]


@both_ways
@pytest.mark.parametrize("error", MOVING, ids=lambda error: f"{type(error).__name__}-{error.message}")
async def test_what_another_target_may_do_better_goes_to_the_next(
    bench: Bench, error: LLMException, *, stream: bool
) -> None:
    bench.fails("a", error)
    async with bench.open() as manager:
        response = await call(manager.get_client(), model="fast", stream=stream)
        assert (response.content, response.provider, response.model) == ("from b", "b", "n")
        assert manager.get_status()["pool"]["calls"] == 0
    assert all(double.in_flight == 0 for double in bench.doubles.values())


@both_ways
@pytest.mark.parametrize("error", STAYING, ids=lambda error: f"{type(error).__name__}-{error.message}")
async def test_what_the_next_target_would_meet_too_ends_the_call(
    bench: Bench, error: LLMException, *, stream: bool
) -> None:
    bench.fails("a", error)
    async with bench.open() as manager:
        with pytest.raises(type(error), match=error.message) as caught:
            await call(manager.get_client(), model="fast", stream=stream)
        assert "no other target" not in str(caught.value)
    assert bench.asked() == "a1"


@both_ways
async def test_each_target_runs_its_own_chain_with_its_own_ticket(bench: Bench, *, stream: bool) -> None:
    events: list[str] = []
    seen: list[tuple[str, str | None]] = []

    async def watch(request: LLMRequest, call_next: CallNext) -> LLMResult:
        ticket = request.call.ticket if request.call is not None else None
        seen.append((request.model or "", None if ticket is None else ticket.model))
        return await call_next(request)

    bench.fails("a", LLMServerError("down"))
    async with bench.open(retry={"max_attempts": 2}) as manager:
        layers = [RecordingMiddleware("layer", events), "rate_limit", "retry", watch]
        await call(manager.get_client(middleware=layers), model="fast", stream=stream)
        log = manager.get_status()["calls"][-1]["log"]
    assert events[:3] == ["layer:in", "layer:error:LLMServerError", "layer:in"]
    assert seen == [("m", "m"), ("m", "m"), ("n", "n")]
    assert [entry["event"] for entry in log if entry["event"] in {"ticketed", "closed", "fell_back", "sent"}] == [
        *("ticketed", "sent", "sent", "closed", "fell_back", "ticketed", "sent")
    ]
    assert next(entry["detail"] for entry in log if entry["event"] == "fell_back") == "from a/m to b/n: LLMServerError"


async def test_a_call_that_fell_back_is_one_call_under_who_answered_with_all_its_sends(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.fails("a", LLMServerError("down"))
    prices = {"m": {"input": 1000, "output": 1000}, "n": {"input": 1, "output": 1}}
    async with bench.open(retry={"max_attempts": 3}, prices=prices) as manager:
        with caplog.at_level(logging.INFO, "llm.calls"):
            response = await call(manager.get_client(), model="fast")
        metrics = manager.get_status()["metrics"]
    assert response.attempts == 4
    assert response.cost == pytest.approx(response.usage.total_tokens / 1e6)
    assert (metrics["total_requests"], metrics["failed_requests"], metrics["retries"]) == (1, 0, 3)
    assert {model: counted["requests"] for model, counted in metrics["models"].items()} == {"n": 1}
    assert metrics["cost"] == response.cost
    [line] = [record.getMessage() for record in caplog.records if record.name == "llm.calls"]
    assert "answered: provider=b model=n" in line
    assert "attempts=4" in line


async def test_a_call_that_fell_back_without_a_send_is_among_the_calls_of_late(bench: Bench) -> None:
    bench.sections["a"] = {"rate_limits": {"requests_per_day": 1}}
    async with bench.open() as manager:
        for _ in range(2):
            await call(manager.get_client(), model="fast")
        [entry] = manager.get_status()["calls"]
    assert (entry["provider"], entry["model"]) == ("b", "n")
    assert "from a/m to b/n: LLMRateLimitError" in [decision["detail"] for decision in entry["log"]]


# --- when all fail -------------------------------------------------------------------------------------------------


@both_ways
async def test_when_all_fail_the_last_error_that_says_most_tells_of_the_others_too(
    bench: Bench, *, stream: bool
) -> None:
    bench.fails("a", LLMServerError("the words of a", status=500))
    bench.fails("b", LLMOverloadedError("the words of b", status=529))
    bench.fails("c", LLMCircuitOpenError("open"))
    async with bench.open() as manager:
        with pytest.raises(LLMOverloadedError, match="the words of b") as caught:
            await call(manager.get_client(), "a secret prompt", model="fast", stream=stream)
        metrics = manager.get_status()["metrics"]
    error = caught.value
    assert "no other target could serve: a/m (LLMServerError 500), c/o (LLMCircuitOpenError)" in str(error)
    assert "the words of a" not in str(error)
    assert (error.provider, error.model, error.attempts) == ("b", "n", 3)
    assert (metrics["total_requests"], metrics["failed_requests"]) == (1, 1)


@pytest.mark.parametrize("arrived", [True, False])
@pytest.mark.parametrize("attempts", [1, 2], ids=["fallback", "retry"])
async def test_an_error_says_whether_any_attempt_may_have_reached_a_provider(
    bench: Bench, attempts: int, *, arrived: bool
) -> None:
    broken = [LLMConnectionError("reset", sent=arrived), *[LLMConnectionError("no way", sent=False)] * (attempts - 1)]
    bench.says("a", broken)
    bench.fails("b", LLMTimeoutError("no connection", phase="connect", sent=False))
    bench.fails("c", LLMCircuitOpenError("open"))
    async with bench.open(retry={"max_attempts": attempts, "initial_delay": 0}) as manager:
        with pytest.raises((LLMConnectionError, LLMTimeoutError)) as caught:
            await call(manager.get_client(), model="fast" if attempts == 1 else "a/m")
    assert vars(caught.value)["sent"] is arrived


async def test_a_later_target_that_refuses_the_request_has_the_last_word(bench: Bench) -> None:
    bench.fails("a", LLMServerError("down", status=500))
    bench.fails("b", LLMInvalidRequestError("wrong", status=400))
    async with bench.open() as manager:
        with pytest.raises(LLMInvalidRequestError, match=r"wrong; no other target .*a/m \(LLMServerError 500\)"):
            await call(manager.get_client(), model="fast")
    assert bench.asked() == "a1 b1"


# --- which targets -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "model", "asked"),
    [
        (None, None, "a1 c1 b1"),
        ("c", None, "c1 b1 a1"),
        (None, "m", "a1 b1"),
        (None, "b/m", "b1 a1"),
        (None, "b/n", "b1"),
        (None, "c/o", "c1"),
    ],
)
async def test_global_fallback_is_in_order_and_a_named_model_goes_only_to_who_lists_it(
    bench: Bench, provider: str | None, model: str | None, asked: str
) -> None:
    order: list[str] = []

    def answers(name: str) -> Callable[[LLMRequest], Exception]:
        def fail(_: LLMRequest) -> Exception:
            order.append(f"{name}1")
            return LLMServerError("down")

        return fail

    for name in "abc":
        bench.says(name, answers(name))
    bench.models["b"] = ["n", "m"]
    async with bench.open(**{"global": {"fallback": ["c", "b", "a"]}}) as manager:
        with pytest.raises(LLMServerError):
            await call(manager.get_client(provider), model=model)
    assert " ".join(order) == asked


async def test_the_model_of_a_call_without_one_is_the_next_providers_own_choice(bench: Bench) -> None:
    bench.fails("a", LLMServerError("down"))
    async with bench.open(**{"global": {"fallback": ["a", "b"]}}) as manager:
        assert (await call(manager.get_client())).model == "n"


async def test_without_fallback_a_call_has_no_layer_more(bench: Bench) -> None:
    async with bench.open() as manager:
        for model in (None, "m", "a/m"):
            assert manager.get_client().prepare(LLMRequest("x", model=model))[2] == ()


async def test_a_clients_own_layers_stand_in_every_target_and_fallback_outside_of_them(bench: Bench) -> None:
    events: list[str] = []
    bench.fails("a", LLMServerError("down"))
    async with bench.open(**{"global": {"fallback": ["a", "b"]}}) as manager:
        response = await call(manager.get_client(middleware=[RecordingMiddleware("own", events)]))
        assert response.provider == "b"
    assert events == ["own:in", "own:error:LLMServerError", "own:in", "own:out", "own:ended"]


async def test_vectors_of_an_alias_come_from_its_first_target_only(bench: Bench) -> None:
    bench.fails("a", LLMServerError("down"))
    async with bench.open(**{"global": {"fallback": ["a", "b"]}}) as manager:
        for model in ("fast", None):
            with pytest.raises(LLMServerError):
                await manager.get_client().embed("x", model=model)
        assert await manager.get_client().count_tokens("four", model="fast") == 1
    assert bench.asked() == "a2"


async def test_vectors_of_a_named_model_fall_back_to_who_lists_the_same(bench: Bench) -> None:
    bench.models["b"] = ["n", "m"]
    bench.fails("a", LLMServerError("down"))
    async with bench.open(**{"global": {"fallback": ["a", "b"]}}) as manager:
        response = await manager.get_client().embed(["x", "y"], model="m")
    assert (response.provider, response.model) == ("b", "m")


# --- context -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("targets", "error", "answers"),
    [
        (["o/gpt-4", "o/gpt-4o", "x/m"], LLMContextLengthError("too long", limit=8192, requested=9000), "o/gpt-4o"),
        (["o/gpt-4", "x/m", "o/gpt-4o"], LLMContextLengthError("too long"), "o/gpt-4o"),
        (["x/m", "o/gpt-4", "o/gpt-4o"], LLMContextLengthError("too long", requested=100_000), "o/gpt-4o"),
    ],
)
async def test_a_prompt_that_does_not_fit_goes_to_the_next_model_that_is_known_to_be_larger(
    bench: Bench, targets: list[str], error: LLMContextLengthError, answers: str
) -> None:
    def answer(request: LLMRequest) -> Any:
        return "it fits" if request.model == "gpt-4o" else error

    bench.sections = {"o": {"type": "azure"}, "x": {}}  # a kind whose windows are known, and one nobody knows
    bench.models = {"o": ["gpt-4", "gpt-4o"], "x": ["m"]}
    for name in bench.sections:
        bench.says(name, answer)
    register_provider("azure", lambda settings: bench.doubles[settings.name])
    async with bench.open(aliases={"wide": {"targets": targets}}) as manager:
        response = await call(manager.get_client(), model="wide")
    assert f"{response.provider}/{response.model}" == answers


async def test_a_prompt_that_fits_no_known_window_tells_so_and_asks_nobody_else(bench: Bench) -> None:
    bench.fails("a", LLMContextLengthError("too long", limit=1000))
    async with bench.open() as manager:
        with pytest.raises(LLMContextLengthError, match="too long"):
            await call(manager.get_client(), model="fast")
    bench.fails("a", LLMContextLengthError("too long"))
    async with bench.open() as manager:
        with pytest.raises(LLMContextLengthError):
            await call(manager.get_client(), model="fast")
    assert bench.asked() == "a1"


async def test_of_a_provider_that_may_choose_the_model_with_the_room_is_taken(bench: Bench) -> None:
    bench.fails("a", LLMContextLengthError("too long", requested=100_000))
    bench.sections = {"a": {}, "o": {"type": "azure"}}
    bench.models["o"] = ["gpt-4", "gpt-4o"]
    bench.says("o", "it fits")
    register_provider("azure", lambda settings: bench.doubles[settings.name])
    async with bench.open(aliases={}, **{"global": {"fallback": ["a", "o"]}}) as manager:
        assert (await call(manager.get_client())).model == "gpt-4o"


# --- capacity, deadline, leaving -----------------------------------------------------------------------------------

ONE_A_MINUTE = {"rate_limits": {"requests_per_minute": 1, "algorithm": "sliding_window"}}


@both_ways
async def test_waiting_for_capacity_is_no_failure_unless_it_takes_longer_than_fallback_after(
    bench: Bench, *, stream: bool
) -> None:
    bench.sections["a"] = ONE_A_MINUTE
    for after, provider, waited in ((None, "a", 60.0), (5.0, "b", 5.0), (0, "b", 0.0)):
        async with bench.open(**{"global": {"fallback_after": after}}) as manager:
            client = manager.get_client()
            await call(client, model="fast")
            began = bench.clock.now()
            response = await call(client, model="fast", stream=stream)
            assert response.provider == provider
            assert bench.clock.now() - began == pytest.approx(waited, abs=0.5)
        await bench.clock.sleep(100)


async def test_waits_of_one_target_add_up_and_the_last_target_is_waited_for_as_long_as_it_takes(bench: Bench) -> None:
    bench.sections["a"] = bench.sections["b"] = ONE_A_MINUTE
    aliases = {"two": {"targets": ["a/m", "b/n"]}}
    async with bench.open(aliases=aliases, **{"global": {"fallback_after": 5.0}}) as manager:
        client = manager.get_client()
        for _ in range(2):
            await call(client, model="two")
        began = bench.clock.now()
        response = await call(client, model="two")
    assert response.provider == "b"
    assert bench.clock.now() - began == pytest.approx(60.0, abs=6.0)


async def test_waits_after_refusals_count_as_waiting_for_the_same_target(bench: Bench) -> None:
    bench.fails("a", LLMRateLimitError("429", status=429, retry_after=3.0))
    async with bench.open(**{"global": {"fallback_after": 5.0}}) as manager:
        assert (await call(manager.get_client(), model="fast")).provider == "b"
    assert bench.asked() == "a2 b1"
    assert bench.clock.now() == pytest.approx(5.0, abs=0.2)


async def test_a_follower_of_a_call_whose_patience_ends_waits_on_where_it_has_no_other_target(bench: Bench) -> None:
    bench.sections["a"] = ONE_A_MINUTE
    async with bench.open(cache={}, **{"global": {"fallback_after": 5.0}}) as manager:
        client = manager.get_client()
        await call(client, "first", model="m")
        patient: asyncio.Task[LLMResponse]
        async with asyncio.TaskGroup() as group:
            hasty = group.create_task(call(client, "second", model="fast"))
            await bench.clock.sleep(1.0)
            patient = group.create_task(call(client, "second", model="m"))
    assert (hasty.result().provider, patient.result().provider) == ("b", "a")


async def test_every_follower_waits_for_capacity_as_long_as_it_would_alone(bench: Bench) -> None:
    bench.sections["a"] = ONE_A_MINUTE
    async with bench.open(cache={}, **{"global": {"fallback_after": 5.0}}) as manager:
        client, ends = manager.get_client(), dict[str, tuple[float, str]]()
        await call(client, "first", model="m")

        async def ask(name: str, model: str) -> None:
            began = bench.clock.now()
            response = await call(client, "second", model=model)
            ends[name] = (bench.clock.now() - began, response.provider)

        async with asyncio.TaskGroup() as group:
            group.create_task(ask("leader", "m"))  # it has no other target, and waits
            await bench.clock.sleep(1.0)
            for name in ("one", "two", "three"):
                group.create_task(ask(name, "fast"))
                await bench.clock.sleep(1.0)
    assert {name: provider for name, (_, provider) in ends.items()} == {
        "leader": "a",
        "one": "b",
        "two": "b",
        "three": "b",
    }
    waits = [ends[name][0] for name in ("leader", "one", "two", "three")]
    assert waits == pytest.approx([60.0, 5.0, 5.0, 5.0], abs=0.5)
    assert bench.asked() == "a2 b1"


async def test_followers_who_take_the_lead_in_turn_wait_no_longer_for_it(bench: Bench) -> None:
    bench.sections["a"] = ONE_A_MINUTE
    async with bench.open(cache={}, **{"global": {"fallback_after": 5.0}}) as manager:
        client, began = manager.get_client(), bench.clock.now()
        await call(client, "first", model="m")
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call(client, "second", model="fast")) for _ in range(5)]
    assert {task.result().provider for task in tasks} == {"b"}
    assert bench.clock.now() - began == pytest.approx(5.0, abs=0.1)


async def test_the_time_in_which_a_leader_is_asked_is_no_wait_for_capacity(bench: Bench) -> None:
    limited = {"rate_limits": {"concurrent_requests": 1}}
    bench.sections["a"] = limited
    bench.says("a", "from a", latency=8.0)
    async with bench.open(cache={}, **{"global": {"fallback_after": 5.0}}) as manager:
        client = manager.get_client()
        async with asyncio.TaskGroup() as group:
            group.create_task(call(client, "first", model="m"))
            await bench.clock.sleep(4.0)
            tasks = [group.create_task(call(client, "second", model="fast")) for _ in range(3)]  # 4 s in the queue
    assert {task.result().provider for task in tasks} == {"a"}
    assert bench.asked() == "a2"
    assert bench.clock.now() == pytest.approx(16.0, abs=0.1)


async def test_all_waits_of_its_leader_count_for_a_follower(bench: Bench) -> None:
    bench.says("a", always(LLMRateLimitError("429", status=429, retry_after=3.0)), latency=1.0)
    async with bench.open(cache={}, **{"global": {"fallback_after": 5.0}}) as manager:
        client = manager.get_client()

        async def lead() -> None:
            with pytest.raises(LLMRateLimitError):
                await call(client, model="m")

        async with asyncio.TaskGroup() as group:
            group.create_task(lead())
            await bench.clock.sleep(0)
            assert (await call(client, model="fast")).provider == "b"
            assert bench.clock.now() == pytest.approx(1.0 + 3.0 + 1.0 + 2.0, abs=0.2)
            assert bench.asked() == "a2 b1"


@both_ways
@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (LLMServerError("down", status=500), "a1"),
        (LLMConnectionError("reset", sent=True), "a1"),
        (LLMTimeoutError("slow", phase="first_token", retryable=True), "a1"),
        (LLMConnectionError("no route", sent=False), "a1 b1"),
        (LLMTimeoutError("no connection", phase="connect", sent=False, retryable=True), "a1 b1"),
        (LLMOverloadedError("full", status=529), "a1 b1"),
        (LLMAuthenticationError("refused", status=401), "a1 b1"),
    ],
)
async def test_without_after_send_only_what_certainly_did_nothing_is_asked_of_another(
    bench: Bench, error: LLMException, asked: str, *, stream: bool
) -> None:
    bench.fails("a", error)
    async with bench.open(retry={"max_attempts": 1, "after_send": False}) as manager:
        client = manager.get_client()
        if asked == "a1":
            with pytest.raises(type(error)):
                await call(client, model="fast", stream=stream)
        else:
            assert (await call(client, model="fast", stream=stream)).provider == "b"
    assert bench.asked() == asked


async def test_a_users_own_limit_is_waited_for_where_it_stands(bench: Bench) -> None:
    limits = {"users": {"u": {"requests_per_day": 1}}}
    async with bench.open(limits=limits) as manager:
        client = manager.get_client(user="u")
        await call(client, model="fast")
        with pytest.raises(LLMRateLimitError) as caught:
            await call(client, model="fast")
    assert caught.value.scope == "user"
    assert bench.asked() == "a1"


@both_ways
async def test_all_targets_share_the_calls_one_deadline(bench: Bench, *, stream: bool) -> None:
    for name in "abc":
        bench.says(name, always(LLMServerError("down")), latency=4.0)
    async with bench.open() as manager:
        began = bench.clock.now()
        with pytest.raises(LLMTimeoutError) as caught:
            await call(manager.get_client(), model="fast", stream=stream, timeout=6.0)
        assert bench.clock.now() - began == pytest.approx(6.0, abs=0.1)
        assert manager.get_status()["pool"]["calls"] == 0
    assert (caught.value.phase, caught.value.provider, caught.value.model) == ("total", "b", "n")
    assert bench.asked() == "a1 b1"


async def test_a_failure_at_the_deadline_asks_nobody_else(bench: Bench) -> None:
    asked: list[str | None] = []

    async def late(request: LLMRequest, _: object) -> LLMResult:
        asked.append(request.model)
        bench.clock._now += 10.0  # pyright: ignore[reportPrivateUsage]
        raise LLMServerError("too late for more")

    async with bench.open() as manager:
        with pytest.raises(LLMServerError, match="too late for more"):
            await call(manager.get_client(middleware=[late]), model="fast", timeout=6.0)
    assert asked == ["m"]


@both_ways
async def test_a_call_that_is_cancelled_on_its_second_target_leaves_nothing(bench: Bench, *, stream: bool) -> None:
    bench.fails("a", LLMServerError("down"))
    bench.says("b", "never", latency=1000.0)
    async with bench.open() as manager:
        task = asyncio.create_task(call(manager.get_client(), model="fast", stream=stream))
        await bench.clock.sleep(1.0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        status = manager.get_status()
        assert (status["pool"]["calls"], status["metrics"]["cancelled_requests"]) == (0, 1)
        assert all(key["calls"] == 0 for provider in status["providers"].values() for key in provider["keys"])
    assert all(double.in_flight == 0 for double in bench.doubles.values())
    assert bench.asked() == "a1 b1"


# --- with the other layers -----------------------------------------------------------------------------------------


async def test_an_answer_is_kept_under_the_provider_that_gave_it(bench: Bench) -> None:
    bench.fails("a", LLMServerError("down"))
    async with bench.open(cache={}) as manager:
        client = manager.get_client()
        await call(client, model="fast")
        again = await call(client, model="fast")
        direct = await call(client, model="b/n")
        assert (again.cached, again.provider, direct.cached) == (True, "b", True)
    assert bench.asked() == "a2 b1"


async def test_those_who_follow_a_call_that_falls_back_fall_back_at_once_too(bench: Bench) -> None:
    bench.says("a", always(LLMServerError("down")), latency=1.0)
    bench.says("b", "from b", latency=100.0)
    async with bench.open(cache={}, retry={"max_attempts": 2, "initial_delay": 0}) as manager:
        client = manager.get_client()
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(call(client, model="fast")) for _ in range(5)]
        logs = [entry["log"] for entry in manager.get_status()["calls"]]
    assert {task.result().provider for task in asked} == {"b"}
    assert sum(task.result().attempts for task in asked) == 3
    assert bench.asked() == "a2 b1"
    moved = [decision["at"] for log in logs for decision in log if decision["event"] == "fell_back"]
    assert len(moved) == 5
    assert max(moved) < 5.0  # not only as their leader's whole call ends


async def test_a_second_question_for_a_model_class_goes_to_who_answered_and_on_from_there(bench: Bench) -> None:
    from pydantic import BaseModel  # noqa: PLC0415 - only here

    class Fits(BaseModel):
        n: int

    bench.fails("a", LLMServerError("down"))
    bench.says("b", ["no JSON", LLMServerError("down, too")])
    bench.says("c", '{"n": 3}')
    async with bench.open() as manager:
        response = await manager.get_client().complete("x", model="fast", response_model=Fits)
    assert (response.parsed, response.provider) == (Fits(n=3), "c")
    assert bench.asked() == "a1 b2 c1"


async def test_a_stream_that_breaks_after_its_first_token_stays_with_its_target(bench: Bench) -> None:
    bench.says("a", [["it be", "gan", LLMStreamInterruptedError("cut")]])
    async with bench.open() as manager:
        stream = manager.get_client().stream_complete("x", model="fast")
        with pytest.raises(LLMStreamInterruptedError) as caught:
            await stream.response()
    assert (caught.value.partial, stream.text) == ("it began", "it began")
    assert bench.asked() == "a1"


async def test_a_reload_changes_who_is_asked_next_and_who_follows(bench: Bench) -> None:
    bench.fails("a", LLMServerError("down"))
    async with bench.open() as manager:
        client = manager.get_client()
        assert (await call(client, model="fast")).provider == "b"
        await manager.reload(bench.config(aliases={"fast": {"targets": ["a/m", "c/o"]}}))
        assert (await call(client, model="fast")).provider == "c"
        await manager.reload(bench.config(**{"global": {"fallback": ["b"]}}))
        assert (await call(client)).provider == "b"


# --- strategies ----------------------------------------------------------------------------------------------------


async def test_cheapest_asks_by_what_this_request_may_cost_and_unknown_prices_last(bench: Bench) -> None:
    prices = {"n": {"input": 1, "output": 50}, "o": {"input": 20, "output": 1}}
    cheap = {"cheap": {**FAST, "strategy": "cheapest"}}
    async with bench.open(prices=prices, aliases=cheap) as manager:
        client = manager.get_client()
        assert (await call(client, "short", model="cheap", max_tokens=1000)).provider == "c"
        assert (await call(client, "long " * 1000, model="cheap", max_tokens=10)).provider == "b"
        bench.fails("b", LLMServerError("down"))
        bench.fails("c", LLMServerError("down"))
    async with bench.open(prices=prices, aliases=cheap) as manager:
        assert (await call(manager.get_client(), model="cheap")).provider == "a"


async def test_weighted_asks_by_the_weights(bench: Bench) -> None:
    aliases = {"mix": {**FAST, "strategy": "weighted", "weights": [1, 2, 1]}}
    async with bench.open(aliases=aliases) as manager:
        for _ in range(400):
            await call(manager.get_client(), model="mix")
    assert 150 < bench.doubles["b"].calls < 250
    assert bench.doubles["a"].calls + bench.doubles["c"].calls == 400 - bench.doubles["b"].calls


@both_ways
async def test_fastest_measures_each_target_once_and_then_asks_the_fastest(bench: Bench, *, stream: bool) -> None:
    for name, latency in (("a", 3.0), ("b", 1.0), ("c", 2.0)):
        bench.says(name, f"from {name}", latency=latency, interval=5.0 if name == "b" else 0.0, chunk_size=3)
    aliases = {"quick": {**FAST, "strategy": "fastest"}}
    async with bench.open(aliases=aliases, cache={}) as manager:
        client = manager.get_client()
        order = [(await call(client, f"x{i}", model="quick", stream=stream)).provider for i in range(6)]
    # Of a stream the time to the first token counts, so the slow end of b's does not.
    assert order[:3] == ["a", "b", "c"]
    assert set(order[3:]) == {"b"}


async def test_what_the_cache_answers_says_nothing_about_a_targets_speed(bench: Bench) -> None:
    bench.says("a", "from a", latency=3.0)
    aliases = {"quick": {"targets": ["a/m", "b/n"], "strategy": "fastest"}}
    async with bench.open(aliases=aliases, cache={}) as manager:
        client = manager.get_client()
        await call(client, "kept", model="a/m", stream=True)
        assert (await call(client, "kept", model="quick", stream=True)).cached
        await bench.clock.sleep(20.0)
        order = [(await call(client, text, model="quick", stream=True)).provider for text in "xyz"]
    assert order == ["a", "b", "b"]


async def test_a_target_that_failed_stands_last_for_a_while(bench: Bench) -> None:
    bench.fails("a", LLMServerError("down"))
    aliases = {"quick": {"targets": ["a/m", "b/n"], "strategy": "fastest"}}
    async with bench.open(aliases=aliases) as manager:
        for _ in range(3):
            await call(manager.get_client(), model="quick")
        assert bench.asked() == "a1 b3"
        await bench.clock.sleep(60.0)
        await call(manager.get_client(), model="quick")
    assert bench.asked() == "a2 b4"


@both_ways
async def test_a_target_that_hangs_until_calls_end_is_the_fastest_no_more(bench: Bench, *, stream: bool) -> None:
    bench.says("a", ["one", "two", *[[...]] * 9], latency=0.1)
    bench.says("b", "from b", latency=1.0)
    aliases = {"quick": {"targets": ["a/m", "b/n"], "strategy": "fastest"}}
    outcomes = list[str]()
    async with bench.open(aliases=aliases) as manager:
        for _ in range(8):
            try:
                answer = await call(manager.get_client(), model="quick", timeout=9.0, stream=stream)
                outcomes.append(answer.provider)
            except LLMTimeoutError as error:
                outcomes.append(error.phase)
    assert outcomes == ["a", "b", "a", "total", "b", "b", "b", "b"]


async def test_a_bad_request_says_nothing_about_a_targets_speed(bench: Bench) -> None:
    bench.says("a", [LLMInvalidRequestError("wrong"), "fine"])
    aliases = {"quick": {"targets": ["a/m", "b/n"], "strategy": "fastest"}}
    async with bench.open(aliases=aliases) as manager:
        with pytest.raises(LLMInvalidRequestError):
            await call(manager.get_client(), model="quick")
        await bench.clock.sleep(60.0)
        assert (await call(manager.get_client(), model="quick")).provider == "a"
