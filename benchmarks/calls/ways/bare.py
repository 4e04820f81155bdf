"""The least that a program can do that reads answers at all: a session of aiohttp's, and orjson."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

from benchmarks.calls.shape import KEY, MAX_TOKENS, MODELS, PROMPT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.calls.shape import Call, Shape


@asynccontextmanager
async def bare(root: str, shape: Shape) -> AsyncGenerator[Call]:
    """Make a session whose pool has no bound."""
    openai = shape.dialect == "openai"
    url = f"{root}/v1/chat/completions" if openai else f"{root}/v1/messages"
    headers = {"authorization": f"Bearer {KEY}"} if openai else {"x-api-key": KEY}
    fixed: dict[str, Any] = {"model": MODELS[shape.dialect], "max_tokens": MAX_TOKENS}
    if shape.streamed:
        fixed["stream"] = True
    if shape.streamed and openai:
        fixed["stream_options"] = {"include_usage": True}
    read_event = _completion_text if openai else _message_text
    read_answer = _completion if openai else _message

    def body() -> bytes:
        return orjson.dumps({**fixed, "messages": [{"role": "user", "content": PROMPT}]})

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={**headers, "content-type": "application/json"},
    ) as http:

        async def call() -> int:
            async with http.post(url, data=body()) as response:
                return len(read_answer(orjson.loads(await response.read())))

        async def stream() -> int:
            characters, rest = 0, b""
            async with http.post(url, data=body()) as response:
                async for data in response.content.iter_any():
                    *events, rest = (rest + data).split(b"\n\n")
                    for event in events:
                        characters += len(read_event(event))
            return characters

        yield stream if shape.streamed else call


def _completion(answer: dict[str, Any]) -> str:
    text: str = answer["choices"][0]["message"]["content"]
    return text


def _message(answer: dict[str, Any]) -> str:
    text: str = answer["content"][0]["text"]
    return text


def _completion_text(event: bytes) -> str:
    data = event[6:]
    if data == b"[DONE]":
        return ""
    choices = orjson.loads(data)["choices"]
    return choices[0]["delta"].get("content") or "" if choices else ""


def _message_text(event: bytes) -> str:
    body = orjson.loads(event.partition(b"data: ")[2])
    text: str = body["delta"]["text"] if body["type"] == "content_block_delta" else ""
    return text
