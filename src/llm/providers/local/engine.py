"""The engine: models loaded by name, and texts from them, whole or piece by piece, for any event loop and thread."""

from __future__ import annotations

import itertools
import weakref
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Self, TypeVar

from llm.core.exceptions import LLMConfigurationError, LLMStreamInterruptedError
from llm.utils.clock import SystemClock

from .job import Generation, Job
from .models import Models, Source
from .request import Settings
from .store import unobserved
from .vectors import Waiting
from .worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import TypedDict, Unpack

    from llm.utils.clock import Clock

    from .grammar import Grammar
    from .request import GenerationResult, Piece, Prompt
    from .stats import EngineStats
    from .store import ModelProgress
    from .tools import CallForm
    from .vectors import Vectors

    class Options(TypedDict, total=False):
        """The options of one text; `Settings` says what each means."""

        max_tokens: int | None
        temperature: float | None
        top_p: float | None
        top_k: int | None
        seed: int | None
        stop: str | Sequence[str]
        ignore_eos: bool
        grammar: Grammar | None
        logprobs: int | None
        choices: int


T = TypeVar("T")

_numbers = itertools.count(1)


class GenerationStream:
    """A text that comes in pieces, about one per token; iterate over it with `async for`.

    It belongs to the event loop it was made in. Leave it early with `close`; one that nobody holds any more closes.
    """

    def __init__(self, generation: Generation) -> None:
        """Read the pieces of a generation that is queued or runs."""
        self._generation = generation
        self._texts: list[str] = []
        self._closed = False

    @property
    def result(self) -> GenerationResult | None:
        """The whole text, or the part that was generated before the stream was left; None until the thread is done."""
        return self._generation.value

    def waiting(self) -> bool:
        """Return whether a piece is there to be read."""
        return self._generation.waiting()

    def close(self) -> None:
        """Have the generation end at its next token; from any thread, as often as one likes."""
        self._closed = True
        self._generation.cancel()

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> str:
        """Return the text of the next piece.

        Raises:
            StopAsyncIteration: The text is whole; `result` holds it.
            LLMStreamInterruptedError: The stream was closed before its end.
            LLMException: The generation failed.
        """
        return (await self.piece()).text

    async def piece(self) -> Piece:
        """Return the next piece; errors as of `__anext__`."""
        piece = None if self._closed else await self._generation.piece()
        if self._closed:
            raise LLMStreamInterruptedError("the stream was closed before its end", partial="".join(self._texts))
        if piece is None:
            raise StopAsyncIteration
        self._texts.append(piece.text)
        return piece

    def __del__(self) -> None:
        """End what nobody can read any more."""
        if hasattr(self, "_closed"):
            self.close()


