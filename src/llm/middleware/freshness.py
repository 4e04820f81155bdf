"""How one request uses the cache, and how old an answer may be for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import TypeAlias

    from llm.cache.answer import Answer
    from llm.cache.base import CacheEntry
    from llm.core.types import CachePolicy, CacheScope

    Place: TypeAlias = tuple[str, bool, bool, float | None, float]
    """Requests of one place may wait for each other: the same question, asked in one way, with one idea of its age."""


class Rules(NamedTuple):
    """What a call, or the configuration where the call does not say, wants of the cache.

    Attributes:
        ttl: Seconds that the answer is for, from when it is kept.
        oldest: Seconds above which this call takes no answer; None for as long as whoever kept it said.
        refresh: Whether what is kept is passed over.
        scope: Whether tenants share answers, or each has its own.
        while_renewed: Seconds after its time that an answer is given while it is asked for again.
        if_error: Seconds after its time that it is given where asking fails.
    """

    ttl: float
    oldest: float | None
    refresh: bool
    scope: CacheScope
    while_renewed: float
    if_error: float

    def under(self, policy: CachePolicy) -> Rules:
        """Return them as a call's policy changes them."""
        return Rules(
            self.ttl if policy.ttl is None else policy.ttl,
            policy.ttl,
            policy.refresh,
            policy.scope or self.scope,
            self.while_renewed if policy.stale_while_revalidate is None else policy.stale_while_revalidate,
            self.if_error if policy.stale_if_error is None else policy.stale_if_error,
        )

    @property
    def beyond(self) -> float:
        """Seconds after its time that an answer is of use at all."""
        return max(self.while_renewed, self.if_error)

    def over(self, answer: Answer, entry: CacheEntry) -> float:
        """Return the seconds for which a kept answer has been over its time; less than 0 where it is not."""
        end = answer.fresh
        if self.oldest is not None and (end is None or self.oldest < end):
            end = self.oldest
        return -1.0 if end is None else entry.age - end


@dataclass(slots=True)
class Use:
    """How one request uses the cache.

    Attributes:
        key: Name of the question.
        rules: What the request wants of the cache.
    """

    key: str
    rules: Rules

    def place(self, *, stream: bool) -> Place:
        """Return which flight it may share."""
        return self.key, stream, self.rules.refresh, self.rules.oldest, self.rules.while_renewed

    def lease(self, *, stream: bool) -> str:
        """Return the name of the lease on it: streams and refreshes have their own, as they have flights."""
        return f"{self.key}{':stream' if stream else ''}{':refresh' if self.rules.refresh else ''}"


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
