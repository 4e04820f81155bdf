"""Our engine, as anybody uses it: streams of the public class."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from benchmarks.local.shape import Engine
from llm.providers.local import InferenceEngine, packing, ready

from .together import together

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from benchmarks.local.shape import Files, Request, Room


def _never(_: object) -> bool:
    return False


@asynccontextmanager
async def ours(files: Files, room: Room, *, without: int = 0) -> AsyncGenerator[Engine]:
    """Load the model with the engine's own settings, `without` the last so many of the things that make it quick."""
    del room  # it takes what comes
    if without > 1:
        packing.__dict__["holds"] = _never
    if without > 2:
        ready.__dict__["lean"] = _never
    engine = InferenceEngine(prompt_lookup=not without)
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
