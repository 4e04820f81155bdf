"""The one second chance of an answer that does not fit its `response_model`, for whole answers and streams alike."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from llm.utils.clock import Clock

from .bounds import Scope
from .call import CallState
from .exceptions import LLMException, LLMInvalidRequestError, LLMValidationError
from .messages import Message, MessageRole
from .protocols import CallNext
from .spent import Spent
from .stream import LLMStream, as_stream
from .structured import UnfitError, read_instance, shape_of
from .types import LLMRequest, LLMResponse

if TYPE_CHECKING:
    from .stream import LLMResult
    from .types import StreamChunk

_AGAIN: Final = (
    "That answer does not fit:\n{problems}\n\n"
    "Answer again: one JSON object alone, without any other text, that fits this JSON Schema:\n{schema}"
)


def check_structured(request: LLMRequest, model: type) -> None:
    """Look at a request that has `model` for its `response_model`.

    Raises:
        LLMInvalidRequestError: pydantic cannot tell its form, or the request asks for another form as well.
    """
    shape_of(model)
    if request.response_format is not None:
        raise LLMInvalidRequestError("response_format and response_model are both given; pass one of them")


@dataclass(frozen=True, slots=True)
class Fitting:
    """Brings the answer to one call into its form: reads it, or asks once more and reads that.

    An answer that is none of the model's choosing has no instance and is returned as it is: one that stopped for its
    content, and one that asks for tools. One that `max_tokens` cut is not asked for again: it would be cut again.

    Attributes:
        request: What was asked.
        model: Its `response_model`.
        chain: Asks again.
        clock: Its time.
        complete: Gives an answer its cost and what else the call knows.
        show: Whether an error may repeat the answer.
    """

    request: LLMRequest
    model: type
    chain: CallNext
    clock: Clock
    complete: Callable[[LLMResponse], LLMResponse]
    show: bool

    async def whole(self, result: LLMResult) -> LLMResult:
        """Return the result with an instance; a stream has it at its end.

        Raises:
            LLMException: As of `fit`.
        """
        if isinstance(result, LLMStream) or self.request.stream:
            return _fitted_stream(as_stream(result), self)
        return await self.fit(result)

    def at_once(self, result: LLMResult) -> LLMResult | None:
        """Return the result with an instance; None where it has none without asking again."""
        if isinstance(result, LLMStream):
            return _fitted_stream(result, self)
        unfit, fitted = self._read(self.complete(result))
        return fitted if unfit is None else None

    async def fit(self, answer: LLMResponse) -> LLMResponse:
        """Return the answer, or the one to a second question, with its instance; usage and cost are of both.

        Raises:
            LLMValidationError: Neither fits, or the answer was cut.
            LLMException: The second question failed.
        """
        first = self.complete(answer)
        unfit, fitted = self._read(first)
        if unfit is None:
            return fitted
        await self._put_by(first)
        if first.finish_reason == "length":
            raise self._refused(first, unfit)
        second = self.complete(await self._ask_again(first, unfit))
        unfit, fitted = self._read(second)
        if unfit is None:
            return _both(first, fitted)
        await self._put_by(second)
        raise self._refused(second, unfit)

    def _read(self, answer: LLMResponse) -> tuple[UnfitError | None, LLMResponse]:
        if answer.finish_reason == "content_filter" or answer.tool_calls:
            return None, answer
        try:
            return None, replace(answer, parsed=read_instance(self.model, answer.content))
        except UnfitError as unfit:
            return unfit, answer

    async def _put_by(self, answer: LLMResponse) -> None:
        call = self.request.call
        if call is not None and not answer.cached:
            used = answer.usage
            call.spend(Spent(used.input_tokens, used.output_tokens, used.cached_input_tokens, answer.cost))
        if call is not None and call.forget is not None:
            await call.forget()

    async def _ask_again(self, first: LLMResponse, unfit: UnfitError) -> LLMResponse:
        request = self.request
        if (call := request.call) is not None:
            call.note(self.clock.now(), "unfit", str(unfit))
            if call.state is CallState.TICKETED:  # the second question takes one of its own
                call.closed(self.clock.now())
        problems = "\n".join(f"- {line}" for line in unfit.told)
        told = Message(MessageRole.USER, _AGAIN.format(problems=problems, schema=shape_of(self.model).text))
        # A turn of nothing is refused by some vendors.
        said = (Message(MessageRole.ASSISTANT, first.content),) if first.content.strip() else ()
        result = await self.chain(replace(request, messages=(*request.messages, *said, told), stream=False))
        if isinstance(result, LLMStream):
            async with result:
                return await result.response()
        return result

    def _refused(self, answer: LLMResponse, unfit: UnfitError) -> LLMValidationError:
        name = self.model.__name__
        if answer.finish_reason == "length":
            message = f"the answer was cut before it fitted response_model {name}; give it more max_tokens"
        else:
            message = (
                f"the answer does not fit response_model {name}, also after it was asked for once more: {unfit}; say "
                "in the prompt what is wanted, ask for less, or take another model"
            )
        if self.show:
            message += f"; the answer was {answer.content!r}"
        return LLMValidationError(
            message,
            problems=unfit.problems,
            partial=answer.content,
            provider=answer.provider,
            model=answer.model,
            key=answer.key,
        )


def _both(first: LLMResponse, second: LLMResponse) -> LLMResponse:
    """Return the second answer with what both took; what came from the cache took nothing."""
    if first.cached:
        return second
    if second.cached:
        return replace(second, usage=first.usage, cost=first.cost, cached=False)
    cost = None if first.cost is None or second.cost is None else first.cost + second.cost
    return replace(second, usage=first.usage + second.usage, cost=cost)


def _fitted_stream(stream: LLMStream, fitting: Fitting) -> LLMStream:
    # Its chunks are those of the first answer. Where that does not fit, its end waits for the second, which comes
    # whole and is its response.
    source = _FittedChunks(stream, fitting)
    fitted = LLMStream(source, provider=stream.provider, key=stream.key)
    fitted.finish_with(lambda response: source.response or response)
    weakly = weakref.ref(fitted)

    def ended(_: object, error: BaseException | None) -> None:
        # Nobody may be reading, as where it is closed for being abandoned.
        outer = weakly()
        if outer is not None and isinstance(error, LLMException):
            outer.interrupt(error)

    stream.on_end(ended)
    return fitted


class _FittedChunks:
    """A `ChunkSource` over a stream that has one more thing to do at its end."""

    def __init__(self, stream: LLMStream, fitting: Fitting) -> None:
        self.id: str = ""
        self.model: str = ""
        self.response: LLMResponse | None = None
        self._stream = stream
        self._fitting = fitting
        self._scope = Scope()

    async def __anext__(self) -> StreamChunk:
        with suppress(StopAsyncIteration):
            return await anext(self._stream)
        answer = await self._stream.response()
        with self._scope:
            self.response = await self._fitting.fit(answer)
        raise StopAsyncIteration

    def waiting(self) -> bool:
        return False

    def close(self) -> None:
        self._scope.end()
        self._stream.leave()
