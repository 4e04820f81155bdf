"""The life of a manager: opening, closing, reloading, explaining."""

# ruff: noqa: ANN401 - options as they come, and doubles of more than one kind

from __future__ import annotations

import asyncio
import json
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from llm import (
    LLMAuthenticationError,
    LLMClient,
    LLMConfigurationError,
    LLMConnectionError,
    LLMException,
    LLMInvalidRequestError,
    LLMManager,
    LLMPoolExhaustedError,
    LLMRateLimitError,
    LLMRequest,
    register_provider,
)
from llm.core import manager as manager_module
from llm.testing import FakeClock, FakeProvider, Fault, MockUpstream

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llm.core.protocols import CallNext
    from llm.core.stream import LLMResult

MODEL = "gpt-4o-mini"


def config(**sections: Any) -> dict[str, Any]:
    provider = {"base_url": "http://upstream.test/v1", "api_keys": ["sk-test-1"], "models": [MODEL]}
    return {"providers": {"openai": {**provider, **sections.pop("openai", {})}}, **sections}


class Bench:
    """A manager on a fake clock, in front of a mock without a socket."""

    def __init__(self, **upstream: Any) -> None:
        self.clock = FakeClock()
        self.upstream = MockUpstream("openai", clock=self.clock, **upstream)

    async def open(self, **sections: Any) -> LLMManager:
        return await LLMManager.open(config(**sections), transport=self.upstream.transport(), clock=self.clock)

    async def timers_left(self) -> int:
        await self.upstream.__aexit__()  # the mock has timers of its own
        return self.clock.timers


async def outcome(task: asyncio.Task[Any]) -> BaseException | None:
    await asyncio.wait([task])
    return task.exception()


# --- opening and closing --------------------------------------------------------------------------------------------


async def test_a_manager_is_awaited_or_used_with_async_with() -> None:
    bench = Bench()
    async with await bench.open() as manager:
        assert str(await manager.get_client().chat("hello")) == "hello"
        assert not manager.closed
    assert manager.closed
    async with LLMManager.open(config(), transport=bench.upstream.transport(), clock=bench.clock) as manager:
        assert manager.config.default_provider == "openai"
    assert manager.closed


async def test_a_wrong_configuration_fails_the_opening_and_leaves_nothing() -> None:
    with pytest.raises(LLMConfigurationError, match="retri"):
        async with LLMManager.open({"retri": {}}):
            pytest.fail("it must not open")


async def test_without_a_composition_root_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager_module, "_composers", [])
    with pytest.raises(LLMConfigurationError, match="import llm"):
        await LLMManager.open(config())


async def test_closing_lets_running_calls_finish_and_refuses_new_ones() -> None:
    bench = Bench(service=5.0)
    manager = await bench.open()
    client = manager.get_client()
    running = asyncio.create_task(client.chat("hello"))
    stream = client.stream_complete("a streamed answer of a length")
    await bench.clock.advance(1.0)
    reading = asyncio.create_task(stream.response())
    await bench.clock.advance(1.0)
    closing = asyncio.create_task(manager.close(drain=30.0))
    await bench.clock.advance(0.5)
    with pytest.raises(LLMPoolExhaustedError, match="closed"):
        await client.chat("too late")
    with pytest.raises(LLMPoolExhaustedError, match="closed"):
        await manager.reload(config())
    assert not closing.done()
    await bench.clock.advance(10.0)
    assert str(running.result()) == "hello"
    assert str(reading.result()) == "a streamed answer of a length"
    await closing
    assert await bench.timers_left() == 0
    assert bench.upstream.active == 0


