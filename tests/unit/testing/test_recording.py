from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from llm.core.exceptions import LLMServerError
from llm.core.stream import LLMStream
from llm.core.types import LLMRequest
from llm.testing import FakeProvider, RecordingMiddleware

if TYPE_CHECKING:
    from llm.core.protocols import CallNext

HELLO = LLMRequest("hello")


def _chain(fake: FakeProvider, events: list[str], *, stream: bool) -> CallNext:
    call: CallNext = fake.stream if stream else fake.complete
    for name in ("inner", "outer"):
        call = partial(RecordingMiddleware(name, events).__call__, call_next=call)
    return call


async def test_a_unary_call_is_written_down_in_order() -> None:
    events = list[str]()
    await _chain(FakeProvider(), events, stream=False)(HELLO)
    assert events == ["outer:in", "inner:in", "inner:out", "inner:ended", "outer:out", "outer:ended"]


async def test_a_stream_ends_when_it_is_read_to_its_end() -> None:
    events = list[str]()
    result = await _chain(FakeProvider(), events, stream=True)(HELLO)
    assert isinstance(result, LLMStream)
    assert events == ["outer:in", "inner:in", "inner:out", "outer:out"]
    await result.response()
    assert events[4:] == ["inner:ended", "outer:ended"]


async def test_a_stream_left_early_is_told_apart() -> None:
    events = list[str]()
    result = await _chain(FakeProvider(), events, stream=True)(HELLO)
    assert isinstance(result, LLMStream)
    await result.aclose()
    assert events[4:] == ["inner:left", "outer:left"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_is_written_with_its_type(*, stream: bool) -> None:
    events = list[str]()
    with pytest.raises(LLMServerError):
        await _chain(FakeProvider([LLMServerError("down")]), events, stream=stream)(HELLO)
    assert events == ["outer:in", "inner:in", "inner:error:LLMServerError", "outer:error:LLMServerError"]
