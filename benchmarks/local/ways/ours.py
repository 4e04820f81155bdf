"""Our engine, as anybody uses it: streams of the public class."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from benchmarks.local.shape import Engine
from llm.providers.local import InferenceEngine

from .together import together

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from benchmarks.local.shape import Files, Request, Room


@asynccontextmanager
async def ours(files: Files, room: Room) -> AsyncGenerator[Engine]:
    """Load the model with the engine's own settings."""
    del room  # it takes what comes
    engine = InferenceEngine()
    await engine.load_model(str(files.folder))

    async def one(request: Request, came: Callable[[], None]) -> int:
        stream = engine.generate_stream(request.prompt, max_tokens=request.tokens, temperature=0)
        async for _ in stream:
            came()
        if stream.result is None:
            raise RuntimeError("a stream ended without a result")
        return stream.result.output_tokens

    try:
        yield Engine(os.getpid(), together(one))
    finally:
        await engine.close()
