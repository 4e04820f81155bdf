"""A model on the box as a provider: an `LLMRequest` into a prompt for the engine, its text into an answer."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING
from uuid import uuid4

from llm.core.exceptions import LLMException, LLMInvalidRequestError
from llm.core.messages import MessageRole, TextPart, ThinkingPart
from llm.core.standing import EngineStanding, HealthStatus
from llm.core.stream import LLMStream
from llm.core.types import LLMResponse, StreamChunk, TokenUsage
from llm.core.vendor import CachePoint
from llm.providers.closed import closed
from llm.providers.structured import Way, shaped

from .sharing import EngineLease

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from llm.core.messages import Message
    from llm.core.protocols import ProviderSettings
    from llm.core.types import FinishReason, LLMRequest

    from .engine import GenerationStream, InferenceEngine, Options
    from .request import GenerationResult, Prompt

_SPEAKERS = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
}


class LocalProvider:
    """The models of one section that run on this machine; sections that agree on device and `engine` share one engine.

    Of `LLMRequest.extra` it knows `top_k`, and `raw`: the one message, a user's, is a text that the model continues as
    it stands, without its chat template. A `response_model` is asked for in words. `reasoning_effort` is a wish that
    it has no means for, and leaves aside.
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
            LLMInvalidRequestError: It asks for what a model on the box does not do; the message names the field.
            LLMContextLengthError: The prompt does not fit the model's window.
            LLMConfigurationError: The model is not there.
            LLMOverloadedError: As many requests as may run and wait are there already.
            LLMConnectionError: The provider was closed in the middle.
        """
        model = self._model(request)
        with self._named(model):
            request = shaped(request, Way.WORDS)
            prompt, options = read_prompt(request), read_options(request)
            engine = await self._ready(model)
            result = await engine.generate(prompt, model=model, **options)
        return LLMResponse(
            _new_id(), result.text, model, self._settings.name, _usage(result), finish_reason=_finish(result)
        )

    async def stream(self, request: LLMRequest) -> LLMStream:
        """Return a stream whose first chunk is in hand, about one chunk per token; errors as of `complete`."""
        model = self._model(request)
        with self._named(model):
            request = shaped(request, Way.WORDS)
            prompt, options = read_prompt(request), read_options(request)
            engine = await self._ready(model)
            source = _Chunks(engine.generate_stream(prompt, model=model, **options), model)
            return await LLMStream(source, provider=self._settings.name).begin()

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


class _Chunks:
    """The pieces of a generation as chunks; the last one says why it ended and what it took."""

    def __init__(self, stream: GenerationStream, model: str) -> None:
        self.id: str = _new_id()
        self.model: str = model
        self._stream = stream
        self._whole = False

    async def __anext__(self) -> StreamChunk:
        if self._whole:
            raise StopAsyncIteration
        try:
            return StreamChunk(await anext(self._stream))
        except StopAsyncIteration:
            self._whole = True
        result = self._stream.result
        if result is None:
            raise StopAsyncIteration
        return StreamChunk(finish_reason=_finish(result), usage=_usage(result))

    def waiting(self) -> bool:
        return self._stream.waiting()

    def close(self) -> None:
        self._stream.close()


def read_prompt(request: LLMRequest) -> Prompt:
    """Return the request's conversation in the form that chat templates take; with `raw` the text to be continued.

    Raises:
        LLMInvalidRequestError: A turn that is not text; names it. With `raw` anything but one message, a user's.
    """
    turns: list[Mapping[str, str]] = [_turn(message, f"messages[{at}]") for at, message in enumerate(request.messages)]
    if not _raw(request):
        return turns
    if len(turns) != 1 or turns[0]["role"] != "user":
        raise LLMInvalidRequestError("extra.raw is true; expected one message, a user's, whose text is continued")
    return turns[0]["content"]


def read_options(request: LLMRequest) -> Options:
    """Return the request's options for the engine.

    Raises:
        LLMInvalidRequestError: An option that a model on the box does not have; names it.
    """
    _refuse_what_needs_more_than_text(request)
    extra = dict(request.extra or {})
    top_k = extra.pop("top_k", None)
    extra.pop("raw", None)
    if extra.pop("n", 1) != 1:
        raise LLMInvalidRequestError("n is more than 1; a model on the box gives one answer a call, so call it again")
    if extra:
        raise LLMInvalidRequestError(
            f"extra has {min(extra)!r}, which a model on the box does not know; leave it out (known: raw, top_k)"
        )
    return {
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": top_k,
        "seed": request.seed,
        "stop": request.stop or (),
    }


def _raw(request: LLMRequest) -> bool:
    raw: object = (request.extra or {}).get("raw", False)
    if not isinstance(raw, bool):
        raise LLMInvalidRequestError(f"extra.raw is {raw!r}; expected true or false")
    return raw


def _refuse_what_needs_more_than_text(request: LLMRequest) -> None:
    remedy = "a model on the box answers in plain text; leave it out, or choose another provider"
    if request.tools:
        raise LLMInvalidRequestError(f"tools is given; {remedy}")
    form = request.response_format
    kind = form.get("type") if form is not None and not isinstance(form, str) else form
    if kind not in {None, "text"}:
        raise LLMInvalidRequestError(f"response_format is {kind!r}; {remedy}")


def _turn(message: Message, place: str) -> dict[str, str]:
    if message.role not in _SPEAKERS or message.tool_calls:
        raise LLMInvalidRequestError(f"{place} is a tool's turn; a model on the box has no tools, so leave it out")
    if not isinstance(message.content, str):
        for part in message.content:
            if not isinstance(part, (TextPart, ThinkingPart, CachePoint)):
                raise LLMInvalidRequestError(
                    f"{place} holds {type(part).__name__}; a model on the box reads text alone, so leave it out"
                )
    return {"role": _SPEAKERS[message.role], "content": message.text}


def _new_id() -> str:
    return f"local-{uuid4().hex}"


def _usage(result: GenerationResult) -> TokenUsage:
    return TokenUsage(result.input_tokens, result.output_tokens, result.cached_tokens)


def _finish(result: GenerationResult) -> FinishReason:
    return "length" if result.finish_reason == "length" else "stop"