async def test_at_the_end_of_drain_a_unary_call_gets_a_connection_error_and_is_not_left_cancelled() -> None:
    bench = Bench(service=100.0)
    manager = await bench.open()
    seen: list[tuple[type[BaseException], int]] = []

    async def caller() -> str:
        task = asyncio.current_task()
        assert task is not None
        try:
            return str(await manager.get_client().chat("hello"))
        except LLMException as error:
            seen.append((type(error), task.cancelling()))
            await bench.clock.sleep(0)  # a task that is still cancelled could not wait
            return str(error)

    task = asyncio.create_task(caller())
    await bench.clock.advance(1.0)
    closing = asyncio.create_task(manager.close(drain=3.0))
    await bench.clock.advance(2.9)
    assert not task.done()
    await bench.clock.advance(0.2)
    await closing
    assert seen == [(LLMConnectionError, 0)]
    assert "drain" in task.result()
    assert [record.left for record in bench.upstream.requests] == [True]
    assert await bench.timers_left() == 0
    assert manager.get_status()["metrics"]["errors"] == {"LLMConnectionError": 1}


async def test_at_the_end_of_drain_who_waits_in_the_queue_and_streams_that_are_open_are_ended() -> None:
    bench = Bench(service=100.0)
    manager = await bench.open(openai={"rate_limits": {"concurrent_requests": 3}})
    client = manager.get_client()
    streams = [client.stream_complete("a streamed answer of a length") for _ in range(2)]
    reading = asyncio.create_task(streams[0].response())
    unread = asyncio.create_task(streams[1].begin())
    running = asyncio.create_task(client.chat("hello"))
    await bench.clock.advance(60.0)
    waiting = asyncio.create_task(client.chat("hello"))
    await bench.clock.advance(1.0)
    assert manager.get_status()["pool"] == {"calls": 4, "waiting": 1, "slots": 1, "closing": False}
    await unread
    closing = asyncio.create_task(manager.close(drain=0.0))
    await bench.clock.advance(0.1)
    await closing
    for task in (reading, running, waiting):
        assert isinstance(await outcome(task), LLMConnectionError)
    with pytest.raises(LLMConnectionError, match="closed"):
        await streams[1].response()
    assert bench.upstream.active == 0
    assert await bench.timers_left() == 0
    assert manager.get_status()["pool"]["calls"] == 0
    assert manager.get_status()["pool"]["waiting"] == 0


async def test_a_deadline_that_passes_in_the_drain_is_a_timeout_still() -> None:
    bench = Bench(service=100.0)
    manager = await bench.open()
    task = asyncio.create_task(manager.get_client().chat("hello", timeout=5.0))
    await bench.clock.advance(1.0)
    closing = asyncio.create_task(manager.close(drain=30.0))
    await bench.clock.advance(5.0)
    await closing
    assert type(await outcome(task)).__name__ == "LLMTimeoutError"


@pytest.mark.parametrize("drain", [float("nan"), -1, "30", None])
async def test_a_drain_that_is_no_time_is_refused_and_nothing_is_closed(drain: Any) -> None:
    async with MockUpstream("openai") as up:
        openai = {"base_url": up.base_url, "api_keys": ["k"], "models": ["m"]}
        async with LLMManager.open({"providers": {"openai": openai}}) as manager:
            with pytest.raises(LLMConfigurationError, match=r"drain is .*; expected seconds, 0 or more"):
                await manager.close(drain=drain)
            assert str(await manager.get_client().chat("still here")) == "still here"


async def test_closing_twice_is_free_and_the_second_waits_for_the_first() -> None:
    bench = Bench(service=5.0)
    manager = await bench.open()
    task = asyncio.create_task(manager.get_client().chat("hello"))
    await bench.clock.advance(1.0)
    closings = [asyncio.create_task(manager.close()) for _ in range(2)]
    await bench.clock.advance(1.0)
    assert not any(closing.done() for closing in closings)
    await bench.clock.advance(5.0)
    assert str(task.result()) == "hello"
    await asyncio.wait(closings)
    await manager.close()


async def test_a_closing_that_was_cancelled_can_be_done_again() -> None:
    bench = Bench(service=50.0)
    manager = await bench.open()
    task = asyncio.create_task(manager.get_client().chat("hello"))
    await bench.clock.advance(1.0)
    first = asyncio.create_task(manager.close())
    await bench.clock.advance(1.0)
    first.cancel()
    assert isinstance(await outcome_or_cancel(first), asyncio.CancelledError)
    closing = asyncio.create_task(manager.close(drain=1.0))
    await bench.clock.advance(1.1)
    await closing
    assert isinstance(await outcome(task), LLMConnectionError)


