"""The gateway's routes that continue a text, in front of a model on the box, and of others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from llm import LLMManager
from llm.core.types import LLMRequest
from llm.providers.endpoints.asking import Asking
from llm.providers.endpoints.caller import ANYONE, Caller

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm.providers.local import InferenceEngine

    Gateways = Callable[..., Any]

PROMPT = "The capital of France is"
LOCAL = {"type": "local", "models": ["smollm2-135m"], "device": "cpu"}
OTHER = {"type": "openai", "api_keys": ["k"], "models": ["gpt-4o-mini"], "base_url": "http://127.0.0.1:9/v1"}


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
async def test_the_routes_that_continue_a_text_do_so_with_the_real_model(
    gateway: Gateways, engine: InferenceEngine
) -> None:
    assert engine.models  # which the gateway shares
    asked = {"prompt": PROMPT, "temperature": 0}
    async with gateway({"providers": {"box": LOCAL}}) as it:
        _, generated, _ = await it.ask("POST", "/v1/generate", {**asked, "max_length": 6})
        _, completed, _ = await it.ask("POST", "/v1/completions", {**asked, "model": "smollm2-135m", "max_tokens": 6})
        chat = {"messages": [{"role": "user", "content": PROMPT}], "temperature": 0, "max_tokens": 6}
        _, chatted, _ = await it.ask("POST", "/v1/chat/completions", {**chat, "model": "smollm2-135m"})
    assert generated["generated_text"].startswith(" Paris")
    assert generated["usage"]["input_tokens"] == 5
    assert completed["choices"][0]["text"] == generated["generated_text"]
    assert chatted["usage"]["prompt_tokens"] > 5  # a conversation goes through the chat template


@pytest.mark.parametrize(
    ("model", "fallback", "raw"),
    [
        (None, [], True),
        ("smollm2-135m", ["other"], True),  # which has no such model
        ("box/smollm2-135m", ["other"], True),
        (None, ["box", "other"], False),  # any of theirs might answer
        ("gpt-4o-mini", [], False),
        ("other/gpt-4o-mini", [], False),
        ("mine", [], True),
        ("both", [], False),
    ],
)
async def test_a_text_is_sent_as_it_stands_where_models_on_the_box_alone_may_answer(
    model: str | None, fallback: list[str], *, raw: bool
) -> None:
    config = {
        "global": {"default_provider": "box", "fallback": fallback},
        "providers": {"box": LOCAL, "other": OTHER},
        "aliases": {
            "mine": {"targets": ["box/smollm2-135m"]},
            "both": {"targets": ["box/smollm2-135m", "other/gpt-4o-mini"]},
        },
    }
    async with LLMManager.open(config) as manager:
        request = LLMRequest(PROMPT, model=model, extra={"top_k": 3})
        asked = Asking(manager).continuing(ANYONE, request)
        assert asked.extra == ({"raw": True, "top_k": 3} if raw else {"top_k": 3})
        assert asked.messages == request.messages


async def test_a_key_for_certain_models_is_asked_for_the_first_of_them() -> None:
    async with LLMManager.open({"providers": {"box": LOCAL, "other": OTHER}}) as manager:
        asked = Asking(manager).continuing(Caller(models=("smollm2-135m",)), LLMRequest(PROMPT))
        assert (asked.model, asked.extra) == ("smollm2-135m", {"raw": True})
