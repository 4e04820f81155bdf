"""The models of an engine, used by its thread alone: loaded by name, run in turn, unloaded when memory is needed."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from llm.core.exceptions import LLMConfigurationError, LLMInvalidRequestError

from .blocks import BLOCK
from .convert import missing_extra
from .layout import read_layout
from .memory import LEAST, blocks_for, give_back, saved_bytes, weight_bytes
from .preparing import Preparing
from .request import Settings, check_text
from .stats import EngineStats, Pace
from .store import unobserved
from .weights import find_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from .alone import Alone
    from .batching import Batch
    from .constraint import Grammars
    from .encoder_batch import EncoderBatch
    from .job import Generation
    from .layout import Layout
    from .model import LoadedModel
    from .request import Prompt
    from .store import ModelProgress
    from .tools import CallForm
    from .vectors import Waiting

_logger = logging.getLogger("llm.local")


class Source(NamedTuple):
    """How models are loaded, and what they may take; as `InferenceEngine` says."""

    device: str
    dtype: str
    directory: Path | None
    threads: int | None
    memory_limit: int | None
    max_batch: int
    prompt_lookup: bool


class _Answering(NamedTuple):
    batch: Batch | Alone
    bytes: int
    grammars: Grammars


class _Embedding(NamedTuple):
    batch: EncoderBatch
    bytes: int


@dataclass(slots=True)
class _Totals:
    cached: int = 0
    made: int = 0
    admitted: int = 0
    waited: float = 0.0
    put_back: int = 0
    passes: int = 0

    def add(self, batch: Batch | Alone | EncoderBatch) -> None:
        self.cached += batch.cached_tokens
        self.made += batch.made_tokens
        self.admitted += batch.waits[0]
        self.waited += batch.waits[1]
        self.put_back += batch.put_back
        self.passes += batch.model.passes


class Models:
    """What runs in the engine's thread; it knows no engine, so that one that nobody holds is freed."""

    def __init__(self, source: Source, now: Callable[[], float]) -> None:
        """Start with none; `now` tells the time in seconds."""
        self._source = source
        self._now = now
        self._loaded: dict[str, _Answering | _Embedding] = {}  # the least recently used first
        self._left: set[str] = set()  # those that had to make room, and come back when they are asked
        self._gone = _Totals()  # of models that were unloaded
        self._lock = threading.Lock()  # who asks for figures sees each model among those loaded, or among those gone
        self._pace = Pace()
        self._tuned: int | None = None
        self.preparing: Preparing = Preparing()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of those that are loaded."""
        return tuple(self._loaded)

    def load(self, name: str, progress: ModelProgress) -> None:
        """Load a model; at once when it is there.

        Raises:
            LLMConfigurationError: As `InferenceEngine.load_model`.
        """
        if name in self._loaded:
            return
        folder = find_weights(name, directory=self._source.directory, progress=progress)
        # Read as torch is imported. Its threads otherwise spin at every barrier, and on cores that others use too a
        # token then takes several times as long; without others it costs nothing that could be measured.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        try:
            layout = read_layout(folder)
            loaded = self._load_model(name, folder) if layout is None else self._load_encoder(name, layout)
        except ImportError as error:
            raise missing_extra(error.name) from error
        give_back()  # matrices as they were before they were joined and packed
        with self._lock:
            self._loaded[name] = loaded
        self._left.discard(name)

    def _load_encoder(self, name: str, layout: Layout) -> _Embedding:
        from .encoder import load_encoder
        from .encoder_batch import EncoderBatch

        self._tune()
        self._make_room(name, saved_bytes(*layout.folders))
        model = load_encoder(name, layout, device=self._source.device, dtype=self._source.dtype)
        self._make_room(name, model.bytes)
        return _Embedding(EncoderBatch(model, self._source.max_batch, self._now), model.bytes)

    def _load_model(self, name: str, folder: Path) -> _Answering:
        from .constraint import Grammars
        from .model import load

        self._tune()
        self._make_room(name, saved_bytes(folder))
        model = load(name, folder, device=self._source.device, dtype=self._source.dtype)
        weights = weight_bytes(model.network)
        self._make_room(name, weights)
        loaded = self._share(model, weights)
        if loaded is None:  # what was tried has changed it
            from .alone import Alone

            del model
            give_back()
            model = load(name, folder, device=self._source.device, dtype=self._source.dtype)
            loaded = _Answering(Alone(model, self._now), weights, Grammars(model))
        return loaded

    def unload(self, name: str) -> None:
        """Give a model's memory back, once what it began is done.

        Raises:
            LLMConfigurationError: It is not loaded.
        """
        if name in self._left:
            self._left.discard(name)
        else:
            self._drop(self.find(name).batch.model.name)

    def unload_all(self) -> None:
        """Give all memory back, and end what was begun."""
        self._left.clear()
        self.preparing.close()
        if self._loaded:
            for name in self.names:
                self._forget(name)
            give_back()

    def find(self, name: str | None) -> _Answering | _Embedding:
        """Return a model; None: the only one. It is now the most recently used.

        Raises:
            LLMConfigurationError: It is not loaded.
        """
        known = {*self._loaded, *self._left}
        if name is None and len(known) == 1:
            [name] = known
        if name is not None and name in self._left:
            self.load(name, unobserved)
        if name is None or name not in self._loaded:
            loaded = ", ".join(self._loaded) or "none"
            asked = "no model was named" if name is None else f"the model {name!r} is not loaded"
            raise LLMConfigurationError(f"{asked}; loaded: {loaded}. Call load_model first", model=name)
        found = self._loaded[name]
        with self._lock:  # at no moment is it not there
            self._loaded = {**{other: self._loaded[other] for other in self._loaded if other != name}, name: found}
        return found

    def answering(self, name: str | None) -> _Answering:
        """Return a model that answers, as `find`.

        Raises:
            LLMInvalidRequestError: It makes vectors instead.
            LLMConfigurationError: It is not loaded.
        """
        found = self.find(name)
        if isinstance(found, _Embedding):
            name = found.batch.model.name
            raise LLMInvalidRequestError(
                f"the model {name} makes vectors of texts and answers none; have it embed (client.embed, "
                "/v1/embeddings), or name a model that answers",
                model=name,
            )
        return found

    def begin(self, name: str | None, prompt: Prompt, settings: Settings, job: Generation) -> None:
        """Queue a request with its model.

        Raises:
            LLMContextLengthError: The prompt does not fit the model's window.
            LLMInvalidRequestError: The prompt is empty or does not fit the chat template, or the model answers none.
            LLMConfigurationError: The model is not loaded.
        """
        from .sequence import Sequence

        batch, _, grammars = self.answering(name)
        model = batch.model
        check_text(prompt)
        tokens = model.encode(prompt)
        model.check_fits(len(tokens))
        most = min(settings.max_tokens or model.defaults.max_new_tokens or model.limit, model.limit - len(tokens))
        first, *others = (
            Sequence(model, list(tokens), settings.of_choice(at), listener, most)
            for at, listener in enumerate(job.listeners)
        )
        first.others += others
        if settings.grammar is None:
            batch.add(first)
        else:
            self.preparing.add(batch, first, settings.grammar, grammars)

    def begin_vectors(self, name: str | None, texts: Iterable[str], job: Waiting) -> None:
        """Queue texts whose vectors are asked for.

        Raises:
            LLMContextLengthError: One does not fit the model's window.
            LLMConfigurationError: The model is not loaded.
        """
        from .encoder_batch import Text
        from .sequence import Sequence
        from .vectors import Pool, Silent

        loaded = self.find(name)
        model = loaded.batch.model
        read: list[list[int]] = []
        for text in texts:
            check_text(text)
            read.append(model.encode(text))
            model.check_fits(len(read[-1]))
        job.expect([len(tokens) for tokens in read])
        for at, tokens in enumerate(read):
            if isinstance(loaded, _Embedding):
                loaded.batch.add(Text(tokens, job, at))
                continue
            sequence = Sequence(loaded.batch.model, tokens, Settings(seed=0), Silent(job), 1)
            sequence.pool = Pool(job, at)
            loaded.batch.add(sequence)

    def call_form(self, name: str) -> CallForm:
        """Return how a model writes calls of tools.

        Raises:
            LLMInvalidRequestError: It answers none.
            LLMConfigurationError: It is not loaded.
        """
        return self.answering(name).batch.model.call_form

    def count(self, name: str | None, prompt: Prompt) -> int:
        """Return the number of a prompt's tokens.

        Raises:
            LLMInvalidRequestError: The prompt is empty or does not fit the chat template.
            LLMConfigurationError: The model is not loaded.
        """
        check_text(prompt)
        return len(self.find(name).batch.model.encode(prompt))

    def step(self) -> bool:
        """Run one pass of each model that has requests; whether there is more to do."""
        self._tune()
        self.preparing.admit()
        busy = False
        answering = any(isinstance(loaded, _Answering) and loaded.batch.running for loaded in self._loaded.values())
        for loaded in list(self._loaded.values()):
            if loaded.batch.busy:
                if isinstance(loaded, _Answering):
                    started = self._now()
                    self._pace.note(loaded.batch.step(), self._now() - started)
                else:
                    loaded.batch.step(beside=answering)
                busy = busy or loaded.batch.busy
        return busy

    def clear(self, failure: BaseException) -> None:
        """Fail all requests."""
        self.preparing.clear(failure)
        for loaded in self._loaded.values():
            loaded.batch.clear(failure)

    def stats(self) -> EngineStats:
        """Return the figures over all models; may be asked from any thread, and is then a moment old."""
        with self._lock:
            batches = [loaded.batch for loaded in self._loaded.values()]
            totals = replace(self._gone)
        for batch in batches:
            totals.add(batch)
        return EngineStats(
            running=sum(batch.running for batch in batches),
            waiting=sum(len(batch.waiting) for batch in batches) + len(self.preparing),
            batch_size=max((batch.latest for batch in batches), default=0),
            blocks_used=sum(batch.room.used for batch in batches),
            blocks_total=sum(batch.room.blocks for batch in batches),
            prefix_blocks=sum(len(batch.store) for batch in batches),
            cached_tokens=totals.cached,
            generated_tokens=totals.made,
            tokens_per_second=self._pace.rate,
            queue_wait=totals.waited / totals.admitted if totals.admitted else 0.0,
            admitted=totals.admitted,
            waited_seconds=totals.waited,
            put_back=totals.put_back,
            forward_passes=totals.passes,
        )

    def running(self) -> dict[str, int]:
        """Return how many requests of each model read or answer; from any thread, and a moment old."""
        with self._lock:
            loaded = dict(self._loaded)
        return {name: each.batch.running for name, each in loaded.items()}

    def _share(self, model: LoadedModel, weights: int) -> _Answering | None:
        from .batching import Batch
        from .constraint import Grammars
        from .packing import chunk_beside_answers, rows_like_one
        from .ready import ready_for_batches

        try:
            shape = ready_for_batches(model)
        except LLMConfigurationError as error:
            _logger.warning("%s; it answers one request at a time", error.message)
            return None
        weights = weight_bytes(model.network)  # packed, they may take half
        block = BLOCK * shape.token_bytes
        blocks = blocks_for(shape, window=model.window, size=self._source.max_batch, limit=self._source.memory_limit)
        self._make_room(model.name, weights + LEAST * block)
        blocks = min(blocks, self._free(weights) // block)
        together = rows_like_one(model.network) if self._source.prompt_lookup else 0
        size = self._source.max_batch
        beside = chunk_beside_answers(model.network)
        batch = Batch(model, shape, blocks=blocks, size=size, now=self._now, beside=beside, together=together)
        model.limit = min(model.window, batch.room.longest)
        return _Answering(batch, weights + blocks * block, Grammars(model))

    def _tune(self) -> None:
        # The number belongs to the thread that calls, and another one may have taken its place.
        if self._source.threads is not None and self._tuned != threading.get_ident():
            import torch

            torch.set_num_threads(self._source.threads)
            self._tuned = threading.get_ident()

    def _free(self, weights: int) -> int:
        if self._source.memory_limit is None:
            return 1 << 62
        return self._source.memory_limit - weights - sum(loaded.bytes for loaded in self._loaded.values())

    def _make_room(self, name: str, wanted: int) -> None:
        limit = self._source.memory_limit
        if limit is not None and wanted > limit:
            raise LLMConfigurationError(
                f"the model {name!r} takes {wanted:,} bytes, and memory_limit is {limit:,}; allow more, or take a "
                "smaller model or dtype",
                model=name,
            )
        while self._loaded and self._free(wanted) < 0:
            oldest = next(iter(self._loaded))
            self._drop(oldest)
            self._left.add(oldest)

    def _drop(self, name: str) -> None:
        leaving = self._loaded[name]
        if isinstance(leaving, _Answering):
            self.preparing.finish(leaving.batch)
            self.preparing.admit()
        while leaving.batch.busy:
            self.step()  # of all: nobody else's stream stands still meanwhile
        self._forget(name)
        give_back()

    def _forget(self, name: str) -> None:
        with self._lock:
            self._gone.add(self._loaded.pop(name).batch)
