"""Which entries are meant, as SQL."""

from __future__ import annotations

from typing import Final, NamedTuple

# Seconds that a row may be ahead of the clock. One that is further ahead was put while the clock was wrong: it would
# never end, so it is not there.
_AHEAD: Final = 60.0


class Selection(NamedTuple):
    """A part of the table.

    Attributes:
        source: What stands behind FROM; the entries are `e` in it.
        number: The row's number in it, by which it is walked.
        where: The condition.
        values: What the condition's question marks stand for.
    """

    source: str
    number: str
    where: str
    values: tuple[float | str, ...]


def select(now: float, tags: tuple[str, ...] = (), older_than: float = 0.0, *, only_there: bool = True) -> Selection:
    """Select the entries that carry all of these tags and are at least so many seconds old at `now`.

    With `only_there` those that are over, or that a wrong clock put into the future, are left out.
    """
    where = ["e.over_at > ?"]
    values: list[float | str] = [now if only_there else 0.0]
    if only_there or older_than > 0:
        where.append("e.put_at <= ?")
        values.append(now - older_than if older_than > 0 else now + _AHEAD)
    if not tags:
        return Selection("entries AS e", "e.id", " AND ".join(where), tuple(values))
    where.append("t.tag = ?")
    where.extend("EXISTS (SELECT 1 FROM tagged AS o WHERE o.tag = ? AND o.id = t.id)" for _ in tags[1:])
    # CROSS JOIN has SQLite begin with the tag, which is the smaller part.
    source = "tagged AS t CROSS JOIN entries AS e ON e.id = t.id"
    return Selection(source, "t.id", " AND ".join(where), (*values, *tags))


def is_there(now: float, put_at: float, ttl: float) -> bool:
    """Return whether an entry that was put then is there at `now`."""
    return put_at - _AHEAD <= now < put_at + ttl
