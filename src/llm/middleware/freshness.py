"""How one request uses the cache, and how old an answer may be for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import TypeAlias

    from llm.cache.answer import Answer
    from llm.cache.base import CacheEntry

    Place: TypeAlias = tuple[str, bool, bool, float | None, float]
    """Requests of one place may wait for each other: the same question, asked in one way, with one idea of its age."""


class Use(NamedTuple):
    """How one request uses the cache.

    Attributes:
        key: Name of the question.
        ttl: Seconds that the answer is for, from when it is kept.
        oldest: Seconds above which this call takes no answer; None for as long as whoever kept it said.
        refresh: Whether what is kept is passed over.
        model: Model that is asked for.
        tenant: Whose answer it is; empty where all share.
        while_renewed: Seconds after its time that an answer is given while it is asked for again.
        if_error: Seconds after its time that it is given where asking fails.
    """

    key: str
    ttl: float
    oldest: float | None
    refresh: bool
    model: str
    tenant: tuple[str, ...]
    while_renewed: float
    if_error: float

    @property
    def beyond(self) -> float:
        """Seconds after its time that an answer is of use at all."""
        return max(self.while_renewed, self.if_error)

    def place(self, *, stream: bool) -> Place:
        """Return which flight it may share."""
        return self.key, stream, self.refresh, self.oldest, self.while_renewed

    def lease(self, *, stream: bool) -> str:
        """Return the name of the lease on it: streams and refreshes have their own, as they have flights."""
        return f"{self.key}{':stream' if stream else ''}{':refresh' if self.refresh else ''}"

    def over(self, answer: Answer, entry: CacheEntry) -> float:
        """Return the seconds for which a kept answer has been over its time; less than 0 where it is not."""
        end = answer.fresh
        if self.oldest is not None and (end is None or self.oldest < end):
            end = self.oldest
        return -1.0 if end is None else entry.age - end


class Found(NamedTuple):
    """A kept answer.

    Attributes:
        answer: It.
        age: Seconds since it was kept.
        over: Seconds for which it has been over its time; less than 0 where it is not.
    """

    answer: Answer
    age: float = 0.0
    over: float = -1.0
