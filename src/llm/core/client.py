"""The handle that users hold: arguments become one frozen request, the request one call, the call one outcome."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from .arguments import read_history
from .bounds import Scope
from .call import Call
from .conduct import Conduct
from .embedding import joined, limits_of, portions_of, within
from .exceptions import LLMAuthenticationError, LLMInvalidRequestError, LLMQuotaExceededError, LLMTimeoutError
from .making import make_request
from .messages import Message, MessageRole, read_messages
from .options import check_continuation, check_model
from .protocols import TokenCounting
from .repair import check_structured
from .routing import check_provider
from .stream import LLMStream
from .texts import EmbeddingInput
from .types import LLMRequest, LLMResponse, fill_request, request_with

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Unpack

    from .arguments import Options
    from .messages import MessageLike, MessagesLike
    from .parts import Hop, Route, Routes
    from .protocols import Provider
    from .stream import LLMResult
    from .types import CachePolicy, EmbeddingResponse, ToolDefinition


class LLMClient:
    """A provider, a model, a tenant and a priority to call with; cheap to make, safe to share between tasks.

    Attributes:
        max_user_wait: Seconds that a limit of the user's own may hold a call before it is an `LLMRateLimitError`; None:
            as long as the call's deadline allows.
    """

    def __init__(
        self, routes: Routes, route: Route, *, model: str | None = None, user: str | None = None, priority: int = 0
    ) -> None:
        """Keep the defaults of its calls; `LLMManager.get_client` makes these."""
        self._routes = routes
        self._route = route
        self._model = model
        self._user = user
        self._priority = priority
        self.max_user_wait: float | None = None

    def __repr__(self) -> str:
        """Return what it calls."""
        return f"LLMClient(provider={self._route.provider!r}, model={self._model!r}, user={self._user!r})"

    async def chat(
        self,
        text: str,
        *,
        system: str | None = None,
        history: Iterable[MessageLike] = (),
        **options: Unpack[Options],
    ) -> LLMResponse:
        """Answer one text.

        Args:
            text: What the user says.
            system: Instructions that stand before the conversation.
            history: Earlier turns.
            options: Those of `complete`.

        Raises:
            LLMException: The call failed; the kinds say how.
        """
        if not _is_text(text):
            raise LLMInvalidRequestError("text is empty or no text; pass what the model should answer")
        if system and not _is_text(system):
            raise LLMInvalidRequestError(f"system is a {type(system).__name__}; expected instructions as a text")
        past = read_history(history)
        before = (Message(MessageRole.SYSTEM, system),) if system else ()
        turns = read_messages(past) if past else ()
        return await self.complete((*before, *turns, Message(MessageRole.USER, text)), **options)

    async def complete(  # noqa: PLR0913 - the contract's options
        self,
        messages: MessagesLike,
        *,
        model: str | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        max_tokens: int | None = None,
        stop: str | Sequence[str] | None = None,
        seed: int | None = None,
        tools: Sequence[ToolDefinition | Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] | None = None,
        response_format: str | Mapping[str, Any] | None = None,
        response_model: type | None = None,
        reasoning_effort: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the call's deadline, not a scope
        user: str | None = None,
        priority: int | None = None,
        cache: CachePolicy | bool | None = None,
        metadata: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> LLMResponse:
        """Answer a conversation whole; `LLMRequest` says what each option means.

        With `response_model`, `response.parsed` is an instance of it. An answer that does not fit is asked for once
        more, with what is wrong; usage and cost are of both. There is no instance where the answer stopped for its
        content or asks for tools.

        Raises:
            LLMValidationError: The second answer does not fit `response_model` either, or `max_tokens` cut the first.
            LLMException: The call failed; the kinds say how.
        """
        asked = make_request(
            messages, model, temperature, top_p, max_tokens, stop, seed, tools, tool_choice, response_format,
            response_model, reasoning_effort, timeout, user, priority, cache, metadata, extra,
        )  # fmt: skip
        conduct = Conduct(self._routes, *self.prepare(asked, mine=True))
        result = conduct.at_hand()  # here, since a coroutine to look in would be a part of what a hit costs
        if result is None:
            result = await conduct.run()
        return await _whole(result) if isinstance(result, LLMStream) else result

    def stream_complete(  # noqa: PLR0913 - the contract's options
        self,
        messages: MessagesLike,
        *,
        model: str | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        max_tokens: int | None = None,
        stop: str | Sequence[str] | None = None,
        seed: int | None = None,
        tools: Sequence[ToolDefinition | Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] | None = None,
        response_format: str | Mapping[str, Any] | None = None,
        response_model: type | None = None,
        reasoning_effort: str | None = None,
        timeout: float | None = None,
        user: str | None = None,
        priority: int | None = None,
        cache: CachePolicy | bool | None = None,
        metadata: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
        continue_stream: bool = False,
    ) -> LLMStream:
        """Answer a conversation in chunks; the stream opens on first use.

        Leave it by `async with` or `aclose()`: that closes the upstream response at once.

        With `response_model` the chunks are the answer's JSON, and `stream.partials()` reads them as it grows. The
        stream ends when the answer fits: where it does not, the end waits for a second answer, which comes whole and
        is what `stream.response()` returns; where that does not fit either, the end is an `LLMValidationError`.

        With `continue_stream` a stream that breaks in the middle goes on: the next target, or else the same one again,
        is asked to carry on the text that came. `response.continued` tells who did, and where.

        Raises:
            LLMInvalidRequestError: An option is of the wrong kind or out of range. Reading raises the rest.
        """
        request = make_request(
            messages, model, temperature, top_p, max_tokens, stop, seed, tools, tool_choice, response_format,
            response_model, reasoning_effort, timeout, user, priority, cache, metadata, extra,
            True, continue_stream,  # noqa: FBT003 - a stream
        )  # fmt: skip
        if continue_stream is not False:
            check_continuation(request)
        brake = Scope()
        return LLMStream.lazy(lambda: self._send(request, brake, mine=True), stop=brake.pull)

    async def request(self, request: LLMRequest, *, _mine: bool = False) -> LLMResponse:
        """Answer a request whole, also one that asks for a stream, whose chunks are then gathered.

        Raises:
            LLMException: The call failed; the kinds say how.
        """
        result = await self._send(_checked(request), mine=_mine)
        return await _whole(result) if isinstance(result, LLMStream) else result

    def stream_request(self, request: LLMRequest, *, _mine: bool = False) -> LLMStream:
        """Answer a request in chunks, also one that does not ask for a stream; the stream opens on first use.

        As `stream_complete`, for who has the request already.

        Raises:
            LLMInvalidRequestError: It is no request. Reading raises the rest.
        """
        asked = _checked(request)
        if not asked.stream:
            asked, _mine = request_with(asked, stream=True), True
        brake = Scope()
        return LLMStream.lazy(lambda: self._send(asked, brake, mine=_mine), stop=brake.pull)

    async def embed(
        self, texts: str | Sequence[str], *, model: str | None = None, dimensions: int | None = None
    ) -> EmbeddingResponse:
        """Return a vector for each text, by one call; by several at once where there are more than one may hold.

        OpenAI takes 2048 texts and 300,000 tokens in a request. Each call takes from the limits and counts in the
        metrics by itself; all have the one deadline, and go to the one model. When one fails, the others are ended.

        Args:
            texts: One text or a list of texts, none of them empty.
            model: Model, `provider/model` or alias; None: the client's, else one of the provider's.
            dimensions: Numbers per vector, where the model can choose; None: the model's own.

        Raises:
            LLMInvalidRequestError: A text is empty, or the provider makes no embeddings.
            LLMException: The call failed; of several calls the message says which texts were in it.
        """
        check_model(model)
        asked = EmbeddingInput(texts, dimensions)
        name = model or self._model
        route, target, _ = self._route.to(name, LLMRequest((), embed=asked))
        check_provider(route.provider, self._routes.parts.chains)
        queue = route.chain.pool.queue
        portions = portions_of(asked, limits_of(queue.slots[0].key.client.provider))
        # Vectors of different models do not go together, and an alias may stand for another one the next time.
        if len(portions) > 1 or target is not None:
            name = f"{route.provider}/{target or queue.choose_model(vectors=True)}"
        return joined(await within(portions, lambda portion: self.request(LLMRequest((), model=name, embed=portion))))

    async def count_tokens(self, messages: MessagesLike | LLMRequest, *, model: str | None = None) -> int:
        """Return the tokens that a conversation takes as a prompt; of a request with its tools.

        Exact where the provider counts (Anthropic, a model on the box) or the tokenizer is known (OpenAI); else an
        estimate, also at a server that speaks Anthropic's dialect and has no address to count at.

        Raises:
            LLMException: The provider was asked and failed.
            LLMTimeoutError: It said nothing within `global.timeouts.attempt`, or `global.timeout` where that is less.
        """
        check_model(model)
        asked = messages if isinstance(messages, LLMRequest) else LLMRequest(messages)
        asked = request_with(asked, model=model or asked.model or self._model)
        route, name, _ = self._find(asked)
        request = request_with(asked, model=name)
        tokens = await self._counted(route, request, name)
        if tokens is not None:
            return tokens
        # The first count of a vocabulary takes a second.
        return await asyncio.to_thread(self._routes.parts.estimate_tokens, route.provider, request)

    async def _counted(self, route: Route, request: LLMRequest, model: str) -> int | None:
        async def ask(provider: Provider) -> int | None:
            counting = cast("TokenCounting", provider)  # keys of one section are of one kind
            return await counting.count_tokens(request)

        parts, pool = self._routes.parts, route.chain.pool
        bound, whole = parts.config.global_.timeouts.attempt, parts.config.global_.timeout
        seconds = bound if whole is None else min(bound, whole)
        try:
            async with parts.clock.timeout(seconds):
                while True:
                    key = pool.next_key(model)
                    if not isinstance(key.client.provider, TokenCounting):
                        return None
                    with suppress(LLMAuthenticationError, LLMQuotaExceededError):  # another key may do
                        return await pool.ask_beside(key, model, ask)
        except TimeoutError:
            message = f"no count of tokens came within {seconds:g} seconds (timeouts.attempt, or global.timeout)"
            raise LLMTimeoutError(
                message, phase="total", retryable=True, provider=route.provider, model=model
            ) from None

    def prepare(self, request: LLMRequest, *, mine: bool = False) -> tuple[Route, LLMRequest, tuple[Hop, ...]]:
        """Give a request its way, its model and the record of its call; `manager.explain` asks about the same.

        A copy of it, but where it is `mine`: made for this call, and in nobody's hands. Where others may serve if the
        first target cannot, all are told, the first included.
        """
        if request.response_model is not None:
            check_structured(request, request.response_model)
        route, model, hops = self._find(request)
        parts = self._routes.parts
        now = parts.clock.now()
        timeout = request.timeout if request.timeout is not None else parts.config.global_.timeout
        user = request.user if request.user is not None else self._user
        priority = request.priority if request.priority is not None else self._priority
        call = Call(now, None if timeout is None else now + timeout, user, priority)
        call.user_wait = self.max_user_wait
        if not mine:
            return route, request_with(request, model=model, user=user, priority=priority, call=call), hops
        fill_request(request, model, user, priority, call)
        return route, request, hops

    def _find(self, request: LLMRequest) -> tuple[Route, str, tuple[Hop, ...]]:
        route, model, hops = self._route.to(request.model or self._model, request)
        check_provider(route.provider, self._routes.parts.chains)  # a reload may have taken it away
        return route, model or route.chain.pool.queue.choose_model(vectors=request.embed is not None), hops

    async def _send(self, request: LLMRequest, brake: Scope | None = None, *, mine: bool = False) -> LLMResult:
        conduct = Conduct(self._routes, *self.prepare(request, mine=mine))
        result = conduct.at_hand()
        return await conduct.run(brake) if result is None else result


async def _whole(stream: LLMStream) -> LLMResponse:
    async with stream:
        return await stream.response()


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _checked(request: object) -> LLMRequest:
    if not isinstance(request, LLMRequest):
        raise LLMInvalidRequestError(
            f"request is a {type(request).__name__}; pass an LLMRequest, or call complete() with messages"
        )
    return request
