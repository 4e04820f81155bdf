"""The first use, as the contract prints it, and what a manager promises. The other public names: `test_public_*.py`."""

# ruff: noqa: ANN401 - public names are looked up as tests run: a missing one fails its tests, not the collection

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path
    from types import ModuleType

METRICS = {
    "total_requests",
    "successful_requests",
    "failed_requests",
    "cancelled_requests",
    "retries",
    "tokens",
    "latency",
    "errors",
    "models",
    "keys",
    "cache",
    "cost",
}
INSIDE = {
    "tokens": {"input", "output", "total", "cached_input"},
    "latency": {"min", "max", "mean", "p50", "p95", "p99"},
    "cache": {"hits", "misses", "hit_ratio", "tokens_saved", "cost_saved", "seconds_saved"},
}
FIRST_USE = """\
from llm import get_llm_manager, LLMProvider, Message, MessageRole

manager = await get_llm_manager()                 # one per process, made once however many tasks ask at the same time
client = manager.get_client()                     # the default provider; or get_client(LLMProvider.ANTHROPIC)
response = await client.chat("Hello, how are you?")
print(response)                                   # str(response) is the text; response.content too

messages = [Message(MessageRole.SYSTEM, "You are a helpful assistant"), Message(MessageRole.USER, "What is Python?")]
response = await client.complete(messages=messages, temperature=0.7, max_tokens=200)
async for chunk in client.stream_complete(messages):
    print(chunk, end="")                          # str(chunk) is the text delta
print(manager.get_status()["metrics"])
await manager.close()                             # or: async with LLMManager.open("llm.yaml") as manager
"""
NOBODY = {"providers": {"openai": {"base_url": "http://127.0.0.1:9/v1", "api_keys": ["k1"], "models": ["m"]}}}


@pytest.fixture
async def upstream() -> AsyncIterator[Any]:
    """A server of the OpenAI dialect on a real socket."""
    async with import_module("llm.testing").MockUpstream(dialect="openai") as up:
        yield up


@pytest.fixture
async def manager(llm: ModuleType, upstream: Any, serving: Callable[..., dict[str, Any]]) -> AsyncIterator[Any]:
    """A manager whose only provider is the server."""
    async with llm.LLMManager.open(serving(upstream, cache={})) as opened:
        yield opened


@pytest.fixture
async def forgotten(llm: ModuleType) -> AsyncIterator[None]:
    """No process-wide manager before the test, none after it."""
    await llm.close_llm_manager()
    yield
    await llm.close_llm_manager()


