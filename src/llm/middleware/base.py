"""Many layers as one callable, built once."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from llm.core.exceptions import LLMConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

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
        call_next = _joined(layers[place], call_next)
    return call_next


def _joined(layer: Middleware, call_next: CallNext) -> CallNext:
    # An object's own method is found once, here, and its coroutine is handed on: both cost what a whole layer may.
    handle = layer if inspect.isroutine(layer) else layer.__call__

    def call(request: LLMRequest) -> Awaitable[LLMResult]:
        return handle(request, call_next)

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
