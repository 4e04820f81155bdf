"""`generate` of transformers, as its documentation shows it: one text after the other, or a padded batch."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.generation.streamers import BaseStreamer

from benchmarks.local.shape import Answer, Engine
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from benchmarks.local.shape import Files, Request, Room


class _Steps(BaseStreamer):
    """Notes when each step's tokens come; one for each text of the batch."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._clock = SystemClock()
        self._start = self._clock.now()
        self.times: list[float] = []

    def put(self, value: object) -> None:
        """Note the time; what comes first is the prompt."""
        del value
        self.times.append(self._clock.now())

    def end(self) -> None:
        """Forget the prompt."""
        del self.times[0]


@asynccontextmanager
async def plain(files: Files, room: Room, *, batched: bool) -> AsyncGenerator[Engine]:
    """Load the model as transformers does; requests that come at once are one batch, or wait for each other."""
    del room
    tokenizer: Any = AutoTokenizer.from_pretrained(str(files.folder), local_files_only=True)
    tokenizer.padding_side = "left"
    model: Any = AutoModelForCausalLM.from_pretrained(str(files.folder), dtype="auto", local_files_only=True).eval()
    clock = SystemClock()

    def batch(requests: Sequence[Request], start: float) -> list[Answer]:
        inputs: Any = tokenizer([request.prompt for request in requests], return_tensors="pt", padding=True)
        steps = _Steps()
        most = max(request.tokens for request in requests)
        made = model.generate(**inputs, max_new_tokens=most, do_sample=False, streamer=steps)
        tokens: int = made.shape[1] - inputs["input_ids"].shape[1]
        pieces = [time - start for time in steps.times]
        return [Answer(0.0, pieces, tokens) for _ in requests]

    async def ask(requests: Sequence[Request]) -> list[Answer]:
        start = clock.now()
        batches = [requests] if batched else [[request] for request in requests]
        return [answer for some in batches for answer in batch(some, start)]

    yield Engine(os.getpid(), ask)
