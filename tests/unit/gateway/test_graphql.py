"""`POST /graphql`: what can be asked, what is answered, and how failures are told."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from graphql import GraphQLError

from llm.core import exceptions
from llm.core.exceptions import LLMException
from llm.core.messages import MessageRole, TextPart, ToolCall
from llm.core.types import LLMResponse
from llm.gateway.codes import code_of
from llm.gateway.exchange import Exchange
from llm.gateway.graphql.documents import Document, Documents
from llm.gateway.graphql.errors import written
from llm.gateway.graphql.operations import Operations
from llm.gateway.graphql.schema import own
from llm.testing import Fault, MockUpstream

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from llm.core.types import LLMRequest

    Gateways = Callable[..., AbstractAsyncContextManager[Any]]

ALICE, BOB = "gw-alice-0123456789", "gw-bob-0123456789"
KEYS = {"alice": {"key": ALICE}, "bob": {"key": BOB, "models": ["other"]}}
COMPLETE = "mutation ($input: CompletionInput!) { complete(input: $input) { content finishReason } }"


async def ask(it: Any, query: str, *, key: str | None = None, **variables: Any) -> tuple[Any, list[Any]]:  # noqa: ANN401 - JSON
    """Return data and errors."""
    status, told, _ = await it.ask("POST", "/graphql", {"query": query, "variables": variables}, key=key)
    assert status == 200, told
    return told.get("data"), told.get("errors", [])


async def code(it: Any, query: str, **variables: Any) -> str:  # noqa: ANN401 - JSON
    """Return the code of the one error."""
    _, errors = await ask(it, query, **variables)
    assert len(errors) == 1
    assert errors[0]["extensions"]["requestId"]
    told: str = errors[0]["extensions"]["code"]
    return told


async def test_a_query_tells_health_models_and_status(inside: Gateways) -> None:
    async with inside() as it:
        data, errors = await ask(it, "query { health { status } models { id provider } status }")
        assert data["status"] == json.loads(json.dumps(it.manager.get_status()))
    assert not errors
    assert data["health"] == {"status": "ok"}
    assert data["models"] == [{"id": "gpt-4o-mini", "provider": "openai"}]
    assert "k1" not in json.dumps(data["status"]).replace("key-", "")


async def test_a_mutation_completes(inside: Gateways) -> None:
    asked = """mutation {
        complete(input: {prompt: "hello there my friend", model: "gpt-4o-mini", maxTokens: 100, temperature: 0.5}) {
            content model provider finishReason cached cost toolCalls { id }
            usage { inputTokens outputTokens totalTokens cachedInputTokens reasoningTokens }
        }
    }"""
    async with inside() as it:
        data, errors = await ask(it, asked)
        assert it.entry.desk.counts.tokens == 6
    assert not errors
    assert data["complete"].pop("cost") > 0
    assert data["complete"] == {
        "content": "hello there my friend", "model": "gpt-4o-mini", "provider": "openai", "finishReason": "stop",
        "cached": False, "toolCalls": [],
        "usage": {
            "inputTokens": 6, "outputTokens": 6, "totalTokens": 12, "cachedInputTokens": 0, "reasoningTokens": 0,
        },
    }  # fmt: skip


async def test_an_input_is_a_request_in_every_field(inside: Gateways) -> None:
    seen: list[LLMRequest] = []

    def speak(request: LLMRequest) -> LLMResponse:
        seen.append(request)
        return LLMResponse(content="", tool_calls=(ToolCall("c2", "weather", "{}"),), finish_reason="tool_calls")

    told = {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Rain?"}], "name": "ann"},
            {"role": "assistant", "toolCalls": [{"id": "c1", "name": "weather", "arguments": "{}"}]},
            {"role": "tool", "content": "wet", "toolCallId": "c1"},
        ],
        "system": "Be short.", "topP": 0.5, "stop": ["x", "y"], "seed": 7, "reasoningEffort": "low",
        "responseFormat": {"type": "json_object"}, "toolChoice": "weather",
        "tools": [{"name": "weather", "description": "tells it", "parameters": {"type": "object"}, "strict": True}],
    }  # fmt: skip
    query = "mutation ($input: CompletionInput!) { complete(input: $input) { toolCalls { id name arguments } } }"
    async with inside(MockUpstream(answer=speak)) as it:
        data, errors = await ask(it, query, input=told)
    assert not errors
    assert data == {"complete": {"toolCalls": [{"id": "c2", "name": "weather", "arguments": "{}"}]}}
    (request,) = seen
    assert [message.role for message in request.messages] == [
        MessageRole.SYSTEM, MessageRole.USER, MessageRole.ASSISTANT, MessageRole.TOOL,
    ]  # fmt: skip
    assert request.messages[1].content in ("Rain?", (TextPart("Rain?"),))
    assert request.messages[1].name == "ann"
    assert request.messages[2].tool_calls == (ToolCall("c1", "weather", "{}"),)
    assert request.messages[3].tool_call_id == "c1"
    assert (request.top_p, request.stop, request.seed) == (0.5, ("x", "y"), 7)
    assert (request.reasoning_effort, request.response_format, request.tool_choice) == ("low", "json_object", "weather")
    assert request.tools is not None
    assert "tells it" in repr(request.tools[0])


async def test_several_completions_of_one_operation_count_together(inside: Gateways) -> None:
    query = (
        """mutation ($a: CompletionInput!) { a: complete(input: $a) { content } b: complete(input: $a) { content } }"""
    )
    async with inside() as it:
        data, _ = await ask(it, query, a={"prompt": "hello there my friend", "toolChoice": "auto"})
        assert it.entry.desk.counts.tokens == 12
    assert data["a"] == data["b"] == {"content": "hello there my friend"}


async def test_the_operation_that_is_named_is_run(inside: Gateways) -> None:
    document = "query A { health { status } } query B { models { id } }"
    async with inside() as it:
        for name, there in (("A", "health"), ("B", "models")):
            _, told, _ = await it.ask("POST", "/graphql", {"query": document, "operationName": name})
            assert there in told["data"]
        _, told, _ = await it.ask("POST", "/graphql", {"query": document, "operationName": "C"})
    assert "operationName" in told["errors"][0]["message"]


@pytest.mark.parametrize(
    ("query", "variables", "expected"),
    [
        ("{", {}, "GRAPHQL_PARSE_FAILED"),
        ("{nothing}", {}, "GRAPHQL_VALIDATION_FAILED"),
        ('subscription {completion(input: {prompt: "a"}) {content}}', {}, "GRAPHQL_VALIDATION_FAILED"),
        (COMPLETE, {"input": {"prompt": "a", "nothing": 1}}, "GRAPHQL_VALIDATION_FAILED"),
        (COMPLETE, {}, "GRAPHQL_VALIDATION_FAILED"),
        (COMPLETE, {"input": {}}, "INVALID_REQUEST"),
        (COMPLETE, {"input": {"prompt": "a", "messages": []}}, "INVALID_REQUEST"),
        (COMPLETE, {"input": {"messages": [{"role": "nobody", "content": "a"}]}}, "INVALID_REQUEST"),
        (COMPLETE, {"input": {"prompt": "a", "temperature": 9}}, "INVALID_REQUEST"),
        (COMPLETE, {"input": {"prompt": "a", "model": "nothing"}}, "INVALID_REQUEST"),
        ("{" + "health{status} " * 200 + "}", {}, "TOO_COMPLEX"),
        (COMPLETE, {"input": {"prompt": "a", "stop": ["a"] * 20_000}}, "TOO_COMPLEX"),
    ],
)  # fmt: skip
async def test_what_cannot_run_has_a_code(
    inside: Gateways, query: str, variables: dict[str, Any], expected: str
) -> None:
    async with inside() as it:
        assert await code(it, query, **variables) == expected


async def test_a_providers_failure_has_its_kind_as_code_and_its_place(inside: Gateways) -> None:
    up = MockUpstream(faults=[Fault("overloaded", at=1, retry_after=7)])
    async with inside(up, retry={"max_attempts": 1}) as it:
        data, errors = await ask(it, COMPLETE, input={"prompt": "a"})
    assert data is None
    assert errors[0]["path"] == ["complete"]
    assert errors[0]["extensions"].items() >= {"code": "OVERLOADED", "retryAfter": 7.0}.items()
    assert errors[0].keys() == {"message", "locations", "path", "extensions"}


async def test_a_users_limit_is_told_with_the_time_to_wait(inside: Gateways) -> None:
    limits = {"users": {"default": {"requests_per_day": 1}}}
    async with inside(gateway={"api_keys": KEYS}, limits=limits) as it:
        await ask(it, COMPLETE, key=ALICE, input={"prompt": "a"})
        _, errors = await ask(it, COMPLETE, key=ALICE, input={"prompt": "a"})
    assert errors[0]["extensions"]["code"] == "RATE_LIMIT"
    assert errors[0]["extensions"]["retryAfter"] > 0


async def test_a_key_sees_and_asks_for_its_own_models_alone(inside: Gateways) -> None:
    section = {"api_keys": ["k1", "k2"], "models": ["gpt-4o-mini", "other"]}
    async with inside(section=section, gateway={"api_keys": KEYS}) as it:
        data, _ = await ask(it, "{models {id}}", key=BOB)
        assert data == {"models": [{"id": "other"}]}
        _, errors = await ask(it, COMPLETE, key=BOB, input={"prompt": "a", "model": "gpt-4o-mini"})
    assert errors[0]["extensions"]["code"] == "AUTHENTICATION"


async def test_a_key_sees_of_users_its_own_alone(inside: Gateways) -> None:
    limits = {"users": {"default": {"requests_per_day": 1}}}
    async with inside(gateway={"api_keys": KEYS}, limits=limits) as it:
        for key in (ALICE, BOB, ALICE, BOB):
            await ask(it, COMPLETE, key=key, input={"prompt": "a", **({"model": "other"} if key == BOB else {})})
        data, _ = await ask(it, "{status again: status}", key=ALICE)
    assert data["status"] == data["again"]
    assert list(data["status"]["users"]) == ["alice"]
    assert {call["user"] for call in data["status"]["calls"]} == {"alice"}
    assert "user bob" not in data["status"]["limits"]


def test_who_needs_no_key_sees_all_of_the_status() -> None:
    status = {"users": {"a": 1}, "limits": {"user a": 1, "global": 2}, "calls": [{"user": "a"}], "cost": 3}
    assert own(status, None) == status
    assert own(status, "b") == {"users": {}, "limits": {"global": 2}, "calls": [], "cost": 3}


async def test_without_a_good_key_the_status_is_401(inside: Gateways) -> None:
    async with inside(gateway={"api_keys": KEYS}) as it:
        for key in (None, "wrong"):
            status, told, _ = await it.ask("POST", "/graphql", {"query": "{health {status}}"}, key=key)
            assert (status, told["errors"][0]["extensions"]["code"]) == (401, "AUTHENTICATION")


async def test_only_json_is_taken_so_that_no_other_site_can_send_it_unasked(inside: Gateways) -> None:
    async with inside() as it:
        for kind in ("text/plain", "", "multipart/form-data; boundary=x"):
            status, told, _ = await it.ask("POST", "/graphql", {"query": "{health {status}}"}, content_type=kind)
            assert status == 415
            assert "application/json" in told["errors"][0]["message"]
        kind = "application/json; charset=utf-8"
        assert (await it.ask("POST", "/graphql", {"query": "{health {status}}"}, content_type=kind))[0] == 200


async def test_what_is_no_operation_is_a_400(inside: Gateways) -> None:
    async with inside() as it:
        for body in (b"{", b"", [{"query": "{health {status}}"}]):
            status, told, _ = await it.ask("POST", "/graphql", body)
            assert (status, told["errors"][0]["extensions"]["code"]) == (400, "INVALID_REQUEST"), body
        for wrong in (
            {},
            {"query": ""},
            {"query": 1},
            {"query": "{a}", "variables": [1]},
            {"query": "{a}", "operationName": 1},
        ):
            assert (await it.ask("POST", "/graphql", wrong))[1]["errors"][0]["extensions"]["code"] == "INVALID_REQUEST"


async def test_too_large_a_body_is_a_413_and_another_method_a_405(inside: Gateways) -> None:
    async with inside(gateway={"max_body_bytes": 100}) as it:
        assert (await it.ask("POST", "/graphql", b"x" * 101))[0] == 413
        status, _, headers = await it.ask("GET", "/graphql")
        assert (status, b"POST" in headers[b"allow"]) == (405, True)


async def test_the_exact_media_type_tells_by_its_status_whether_it_ran(inside: Gateways) -> None:
    exact = {"accept": "application/graphql-response+json"}
    async with inside() as it:
        for query, expected in (("{health {status}}", 200), ("{nothing}", 400), ("{", 400)):
            status, _, headers = await it.ask("POST", "/graphql", {"query": query}, **exact)
            assert status == expected
            assert headers[b"content-type"].startswith(b"application/graphql-response+json")
        status, told, _ = await it.ask("POST", "/graphql", {"query": COMPLETE, "variables": {"input": {}}}, **exact)
        assert (status, told["data"]) == (200, None)  # it ran, and failed
        status, told, _ = await it.ask("POST", "/graphql", {"query": COMPLETE}, **exact)
        assert (status, "data" in told) == (400, False)


async def test_switched_off_it_is_a_404_by_a_reload_too(inside: Gateways) -> None:
    async with inside() as it:
        assert (await it.ask("POST", "/graphql", {"query": "{health {status}}"}))[0] == 200
        told = it.manager.config.model_dump(exclude_unset=True, by_alias=True)
        told["providers"]["openai"]["api_keys"] = ["k1"]
        await it.manager.reload({**told, "features": {"graphql": False}})
        status, answer, _ = await it.ask("POST", "/graphql", {"query": "{health {status}}"})
        assert status == 404
        assert "features.graphql" in answer["errors"][0]["message"]
        async with it.line("/graphql") as refused:
            assert refused.status == 404


async def test_a_fault_of_the_gateways_own_is_told_without_its_words(
    inside: Gateways, caplog: pytest.LogCaptureFixture
) -> None:
    async with inside() as it:

        def answer(*_: object) -> None:
            raise ValueError("a secret of the insides")

        it.entry.desk.asking.answer = answer
        with caplog.at_level(logging.INFO):
            _, errors = await ask(it, COMPLETE, input={"prompt": "a prompt"})
    assert errors[0]["extensions"]["code"] == "INTERNAL"
    assert "secret" not in json.dumps(errors)
    assert "secret" not in caplog.text
    assert "ValueError" in caplog.text


async def test_errors_repeat_nothing_of_what_was_sent(inside: Gateways, caplog: pytest.LogCaptureFixture) -> None:
    async with inside() as it:
        with caplog.at_level(logging.DEBUG):
            sent: list[tuple[str, dict[str, Any]]] = [
                (COMPLETE, {"input": {"prompt": "hush hush", "nothing": 1}}),
                (COMPLETE, {"input": "hush hush"}),
                (COMPLETE, {"input": {"temperature": "hush hush"}}),
                (COMPLETE, {"input": {"messages": [{"role": ["hush hush"], "content": "hush hush"}]}}),
                ('mutation {complete(input: {temperature: "hush hush"}) {content}}', {}),
                ('mutation {complete(input: {prompt: "a" "hush hush"}) {content}}', {}),
                ('mutation {complete(input: "hush hush") {content}}', {}),
                ('mutation "hush hush" {complete}', {}),
                ('"hush hush"', {}),
                ('{health(a: "hush hush") {status}}', {}),
            ]
            for query, variables in sent:
                _, errors = await ask(it, query, **variables)
                assert errors
                assert "hush" not in json.dumps(errors), errors
    assert "hush" not in caplog.text


def test_of_many_errors_the_first_ten_are_told() -> None:
    told = written([GraphQLError(f"no {number}") for number in range(30)], "r1")
    assert [error["message"] for error in told] == [f"no {number}" for number in range(10)]


def test_every_kind_of_failure_has_a_code_that_stays() -> None:
    kinds = {
        name: kind
        for name, kind in vars(exceptions).items()
        if isinstance(kind, type) and issubclass(kind, LLMException)
    }
    told = {name: code_of(kind.__new__(kind)) for name, kind in kinds.items()}
    assert told == {
        "LLMException": "INTERNAL",
        "LLMProviderError": "PROVIDER",
        "LLMInvalidRequestError": "INVALID_REQUEST",
        "LLMContextLengthError": "CONTEXT_LENGTH",
        "LLMContentFilterError": "CONTENT_FILTER",
        "LLMQuotaExceededError": "QUOTA_EXCEEDED",
        "LLMOverloadedError": "OVERLOADED",
        "LLMServerError": "SERVER",
        "LLMConnectionError": "CONNECTION",
        "LLMStreamInterruptedError": "STREAM_INTERRUPTED",
        "LLMRateLimitError": "RATE_LIMIT",
        "LLMAuthenticationError": "AUTHENTICATION",
        "LLMTimeoutError": "TIMEOUT",
        "LLMPoolExhaustedError": "POOL_EXHAUSTED",
        "LLMCircuitOpenError": "CIRCUIT_OPEN",
        "LLMValidationError": "VALIDATION",
        "LLMConfigurationError": "CONFIGURATION",
    }


def test_a_kind_of_somebody_elses_has_the_code_of_the_one_above_it() -> None:
    class Mine(exceptions.LLMOverloadedError):
        """Another's."""

    assert code_of(Mine("no")) == "OVERLOADED"


def held(document: Document) -> int | None:
    return None if document.wrong is None else len(document.wrong)


async def test_a_document_that_comes_again_is_held_against_the_schema_once(inside: Gateways) -> None:
    operations = Operations()
    async with inside() as it:
        scope: dict[str, Any] = {"headers": []}
        for query, wrong in (("{health {status}}", 0), ("{nothing}", 1)):
            document = operations.documents.read(query)
            assert held(document) is None
            for _ in range(2):
                exchange = Exchange(scope, None, None, started=0.0, most=0)  # type: ignore[arg-type] # nothing is sent
                result = await operations.whole(it.entry.desk, exchange, {"query": query})
                assert result.ran is not bool(wrong)
                assert held(document) == wrong


def test_documents_that_come_again_are_read_once() -> None:
    documents = Documents()
    first = documents.read("{a}")
    assert documents.read("{a}") is first
    for number in range(200):
        documents.read(f"{{a{number}}}")
    assert documents.read("{a}") is not first
    long = "{a}" + " " * 5000
    assert documents.read(long) is not documents.read(long)
