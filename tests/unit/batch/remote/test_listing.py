"""A vendor's list of batches is read to its end, and no further."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from llm.batch.remote.listing import Listing

if TYPE_CHECKING:
    from llm.batch.remote.doors import Door

_MOST = 10
"""Pages after which a loop is taken for endless."""


class Pages:
    """A door that says these pages, the last one again and again."""

    def __init__(self, *pages: dict[str, Any]) -> None:
        self.asked: list[str] = []
        self._pages = pages

    async def ask(self, method: str, url: str, *, seconds: float) -> dict[str, Any]:
        assert (method, seconds) == ("GET", 5.0)
        self.asked.append(url.partition("?")[2])
        assert len(self.asked) <= _MOST, "it asks for ever"
        return self._pages[min(len(self.asked), len(self._pages)) - 1]


def _page(*names: str, more: bool) -> dict[str, Any]:
    return {"data": [{"id": name} for name in names], "has_more": more}


async def _read(pages: Pages, until: str) -> list[str]:
    listing = Listing("http://vendor/batches", after="after_id", seconds=5.0)
    return [batch["id"] async for batch in listing.newer_than(cast("Door", pages), until)]


async def test_pages_follow_the_last_batch_of_the_page_before() -> None:
    pages = Pages(_page("e", "d", more=True), _page("c", "b", more=False))
    assert await _read(pages, "") == ["e", "d", "c", "b"]
    assert pages.asked == ["limit=100", "limit=100&after_id=d"]


async def test_nothing_is_read_beyond_the_batch_that_is_known() -> None:
    pages = Pages(_page("e", "d", "c", more=True), _page("b", more=False))
    assert await _read(pages, "d") == ["e"]
    assert pages.asked == ["limit=100"]


@pytest.mark.parametrize("last", [{"data": [], "has_more": True}, {"has_more": True}, {"data": 3, "has_more": True}])
async def test_an_empty_page_that_says_there_is_more_is_the_last(last: dict[str, Any]) -> None:
    assert await _read(Pages(_page("e", more=True), last), "") == ["e"]
