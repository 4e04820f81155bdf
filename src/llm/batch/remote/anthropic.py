"""Anthropic's message batches: the rows go over in the submission itself, and the results are one file.

A batch has no room for a mark of ours, but its rows have: each goes over as `RUN-PART-NUMBER`. So whether a batch that
may have been submitted is there is told for sure by the first line of its results, and before its end by how many rows
it has.

Sources: https://docs.claude.com/en/docs/build-with-claude/batch-processing,
https://docs.claude.com/en/api/creating-message-batches. Results are kept for 29 days.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import orjson

from llm.batch.values import CHAT, RESPONSES
from llm.core.exceptions import LLMException
from llm.providers.anthropic import AnthropicDialect
from llm.providers.errors import error_for
from llm.providers.failure import read_failure

from .fields import count, line_of, mapping, named, text
from .listing import Listing
from .values import CANCELLED, EXPIRED, Bounds, Phase, Result, Search, Standing

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection

    from llm.batch.values import Row
    from llm.core.types import EmbeddingResponse, LLMRequest, LLMResponse

    from .doors import Door
    from .ledger import Part
    from .values import Engine, Pace

_EVENT: Final = 200
_UNASKED: Final = {
    "canceled": (CANCELLED, "the batch was cancelled before this row was asked; run it again to ask"),
    "expired": (EXPIRED, "the batch ran out of its 24 hours before this row was asked; run it again to ask"),
}


class AnthropicBatches:
    """Message batches at one address; a batch may mix models."""

    engine: Engine = "anthropic-batch"
    kind: str = "anthropic"
    bounds: Bounds = Bounds(rows=100_000, size=256_000_000)
    """Source: https://docs.claude.com/en/docs/build-with-claude/batch-processing, "Batch limitations"."""
    urls: frozenset[str] = frozenset({CHAT, RESPONSES})

    def __init__(self, provider: str, address: str | None, pace: Pace) -> None:
        """Speak to a provider at an address; None for the vendor's own."""
        self._provider = provider
        self._pace = pace
        self._dialect = AnthropicDialect(address)
        self._batches = f"{self._dialect.url}/batches"
        self._listing = Listing(self._batches, after="after_id", seconds=pace.control)

    def sent_id(self, row: Row, mark: str, number: int) -> str:
        """As in `BatchAPI`: the vendor takes 64 letters, digits, `_` and `-`, so the user's names stay here."""
        del row
        return f"{mark}-{number}"

    def envelope(self, mark: str) -> tuple[bytes, bytes, bytes]:
        """As in `BatchAPI`."""
        del mark
        return b'{"requests":[', b",", b"]}"

    def row(self, row: Row, request: LLMRequest, sent_id: str) -> bytes:
        """As in `BatchAPI`."""
        del row
        body = orjson.Fragment(self._dialect.encode(request, stream=False))
        return orjson.dumps({"custom_id": sent_id, "params": body})

    async def newest(self, door: Door) -> str:
        """As in `BatchAPI`."""
        return await self._listing.newest(door)

    async def upload(self, door: Door, part: Part, body: bytes) -> str | None:
        """As in `BatchAPI`: nothing goes over before its submission."""
        del door, part, body
        return None

    async def submit(self, door: Door, part: Part, body: bytes) -> str:
        """As in `BatchAPI`."""
        del part
        return named(await door.ask("POST", self._batches, body=body, seconds=self._pace.upload))

    async def find(self, door: Door, part: Part, known: Collection[str]) -> Search:
        """As in `BatchAPI`."""
        undecided = False
        async for batch in self._listing.newer_than(door, part.newest):
            name = text(batch.get("id"))
            counts = mapping(batch.get("request_counts"))
            if name in known or sum(map(count, counts.values())) != part.plan.rows:
                continue
            if batch.get("processing_status") != "ended":
                undecided = True
            elif await self._begins_with(door, name, f"{part.mark}-"):
                return Search(name)
        return Search(undecided=undecided)

    async def look(self, door: Door, batch: str) -> Standing:
        """As in `BatchAPI`."""
        told = await door.ask("GET", f"{self._batches}/{batch}", seconds=self._pace.control)
        counts = mapping(told.get("request_counts"))
        total = sum(map(count, counts.values()))
        ended = told.get("processing_status") == "ended"
        return Standing(Phase.ENDED if ended else Phase.RUNNING, total - count(counts.get("processing")), total)

    async def cancel(self, door: Door, batch: str) -> None:
        """As in `BatchAPI`."""
        await door.ask("POST", f"{self._batches}/{batch}/cancel", body=b"", seconds=self._pace.control)

    async def results(self, door: Door, batch: str, standing: Standing, pace: Pace) -> AsyncGenerator[Result, None]:
        """As in `BatchAPI`; the address that the vendor names is not followed, for the key would go there."""
        del standing
        async with aclosing(door.lines(f"{self._batches}/{batch}/results", seconds=pace.quiet)) as lines:
            async for line in lines:
                if (result := _result(line)) is not None:
                    yield result

    def decode(self, row: Row, request: LLMRequest, answer: bytes, *, key: str) -> LLMResponse | EmbeddingResponse:
        """As in `BatchAPI`."""
        del row, request
        return self._dialect.decode(answer, provider=self._provider, key=key)

    async def _begins_with(self, door: Door, batch: str, mark: str) -> bool:
        try:
            async with aclosing(self.results(door, batch, Standing(Phase.ENDED), self._pace)) as results:
                first = await anext(results, None)
        except LLMException as error:
            if error.retryable:
                raise
            return False  # its results are not kept any more, so it is none of late
        return first is not None and first.sent_id.startswith(mark)


def _result(line: bytes) -> Result | None:
    """Return what a line of results says; None where it is none, such as one that was cut."""
    told = line_of(line)
    name, result = text(told.get("custom_id")), mapping(told.get("result"))
    kind = text(result.get("type"))
    if kind == "succeeded":
        return Result(name, orjson.dumps(result.get("message")))
    if kind == "errored":
        said = mapping(result.get("error"))
        return Result(
            name, error=error_for(_EVENT, read_failure(said), request_id=text(said.get("request_id")) or None)
        )
    if kind in _UNASKED:
        code, message = _UNASKED[kind]
        return Result(name, code=code, message=message)
    return None
