from __future__ import annotations

import gc
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from llm.core.exceptions import (
    LLMConfigurationError,
    LLMConnectionError,
    LLMInvalidRequestError,
    LLMStreamInterruptedError,
)
from llm.core.messages import ImagePart, Message, MessageRole, TextPart, ThinkingPart
from llm.core.protocols import Provider, ProviderSettings, RunsModels, TokenCounting
from llm.core.types import LLMRequest
from llm.providers.local.asking import read_options, read_prompt
from llm.providers.local.grammar import choice_grammar, object_grammar, regex_grammar, schema_grammar
from llm.providers.local.model import LoadedModel
from llm.providers.local.provider import LocalProvider
from llm.providers.structured import Way, shaped
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from llm.core.protocols import Reply
    from llm.providers.local import InferenceEngine

REQUEST = LLMRequest("What is Python?", model="smollm2-135m", max_tokens=6, temperature=0)


class NoNetwork:
    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
        raise AssertionError(f"a model on the box asked the network: {method} {url} {len(headers)} {body!r}")

    async def close(self) -> None: ...


def models_in_memory() -> int:
    return sum(type(thing) is LoadedModel for thing in gc.get_objects())


def make(*models: str, device: str = "auto") -> LocalProvider:
    return LocalProvider(ProviderSettings("box", models, SystemClock(), NoNetwork(), device=device))


@pytest.fixture
async def provider(engine: InferenceEngine) -> AsyncIterator[LocalProvider]:
    """One of the real model, which is in memory already."""
    assert engine.models
    provider = make("smollm2-135m", device="cpu")
    await provider.initialize()
    yield provider
    await provider.close()


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
async def test_a_response_and_a_stream_hold_the_same_answer(provider: LocalProvider) -> None:
    assert isinstance(provider, Provider)
    assert isinstance(provider, TokenCounting)
    response = await provider.complete(REQUEST)
    async with await provider.stream(REQUEST) as stream:
        chunks = [chunk async for chunk in stream]
        streamed = await stream.response()
    assert response.content
    assert response.usage.output_tokens == 6
    assert response.usage.input_tokens == await provider.count_tokens(REQUEST)
    assert (response.provider, response.model, response.finish_reason) == ("box", "smollm2-135m", "length")
    assert response.id != streamed.id
    assert (streamed.content, streamed.finish_reason, streamed.provider, streamed.model) == (
        response.content, response.finish_reason, response.provider, response.model,
    )  # fmt: skip
    assert streamed.usage == replace(response.usage, cached_input_tokens=32)  # the prompt's whole block, read before
    assert len(chunks) > 2
    assert not chunks[-1].content


async def test_a_stream_that_is_interrupted_never_passes_as_whole(provider: LocalProvider) -> None:
    async with await provider.stream(LLMRequest("Count.", model="smollm2-135m", max_tokens=400)) as stream:
        stream.interrupt(LLMStreamInterruptedError("enough"))
        with pytest.raises(LLMStreamInterruptedError, match="enough"):
            await stream.response()


class City(BaseModel):
    name: str


async def test_a_response_model_is_asked_for_in_words(provider: LocalProvider) -> None:
    asked = replace(REQUEST, response_model=City, max_tokens=1)
    words = await provider.count_tokens(asked)
    assert words == await provider.count_tokens(shaped(asked, Way.WORDS))
    assert words > await provider.count_tokens(REQUEST)
    whole = await provider.complete(asked)
    streamed = await (await provider.stream(asked)).response()
    assert whole.usage.input_tokens == streamed.usage.input_tokens == words
    with pytest.raises(LLMInvalidRequestError, match="response_model is int"):
        await provider.complete(replace(asked, response_model=int))


async def test_an_answer_of_the_real_model_is_an_instance(provider: LocalProvider) -> None:
    asked = replace(REQUEST, max_tokens=16, temperature=0.8, response_model=City)
    assert isinstance(City.model_validate_json((await provider.complete(asked)).content).name, str)


def test_every_way_to_ask_for_a_form_is_read() -> None:
    schema = {"enum": ["Oslo"]}
    written: dict[str, Any] = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    held = schema_grammar(schema, field="it")
    anything = object_grammar(field="it")
    assert read_options(replace(REQUEST, response_format=written)).get("grammar") == held
    assert read_options(replace(REQUEST, response_format={"type": "json_object"})).get("grammar") == anything
    assert read_options(replace(REQUEST, response_format={"type": "text"})).get("grammar") is None
    outputs: dict[str, Any] = {
        "json": schema, "json_object": True, "regex": "red|blue", "choice": ["red", "blue"],
    }  # fmt: skip
    forms = [read_options(replace(REQUEST, extra={"structured_outputs": dict([each])})) for each in outputs.items()]
    assert [form.get("grammar") for form in forms] == [
        held, anything, regex_grammar("red|blue", field="it"), choice_grammar(["red", "blue"], field="it"),
    ]  # fmt: skip


