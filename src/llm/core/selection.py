"""Which of the answers that are kept: by who gave them, to whom, under which names, and how old they are."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from .exceptions import LLMInvalidRequestError


@dataclass(frozen=True, slots=True)
class Selection:
    """Answers that fit all that is said; with nothing said, every answer.

    Attributes:
        provider: Section of the configuration that answered; None for any.
        model: Model that was asked for, without its provider; None for any.
        user: Tenant whose own answers they are, which is what the scope `user` keeps; None for any, or none.
        tags: Names that callers gave them.
        older_than: Seconds since they were kept, at least.

    Raises:
        LLMInvalidRequestError: A field is of the wrong kind; names it and what is expected.
    """

    provider: str | None = None
    model: str | None = None
    user: str | None = None
    tags: tuple[str, ...] = ()
    older_than: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what would find something else than was meant."""
        for name in ("provider", "model", "user"):
            value: object = getattr(self, name)
            if value is not None and not (isinstance(value, str) and value):
                raise LLMInvalidRequestError(f"{name} is {value!r}; expected a name, or None for any")
        if not is_age(self.older_than):
            raise LLMInvalidRequestError(f"older_than is {self.older_than!r}; expected seconds, 0 or more")

    def __bool__(self) -> bool:
        """Return whether anything is said."""
        return bool(self.names) or self.older_than > 0

    @property
    def names(self) -> tuple[str, ...]:
        """The tags that such an answer is kept with."""
        told = (("provider", self.provider), ("model", self.model), ("user", self.user))
        return (*(f"{name}:{value}" for name, value in told if value is not None), *self.tags)


def read_tags(tags: object) -> tuple[str, ...]:
    """Return one tag or several as a tuple.

    Raises:
        LLMInvalidRequestError: One is no text, or an empty one.
    """
    several = (
        (tags,) if isinstance(tags, str) or not isinstance(tags, Iterable) else tuple(cast("Iterable[object]", tags))
    )
    texts = tuple([tag for tag in several if isinstance(tag, str) and tag])
    if len(texts) != len(several):
        raise LLMInvalidRequestError(f"tags is {tags!r}; expected texts, none of them empty")
    return texts


def is_age(value: object) -> bool:
    """Return whether it is a number of seconds, 0 or more."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
