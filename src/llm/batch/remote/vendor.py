"""What a vendor's batch API is to the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection

    from llm.batch.values import Row
    from llm.core.types import EmbeddingResponse, LLMRequest, LLMResponse

    from .doors import Door
    from .ledger import Part
    from .values import Bounds, Engine, Pace, Result, Search, Standing


class BatchAPI(Protocol):
    """One vendor's batch API, at the address of one section of the configuration."""

    engine: Engine
    """What the engine is called on the command line."""
    kind: str
    """The type of the sections that it serves."""
    bounds: Bounds
    """The most in one batch."""
    urls: frozenset[str]
    """Paths of the rows that it takes."""

    def sent_id(self, row: Row, mark: str, number: int) -> str:
        """Return the name under which row `number` of a part goes over."""
        ...

    def envelope(self, mark: str) -> tuple[bytes, bytes, bytes]:
        """Return what stands before, between and after the rows of a part that is sent."""
        ...

    def row(self, row: Row, request: LLMRequest, sent_id: str) -> bytes:
        """Return a row as it is sent.

        Raises:
            LLMInvalidRequestError: The vendor has no word for it; names the field.
        """
        ...

    async def newest(self, door: Door) -> str:
        """Return the name of the newest batch that the key sees; empty where there is none."""
        ...

    async def upload(self, door: Door, part: Part, body: bytes) -> str | None:
        """Upload a part; None where it goes over with its submission.

        Raises:
            LLMException: It failed.
        """
        ...

    async def submit(self, door: Door, part: Part, body: bytes) -> str:
        """Submit a part; returns its name at the vendor.

        Raises:
            LLMException: It failed; the vendor may have got it all the same, unless the failure says otherwise.
        """
        ...

    async def find(self, door: Door, part: Part, known: Collection[str]) -> Search:
        """Look for a part that may have been submitted; `known` are the names of batches that are other parts."""
        ...

    async def look(self, door: Door, batch: str) -> Standing:
        """Return how a batch stands."""
        ...

    async def cancel(self, door: Door, batch: str) -> None:
        """End a batch; its rows that are answered already stay so."""
        ...

    def results(self, door: Door, batch: str, standing: Standing, pace: Pace) -> AsyncGenerator[Result, None]:
        """Yield what became of the rows of a batch that has ended, in any order, with the memory of one row.

        Raises:
            LLMException: The results cannot be read, or not to their end.
        """
        ...

    def decode(self, row: Row, request: LLMRequest, answer: bytes, *, key: str) -> LLMResponse | EmbeddingResponse:
        """Read the answer to a row.

        Raises:
            LLMException: It is none, or tells of a failure.
        """
        ...
