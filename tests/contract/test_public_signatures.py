"""Names, parameters, kinds and defaults of everything that is called: a change here breaks somebody's program."""

from __future__ import annotations

import inspect
import sys
import typing
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Named = Callable[[str], Any]

# As printed in the contract, without annotations: `self` is left out, `**` stands for options by name.
SIGNATURES = {
    "llm:get_llm_manager": "(config=None)",
    "llm:close_llm_manager": "()",
    "llm:LLMManager.open": "(config=None, *, transport=None, clock=None)",
    "llm:LLMManager.get_client": "(provider=None, *, model=None, user=None, priority=0, middleware=None)",
    "llm:LLMManager.http_transport": "(*, user=None, priority=0)",
    "llm:LLMManager.get_status": "()",
    "llm:LLMManager.health_check": "()",
    "llm:LLMManager.explain": "(request)",
    "llm:LLMManager.reload": "(config=None)",
    "llm:LLMManager.invalidate_cache": (
        "(*, key=None, request=None, provider=None, model=None, user=None, tags=(), older_than=0.0)"
    ),
    "llm:LLMManager.clear_cache": "()",
    "llm:LLMManager.close": "(drain=30.0)",
    "llm:LLMClient.chat": "(text, *, system=None, history=(), **options)",
    "llm:LLMClient.embed": "(texts, *, model=None, dimensions=None)",
    "llm:LLMClient.count_tokens": "(messages, *, model=None)",
    "llm:LLMClient.request": "(request)",
    "llm:LLMClient.stream_request": "(request)",
    "llm:register_provider": "(name, factory)",
    "llm.cache:compute_request_hash": "(request, *, scope='shared', user=None)",
    "llm.testing:FakeClock.advance": "(seconds)",
    "llm.batch:RequestBatch": "()",
    "llm.batch:RequestManager": "(manager=None, *, concurrency=64, progress=False, patience=600.0)",
    "llm.batch:RequestManager.process_batch": "(batch)",
    "llm.batch:RequestManager.run": "(batch)",
    "llm.batch:RequestManager.stream": "(batch)",
    "llm.batch:ResponseWrapper": "(request_id, order, response=None, error=None)",
}
SIGNATURES.update(  # the same, blocking; tests/unit/sync holds every member to its twin
    {
        path.replace("llm:", "llm.sync:"): signature
        for path, signature in SIGNATURES.items()
        if path.startswith(("llm:get_", "llm:close_", "llm:LLMManager.", "llm:LLMClient."))
    }
)
OPTIONS = dict.fromkeys(
    [
        *("model", "temperature", "top_p", "max_tokens", "stop", "seed", "tools", "tool_choice", "response_format"),
        *("response_model", "reasoning_effort", "timeout", "user", "priority", "cache", "metadata", "extra"),
    ]
)
COROUTINES = [
    "llm.batch:RequestManager.run",
    "llm.batch:run_file",
    "llm:get_llm_manager",
    "llm:close_llm_manager",
    "llm:LLMManager.health_check",
    "llm:LLMManager.reload",
    "llm:LLMManager.invalidate_cache",
    "llm:LLMManager.clear_cache",
    "llm:LLMManager.close",
    "llm:LLMClient.chat",
    "llm:LLMClient.complete",
    "llm:LLMClient.embed",
    "llm:LLMClient.count_tokens",
    "llm:LLMClient.request",
    "llm:LLMStream.response",
    "llm:LLMStream.aclose",
    "llm:Middleware.__call__",
    "llm:Provider.initialize",
    "llm:Provider.complete",
    "llm:Provider.health_check",
    "llm:Provider.close",
    "llm.testing:FakeClock.advance",
]
PLAIN = [
    "llm.batch:RequestManager.process_batch",
    "llm.batch:RequestManager.stream",
    "llm:LLMManager.open",
    "llm:LLMManager.get_client",
    "llm:LLMManager.http_transport",
    "llm:LLMManager.get_status",
    "llm:LLMManager.explain",
    "llm:LLMClient.stream_complete",
    "llm:LLMClient.stream_request",
    "llm:LLMStream.__aiter__",
    "llm:register_provider",
    "llm.cache:compute_request_hash",
    "llm.sync:get_llm_manager",
    "llm.sync:close_llm_manager",
    "llm.sync:LLMManager.open",
    "llm.sync:LLMManager.close",
    "llm.sync:LLMClient.complete",
    "llm.sync:LLMClient.stream_complete",
    "llm.testing:MockUpstream.transport",
]


def printed(function: Callable[..., Any]) -> str:
    """Return a signature as the contract prints it; a private parameter is nobody's business."""
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name != "self" and not parameter.name.startswith("_")
    ]
    return str(inspect.Signature(parameters)).replace("(/", "(").replace(", /", "")


def options(function: Callable[..., Any]) -> dict[str, object]:
    """Return the arguments that go by name only, with their defaults; an unpacked TypedDict's have none but None."""
    found: dict[str, object] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY:
            found[name] = parameter.default
        elif parameter.kind is parameter.VAR_KEYWORD:
            unpacked = str(parameter.annotation).removeprefix("Unpack[").removesuffix("]")
            homes = [
                module for path, module in sys.modules.items() if path.startswith("llm.") and unpacked in vars(module)
            ]
            found |= dict.fromkeys(vars(homes[0])[unpacked].__annotations__)
    return found


@pytest.mark.parametrize("path", SIGNATURES)
def test_a_signature_is_as_the_contract_prints_it(named: Named, path: str) -> None:
    assert printed(named(path)) == SIGNATURES[path]


