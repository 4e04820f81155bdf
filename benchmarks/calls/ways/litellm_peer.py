"""litellm's function for one call; in an environment of its own, without our package."""

from __future__ import annotations

import logging
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from benchmarks.calls.shape import BARE, KEY, LITELLM, MAX_TOKENS, MODELS, PROMPT

from .bare import bare

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.calls.shape import Call, Shape, Way

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # its price list is not fetched from the network
import litellm


@asynccontextmanager
async def _litellm(root: str, shape: Shape) -> AsyncGenerator[Call]:
    logging.disable(logging.CRITICAL)
    messages = [{"role": "user", "content": PROMPT}]
    model = f"{shape.dialect}/{MODELS[shape.dialect]}"
    base = f"{root}/v1" if shape.dialect == "openai" else root

    async def call() -> int:
        answer = await litellm.acompletion(model, messages, max_tokens=MAX_TOKENS, api_key=KEY, api_base=base)
        return len(answer.choices[0].message.content or "")

    async def stream() -> int:
        characters = 0
        async for chunk in await litellm.acompletion(
            model,
            messages,
            max_tokens=MAX_TOKENS,
            api_key=KEY,
            api_base=base,
            stream=True,
            stream_options={"include_usage": True},
        ):
            if chunk.choices:
                characters += len(chunk.choices[0].delta.content or "")
        return characters

    yield stream if shape.streamed else call


WAYS: Final[dict[str, Way]] = {BARE: bare, LITELLM: _litellm}
