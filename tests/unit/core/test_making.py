"""What a client makes of a call's arguments is what `LLMRequest` would have made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm import LLMInvalidRequestError, LLMRequest
from llm.core.making import make_request
from llm.core.messages import Message, MessageRole
from llm.core.types import CachePolicy, ToolDefinition

if TYPE_CHECKING:
    from collections.abc import Callable

SOME: tuple[Any, ...] = (
    None,
    "",
    "text",
    "\ud800",
    0,
    1,
    -1,
    0.5,
    3.0,
    float("nan"),
    True,
    False,
    10**9,
    str,
    (),
    [],
    ["a"],
    [""],
    {},
)
OTHERS: dict[str, tuple[Any, ...]] = {
    "messages": (
        "hi",
        [{"role": "user", "content": "hi"}],
        (Message(MessageRole.USER, "hi"),),
        Message(MessageRole.USER, "hi"),
    ),
    "tools": ([ToolDefinition("t")], [{"type": "function"}], [3]),
    "tool_choice": ({"type": "tool"}, "auto"),
    "response_format": ({"type": "json_schema"}, "json_object"),
    "cache": (CachePolicy(ttl=1),),
    "metadata": ({"a": 1},),
    "extra": ({"n": 2}, {"model": "m"}, {"stream": True}, {3: 4}),
}
NAMES = (
    "messages", "model", "temperature", "top_p", "max_tokens", "stop", "seed", "tools", "tool_choice",
    "response_format", "response_model", "reasoning_effort", "timeout", "user", "priority", "cache", "metadata",
    "extra",
)  # fmt: skip


def told(make: Callable[..., LLMRequest], *given: object, **options: object) -> LLMRequest | str:
    try:
        return make(*given, **options)
    except LLMInvalidRequestError as error:
        return str(error)


@given(st.fixed_dictionaries({}, optional={name: st.sampled_from((*SOME, *OTHERS.get(name, ()))) for name in NAMES}))
def test_arguments_become_the_same_request_or_the_same_error(options: dict[str, Any]) -> None:
    options.setdefault("messages", "hi")
    plain = told(LLMRequest, **options)
    made = told(make_request, *[options.get(name) for name in NAMES])
    assert repr(made) == repr(plain)
    assert type(made) is type(plain)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", SOME, ids=repr)
def test_each_option_by_itself_too(name: str, value: object) -> None:
    options: dict[str, Any] = {"messages": "hi", name: value}
    made = told(make_request, *[options.get(name) for name in NAMES])
    assert repr(made) == repr(told(LLMRequest, **options))
