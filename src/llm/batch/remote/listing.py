"""A vendor's list of batches, page by page; all vendors' lists are of one form, the newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .fields import entries, text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from .doors import Door

_PAGE = 100


class Listing:
    """The batches at one address."""

    def __init__(self, url: str, *, after: str, seconds: float) -> None:
        """Ask at `url`, where the next page begins behind the batch that the parameter `after` names."""
        self._url = url
        self._after = after
        self._seconds = seconds

    async def newest(self, door: Door) -> str:
        """Return the name of the newest batch that the key sees; empty where there is none."""
        page = await door.ask("GET", f"{self._url}?limit=1", seconds=self._seconds)
        return next((text(batch.get("id")) for batch in entries(page.get("data"))), "")

    async def newer_than(self, door: Door, name: str) -> AsyncIterator[Mapping[str, Any]]:
        """Yield the batches that are newer than one; all, where `name` is empty or not there."""
        after, more = "", True
        while more:
            page = await door.ask("GET", f"{self._url}?limit={_PAGE}{after}", seconds=self._seconds)
            batches = entries(page.get("data"))
            for batch in batches:
                if batch.get("id") == name:
                    return
                yield batch
            more = page.get("has_more") is True and bool(batches)  # an empty page leads nowhere, whatever it says
            if batches:
                after = f"&{self._after}={text(batches[-1].get('id'))}"
