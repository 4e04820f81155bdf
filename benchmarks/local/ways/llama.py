"""llama.cpp's server, with a slot for every request at once and prompts kept for the next one."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from .served import free_port, served

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.local.shape import Engine, Files, Room

_BODY: Final = {"ignore_eos": True, "stream_options": {"include_usage": True}}


@asynccontextmanager
async def llama(files: Files, room: Room, *, eight_bits: bool) -> AsyncGenerator[Engine]:
    """Run the server on one of the GGUF files."""
    port = free_port()
    file = files.q8 if eight_bits else files.bf16
    arguments = ["-m", "benchmarks.local.llama_server", str(file), str(port), str(room.requests), str(room.window)]
    # Its threads meet a thousand times a token: told to sleep there, as torch's are, it would be slower than it is.
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    async with served(arguments, port, _BODY, environment) as engine:
        yield engine
