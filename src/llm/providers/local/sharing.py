"""One engine per device and process, however many providers use it: a model is in memory once."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

from .engine import InferenceEngine


@dataclass(slots=True)
class _Shared:
    engine: InferenceEngine
    holders: int = 0


# By process, too: a forked child has the parent's memory, but not its threads.
_shared: dict[tuple[int, str], _Shared] = {}
_lock = threading.Lock()


class EngineLease:
    """A hold on the process's engine for a device; the engine closes with the last one."""

    def __init__(self, device: str) -> None:
        """Take the hold; the first makes the engine, which loads nothing by itself."""
        self._key = (os.getpid(), device)
        with _lock:
            shared = _shared.get(self._key) or _Shared(InferenceEngine(device=device))
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
