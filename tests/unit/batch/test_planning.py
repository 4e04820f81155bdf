"""What a request would take: its tokens as its provider counts them, and how long an answer to reckon with."""

# ruff: noqa: ANN401 - what a request may hold
from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llm import LLMManager, LLMRequest
from llm.batch.planning import ASSUMED_ANSWER, ASSUMED_SECONDS, Plan, Planner
from llm.core.texts import EmbeddingInput
from llm.core.tokens import count_text, count_tokens
from llm.runtime import register_provider
from llm.testing import FakeClock, FakeProvider, MockUpstream

MINI, HAIKU, VECTORS = "gpt-4o-mini", "claude-3-5-haiku-20241022", "text-embedding-3-small"
TEXT = "Supercalifragilisticexpialidocious is a word of thirty-four letters."
LOCAL = "http://127.0.0.1:9/v1"


def config(kind: str = "openai", model: str = MINI, **more: Any) -> dict[str, Any]:
    return {"providers": {kind: {"api_keys": ["k"], "models": [model], **more}}}


async def plan(config: Any, request: LLMRequest) -> Plan:
    clock = FakeClock()
    async with LLMManager.open(config, transport=MockUpstream(clock=clock).transport(), clock=clock) as manager:
        (planned,) = await asyncio.to_thread(Planner(manager).plans, request)  # which may load a vocabulary
        return planned


@pytest.mark.parametrize("address", [{}, {"base_url": "https://api.openai.com/v1"}], ids=["not said", "said"])
async def test_openai_counts_tokens_as_openai_does(address: dict[str, str]) -> None:
    request = LLMRequest(TEXT, model=MINI)
    planned = await plan(config(**address), request)
    assert planned.usage.input_tokens == count_tokens(request, MINI) != -(-len(TEXT) // 4)
    asked = LLMRequest((), model=VECTORS, embed=EmbeddingInput([TEXT, "word"], None))
    planned = await plan(config(model=VECTORS, **address), asked)
    counts = [count_text(text, VECTORS) or 0 for text in (TEXT, "word")]
    assert planned.usage.input_tokens == sum(counts)
    strange = LLMRequest((), model="strange", embed=EmbeddingInput(TEXT, None))
    assert (await plan(config(model="*", **address), strange)).usage.input_tokens == -(-len(TEXT) // 4)


async def test_a_server_of_its_own_counts_in_its_own_way_so_an_estimate_stands_for_that() -> None:
    own = await plan(config(base_url=LOCAL), LLMRequest(TEXT, model=MINI))
    assert own.usage.input_tokens == -(-len(TEXT) // 4)
    anthropic = await plan(config("anthropic", HAIKU), LLMRequest(TEXT, model=HAIKU))
    assert anthropic.usage.input_tokens == -(-len(TEXT) // 4)


async def test_an_answer_is_as_long_as_max_tokens_at_most_and_as_its_message_at_best() -> None:
    own = config(base_url=LOCAL)
    bounded = await plan(own, LLMRequest(TEXT, model=MINI, max_tokens=100))
    assert (bounded.basis, bounded.usage.output_tokens) == ("max_tokens", 100)
    assert (bounded.soon.used.output_tokens, bounded.late.used.output_tokens) == (17, 100)
    short = await plan(own, LLMRequest(TEXT, model=MINI, max_tokens=5))
    assert (short.soon.used.output_tokens, short.late.used.output_tokens) == (5, 5)
    three = await plan(own, LLMRequest(TEXT, model=MINI, max_tokens=5, extra={"n": 3}))
    assert (three.usage.output_tokens, three.soon.used.output_tokens, three.soon.charge.output_tokens) == (15, 15, 15)
    free = await plan(own, LLMRequest(TEXT, model=MINI))
    assert (free.basis, free.usage.output_tokens, free.soon.used.output_tokens) == ("assumed", ASSUMED_ANSWER, 17)
    assert (free.soon.seconds, free.timed) == (ASSUMED_SECONDS, False)
    long = await plan(own, LLMRequest("x" * 4000, model=MINI))
    assert long.usage.output_tokens == 1000


async def test_answers_of_the_model_tell_how_long_they_are_and_how_long_they_take() -> None:
    clock = FakeClock(auto=True)
    up = MockUpstream(clock=clock, service=2.0)
    async with LLMManager.open(config(base_url=up.base_url), transport=up.transport(), clock=clock) as manager:
        for number in range(20):
            await manager.get_client().chat(f"{number:08} ", model=MINI)
        (planned,) = Planner(manager).plans(LLMRequest(TEXT, model=MINI))
        (bounded,) = Planner(manager).plans(LLMRequest(TEXT, model=MINI, max_tokens=2))
    assert (planned.basis, planned.usage.output_tokens, planned.timed) == ("learned", 3, True)
    assert planned.soon.seconds == pytest.approx(2.0, rel=0.05)
    assert bounded.usage.output_tokens == 2


async def test_what_a_row_without_max_tokens_reserves_falls_as_answers_come_as_it_does_in_a_run() -> None:
    async with LLMManager.open(config(base_url=LOCAL), clock=FakeClock()) as manager:
        planner = Planner(manager)
        plans = [planner.plans(LLMRequest(TEXT, model=MINI))[0] for _ in range(30)]
    assert plans[0].soon.charge.total_tokens == ASSUMED_ANSWER
    assert plans[-1].soon.charge.total_tokens == 17
    assert plans[-1].late.charge.total_tokens == ASSUMED_ANSWER


async def test_what_is_no_vendor_reserves_and_takes_prompt_and_answer() -> None:
    register_provider("planned", lambda _: FakeProvider())
    planned = await plan({"providers": {"planned": {"models": ["m"]}}}, LLMRequest(TEXT, model="m"))
    assert planned.soon.charge.total_tokens == 17 + ASSUMED_ANSWER
    assert planned.soon.used.total_tokens == 34


async def test_an_alias_of_several_targets_is_looked_up_anew_for_each_row() -> None:
    section = {"base_url": LOCAL, "api_keys": ["k"], "models": [MINI, "gpt-4o"]}
    aliases = {"any": {"targets": [f"openai/{MINI}", "openai/gpt-4o"], "strategy": "weighted", "weights": [1, 1]}}
    async with LLMManager.open({"providers": {"openai": section}, "aliases": aliases}, clock=FakeClock()) as manager:
        planner = Planner(manager)
        models = {planner.plans(LLMRequest(TEXT, model="any"))[0].soon.model for _ in range(100)}
    assert models == {MINI, "gpt-4o"}
