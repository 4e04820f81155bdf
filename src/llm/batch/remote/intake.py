"""Rows of the input → parts on the disk: each of rows of one address and one model, within the vendor's bounds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from llm.batch.dialect import request_of
from llm.core.exceptions import LLMException, LLMInvalidRequestError
from llm.core.types import request_with
from llm.limits.refusals import no_such_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llm.batch.values import Row
    from llm.core.client import LLMClient
    from llm.core.types import LLMRequest

    from .ledger import Plan
    from .spool import PartWriter
    from .vendor import BatchAPI

_MOST_OPEN: Final = 32
"""Parts that are written at the same time; each has two files open."""


_MARGIN: Final = 4096
"""Bytes that stand around the rows of a part, at most."""


class Way(NamedTuple):
    """Where a row goes.

    Attributes:
        provider: Section of the configuration.
        url: The address behind it.
        model: Its model.
    """

    provider: str
    url: str
    model: str


class Ready(NamedTuple):
    """A row that can be sent.

    Attributes:
        way: Where to.
        row: The row.
        request: What it asks, of that model.
    """

    way: Way
    row: Row
    request: LLMRequest


class Reading:
    """Tells where rows go."""

    def __init__(self, client: LLMClient, apis: Mapping[str, BatchAPI], kind: str) -> None:
        """Send what names no provider to the client's.

        Args:
            client: Whose provider and model rows have that name none.
            apis: The batch API of each provider that has one.
            kind: The type of these providers.
        """
        self._client = client
        self._apis = apis
        self._kind = kind

    def ready(self, row: Row) -> Ready:
        """Return a row with where it goes; the first of several targets that has the batch API.

        Raises:
            LLMException: It goes nowhere; says why.
        """
        request = request_of(row)
        route, prepared, hops = self._client.prepare(request)
        model = prepared.model
        if route.provider not in self._apis:
            able = [hop for hop in hops if hop.route.provider in self._apis and hop.model is not None]
            if not able:
                raise LLMInvalidRequestError(
                    f"its model is one of {route.provider!r}, and this engine asks providers of type {self._kind}; "
                    "name another model, or run it by another engine"
                )
            route, model = able[0].route, able[0].model
        provider, queue, model = route.provider, route.chain.pool.queue, model or ""
        if not any(slot.offers(model) for slot in queue.slots):
            raise no_such_model(provider, model, queue.models())
        if row.url not in self._apis[provider].urls:
            raise LLMInvalidRequestError(f"{row.url} is none of the addresses that {provider!r} takes in batches")
        return Ready(Way(provider, row.url, model), row, request_with(request, model=model))


class Intake:
    """Writes parts; a part is planned once it is on the disk whole."""

    def __init__(self, reading: Reading, apis: Mapping[str, BatchAPI], begin: Callable[[Way], PartWriter]) -> None:
        """Take rows by `reading`; `begin` makes a new part."""
        self._reading = reading
        self._apis = apis
        self._begin = begin
        self._open: dict[Way, PartWriter] = {}

    async def take(self, rows: Sequence[Row]) -> tuple[list[Plan], list[tuple[Row, LLMException]]]:
        """Put rows into parts; returns the parts that are full now, and the rows that go nowhere.

        Raises:
            OSError: The disk is full.
        """
        return await asyncio.to_thread(self._take, rows)

    async def finish(self) -> list[Plan]:
        """Return the parts that are left.

        Raises:
            OSError: The disk is full.
        """
        return await asyncio.to_thread(self._finished)

    def discard(self) -> None:
        """Remove the parts that are left."""
        for writer in self._open.values():
            writer.discard()
        self._open.clear()

    def _take(self, rows: Sequence[Row]) -> tuple[list[Plan], list[tuple[Row, LLMException]]]:
        full: list[Plan] = []
        wrong: list[tuple[Row, LLMException]] = []
        for row in rows:
            try:
                ready = self._reading.ready(row)
                full += self._put(ready)
            except LLMException as error:
                wrong.append((row, error))
        return full, wrong

    def _put(self, ready: Ready) -> list[Plan]:
        api, weight = self._apis[ready.way.provider], weight_of(ready.request)
        writer = self._open.get(ready.way)
        mark, number = ("", 0) if writer is None else (writer.mark, writer.rows)
        sent = sent_of(api, ready, mark, number)  # what cannot be sent begins no part
        if len(sent) + _MARGIN > api.bounds.size or weight > api.bounds.rows:
            raise LLMInvalidRequestError("it is larger than a whole batch may be; make it smaller")
        full: list[Plan] = []
        if writer is None or not writer.fits(len(sent), weight):
            if writer is not None:
                full.append(self._open.pop(ready.way).finish())
            elif len(self._open) >= _MOST_OPEN:
                full.append(self._open.pop(next(iter(self._open))).finish())
            writer = self._open[ready.way] = self._begin(ready.way)
            sent = sent_of(api, ready, writer.mark, 0)
        writer.add(ready.row, sent, weight)
        return full

    def _finished(self) -> list[Plan]:
        plans = [writer.finish() for writer in self._open.values()]
        self._open.clear()
        return plans


def sent_of(api: BatchAPI, ready: Ready, mark: str, number: int) -> bytes:
    """Return what is sent for row `number` of a part of this mark.

    Raises:
        LLMInvalidRequestError: The vendor has no word for it.
    """
    return api.row(ready.row, ready.request, api.sent_id(ready.row, mark, number))


def weight_of(request: LLMRequest) -> int:
    """Return how many requests the vendor counts: of one for vectors its texts."""
    return 1 if request.embed is None else max(1, len(request.embed.texts))
