from __future__ import annotations

from itertools import count

import orjson
import pytest

from llm import (
    LLMException,
    LLMManager,
    LLMOverloadedError,
    LLMQuotaExceededError,
    LLMRateLimitError,
    LLMResponse,
    LLMServerError,
    TokenUsage,
)
from llm.providers.openrouter.models import read_models
from llm.testing import Fault, MockUpstream
from llm.testing.vendor_openrouter import INPUT_PRICE, OUTPUT_PRICE, PARAMETERS

KEYS = (f"k{at}" for at in count())
"""A key for each test: managers of one process share what they learn of a key."""


def config(upstream: MockUpstream) -> dict[str, object]:
    section = {"base_url": upstream.base_url, "api_keys": [next(KEYS)], "models": ["m"]}
    return {"providers": {"openrouter": section}, "retry": {"max_attempts": 1}}


async def test_it_answers_whole_and_streamed_with_the_cost() -> None:
    upstream = MockUpstream("openrouter")
    async with LLMManager.open(config(upstream), transport=upstream.transport()) as manager:
        client = manager.get_client()
        whole, streamed = await client.chat("Hello"), await client.stream_complete("Hello").response()
    assert [str(whole), str(streamed)] == ["Hello", "Hello"]
    assert whole.usage == streamed.usage == TokenUsage(2, 2)
    assert whole.cost == streamed.cost == 2 * INPUT_PRICE + 2 * OUTPUT_PRICE
    assert whole.id.startswith("gen-")
    assert [request.path for request in upstream.requests] == ["/api/v1/chat/completions"] * 2
    assert [request.path for request in upstream.probes] == ["/api/v1/models"]


async def test_an_answer_may_have_a_cost_of_its_own() -> None:
    upstream = MockUpstream("openrouter", answer=lambda _: LLMResponse(content="Hi", cost=0.5))
    async with LLMManager.open(config(upstream), transport=upstream.transport()) as manager:
        assert (await manager.get_client().chat("Hi")).cost == 0.5


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize(
    ("kind", "status", "raised"),
    [
        ("quota", 402, LLMQuotaExceededError),
        ("unavailable", 503, LLMOverloadedError),
        ("overloaded", 503, LLMOverloadedError),
        ("server_error", 500, LLMServerError),
        ("rate_limit", 429, LLMRateLimitError),
    ],
)
async def test_its_refusals_are_openrouters(
    kind: str, status: int, raised: type[LLMException], *, stream: bool
) -> None:
    upstream = MockUpstream("openrouter", faults=[Fault(kind, retry_after=3600)])
    async with LLMManager.open(config(upstream), transport=upstream.transport()) as manager:
        client = manager.get_client()
        with pytest.raises(raised) as caught:
            await (client.stream_complete("Hi").response() if stream else client.chat("Hi"))
    assert caught.value.status == status


async def test_an_error_in_the_middle_of_a_stream_is_openrouters() -> None:
    upstream = MockUpstream("openrouter", faults=[Fault("error_event")])
    async with LLMManager.open(config(upstream), transport=upstream.transport()) as manager:
        with pytest.raises(LLMOverloadedError) as caught:
            await manager.get_client().stream_complete("Hello, how are you today?").response()
    assert caught.value.status == 503


async def test_the_list_is_for_everybody_and_a_keys_page_for_those_it_knows() -> None:
    upstream = MockUpstream("openrouter", api_keys=["k1"], models=["a", "b"])
    known = {"authorization": "Bearer k1"}
    answers = {
        (path, bool(headers)): await upstream.transport().request("GET", f"/api/v1/{path}", headers=headers)
        for path in ("models", "key")
        for headers in ({}, known)
    }
    assert {place: reply.status for place, reply in answers.items()} == {
        ("models", False): 200, ("models", True): 200, ("key", False): 401, ("key", True): 200,
    }  # fmt: skip
    models = read_models(await answers["models", False].read())
    assert models.keys() == {"a", "b"}
    assert models["a"].parameters == set(PARAMETERS)
    assert "limit_remaining" in orjson.loads(await answers["key", True].read())["data"]


async def test_it_makes_vectors_as_openai_does() -> None:
    reply = await MockUpstream("openrouter").transport().request(
        "POST", "/api/v1/embeddings", headers={}, body=orjson.dumps({"model": "m", "input": "x"})
    )  # fmt: skip
    assert len(orjson.loads(await reply.read())["data"]) == 1


async def test_its_headers_tell_of_requests_until_a_moment() -> None:
    upstream = MockUpstream("openrouter", limits={"k1": {"requests_per_minute": 3}})
    sent = {"authorization": "Bearer k1"}
    body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}]})
    headers = (await upstream.transport().request("POST", "/api/v1/chat/completions", headers=sent, body=body)).headers
    assert (headers["x-ratelimit-limit"], headers["x-ratelimit-remaining"]) == ("3", "2")
    assert len(headers["x-ratelimit-reset"]) == 13
    plain = await upstream.transport().request("POST", "/api/v1/chat/completions", headers={}, body=body)
    assert "x-ratelimit-limit" not in plain.headers
