"""One engine per device, settings and process, however many providers use it: a model is in memory once."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

from llm.core.protocols import EngineSettings

from .engine import InferenceEngine

_AS_USUAL = EngineSettings()


@dataclass(slots=True)
class _Shared:
    engine: InferenceEngine
    holders: int = 0


# By process, too: a forked child has the parent's memory, but not its threads.
_shared: dict[tuple[int, str, EngineSettings], _Shared] = {}
_lock = threading.Lock()


class EngineLease:
    """A hold on the process's engine for a device and settings; the engine closes with the last one."""

    def __init__(self, device: str, settings: EngineSettings = _AS_USUAL) -> None:
        """Take the hold; the first makes the engine, which loads nothing by itself."""
        self._key = (os.getpid(), device, settings)
        with _lock:
            shared = _shared.get(self._key) or _Shared(_engine(device, settings))
            shared.holders += 1
            _shared[self._key] = shared
        self.engine: InferenceEngine = shared.engine
        self._held = True

    async def give_back(self) -> None:
        """End the hold; again and again safe."""
        with _lock:
            if not self._held:
                return
            self._held = False
            shared = _shared[self._key]
            shared.holders -= 1
            if shared.holders:
                return
            del _shared[self._key]
        await shared.engine.close()


def _engine(device: str, settings: EngineSettings) -> InferenceEngine:
    return InferenceEngine(
        device=device,
        dtype=settings.dtype,
        threads=settings.threads,
        memory_limit=settings.memory_limit,
        max_batch=settings.max_batch,
        max_waiting=settings.max_waiting,
        prompt_lookup=settings.prompt_lookup,
    )
