"""The engine: models loaded by name, and texts from them, whole or piece by piece, for any event loop and thread."""

from __future__ import annotations

import gc
import itertools
import os
import weakref
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar

from llm.core.exceptions import LLMConfigurationError, LLMStreamInterruptedError

from .convert import missing_extra
from .job import Generation, Job
from .request import Settings
from .store import unobserved
from .weights import find_weights
from .worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import TypedDict, Unpack

    from .model import LoadedModel
    from .request import GenerationResult, Prompt
    from .store import ModelProgress

    class Options(TypedDict, total=False):
        """The options of one text; `Settings` says what each means."""

        max_tokens: int | None
        temperature: float | None
        top_p: float | None
        top_k: int | None
        seed: int | None
        stop: str | Sequence[str]


T = TypeVar("T")

_numbers = itertools.count(1)


class _Source(NamedTuple):
    device: str
    dtype: str
    directory: Path | None


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
        """Return the next piece.

        Raises:
            StopAsyncIteration: The text is whole; `result` holds it.
            LLMStreamInterruptedError: The stream was closed before its end.
            LLMException: The generation failed.
        """
        piece = None if self._closed else await self._generation.piece()
        if self._closed:
            raise LLMStreamInterruptedError("the stream was closed before its end", partial="".join(self._texts))
        if piece is None:
            raise StopAsyncIteration
        self._texts.append(piece)
        return piece

    def __del__(self) -> None:
        """End what nobody can read any more."""
        if hasattr(self, "_closed"):
            self.close()


class InferenceEngine:
    """Models on the box, run in one thread of the engine's own.

    Requests wait for each other, first come first served. All methods may be called from several event loops and
    threads; a loop that ends takes only its own requests with it.
    """

    def __init__(self, *, device: str = "auto", dtype: str = "auto", models_directory: Path | None = None) -> None:
        """Take the settings; nothing is loaded, and no thread runs, before the first model is asked for.

        Args:
            device: `auto` (the first there is of cuda, mps and cpu), `cpu`, `cuda`, `cuda:1`, `mps`.
            dtype: `auto` (as the weights were saved), `float32`, `bfloat16` or `float16`.
            models_directory: Where fetched and converted models are; None: `$LLM_MODELS_DIR`, else the user's cache.
        """
        self._source = _Source(device, dtype, models_directory)
        self._models: dict[str, LoadedModel] = {}
        self._worker = Worker(f"llm-engine-{next(_numbers)}")
        weakref.finalize(self, self._worker.stop)  # an engine that nobody holds any more ends its thread

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that are loaded."""
        return tuple(self._models)

    @property
    def forward_passes(self) -> int:
        """Times that the loaded models ran: one per generated token, and one per 512 tokens of a prompt."""
        return sum(model.passes for model in list(self._models.values()))

    async def load_model(self, name_or_path: str, *, progress: ModelProgress = unobserved) -> None:
        """Load a model; at once when it is loaded already.

        Args:
            name_or_path: A bundled model's name (`smollm2-135m`), a folder with safetensors, a GGUF file (converted
                once, kept under its content's hash), or a hub id that is in the hub's cache on this disk.
            progress: Is told of a conversion's progress, in the engine's thread.

        Raises:
            LLMConfigurationError: Not found, not loadable, no such device, or the `local` extra is missing.
        """
        await self._do(partial(_load, self._models, name_or_path, self._source, progress))

    async def unload_model(self, name: str) -> None:
        """Give a model's memory back, once the requests queued before are done.

        Raises:
            LLMConfigurationError: No model of that name is loaded.
        """
        await self._do(partial(_unload, self._models, name))

    async def generate(
        self, prompt: Prompt, *, model: str | None = None, **options: Unpack[Options]
    ) -> GenerationResult:
        """Generate a text and return it whole; a cancelled call ends at the next token.

        Args:
            prompt: A text to continue as it stands, or a conversation for the model's chat template.
            model: A loaded model's name; None: the only one.
            **options: `max_tokens`, `temperature`, `top_p`, `top_k`, `seed`, `stop`, as in `Settings`.

        Raises:
            LLMInvalidRequestError: An option out of range, an empty prompt, or one the chat template refuses.
            LLMContextLengthError: The prompt does not fit the window; `.limit` and `.requested` in tokens.
            LLMConfigurationError: The model is not loaded, or the engine is closed.
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

    async def count_tokens(self, prompt: Prompt, *, model: str | None = None) -> int:
        """Return the exact number of tokens of a prompt, the chat template's included.

        Raises:
            LLMInvalidRequestError: An empty prompt, or one the chat template refuses.
            LLMConfigurationError: The model is not loaded, or the engine is closed.
        """
        return await self._do(partial(_count, self._models, model, prompt))

    async def close(self) -> None:
        """End running and waiting requests, unload all models and end the thread; as often as one likes."""
        last = Job(partial(_unload_all, self._models))
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
        )
        job = Generation(partial(_generate, self._models, model, prompt, settings), streaming=streaming)
        self._worker.submit(job)
        return job


# What runs in the thread knows the models and not the engine, so that an engine nobody holds is freed, and ends it.


def _load(models: dict[str, LoadedModel], name: str, source: _Source, progress: ModelProgress) -> None:
    if name in models:
        return
    folder = find_weights(name, directory=source.directory, progress=progress)
    # Read as torch is imported. Its threads otherwise spin at every barrier, and on cores that others use too a token
    # then takes several times as long; without others it costs nothing that could be measured.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        from .model import load
    except ImportError as error:
        raise missing_extra(error.name) from error
    models[name] = load(name, folder, device=source.device, dtype=source.dtype)


def _find(models: dict[str, LoadedModel], name: str | None) -> LoadedModel:
    if name is None and len(models) == 1:
        return next(iter(models.values()))
    if name is None or name not in models:
        loaded = ", ".join(models) or "none"
        asked = "no model was named" if name is None else f"the model {name!r} is not loaded"
        raise LLMConfigurationError(f"{asked}; loaded: {loaded}. Call load_model first", model=name)
    return models[name]


def _generate(
    models: dict[str, LoadedModel], name: str | None, prompt: Prompt, settings: Settings, job: Generation
) -> GenerationResult:
    model = _find(models, name)
    from .generate import generate

    return generate(model, prompt, settings, job)


def _count(models: dict[str, LoadedModel], name: str | None, prompt: Prompt) -> int:
    return len(_find(models, name).encode(prompt))


def _unload(models: dict[str, LoadedModel], name: str) -> None:
    del models[_find(models, name).name]
    _give_memory_back()


def _unload_all(models: dict[str, LoadedModel]) -> None:
    if models:
        models.clear()
        _give_memory_back()


def _give_memory_back() -> None:
    import torch

    gc.collect()  # modules know each other in rings
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
