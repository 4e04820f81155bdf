"""What callers pass to `LLMClient`, before it is a request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypedDict, cast

from .exceptions import LLMInvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .types import CachePolicy, ToolDefinition


class Options(TypedDict, total=False):
    """The options of `LLMClient.complete`; `LLMRequest` says what each means."""

    model: str | None
    temperature: float | None
    top_p: float | None
    max_tokens: int | None
    stop: str | Sequence[str] | None
    seed: int | None
    tools: Sequence[ToolDefinition | Mapping[str, Any]] | None
    tool_choice: str | Mapping[str, Any] | None
    response_format: str | Mapping[str, Any] | None
    response_model: type | None
    reasoning_effort: str | None
    timeout: float | None
    user: str | None
    priority: int | None
    cache: CachePolicy | bool | None
    metadata: Mapping[str, Any] | None
    extra: Mapping[str, Any] | None


def read_history(history: object) -> tuple[Any, ...]:
    """Return the earlier turns.

    Raises:
        LLMInvalidRequestError: They are no list of turns.
    """
    if not isinstance(history, Iterable):
        raise LLMInvalidRequestError(
            f"history is a {type(history).__name__}; pass earlier turns as Message objects or role/content mappings"
        )
    return tuple(cast("Iterable[object]", history))