@pytest.mark.parametrize("method", ["complete", "stream_complete"])
def test_a_calls_options_go_by_name_and_default_to_none(named: Named, method: str) -> None:
    function = named(f"llm:LLMClient.{method}")
    positional = [p for p in inspect.signature(function).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    further = {"continue_stream": False} if method == "stream_complete" else {}
    assert options(function) == OPTIONS | further
    assert [(p.name, p.default) for p in positional] == [
        ("self", inspect.Parameter.empty),
        ("messages", inspect.Parameter.empty),
    ]


def test_chat_takes_the_options_of_complete(named: Named) -> None:
    assert set(OPTIONS) | {"system", "history"} == set(options(named("llm:LLMClient.chat")))


@pytest.mark.parametrize("path", COROUTINES)
def test_what_waits_is_a_coroutine(named: Named, path: str) -> None:
    assert inspect.iscoroutinefunction(named(path))


@pytest.mark.parametrize("path", PLAIN)
def test_what_does_no_io_is_not_awaited(named: Named, path: str) -> None:
    assert callable(named(path))
    assert not inspect.iscoroutinefunction(named(path))


@pytest.mark.parametrize("path", dict.fromkeys([*SIGNATURES, *COROUTINES, *PLAIN]))
def test_every_parameter_and_result_is_typed(named: Named, path: str) -> None:
    signature = inspect.signature(named(path))
    bare = [p.name for p in signature.parameters.values() if p.name != "self" and p.annotation is p.empty]
    assert bare == []
    assert signature.return_annotation is not signature.empty or isinstance(named(path), type)


@pytest.mark.parametrize("path", [*SIGNATURES, "llm:LLMClient.complete", "llm:LLMClient.stream_complete"])
def test_everything_that_is_called_says_what_it_does(named: Named, path: str) -> None:
    assert (named(path).__doc__ or "").strip()


@pytest.mark.parametrize(
    ("kind", "members"),
    [
        ("llm:LLMStream", "__aiter__ __anext__ __aenter__ __aexit__ aclose response"),
        ("llm.sync.stream:LLMStream", "__iter__ __next__ __enter__ __exit__ close response partials"),
        ("llm.batch:RequestBatch", "merge to_jsonl from_jsonl"),
        ("llm.batch:RequestManager", "process_batch run stream stats"),
        ("llm:Middleware", "__call__"),
        ("llm:Provider", "initialize complete stream health_check close"),
        ("llm.cache:CacheBackend", "get put delete clear close"),
        ("llm.cache:InMemoryCache", "get put delete clear close"),
        ("llm.testing:MockUpstream", "__aenter__ __aexit__ transport"),
        ("llm.testing:FakeClock", "now wall sleep timeout advance"),
        ("llm.testing:FakeProvider", "initialize complete stream health_check close"),
        ("llm.testing:RecordingMiddleware", "__call__"),
        ("llm.providers.local:InferenceEngine", "load_model generate generate_stream unload_model"),
    ],
)
def test_a_type_has_these_members(named: Named, kind: str, members: str) -> None:
    missing = [name for name in members.split() if not hasattr(named(kind), name)]
    assert missing == []


def test_a_file_is_run_with_these_options(named: Named) -> None:
    parameters = inspect.signature(named("llm.batch:run_file")).parameters
    assert list(parameters) == [
        *("manager", "source", "output", "errors", "rows", "count", "client", "concurrency", "patience", "restart"),
        *("ordered", "tracker", "tally"),
    ]


def test_a_batch_is_filled_as_with_the_openai_client(named: Named) -> None:
    batch = named("llm.batch:RequestBatch")()
    request_id = batch.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Hi"}])
    assert isinstance(request_id, str)


@pytest.mark.parametrize("name", ["RateLimit", "Retry", "Cache", "Logging", "Metrics"])
def test_each_of_the_five_middlewares_is_one_onion_method(named: Named, name: str) -> None:
    kind = named(f"llm.middleware:{name}Middleware")
    assert printed(kind.__call__) == "(request, call_next)"
    assert inspect.iscoroutinefunction(kind.__call__)


def test_a_middleware_is_a_protocol_and_so_is_a_provider(named: Named) -> None:
    protocols = [named("llm:Middleware"), named("llm:Provider"), named("llm.cache:CacheBackend")]
    assert [getattr(kind, "_is_protocol", False) for kind in protocols] == [True, True, True]


def test_a_mock_upstream_is_made_from_a_dialect_limits_and_faults(named: Named) -> None:
    parameters = inspect.signature(named("llm.testing:MockUpstream")).parameters
    assert parameters["dialect"].default == "openai"
    assert {"limits", "faults"} <= set(parameters)
    assert list(inspect.signature(named("llm.testing:Fault")).parameters)[:2] == ["kind", "at"]


def test_a_fake_clock_starts_where_it_is_told(named: Named) -> None:
    assert named("llm.testing:FakeClock")(start=12.5).now() == 12.5


@pytest.mark.parametrize("name", ["admitted", "wait_seconds", "level", "limit", "key", "saturation", "as_of"])
def test_an_admission_tells(named: Named, name: str) -> None:
    assert name in named("llm:Admission").__annotations__


def test_a_result_is_a_response_or_a_stream(named: Named) -> None:
    assert set(typing.get_args(named("llm:LLMResult"))) == {named("llm:LLMResponse"), named("llm:LLMStream")}