async def test_providers_of_one_device_share_one_model_until_the_last_closes(small_folder: Path) -> None:
    provider, other = make(str(small_folder)), make(str(small_folder))
    await provider.initialize()
    before = models_in_memory()
    await other.initialize()
    assert models_in_memory() == before
    await other.close()
    await other.close()
    assert models_in_memory() == before
    await provider.close()
    assert models_in_memory() == before - 1
    with pytest.raises(LLMConnectionError, match="closed"):  # and does not load it again
        await provider.complete(replace(REQUEST, model=str(small_folder)))


async def test_health_tells_whether_the_models_are_there(
    provider: LocalProvider, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert await provider.health_check()
    monkeypatch.setenv("LLM_MODELS_DIR", str(tmp_path))
    other = make("smollm2-135m")
    status = await other.health_check()
    await other.close()
    assert not status
    assert "manifold models fetch smollm2-135m" in str(status.error)


async def test_an_error_says_which_section_and_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLM_MODELS_DIR", str(tmp_path))
    provider = make("smollm2-135m")
    with pytest.raises(LLMConfigurationError, match="manifold models fetch") as caught:
        await provider.complete(REQUEST)
    assert (caught.value.provider, caught.value.model) == ("box", "smollm2-135m")
    await provider.close()


def test_messages_become_what_chat_templates_take() -> None:
    request = LLMRequest(
        [
            Message(MessageRole.DEVELOPER, "Be brief."),
            {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": " there"}]},
            Message(MessageRole.ASSISTANT, (ThinkingPart("hm"), TextPart("Hello"))),
        ]
    )
    assert read_prompt(request) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi there"},
        {"role": "assistant", "content": "Hello"},
    ]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (LLMRequest("x", response_format={"type": "json_schema"}), r"response_format.json_schema.schema is no object"),
        (LLMRequest("x", extra={"structured_outputs": {"json": 3}}), "structured_outputs.json is no object"),
        (LLMRequest("x", extra={"structured_outputs": {"choice": ["a", 3]}}), "structured_outputs is none"),
        (LLMRequest("x", extra={"structured_outputs": "a"}), "structured_outputs is none"),
        (LLMRequest("x", response_format="poem"), "response_format is unknown; expected text, json_object"),
        (LLMRequest("x", extra={"structured_outputs": {"regex": "a", "choice": ["b"]}}), "structured_outputs is none"),
        (
            LLMRequest("x", extra={"structured_outputs": {"choice": []}}),
            "structured_outputs is none .* expected one of",
        ),
        (
            LLMRequest("x", response_format="json_object", extra={"structured_outputs": {"regex": "a"}}),
            "structured_outputs is given beside another form",
        ),
        (LLMRequest("x", extra={"logit_bias": {"5": 1}, "top_k": 3}), "extra has 'logit_bias'"),
        (LLMRequest([Message(MessageRole.USER, (ImagePart(url="http://x/y.png"),))]), r"messages\[0\] holds ImagePart"),
    ],
)
def test_what_it_cannot_serve_is_refused_with_the_fields_name(request_: LLMRequest, message: str) -> None:
    with pytest.raises(LLMInvalidRequestError, match=message):
        _ = read_prompt(request_), read_options(request_)


async def test_a_raw_text_is_continued_and_a_conversation_is_answered(provider: LocalProvider) -> None:
    text = LLMRequest("The capital of France is", model="smollm2-135m", max_tokens=6, temperature=0)
    raw = replace(text, extra={"raw": True})
    assert await provider.count_tokens(raw) == 5 < await provider.count_tokens(text)
    assert (await provider.complete(raw)).content.startswith(" Paris")
    streamed = await (await provider.stream(raw)).response()
    assert streamed.content == (await provider.complete(raw)).content
    assert read_prompt(replace(text, extra={"raw": False})) == read_prompt(text)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (LLMRequest("x", extra={"raw": "yes"}), "extra.raw is 'yes'; expected true or false"),
        (LLMRequest([Message(MessageRole.SYSTEM, "x")], extra={"raw": True}), "expected one message, a user's"),
        (
            LLMRequest([Message(MessageRole.USER, "x"), Message(MessageRole.USER, "y")], extra={"raw": True}),
            "expected one message, a user's",
        ),
    ],
)
def test_what_is_no_single_text_cannot_be_continued(request_: LLMRequest, message: str) -> None:
    with pytest.raises(LLMInvalidRequestError, match=message):
        read_prompt(request_)


async def test_the_engine_of_a_provider_tells_its_figures_and_its_limits(provider: LocalProvider) -> None:
    assert isinstance(provider, RunsModels)
    await provider.complete(REQUEST)
    standing = provider.engine_standing()
    assert standing is not None
    assert standing.figures["generated_tokens"] >= 6
    assert standing.figures["tokens_per_second"] > 0
    assert standing.figures["blocks_total"] > 0
    assert standing.saturation == {"smollm2-135m": {"max_batch": 0.0, "max_waiting": 0.0}}
    await provider.close()
    assert provider.engine_standing() is None


def test_options_go_to_the_engine_as_they_are() -> None:
    request = LLMRequest(
        "x", max_tokens=5, temperature=0.5, top_p=0.9, seed=1, stop="END", response_format="text", extra={"top_k": 40}
    )
    assert read_options(request) == {
        "max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "seed": 1, "stop": ("END",),
        "grammar": None, "logprobs": None, "choices": 1,
    }  # fmt: skip