async def outcome_or_cancel(task: asyncio.Task[Any]) -> BaseException | None:
    await asyncio.wait([task])
    return asyncio.CancelledError() if task.cancelled() else task.exception()


async def test_an_exception_in_async_with_closes_without_waiting_for_calls() -> None:
    bench = Bench(service=1000.0)
    tasks: list[asyncio.Task[Any]] = []

    async def fail() -> None:
        async with LLMManager.open(config(), transport=bench.upstream.transport(), clock=bench.clock) as manager:
            tasks.append(asyncio.create_task(manager.get_client().chat("hello")))
            await bench.clock.advance(1.0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert isinstance(await outcome(tasks[0]), LLMConnectionError)
    assert bench.upstream.active == 0


async def test_a_layer_that_cleans_up_gets_a_moment_when_its_call_is_ended() -> None:
    bench = Bench(service=1000.0)
    cleaned: list[str] = []

    async def layer(request: LLMRequest, call_next: CallNext) -> LLMResult:
        try:
            return await call_next(request)
        finally:
            await bench.clock.sleep(0.5)
            cleaned.append("cleaned")

    manager = await bench.open()
    task = asyncio.create_task(manager.get_client(middleware=[layer, "rate_limit"]).chat("hello"))
    await bench.clock.advance(1.0)
    closing = asyncio.create_task(manager.close(drain=0.0))
    await bench.clock.advance(0.4)
    assert not closing.done()
    await bench.clock.advance(0.2)
    await closing
    assert cleaned == ["cleaned"]
    assert isinstance(await outcome(task), LLMConnectionError)


# --- reload ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"retri": {}},
        {"global": {"middleware": ["rate_limit", "no_such_layer"]}},
        {"openai": {"type": "no_such_kind", "rate_limits": {"requests_per_minute": 1}}},
        {"openai": {"transport": "sdk", "sdk": {"client": "azure"}}},
    ],
    ids=["field", "layer", "kind", "transport"],
)
async def test_a_bad_reload_changes_nothing(wrong: dict[str, Any]) -> None:
    bench = Bench()
    async with await bench.open(openai={"rate_limits": {"requests_per_minute": 50}}) as manager:
        client = manager.get_client()
        await client.chat("hello")
        before, status = manager.config, manager.get_status()
        bad = {"limits": {"global": {"requests_per_minute": 1}}, **wrong}
        bad["openai"] = {"rate_limits": {"requests_per_minute": 1}, **bad.get("openai", {})}
        with pytest.raises(LLMConfigurationError):
            await manager.reload(config(**bad))
        assert manager.config is before
        assert manager.get_status() == status
        for _ in range(3):
            await client.chat("hello")


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("limits.store", {"limits": {"store": "redis"}}),
        ("limits.url", {"limits": {"url": "redis://elsewhere:6379/0"}}),
        ("cache.backend", {"cache": {"backend": "disk"}}),
        ("cache.path", {"cache": {"path": "elsewhere"}}),
        ("gateway.host", {"gateway": {"host": "::1"}}),
        ("gateway.port", {"gateway": {"port": 8001}}),
    ],
)
async def test_a_reload_refuses_what_cannot_change_by_name(name: str, changed: dict[str, Any]) -> None:
    bench = Bench()
    async with await bench.open(cache={}) as manager:
        with pytest.raises(LLMConfigurationError, match=name.replace(".", r"\.")):
            await manager.reload(config(**{"cache": {}, **changed}))