class InferenceEngine:
    """Models on the box, run in one thread of the engine's own.

    Requests to a model share one running batch: each joins it when it comes, and leaves it with its last token. All
    methods may be called from several event loops and threads; a loop that ends takes only its own requests with it.
    """

    def __init__(  # noqa: PLR0913 - options, each with a default
        self,
        *,
        device: str = "auto",
        dtype: str = "auto",
        models_directory: Path | None = None,
        threads: int | None = None,
        memory_limit: int | None = None,
        max_batch: int = 64,
        max_waiting: int = 256,
        prompt_lookup: bool = True,
        clock: Clock | None = None,
    ) -> None:
        """Take the settings; nothing is loaded, and no thread runs, before the first model is asked for.

        Args:
            device: `auto` (the first there is of cuda, mps and cpu), `cpu`, `cuda`, `cuda:1`, `mps`.
            dtype: `auto` (as the weights were saved; on a CPU without instructions for that, `float32`), `float32`,
                `bfloat16` or `float16`.
            models_directory: Where fetched and converted models are; None: `$LLM_MODELS_DIR`, else the user's cache.
            threads: Cores that a pass uses; None: all physical ones.
            memory_limit: Bytes that models and their requests may have together. The least recently used model makes
                room for another, and comes back when it is asked. None: no limit.
            max_batch: Requests to one model that run at once.
            max_waiting: Requests that may wait for a place; with more, `LLMOverloadedError`.
            prompt_lookup: Whether next tokens are guessed from the text so far where few requests run, and those that
                the model would have chosen are taken together. Only where the likeliest token is always taken.
            clock: Its time; None: the system's.

        Raises:
            LLMConfigurationError: A number out of range; names it.
        """
        for name, value, least in (
            ("threads", threads, 1),
            ("memory_limit", memory_limit, 1),
            ("max_batch", max_batch, 1),
            ("max_waiting", max_waiting, 0),
        ):
            if value is not None and value < least:
                raise LLMConfigurationError(f"{name} is {value!r}; expected a whole number, {least} or more")
        source = Source(device, dtype, models_directory, threads, memory_limit, max_batch, prompt_lookup)
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._models = Models(source, (clock or SystemClock()).now)
        self._worker = Worker(f"llm-engine-{next(_numbers)}", self._models)
        self._models.preparing.nudge = self._worker.nudge
        weakref.finalize(self, self._worker.stop)  # an engine that nobody holds any more ends its thread

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that are loaded."""
        return self._models.names

    @property
    def forward_passes(self) -> int:
        """Times that the loaded models ran; one pass reads a token of each request that answers."""
        return self.stats().forward_passes

    def stats(self) -> EngineStats:
        """Return the engine's figures, as of a moment ago; from any thread."""
        stats, asked = self._models.stats(), self._worker.generations
        waiting = max(stats.waiting, asked - stats.running)  # also those that the thread has not taken up yet
        return replace(stats, waiting=waiting, max_batch=self._max_batch, max_waiting=self._max_waiting)

    def saturation(self) -> dict[str, dict[str, float]]:
        """Return of each loaded model how full its batch is, and how full the queue of the engine is; 0 to 1."""
        asked = max(0, self._worker.generations - self._max_batch)
        queue = min(1.0, asked / self._max_waiting) if self._max_waiting else float(asked > 0)
        running = self._models.running()
        return {name: {"max_batch": count / self._max_batch, "max_waiting": queue} for name, count in running.items()}

    async def load_model(self, name_or_path: str, *, progress: ModelProgress = unobserved) -> None:
        """Load a model; at once when it is loaded already.

        Args:
            name_or_path: A bundled model's name (`smollm2-135m`, and for vectors `all-minilm-l6-v2`), a folder with
                safetensors, one in the layout of sentence-transformers among them, a GGUF file (converted
                once, kept under its content's hash), or a hub id that is in the hub's cache on this disk.
            progress: Is told of a conversion's progress, in the engine's thread.

        Raises:
            LLMConfigurationError: Not found, not loadable, no such device, or the `local` extra is missing.
        """
        await self._do(partial(self._models.load, name_or_path, progress))

    async def unload_model(self, name: str) -> None:
        """Give a model's memory back, once the requests queued before are done.

        Raises:
            LLMConfigurationError: No model of that name is loaded.
        """
        await self._do(partial(self._models.unload, name))

    async def generate(
        self, prompt: Prompt, *, model: str | None = None, **options: Unpack[Options]
    ) -> GenerationResult:
        """Generate a text and return it whole; a cancelled call ends at the next token.

        Args:
            prompt: A text to continue as it stands, or a conversation for the model's chat template.
            model: A loaded model's name; None: the only one.
            **options: `max_tokens`, `temperature`, `top_p`, `top_k`, `seed`, `stop`, `ignore_eos`, `grammar`,
                `logprobs`, `choices`, as in `Settings`.

        Raises:
            LLMInvalidRequestError: An option out of range, an empty prompt, one the chat template refuses, a form
                that no answer can be held to, or a model that makes vectors and answers none.
            LLMContextLengthError: The prompt does not fit the window; `.limit` and `.requested` in tokens.
            LLMConfigurationError: The model is not loaded, or the engine is closed.
            LLMOverloadedError: As many requests as may run and wait are there already.
            LLMConnectionError: The engine was closed in the middle.
        """
        job = self._start(prompt, model, options, streaming=False)
        try:
            return await job.result()
        finally:
            job.cancel()

    def generate_stream(
        self, prompt: Prompt, *, model: str | None = None, **options: Unpack[Options]
    ) -> GenerationStream:
        """Generate a text and return the stream of its pieces; together they are what `generate` returns.

        To be called inside a running event loop. Arguments and errors are those of `generate`; what concerns the
        options is raised here, the rest when the first piece is read.
        """
        return GenerationStream(self._start(prompt, model, options, streaming=True))

    async def embed(self, texts: Sequence[str], *, model: str | None = None) -> Vectors:
        """Return a vector per text: what the layout of an encoder says, of other models the last layer's mean.

        The latter is of length one. The texts are read beside those of other callers, and those that are answered.

        Raises:
            LLMContextLengthError: A text does not fit the window; `.limit` and `.requested` in tokens.
            LLMInvalidRequestError: An empty text.
            LLMConfigurationError: The model is not loaded, or the engine is closed.
        """
        job = Waiting(partial(self._models.begin_vectors, model, texts))
        self._worker.submit(job)
        try:
            return await job.result()
        finally:
            job.cancel()

    async def call_form(self, model: str) -> CallForm:
        """Return how a model writes calls of tools.

        Raises:
            LLMConfigurationError: It is not loaded, or the engine is closed.
        """
        return await self._do(partial(self._models.call_form, model))

    async def count_tokens(self, prompt: Prompt, *, model: str | None = None) -> int:
        """Return the exact number of tokens of a prompt, the chat template's included.

        Raises:
            LLMInvalidRequestError: An empty prompt, or one the chat template refuses.
            LLMConfigurationError: The model is not loaded, or the engine is closed.
        """
        return await self._do(partial(self._models.count, model, prompt))

    async def close(self) -> None:
        """End running and waiting requests, unload all models and end the thread; as often as one likes."""
        last = Job(self._models.unload_all)
        if self._worker.stop(last):
            await last.result()

    async def _do(self, work: Callable[[], T]) -> T:
        job = Job(work)
        self._worker.submit(job)
        return await job.result()

    def _start(self, prompt: Prompt, model: str | None, options: Options, *, streaming: bool) -> Generation:
        stop = options.get("stop", ())
        settings = Settings(
            max_tokens=options.get("max_tokens"),
            temperature=options.get("temperature"),
            top_p=options.get("top_p"),
            top_k=options.get("top_k"),
            seed=options.get("seed"),
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            ignore_eos=options.get("ignore_eos", False),
            grammar=options.get("grammar"),
            logprobs=options.get("logprobs"),
            choices=options.get("choices", 1),
        )
        begin = partial(self._models.begin, model, prompt, settings)
        job = Generation(begin, streaming=streaming, choices=settings.choices)
        self._worker.submit(job, most=self._max_batch + self._max_waiting)
        return job