async def test_the_first_use_works_as_printed(
    upstream: Any, serving: Callable[..., dict[str, Any]], shell: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "llm.yaml").write_text(json.dumps(serving(upstream)), encoding="utf-8")
    program = "import asyncio\nasync def main():\n" + textwrap.indent(FIRST_USE, "    ") + "asyncio.run(main())\n"
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-W", "error", "-c", program],
        env=shell | {"LLM_CONFIG": str(tmp_path / "llm.yaml")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "'successful_requests': 3" in done.stdout
    assert len(upstream.requests) == 3


async def test_a_mock_upstream_has_an_address_and_notes_what_came(manager: Any, upstream: Any) -> None:
    assert upstream.base_url.startswith("http://127.0.0.1:")
    assert len(upstream.requests) == 0
    await manager.get_client().chat("Hello")
    assert len(upstream.requests) == 1


async def test_what_the_metrics_tell(manager: Any) -> None:
    await manager.get_client().chat("Hello")
    metrics = manager.get_status()["metrics"]
    assert set(metrics) == METRICS
    assert {name: set(metrics[name]) for name in INSIDE} == INSIDE
    assert [set(model) for model in metrics["models"].values()] == [{"requests", "tokens", "cost", "latency"}]


async def test_the_metrics_have_every_key_before_the_first_call(manager: Any) -> None:
    metrics = manager.get_status()["metrics"]
    assert set(metrics) == METRICS
    assert {name: set(metrics[name]) for name in INSIDE} == INSIDE


async def test_total_is_successful_and_failed_and_cancelled(llm: ModuleType, manager: Any) -> None:
    client = manager.get_client()
    for _ in range(2):
        await client.chat("The same")
    with pytest.raises(llm.LLMException):
        await client.chat("Hello", model="nobody-has-this")
    metrics = manager.get_status()["metrics"]
    counted = [metrics[f"{kind}_requests"] for kind in ("total", "successful", "failed", "cancelled")]
    assert counted == [3, 2, 1, 0]
    assert metrics["cache"]["hits"] == 1
    assert sum(metrics["errors"].values()) == 1


async def test_the_status_is_json_and_shows_no_key(manager: Any) -> None:
    client = manager.get_client(user="alice")
    response = await client.chat("Hello")
    status = manager.get_status()
    assert {"metrics", "providers", "pool", "cache", "limits", "users"} <= set(status)
    assert set(status["users"]["alice"]) == {"requests", "tokens", "cost", "resets_in"}
    told = json.dumps(status) + repr(manager) + repr(client) + repr(response)
    assert [key for key in ("sk-one", "sk-two") if key in told] == []


async def test_a_response_names_its_key_by_the_fingerprint_of_the_status(manager: Any) -> None:
    response = await manager.get_client().chat("Hello")
    assert response.key in manager.get_status()["metrics"]["keys"]


async def test_str_of_the_answer_is_its_text(manager: Any) -> None:
    response = await manager.get_client().chat("Hello", system="Be brief", history=[{"role": "user", "content": "Hi"}])
    assert str(response) == f"{response}" == response.content != ""


async def test_a_stream_is_an_iterator_a_context_and_a_whole_response(llm: ModuleType, manager: Any) -> None:
    async with manager.get_client().stream_complete("Hello") as stream:
        chunks = [chunk async for chunk in stream]
        whole = await stream.response()
    assert {type(chunk) for chunk in chunks} == {llm.StreamChunk}
    assert "".join(map(str, chunks)) == whole.content != ""
    assert whole.finish_reason == "stop"


async def test_request_is_what_the_others_come_down_to(llm: ModuleType, manager: Any) -> None:
    response = await manager.get_client().request(llm.LLMRequest("Hello", max_tokens=5))
    assert isinstance(response, llm.LLMResponse)


@pytest.mark.parametrize("provider", ["openai", None], ids=["by name", "the default"])
async def test_a_client_is_got_by_name_and_by_enum(llm: ModuleType, manager: Any, provider: str | None) -> None:
    client = manager.get_client(provider and llm.LLMProvider(provider))
    assert (await client.chat("Hello")).provider == "openai"


async def test_a_provider_that_is_not_configured_is_named_with_those_that_are(llm: ModuleType, manager: Any) -> None:
    with pytest.raises(llm.LLMConfigurationError, match=r"anthropic.*openai"):
        manager.get_client("anthropic")


async def test_a_model_may_carry_its_provider(manager: Any) -> None:
    assert (await manager.get_client().chat("Hello", model="openai/gpt-4o-mini")).model == "gpt-4o-mini"


async def test_explain_takes_nothing(llm: ModuleType, manager: Any) -> None:
    admission = manager.explain(llm.LLMRequest("Hello"))
    assert isinstance(admission, llm.Admission)
    assert (admission.admitted, admission.wait_seconds) == (True, 0.0)


async def test_health_is_asked_of_every_provider(llm: ModuleType, manager: Any) -> None:
    health = await manager.health_check()
    assert {name: type(status) for name, status in health.items()} == {"openai": llm.HealthStatus}


async def test_a_closed_manager_refuses_and_closing_again_is_nothing(llm: ModuleType, manager: Any) -> None:
    client = manager.get_client()
    await manager.close()
    await manager.close()
    with pytest.raises(llm.LLMException, match="closed"):
        await client.chat("Hello")


async def test_open_may_be_awaited_too(llm: ModuleType, upstream: Any, serving: Callable[..., dict[str, Any]]) -> None:
    opened = await llm.LLMManager.open(serving(upstream))
    assert isinstance(opened, llm.LLMManager)
    await opened.close(drain=0.0)


async def test_on_a_virtual_clock_the_server_answers_in_process(
    llm: ModuleType, upstream: Any, serving: Callable[..., dict[str, Any]]
) -> None:
    clock = import_module("llm.testing").FakeClock(start=0.0)
    async with llm.LLMManager.open(serving(upstream), transport=upstream.transport(), clock=clock) as opened:
        assert (await opened.get_client().chat("Hello")).content


async def test_a_bad_reload_is_refused_and_the_old_configuration_stays(llm: ModuleType, manager: Any) -> None:
    with pytest.raises(llm.LLMConfigurationError):
        await manager.reload({"providers": {"openai": {"api_keys": [], "modles": []}}})
    assert (await manager.get_client().chat("Hello")).content


@pytest.mark.usefixtures("forgotten")
class TestOnePerProcess:
    """`get_llm_manager` and `close_llm_manager`."""

    async def test_all_tasks_that_ask_at_once_get_the_same(self, llm: ModuleType) -> None:
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(llm.get_llm_manager(NOBODY)) for _ in range(20)]
        assert len({id(task.result()) for task in asked}) == 1
        assert await llm.get_llm_manager() is asked[0].result()

    async def test_another_configuration_is_refused(self, llm: ModuleType) -> None:
        await llm.get_llm_manager(NOBODY)
        with pytest.raises(llm.LLMConfigurationError, match=r"close_llm_manager|LLMManager\.open"):
            await llm.get_llm_manager({**NOBODY, "retry": {"max_attempts": 2}})

    async def test_after_closing_the_next_is_a_new_one(self, llm: ModuleType) -> None:
        first = await llm.get_llm_manager(NOBODY)
        await llm.close_llm_manager()
        assert await llm.get_llm_manager(NOBODY) is not first

    async def test_a_manager_closed_by_itself_is_not_handed_out_again(self, llm: ModuleType) -> None:
        first = await llm.get_llm_manager(NOBODY)
        await first.close()
        assert await llm.get_llm_manager(NOBODY) is not first