async def test_old_clients_use_the_new_keys_limits_models_and_chain() -> None:
    bench = Bench()
    layers: list[str] = []

    class Noting:
        async def __call__(self, request: LLMRequest, call_next: CallNext) -> LLMResult:
            layers.append("noting")
            return await call_next(request)

    async with await bench.open() as manager:
        plain, custom = manager.get_client(), manager.get_client(middleware=["rate_limit", Noting()])
        await plain.chat("hello")
        chain = {"middleware": ["rate_limit", "metrics"]}
        limits = {"requests_per_minute": 3}
        await manager.reload(
            config(openai={"api_keys": ["sk-new"], "models": ["gpt-4o"], "rate_limits": limits}, **{"global": chain})
        )
        await plain.chat("hello")
        await custom.chat("hello")
        assert layers == ["noting"]
        assert [record.key for record in bench.upstream.requests] == ["sk-test-1", "sk-new", "sk-new"]
        assert [record.body["model"] for record in bench.upstream.requests] == [MODEL, "gpt-4o", "gpt-4o"]
        assert manager.get_status()["providers"]["openai"]["keys"][0]["models"]["gpt-4o"] != {}
        with pytest.raises(LLMInvalidRequestError, match="gpt-4o"):
            await plain.chat("hello", model=MODEL)


async def test_a_reload_keeps_levels_cooling_counts_and_what_is_cached() -> None:
    bench = Bench(limits={})
    limits = {"global": {"requests_per_day": 10}, "users": {"default": {"requests_per_day": 4}}}
    section = {"rate_limits": {"requests_per_minute": 10}}
    async with await bench.open(openai=section, limits=limits, cache={}) as manager:
        client = manager.get_client(user="alice")
        for text in ("one", "two"):
            await client.chat(text)
        queue: Any = manager._routes.parts.chains["openai"].pool.queue  # pyright: ignore[reportPrivateUsage]
        queue.cool(queue.slots[0], 30.0)
        wider = {"global": {"requests_per_day": 20}, "users": {"default": {"requests_per_day": 8}}}
        await manager.reload(config(openai={"rate_limits": {"requests_per_minute": 20}}, limits=wider, cache={}))
        status = manager.get_status()
        key = status["providers"]["openai"]["keys"][0]
        assert key["models"][MODEL]["requests_per_minute"] == pytest.approx(0.2)
        assert key["cooling_seconds"] == pytest.approx(30.0)
        assert status["limits"]["global"]["requests_per_day"] == pytest.approx(0.1)
        assert status["limits"]["user alice"]["requests_per_day"] == pytest.approx(0.25)
        assert status["metrics"]["total_requests"] == 2
        assert (await client.chat("one")).cached
        assert manager.get_status()["metrics"]["total_requests"] == 3


async def test_a_reload_lets_go_who_waited_for_a_limit_that_is_wider_now() -> None:
    bench = Bench(service=100.0)
    async with await bench.open(openai={"rate_limits": {"concurrent_requests": 1}}) as manager:
        client = manager.get_client()
        first = asyncio.create_task(client.chat("one"))
        task = asyncio.create_task(client.chat("two"))
        await bench.clock.advance(1.0)
        await manager.reload(config(openai={"rate_limits": {"concurrent_requests": 2}}))
        third = asyncio.create_task(client.chat("three"))
        await bench.clock.advance(99.5)
        assert [str(first.result()), str(task.done()), str(third.done())] == ["one", "False", "False"]
        await bench.clock.advance(1.0)
        assert str(task.result()) == "two"
        await bench.clock.advance(100.0)
        assert str(third.result()) == "three"


async def test_who_waited_through_several_reloads_goes_on_with_the_keys_of_the_last() -> None:
    bench = Bench(service=100.0)
    limited = {"rate_limits": {"concurrent_requests": 1}}
    async with await bench.open(openai=limited) as manager:
        client = manager.get_client()
        first = asyncio.create_task(client.chat("one"))
        waiting = asyncio.create_task(client.chat("two"))
        await bench.clock.advance(1.0)
        for key in ("sk-test-1", "sk-test-1", "sk-new"):
            await manager.reload(config(openai={**limited, "api_keys": [key]}))
            await bench.clock.advance(1.0)
        assert [record.key for record in bench.upstream.requests] == ["sk-test-1", "sk-new"]
        await bench.clock.advance(101.0)
        assert [str(first.result()), str(waiting.result())] == ["one", "two"]


