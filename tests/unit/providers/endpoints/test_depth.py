"""How deep a body may nest."""

from __future__ import annotations

import json

import pytest

from llm.core.exceptions import LLMInvalidRequestError
from llm.providers.endpoints.depth import MOST_DEPTH, check_depth


def nested(depth: int, *, beside: str = "", mapping: bool = False) -> bytes:
    opened, closed = ('{"a":', "}") if mapping else ("[", "]")
    return f'{opened * depth}"{beside}"{closed * depth}'.encode()


@pytest.mark.parametrize("beside", ["", "x" * 20_000])
@pytest.mark.parametrize("mapping", [False, True])
def test_a_body_may_nest_so_deep_and_no_deeper(*, beside: str, mapping: bool) -> None:
    most, deeper = (nested(depth, beside=beside, mapping=mapping) for depth in (MOST_DEPTH, MOST_DEPTH + 1))
    check_depth(json.loads(most), most)
    with pytest.raises(LLMInvalidRequestError, match="more than 128 deep") as raised:
        check_depth(json.loads(deeper), deeper)
    assert raised.value.status == 400


WIDE: list[object] = [[{"content": "{"}] * 500, {"a": [[0]] * 500}, [[1, "a", None] * 100] * 3]


@pytest.mark.parametrize("value", ["[" * 500, 1e300, None, *WIDE])
def test_what_is_wide_or_is_text_is_not_deep(value: object) -> None:
    body = json.dumps(value).encode() + b" " * 1000
    check_depth(value, body)
    check_depth(value, body + b" " * 20_000)


def test_a_short_body_is_not_looked_at() -> None:
    check_depth(json.loads(nested(4)), b"[[[[]]]]", most=4)
    with pytest.raises(LLMInvalidRequestError):
        check_depth(json.loads(nested(5)), nested(5), most=4)
