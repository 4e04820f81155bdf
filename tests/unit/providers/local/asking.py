"""What tests of the running batch ask an engine, and when it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from llm.providers.local import InferenceEngine
    from llm.providers.local.request import GenerationResult

PROMPTS = [f"{'abcdefgh' * (at % 5)} number {at} of many" for at in range(24)]


async def idle(engine: InferenceEngine) -> None:
    async with SystemClock().timeout(30):
        while engine.stats().running + engine.stats().waiting:
            await SystemClock().sleep(0.002)


async def ask(
    engine: InferenceEngine, prompt: str, tokens: int = 24, model: str | None = None, *, seed: int | None = None
) -> GenerationResult:
    temperature = 0.0 if seed is None else 0.8
    return await engine.generate(
        prompt, model=model, max_tokens=tokens, temperature=temperature, seed=seed, ignore_eos=True
    )