async def test_a_call_that_is_repeated_after_several_reloads_hears_that_the_last_key_is_refused() -> None:
    faults = [Fault("stalled", at=1), Fault("auth", at=2, times=9)]
    bench = Bench(faults=faults)
    bounded = {"global": {"timeouts": {"attempt": 10.0}}, "retry": {"initial_delay": 0.01}}
    async with await bench.open(**bounded) as manager:
        task = asyncio.create_task(manager.get_client().chat("hello"))
        await bench.clock.advance(1.0)
        for _ in range(2):
            await manager.reload(config(**bounded))
        with pytest.raises(LLMAuthenticationError):
            await manager.get_client().chat("hello")
        await bench.clock.advance(20.0)
        assert isinstance(await outcome(task), LLMAuthenticationError)
        assert len(bench.upstream.requests) == 2


async def test_a_reload_without_an_argument_reads_again_what_it_was_opened_from(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(config()), encoding="utf-8")
    bench = Bench()
    async with LLMManager.open(path, transport=bench.upstream.transport(), clock=bench.clock) as manager:
        client = manager.get_client()
        path.write_text(json.dumps(config(openai={"api_keys": ["sk-rotated"]})), encoding="utf-8")
        await manager.reload()
        await client.chat("hello")
    assert [record.key for record in bench.upstream.requests] == ["sk-rotated"]


async def test_a_client_of_a_provider_that_a_reload_took_away_says_so_and_its_running_call_ends_well() -> None:
    bench = Bench(service=5.0)
    both = config()
    both["providers"]["other"] = {**both["providers"]["openai"], "type": "openai"}
    async with LLMManager.open(both, transport=bench.upstream.transport(), clock=bench.clock) as manager:
        client = manager.get_client("other")
        running = asyncio.create_task(client.chat("hello"))
        await bench.clock.advance(1.0)
        await manager.reload(config())
        with pytest.raises(LLMConfigurationError, match="there are: openai"):
            await client.chat("hello")
        await bench.clock.advance(5.0)
        assert str(running.result()) == "hello"


async def test_old_parts_are_closed_when_their_last_call_has_ended() -> None:
    made: list[FakeProvider] = []
    clock = FakeClock()

    def factory(_: object) -> FakeProvider:
        made.append(FakeProvider(latency=5.0, clock=clock))
        return made[-1]

    register_provider("life-fake", factory)
    section = {"providers": {"life-fake": {"models": ["m"]}}}
    async with LLMManager.open(section, clock=clock) as manager:
        client = manager.get_client()
        running = asyncio.create_task(client.chat("hello"))
        await clock.advance(1.0)
        await manager.reload(section)
        await clock.advance(1.0)
        assert [provider.closed for provider in made] == [False, False]
        await clock.advance(5.0)
        assert str(running.result()) == "hello"
        assert [provider.closed for provider in made] == [True, False]
    assert [provider.closed for provider in made] == [True, True]


# --- explain and health --------------------------------------------------------------------------------------------


async def test_explain_takes_nothing_whether_admitted_waiting_or_never_fitting() -> None:
    bench = Bench()
    limits = {"requests_per_minute": 2, "tokens_per_minute": 1000}
    models = {"models": [MODEL, "gpt-4o"], "rate_limits": limits}
    async with await bench.open(openai=models) as manager:
        client = manager.get_client()

        def level() -> object:
            return manager.get_status()["providers"]["openai"]

        before = level()
        for _ in range(5):
            view = manager.explain(LLMRequest("hello", max_tokens=10))
            assert (view.admitted, view.wait_seconds, view.key is not None) == (True, 0.0, True)
        with pytest.raises(LLMRateLimitError, match="tokens_per_minute"):
            manager.explain(LLMRequest("hello", max_tokens=100_000))
        with pytest.raises(LLMInvalidRequestError, match="no-such"):
            manager.explain(LLMRequest("hello", model="no-such"))
        assert level() == before
        for number in range(2):
            await client.chat(f"hello {number}", max_tokens=10)
        assert [record.body["model"] for record in bench.upstream.requests] == [MODEL, "gpt-4o"]
        before = level()
        view = manager.explain(LLMRequest("hello", max_tokens=10))
        assert (view.admitted, view.limit, view.level) == (False, "requests_per_minute", "key")
        assert 0 < view.wait_seconds <= 60.2
        assert view.saturation == pytest.approx(1.0)
        assert level() == before
        assert manager.get_status()["metrics"]["total_requests"] == 2


