"""A model on the box as a provider: an `LLMRequest` into a prompt for the engine, its text into an answer."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from llm.core.exceptions import LLMException, LLMInvalidRequestError
from llm.core.protocols import EmbeddingLimits
from llm.core.standing import EngineStanding, HealthStatus
from llm.core.stream import LLMStream
from llm.core.types import LLMResponse, TokenUsage
from llm.providers.closed import closed

from .answering import Chunks, new_id, response_of
from .asking import read_prompt, read_request
from .sharing import EngineLease
from .turns import tools_of
from .vectors import shortened

if TYPE_CHECKING:
    from collections.abc import Generator

    from llm.core.protocols import ProviderSettings
    from llm.core.types import LLMRequest

    from .asking import Asked
    from .engine import InferenceEngine


_EMBEDDINGS: Final = EmbeddingLimits(texts=64)


class LocalProvider:
    """The models of one section that run on this machine; sections that agree on device and `engine` share one engine.

    Of `LLMRequest.extra` it knows `top_k`, `structured_outputs` (one of `json`, `regex`, `choice` and `json_object`),
    and `raw`: the one message, a user's, is a text that the model continues as it stands, without its chat template.
    A `response_model` is asked for in words, and the answer held to its schema. `reasoning_effort` is a wish that it
    has no means for, and leaves aside.
    """

    def __init__(self, settings: ProviderSettings) -> None:
        """Take the settings; nothing is loaded yet."""
        self._settings = settings
        self._lease: EngineLease | None = None
        self._closed = False

    async def initialize(self) -> None:
        """Load the section's models.

        Raises:
            LLMConfigurationError: A model that is not there or does not load, or the `local` extra is missing.
        """
        with self._named(None):
            for model in self._settings.models:
                if model != "*":
                    await self._ready(model)

    async def complete(self, request: LLMRequest) -> LLMResponse:
        """Answer whole; a cancelled call ends at the next token.

        Raises:
            LLMInvalidRequestError: It asks for what a model on the box does not do; the message names the field. Or
                the model makes vectors and answers none.
            LLMContextLengthError: The prompt does not fit the model's window.
            LLMConfigurationError: The model is not there.
            LLMOverloadedError: As many requests as may run and wait are there already.
            LLMConnectionError: The provider was closed in the middle.
        """
        model = self._model(request)
        with self._named(model):
            engine, asked = await self._read(request, model)
            result = await engine.generate(asked.prompt, model=model, **asked.options)
        return response_of(result, asked.form, model=model, provider=self._settings.name)

    async def stream(self, request: LLMRequest) -> LLMStream:
        """Return a stream whose first chunk is in hand, about one chunk per token; errors as of `complete`."""
        model = self._model(request)
        with self._named(model):
            engine, asked = await self._read(request, model)
            source = Chunks(engine.generate_stream(asked.prompt, model=model, **asked.options), asked.form, model)
            return await LLMStream(source, provider=self._settings.name).begin()

    @property
    def embedding_limits(self) -> EmbeddingLimits:
        """The most texts of one request, so that none of many holds up the others."""
        return _EMBEDDINGS

    async def embed(self, request: LLMRequest) -> LLMResponse:
        """Return a vector per text: of a model made for it what its layout says, else the last layer's mean.

        The latter is of length one. With `dimensions`, the first so many numbers of it, of length one: as OpenAI cuts
        its own. A model that was not trained for that loses more by it than one that was.

        Raises:
            LLMInvalidRequestError: More dimensions than the model has, or no texts.
            LLMContextLengthError: A text does not fit the model's window.
            LLMConfigurationError: The model is not there.
            LLMConnectionError: The provider was closed in the middle.
        """
        model, asked = self._model(request), request.embed
        with self._named(model):
            if asked is None:
                raise LLMInvalidRequestError("embed is None; pass an EmbeddingInput")
            engine = await self._ready(model)
            vectors = await engine.embed(asked.texts, model=model)
            values = tuple(shortened(vector, asked.dimensions) for vector in vectors.values)
        usage = TokenUsage(vectors.input_tokens)
        return LLMResponse(new_id(), "", model, self._settings.name, usage, embeddings=values)

    async def count_tokens(self, request: LLMRequest) -> int:
        """Return the exact number of tokens of the request's prompt, the chat template's included.

        Raises:
            LLMInvalidRequestError: It holds what a model on the box does not read; the message names the field.
            LLMConfigurationError: The model is not there.
        """
        model = self._model(request)
        with self._named(model):
            prompt = read_prompt(request)
            engine = await self._ready(model)
            return await engine.count_tokens(prompt, model=model)

    async def health_check(self) -> HealthStatus:
        """Return whether the section's models are loaded, after loading those that are not."""
        clock = self._settings.clock
        started = clock.now()
        try:
            await self.initialize()
        except LLMException as error:
            return HealthStatus(healthy=False, latency=clock.now() - started, error=str(error))
        return HealthStatus(healthy=True, latency=clock.now() - started)

    def engine_standing(self) -> EngineStanding | None:
        """Return the engine's figures (`EngineStats`), and how full `max_batch` and `max_waiting` are."""
        if self._lease is None:
            return None
        engine = self._lease.engine
        return EngineStanding(asdict(engine.stats()), engine.saturation())

    async def close(self) -> None:
        """Serve nobody from now on, and let go of the engine.

        The last provider to do so ends the engine, and gives the models' memory back.
        """
        self._closed = True
        if self._lease is not None:
            await self._lease.give_back()
            self._lease = None

    async def _ready(self, model: str) -> InferenceEngine:
        if self._closed:
            raise closed()
        if self._lease is None:
            self._lease = EngineLease(self._settings.device, self._settings.engine)
        engine = self._lease.engine
        if model not in engine.models:
            await engine.load_model(model)
        return engine

    async def _read(self, request: LLMRequest, model: str) -> tuple[InferenceEngine, Asked]:
        asked = read_request(request, None)  # what is wrong in it is told before a model is loaded
        engine = await self._ready(model)
        if tools_of(request):
            asked = read_request(request, await engine.call_form(model))
        return engine, asked

    def _model(self, request: LLMRequest) -> str:
        return request.model or self._settings.models[0]

    @contextmanager
    def _named(self, model: str | None) -> Generator[None]:
        try:
            yield
        except LLMException as error:
            error.provider = error.provider or self._settings.name
            error.model = error.model or model
            raise
