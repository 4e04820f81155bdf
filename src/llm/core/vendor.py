"""Parts of a message that are for the provider alone: marks for its prompt cache, and blocks in its own form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, cast

from .exceptions import LLMInvalidRequestError

CacheTime: TypeAlias = Literal["5m", "1h"]


@dataclass(frozen=True, slots=True)
class CachePoint:
    """The end of a prefix that the provider should keep in its prompt cache: all of the request up to here.

    It marks the block before it; at the start of a turn that is the last one of the turn before, such as a tool call.
    Providers that take no such marks do not get it, and the answer is the same with and without. A mark with nothing
    before it says nothing.

    Attributes:
        ttl: How long the prefix is kept after its last use, `5m` or `1h`; None: the provider's default.

    Raises:
        LLMInvalidRequestError: Another time.

    Source: https://docs.claude.com/en/docs/build-with-claude/prompt-caching
    """

    ttl: CacheTime | None = None

    def __post_init__(self) -> None:
        """Refuse times that no provider keeps."""
        if self.ttl is not None and self.ttl not in _CACHE_TIMES:
            raise LLMInvalidRequestError("CachePoint.ttl is no time that a provider keeps; pass '5m', '1h' or None")


_CACHE_TIMES: Final = ("5m", "1h")


@dataclass(frozen=True, slots=True)
class VendorPart:
    """A block of content in the provider's own form, sent as it is: what no other part can say.

    To go on after an answer with blocks of the provider's own tools, or thoughts behind words, hand all of it back:
    `Message("assistant", tuple(map(VendorPart, response.raw["content"])))`.

    Attributes:
        block: The block, such as Anthropic's `{"type": "search_result", …}`.

    Raises:
        LLMInvalidRequestError: It is no mapping.
    """

    block: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Refuse what is no block."""
        block = cast("object", self.block)
        if not isinstance(block, Mapping):
            raise LLMInvalidRequestError(f"VendorPart.block is {type(block).__name__}; pass a mapping")


def read_cache_control(mark: object) -> CachePoint:
    """Read the mark that a block in Anthropic's form carries, as OpenRouter takes it too.

    Raises:
        LLMInvalidRequestError: It is none.
    """
    fields: Mapping[str, Any] = cast("Mapping[str, Any]", mark) if isinstance(mark, Mapping) else {}
    if fields.get("type") != "ephemeral" or fields.keys() - {"type", "ttl"}:
        raise LLMInvalidRequestError('cache_control is no {"type": "ephemeral"}, with or without a ttl; correct it')
    return CachePoint(fields.get("ttl"))