async def test_explain_asks_for_a_model_where_any_would_do() -> None:
    bench = Bench()
    async with await bench.open(openai={"models": ["*"]}) as manager:
        with pytest.raises(LLMInvalidRequestError, match="must name one"):
            manager.explain("hello")
        assert manager.explain(LLMRequest("hello", model="anything")).admitted


async def test_health_check_asks_every_provider_and_brings_a_refused_key_back() -> None:
    bench = Bench(faults=[])
    async with await bench.open() as manager:
        status = await manager.health_check()
        assert {name: bool(one) for name, one in status.items()} == {"openai": True}
        queue = manager._routes.parts.chains["openai"].pool.queue  # pyright: ignore[reportPrivateUsage]
        queue.slots[0].key.refuse(LLMConnectionError("refused", sent=True))
        assert manager.get_status()["providers"]["openai"]["health"] == "unhealthy"
        await manager.health_check()
        assert manager.get_status()["providers"]["openai"]["health"] == "healthy"


async def test_status_is_json_and_names_keys_by_fingerprint() -> None:
    bench = Bench()
    async with await bench.open(openai={"models": [MODEL, "gpt-4o"]}, limits={"users": {"default": {}}}) as manager:
        client: LLMClient = manager.get_client(user="alice")
        await client.chat("hello")
        text = json.dumps(manager.get_status())
    assert "sk-test-1" not in text
    assert set(json.loads(text)) == {
            "metrics", "models", "users", "providers", "pool", "cache", "limits", "calls",
        }  # fmt: skip
    assert json.loads(text)["providers"]["openai"]["keys"][0]["key"].startswith("key-")


@pytest.mark.parametrize("make", [lambda: "openai", lambda: None])
async def test_a_client_of_no_known_provider_is_told_the_choices(make: Callable[[], str | None]) -> None:
    bench = Bench()
    async with await bench.open() as manager:
        assert manager.get_client(make()).__repr__().startswith("LLMClient(provider='openai'")
        with pytest.raises(LLMConfigurationError, match="there are: openai"):
            manager.get_client("nobody")


# --- a plain mapping's keys ------------------------------------------------------------------------------------------

PLANTED = "plain_planted_key_BETA"


def planted(**mistake: Any) -> dict[str, Any]:
    return {"providers": {"openai": {"api_keys": [PLANTED], "models": [MODEL], **mistake}}}


def frames_of(error: BaseException) -> str:
    """All that a traceback with locals shows, but for this file's own frames."""
    frames = traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__), capture_locals=True)
    return "".join(repr(frame.locals) for frame in frames if frame.filename != __file__)


@pytest.mark.parametrize("mistake", [{"zzz": 1}, {"type": "nope"}])
async def test_no_key_of_a_plain_mapping_is_in_the_tracebacks_of_opening_and_reloading(mistake: dict[str, Any]) -> None:
    with pytest.raises(LLMConfigurationError) as caught:
        await LLMManager.open(planted(**mistake))
    assert PLANTED not in frames_of(caught.value)
    async with LLMManager.open(config()) as manager:
        with pytest.raises(LLMConfigurationError) as caught:
            await manager.reload(planted(**mistake))
        assert PLANTED not in frames_of(caught.value)


async def test_no_key_of_a_plain_mapping_is_in_the_traceback_of_a_reload_that_comes_too_late() -> None:
    async with LLMManager.open(config()) as manager:
        pass
    with pytest.raises(LLMPoolExhaustedError) as caught:
        await manager.reload(planted())
    assert PLANTED not in frames_of(caught.value)


async def test_no_key_of_a_plain_mapping_is_in_what_a_manager_and_its_opening_hold() -> None:
    opening = LLMManager.open(planted())
    assert PLANTED not in repr(vars(opening))
    async with opening as manager:
        assert PLANTED not in repr(vars(manager))
        await manager.reload(planted())
        assert PLANTED not in repr(vars(manager))