def test_a_new_event_loop_gets_a_fresh_manager(llm: ModuleType) -> None:
    async def ask() -> Any:
        manager = await llm.get_llm_manager(NOBODY)
        assert manager.get_status()["metrics"]["total_requests"] == 0
        await llm.close_llm_manager()
        return manager

    assert asyncio.run(ask()) is not asyncio.run(ask())


async def test_a_provider_of_ones_own_is_a_word_and_a_factory(llm: ModuleType) -> None:
    provider = import_module("llm.testing").FakeProvider("from my own")

    def factory(_: object) -> Any:
        return provider

    llm.register_provider("my-own", factory)
    config = {"providers": {"mine": {"type": "my-own", "api_keys": ["k1"], "models": ["m"]}}}
    async with llm.LLMManager.open(config) as opened:
        response = await opened.get_client("mine").chat("Hello")
    assert (response.content, response.provider) == ("from my own", "mine")


async def test_a_clients_own_chain_replaces_the_configured_one(manager: Any) -> None:
    events: list[str] = []
    recording = import_module("llm.testing").RecordingMiddleware
    client = manager.get_client(middleware=[recording("outer", events), recording("inner", events)])
    await client.chat("Hello")
    assert events == ["outer:in", "inner:in", "inner:out", "inner:ended", "outer:out", "outer:ended"]


async def test_one_onion_method_serves_streams_too(manager: Any) -> None:
    events: list[str] = []
    recording = import_module("llm.testing").RecordingMiddleware
    client = manager.get_client(middleware=[recording("outer", events), recording("inner", events)])
    await client.stream_complete("Hello").response()
    assert events == ["outer:in", "inner:in", "inner:out", "outer:out", "inner:ended", "outer:ended"]


async def test_the_status_of_a_provider_tells_of_its_health_and_of_each_key(manager: Any) -> None:
    status = manager.get_status()["providers"]["openai"]
    assert [name for name in status if name.startswith("health")] != []
    assert len(status["keys"]) == 2


async def test_an_alias_is_a_model_name(llm: ModuleType, upstream: Any, serving: Callable[..., dict[str, Any]]) -> None:
    aliases = {"fast": {"targets": ["openai/gpt-4o-mini"], "strategy": "fallback"}}
    async with llm.LLMManager.open(serving(upstream, aliases=aliases)) as opened:
        assert (await opened.get_client().chat("Hello", model="fast")).model == "gpt-4o-mini"


async def test_a_prompts_tokens_are_counted(manager: Any) -> None:
    assert await manager.get_client().count_tokens("Hello") > 0


async def test_embeddings_are_answered(manager: Any) -> None:
    answer = await manager.get_client().embed(["Hello", "Goodbye"], dimensions=3)
    assert [len(vector) for vector in answer.embeddings] == [3, 3]


# What later work adds.


async def test_the_status_of_a_provider_tells_of_its_breaker(
    llm: ModuleType, upstream: Any, serving: Callable[..., dict[str, Any]]
) -> None:
    async with llm.LLMManager.open(serving(upstream, circuit_breaker={})) as opened:
        assert [name for name in opened.get_status()["providers"]["openai"] if "breaker" in name] != []


async def test_the_vendors_own_client_may_carry_the_bytes(
    llm: ModuleType, upstream: Any, serving: Callable[..., dict[str, Any]]
) -> None:
    config = serving(upstream)
    config["providers"]["openai"]["transport"] = "sdk"
    opened = await quietly(llm, llm.LLMManager.open(config))
    assert opened is not None
    async with opened:
        assert await quietly(llm, opened.get_client().chat("Hello"))


async def test_tracing_is_a_word_of_the_chain(
    llm: ModuleType, upstream: Any, serving: Callable[..., dict[str, Any]]
) -> None:
    config = serving(upstream)
    config["global"]["middleware"] = ["tracing", "rate_limit", "retry"]
    opened = await quietly(llm, llm.LLMManager.open(config))
    assert opened is not None
    await opened.close()


async def test_the_vendors_own_clients_run_on_a_transport_of_the_manager(manager: Any) -> None:
    assert isinstance(manager.http_transport(), import_module("httpx2").AsyncBaseTransport)


async def quietly(llm: ModuleType, waiting: Any) -> Any:
    """Return what comes, or None where the package says that it cannot."""
    try:
        return await waiting
    except llm.LLMException:
        return None
