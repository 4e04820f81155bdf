"""How deep a body nests: what is deeper than any real request is refused before code walks through it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from llm.core.exceptions import LLMInvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_DEPTH: Final = 128
"""Mappings and lists within one another. Schemas of tools, the deepest that requests hold, stay below 50."""

_CHEAP_TO_COUNT: Final = 16_384  # bytes; in a longer body most are text, and its values are sooner walked through


def check_depth(value: object, body: bytes | bytearray, *, most: int = MOST_DEPTH) -> None:
    """Refuse what nests too deep.

    The parser must have a bound of its own on its stack, as orjson has.

    Args:
        value: What was read from the body.
        body: JSON as it came.
        most: How many mappings and lists may stand within one another.

    Raises:
        LLMInvalidRequestError: It nests deeper; status 400.
    """
    if len(body) <= 2 * most:  # a level takes two bytes
        return
    if len(body) <= _CHEAP_TO_COUNT and body.count(b"{") + body.count(b"[") <= most:
        return
    if _is_deeper(value, most):
        raise LLMInvalidRequestError(
            f"the body has lists or mappings within one another more than {most} deep; send a flatter one", status=400
        )


def _is_deeper(value: object, most: int) -> bool:
    """Walk level by level, for a walk by recursion is what a deep value would exhaust."""
    level = _nested([value])
    for _ in range(most):
        level = [part for whole in level for part in _nested(_parts(whole))]
        if not level:
            return False
    return bool(level)


def _parts(whole: Any) -> Iterable[Any]:  # noqa: ANN401 - JSON
    return cast("Iterable[Any]", whole.values() if type(whole) is dict else whole)


def _nested(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, (dict, list))]
