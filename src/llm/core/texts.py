"""Texts whose vectors are asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from .exceptions import LLMInvalidRequestError


@dataclass(frozen=True, slots=True)
class EmbeddingInput:
    """What a call for vectors asks: `LLMRequest((), embed=EmbeddingInput(["one", "two"]))`.

    Attributes:
        texts: Texts, none of them empty; one text or any iterable of texts becomes a tuple.
        dimensions: Numbers per vector, where the model can choose; None: the model's own.

    Raises:
        LLMInvalidRequestError: A field is of the wrong kind, empty or out of range; names it and what is expected.
    """

    texts: tuple[str, ...]
    dimensions: int | None = None

    if TYPE_CHECKING:

        def __init__(self, texts: str | Iterable[str], dimensions: int | None = None) -> None:
            """Take more forms than are kept."""

    def __post_init__(self) -> None:
        """Bring the texts into their one form."""
        given: Any = self  # the declared types are what is kept, not what came
        object.__setattr__(self, "texts", _read(given.texts))
        if given.dimensions is not None and not (type(given.dimensions) is int and given.dimensions > 0):
            raise LLMInvalidRequestError(
                "dimensions is no whole number of 1 or more; pass one, or None for the model's own"
            )


def _read(texts: object) -> tuple[str, ...]:
    several = (texts,) if isinstance(texts, str) else texts
    read = tuple(cast("Iterable[object]", several)) if isinstance(several, Iterable) else (None,)
    strings = tuple(text for text in read if isinstance(text, str))
    if len(strings) != len(read):
        raise LLMInvalidRequestError("texts is neither a text nor a list of texts; pass one of these")
    if not strings:
        raise LLMInvalidRequestError("texts is empty; pass at least one text")
    if "" in strings:
        raise LLMInvalidRequestError(f"texts[{strings.index('')}] is empty, and has no vector; leave it out")
    return strings
