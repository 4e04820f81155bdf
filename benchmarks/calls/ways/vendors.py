"""The vendors' clients as they come, retries off; and our own calls through them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from anthropic import AsyncAnthropic
from httpx2 import AsyncClient
from openai import AsyncOpenAI

from benchmarks.calls.shape import BARE, KEY, MAX_TOKENS, MODELS, ON_OURS, PROMPT, SDK, VENDOR

from .bare import bare
from .ours import Ours

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from anthropic.types import MessageParam
    from openai.types.chat import ChatCompletionUserMessageParam

    from benchmarks.calls.shape import Call, Shape, Way


@asynccontextmanager
async def _openai(root: str, shape: Shape, http_client: AsyncClient | None) -> AsyncGenerator[Call]:
    model = MODELS["openai"]
    messages: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": PROMPT}]
    async with AsyncOpenAI(api_key=KEY, base_url=f"{root}/v1", max_retries=0, http_client=http_client) as client:

        async def call() -> int:
            answer = await client.chat.completions.create(model=model, messages=messages, max_tokens=MAX_TOKENS)
            return len(answer.choices[0].message.content or "")

        async def stream() -> int:
            characters = 0
            async with await client.chat.completions.create(
                model=model,
                messages=messages,
                max_tokens=MAX_TOKENS,
                stream=True,
                stream_options={"include_usage": True},
            ) as events:
                async for event in events:
                    if event.choices:
                        characters += len(event.choices[0].delta.content or "")
            return characters

        yield stream if shape.streamed else call


@asynccontextmanager
async def _anthropic(root: str, shape: Shape, http_client: AsyncClient | None) -> AsyncGenerator[Call]:
    model = MODELS["anthropic"]
    messages: list[MessageParam] = [{"role": "user", "content": PROMPT}]
    async with AsyncAnthropic(api_key=KEY, base_url=root, max_retries=0, http_client=http_client) as client:

        async def call() -> int:
            answer = await client.messages.create(model=model, messages=messages, max_tokens=MAX_TOKENS)
            return sum(len(block.text) for block in answer.content if block.type == "text")

        async def stream() -> int:
            characters = 0
            async with await client.messages.create(
                model=model, messages=messages, max_tokens=MAX_TOKENS, stream=True
            ) as events:
                async for event in events:
                    if event.type == "content_block_delta" and event.delta.type == "text_delta":
                        characters += len(event.delta.text)
            return characters

        yield stream if shape.streamed else call


@asynccontextmanager
async def _vendor(root: str, shape: Shape, http_client: AsyncClient | None = None) -> AsyncGenerator[Call]:
    async with (_openai if shape.dialect == "openai" else _anthropic)(root, shape, http_client) as call:
        yield call


@asynccontextmanager
async def _on_ours(root: str, shape: Shape) -> AsyncGenerator[Call]:
    async with (
        Ours().manager(root, shape) as manager,
        _vendor(root, shape, AsyncClient(transport=manager.http_transport())) as call,
    ):
        yield call


WAYS: Final[dict[str, Way]] = {BARE: bare, SDK: Ours({"transport": "sdk"}), VENDOR: _vendor, ON_OURS: _on_ours}
