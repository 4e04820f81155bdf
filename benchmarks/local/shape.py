"""What is compared and what is asked of it; needs Python alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from benchmarks.programs import ROOT

OURS: Final = "InferenceEngine"
NO_LOOKUP: Final = "without prompt lookup"
NO_HALVES: Final = "and all in float32"
AS_CAME: Final = "and layers as they came"
NAIVE: Final = "naive generate"
STATIC: Final = "static batches"
SERVE: Final = "transformers serve"
LLAMA: Final = "llama.cpp bf16"
LLAMA_Q8: Final = "llama.cpp Q8_0"

ENGINES: Final = {
    "ours": OURS,
    "no-lookup": NO_LOOKUP,
    "no-halves": NO_HALVES,
    "as-came": AS_CAME,
    "naive": NAIVE,
    "static": STATIC,
    "serve": SERVE,
    "llama": LLAMA,
    "llama-q8": LLAMA_Q8,
}
"""Names as tables have them, by the word that the command line takes."""

MODEL: Final = "smollm2-135m"
AT_ONCE: Final = (1, 4, 16, 32)
NEW: Final = 64
"""Tokens of each answer."""

OTHER: Final = ROOT / ".cache" / "bench-local-venv"
"""The environment of what is compared; its torch and transformers are those of `.venv`."""
MADE: Final = ROOT / ".cache" / "bench-local"
"""Where the files are that engines read."""


@dataclass(frozen=True, slots=True)
class Room:
    """What an engine is set up for, where it has to know.

    Attributes:
        requests: Most at once.
        window: Tokens of a prompt and its answer together.
    """

    requests: int
    window: int


@dataclass(frozen=True, slots=True)
class Files:
    """What engines read; all hold the same weights.

    Attributes:
        folder: Safetensors in bf16, without an end token.
        bf16: The same as GGUF.
        q8: The same as GGUF, rounded to eight bits.
    """

    folder: Path
    bf16: Path
    q8: Path


@dataclass(frozen=True, slots=True)
class Request:
    """One text to continue.

    Attributes:
        prompt: The text.
        tokens: How many tokens are generated.
        after: Seconds from the turn's start to its coming.
    """

    prompt: str
    tokens: int = NEW
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request.

    Attributes:
        begun: When the request came, in seconds since the turn's start.
        pieces: When each piece of text came, likewise.
        tokens: How many tokens were generated.
    """

    begun: float
    pieces: list[float]
    tokens: int


class NotHereError(Exception):
    """An engine cannot be run here; the text says why, and what to do."""


Ask: TypeAlias = Callable[[Sequence[Request]], Awaitable[list[Answer]]]
"""Has requests answered and tells when what came."""


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that is ready.

    Attributes:
        process: The number of the process that runs the model.
        ask: Has requests answered.
    """

    process: int
    ask: Ask


Way: TypeAlias = Callable[[Files, Room], AbstractAsyncContextManager[Engine]]
"""Starts an engine; raises `NotHereError` where it is not installed."""
