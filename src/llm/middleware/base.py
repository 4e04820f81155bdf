"""Many layers as one callable, built once."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from llm.core.exceptions import LLMConfigurationError
from llm.core.stream import LLMStream
from llm.core.types import LLMResponse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from llm.core.protocols import CallNext, Middleware
    from llm.core.stream import LLMResult
    from llm.core.types import LLMRequest


def compose(layers: Sequence[Middleware], dispatch: CallNext) -> CallNext:
    """Return the chain of `layers`, outermost first, that ends in `dispatch`.

    Raises:
        LLMConfigurationError: One of them is no layer; says which, by name and place.
    """
    call_next = dispatch
    for place in reversed(range(len(layers))):
        _check(layers[place], place)
        call_next = _joined(layers[place], place, call_next)
    return call_next


def _joined(layer: Middleware, place: int, call_next: CallNext) -> CallNext:
    # An object's own method is found once, here, and its coroutine is handed on: both cost what a whole layer may.
    handle: Callable[[LLMRequest, CallNext], Awaitable[LLMResult]] = (
        layer if inspect.isroutine(layer) else layer.__call__
    )
    if (getattr(handle, "__module__", None) or "").partition(".")[0] != __name__.partition(".")[0]:
        return _held_to_answers(layer, place, handle, call_next)

    def call(request: LLMRequest) -> Awaitable[LLMResult]:
        return handle(request, call_next)

    return call


def _held_to_answers(
    layer: Middleware, place: int, handle: Callable[[LLMRequest, CallNext], Any], call_next: CallNext
) -> CallNext:
    """Return a layer that is anybody's: what it gives may be no answer, which the layers around it would stumble on."""

    async def call(request: LLMRequest) -> LLMResult:
        given = handle(request, call_next)
        if not hasattr(given, "__await__"):
            raise _refused(layer, place, f"gave a {type(given).__name__} at once; write it as `async def`")
        result = await given
        if isinstance(result, (LLMResponse, LLMStream)):
            return result
        what = type(result).__name__
        raise _refused(layer, place, f"returned a {what}; return what call_next gave, an LLMResponse or an LLMStream")

    return call


def _check(layer: object, place: int) -> None:
    if isinstance(layer, type):
        raise _refused(layer, place, "is a class; pass an instance of it")
    if not callable(layer):
        raise _refused(layer, place, "cannot be called; it needs `async def __call__(self, request, call_next)`")
    try:
        inspect.signature(layer).bind(None, None)
    except TypeError as error:
        raise _refused(layer, place, f"does not take (request, call_next): {error}") from None


def _refused(layer: object, place: int, why: str) -> LLMConfigurationError:
    name = getattr(layer, "__qualname__", None) or type(layer).__qualname__
    return LLMConfigurationError(f"middleware {place + 1}, {name}, {why}")
