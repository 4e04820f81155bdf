"""`transformers serve` with continuous batching, with the settings that were found to serve best on a CPU."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from .served import free_port, served

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.local.shape import Engine, Files, Room

_BLOCK: Final = 256  # tokens of its cache's blocks, unless told otherwise
_BATCH: Final = 512


@asynccontextmanager
async def serve(files: Files, room: Room) -> AsyncGenerator[Engine]:
    """Run the server with room in its cache for twice what comes: it keeps a part of it free."""
    port = free_port()
    blocks = 2 * room.requests * -(-room.window // _BLOCK)
    arguments = [
        *("-m", "transformers.cli.transformers", "serve", str(files.folder), "--continuous-batching"),
        *("--cb-num-blocks", str(blocks), "--cb-max-batch-tokens", str(_BATCH)),
        *("--device", "cpu", "--host", "127.0.0.1", "--port", str(port), "--log-level", "error"),
    ]
    async with served(arguments, port, {"model": str(files.folder)}) as engine:
        yield engine
