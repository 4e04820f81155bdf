from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from llm.core.exceptions import LLMConfigurationError
from llm.core.stream import as_stream, at_end
from llm.core.types import LLMRequest, LLMResponse
from llm.middleware.base import compose

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from llm.core.protocols import CallNext, Middleware
    from llm.core.stream import LLMResult
    from llm.core.types import StreamChunk

    Dispatch = Callable[[LLMRequest], Awaitable[LLMResult]]


class Noting:
    def __init__(self, name: str, events: list[str]) -> None:
        self.name = name
        self.events = events

    async def __call__(self, request: LLMRequest, call_next: CallNext) -> LLMResult:
        self.events.append(f"{self.name}:in")
        result = await call_next(request)
        return at_end(result, self.ended)

    def ended(self, response: LLMResponse | None, error: BaseException | None) -> None:
        self.events.append(f"{self.name}:{'out' if error is None and response else 'broken'}")


async def whole(result: LLMResult) -> str:
    return str(await as_stream(result).response())


async def test_layers_run_outermost_first_and_end_innermost_first(dispatch: Dispatch) -> None:
    events: list[str] = []

    async def upstream(request: LLMRequest) -> LLMResult:
        events.append("upstream")
        return await dispatch(request)

    chain = compose([Noting("a", events), Noting("b", events), Noting("c", events)], upstream)
    assert await whole(await chain(LLMRequest("Hello"))) == "sure"
    assert events == ["a:in", "b:in", "c:in", "upstream", "c:out", "b:out", "a:out"]


async def test_a_coroutine_function_is_a_layer_too(dispatch: Dispatch) -> None:
    async def louder(request: LLMRequest, call_next: CallNext) -> LLMResult:
        return await call_next(LLMRequest(request.messages, model="loud"))

    result = await compose([louder], dispatch)(LLMRequest("Hello"))
    assert (await as_stream(result).response()).model == "loud"


async def forgets(request: LLMRequest, call_next: CallNext) -> None:
    await call_next(request)


async def in_words(request: LLMRequest, call_next: CallNext) -> str:
    return str(await call_next(request))


async def in_pieces(request: LLMRequest, call_next: CallNext) -> AsyncIterator[StreamChunk]:
    return (chunk async for chunk in as_stream(await call_next(request)))


def at_once(_: LLMRequest, __: CallNext) -> LLMResponse:
    return LLMResponse("at once")


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (forgets, "forgets, returned a NoneType; return what call_next gave"),
        (in_words, "in_words, returned a str; return"),
        (in_pieces, "in_pieces, returned a async_generator; return"),
        (at_once, "at_once, gave a LLMResponse at once; write it as `async def`"),
    ],
)
async def test_a_layer_that_gives_no_answer_is_named(layer: Middleware, why: str, dispatch: Dispatch) -> None:
    events: list[str] = []
    with pytest.raises(LLMConfigurationError, match=f"middleware 2, {why}"):
        await compose([Noting("a", events), layer, Noting("b", events)], dispatch)(LLMRequest("Hello"))


async def test_no_layers_are_the_dispatch_itself(dispatch: Dispatch) -> None:
    assert compose([], dispatch) is dispatch


async def nothing_taken() -> None:
    """Not a layer: it takes no request."""


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        (Noting, r"middleware 2, Noting, is a class; pass an instance"),
        ("logging", r"middleware 2, str, cannot be called"),
        (nothing_taken, r"middleware 2, nothing_taken, does not take \(request, call_next\)"),
    ],
)
async def test_what_is_no_layer_is_refused_by_name(layer: object, told: str, dispatch: Dispatch) -> None:
    with pytest.raises(LLMConfigurationError, match=told):
        compose([Noting("a", []), cast("Middleware", layer)], dispatch)
