"""A batch that came back: answers into the output, failures into the errors file, what may pass into a new part."""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from llm.batch.dialect import answer_line, coded_line, error_line, may_pass, request_of
from llm.batch.engine import Hearing
from llm.batch.finished import record_of
from llm.batch.journal import Journal
from llm.batch.summary import Tally
from llm.batch.values import ResponseWrapper
from llm.core.exceptions import LLMException
from llm.core.types import LLMResponse, request_with
from llm.utils.clock import Clock

from .prices import BatchPrices
from .values import CANCELLED, EXPIRED, Result

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from typing import Self

    from llm.batch.values import Row
    from llm.core.types import EmbeddingResponse

    from .ledger import Part, Plan
    from .spool import PartRows, PartWriter
    from .vendor import BatchAPI

_FOR_LATER: Final = frozenset({CANCELLED, "invalid_request_error", "model_not_found"})
_OVERDUE: Final = "the batch ended, and its results tell nothing of this row; run it again to ask"


class Ending(NamedTuple):
    """How a row ended without an answer.

    Attributes:
        line: Its line in the errors file.
        kind: What the failure is called.
        error: The failure as a value; None where it has only a code.
    """

    line: bytes
    kind: str
    error: LLMException | None


@dataclass(frozen=True, slots=True)
class Books:
    """Where rows that end are written and counted."""

    journal: Journal
    tally: Tally
    tracker: Hearing
    clock: Clock
    prices: BatchPrices
    files: tuple[str, ...]

    async def failed(self, row: Row, ending: Ending) -> None:
        """Write and count a row without an answer."""
        await self.journal.error(ending.line)
        self._count(row, None, ending)

    async def answered(self, row: Row, response: LLMResponse | EmbeddingResponse) -> None:
        """Write and count an answer."""
        await self.journal.answer(answer_line(row, response, created=int(self.clock.wall())))
        self._count(row, response, None)

    async def sync(self) -> None:
        """Have all that was written on the disk.

        Raises:
            OSError: That failed.
        """
        await asyncio.to_thread(_synced, self.files)

    def _count(self, row: Row, response: LLMResponse | EmbeddingResponse | None, ending: Ending | None) -> None:
        kind = "" if ending is None else ending.kind
        error = None if ending is None else ending.error
        self.tally.finished(ResponseWrapper(row.custom_id, row.order, response, error), kind, self.clock.now())
        if response is None:
            self.tracker.failed(kind)
        else:
            self.tracker.answered(response.usage, response.cost, cached=False)


class Collecting:
    """One part, row by row; an async context manager."""

    def __init__(
        self,
        part: Part,
        rows: PartRows,
        *,
        api: BatchAPI,
        books: Books,
        again: Callable[[], PartWriter] | None,
    ) -> None:
        """Collect `part`.

        Args:
            part: What came back.
            rows: Its rows.
            api: Whose results they are.
            books: Where rows are written.
            again: Begins a part for rows that are worth another try; None where none is any more.
        """
        self._part = part
        self._rows = rows
        self._api = api
        self._books = books
        self._again = again
        self._writer: PartWriter | None = None
        self._numbers: dict[str, int] = {}
        self._seen = bytearray()
        self._stack = ExitStack()

    async def __aenter__(self) -> Self:
        """Look up which rows were finished before."""
        await asyncio.to_thread(self._open)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the rows; a part that was begun and not finished goes."""
        self._stack.close()
        if self._writer is not None:
            self._writer.discard()

    async def take(self, results: AsyncIterator[Result]) -> None:
        """Take results to their end; those that were taken before are passed over, so it may begin anew.

        Raises:
            LLMException: They could not be read.
            OSError: A line cannot be written.
        """
        async for result in results:
            number = self._numbers.get(result.sent_id)
            if number is None or self._seen[number]:
                continue
            await self._ended(self._rows[number], result)
            self._seen[number] = 1

    async def rest(self, code: str = EXPIRED, message: str = _OVERDUE) -> None:
        """End the rows of which nothing was said."""
        for number in range(len(self._rows)):
            if not self._seen[number]:
                await self._ended(self._rows[number], Result("", code=code, message=message))
                self._seen[number] = 1

    async def refuse(self, number: int, code: str, message: str) -> bool:
        """End a row whose request the vendor does not take; return whether there is such a row."""
        if number >= len(self._rows) or self._seen[number]:
            return False
        row = self._rows[number]
        await self._books.failed(row, _coded(row, code, message))
        self._seen[number] = 1
        return True

    @property
    def complete(self) -> bool:
        """Whether every row has come to its end."""
        return all(self._seen)

    async def retry(self, numbers: Iterable[int] | None = None) -> None:
        """Put rows that have no end yet into the new part: these, or all."""
        for number in range(len(self._rows)) if numbers is None else numbers:
            if not self._seen[number]:
                await asyncio.to_thread(self._put, self._rows[number])
                self._seen[number] = 1

    async def finish(self) -> list[Plan]:
        """Have all of it on the disk; return the new part, where there is one."""
        await self._books.sync()
        writer, self._writer = self._writer, None
        return [] if writer is None else [await asyncio.to_thread(writer.finish)]

    def _open(self) -> None:
        rows = self._stack.enter_context(self._rows)
        for number, row in enumerate(rows):
            self._numbers[self._api.sent_id(row, self._part.mark, number)] = number
            self._seen.append(self._books.journal.hold(row.custom_id))

    async def _ended(self, row: Row, result: Result) -> None:
        ending = self._response(row, result) if result.answer is not None else self._ending(row, result)
        if not isinstance(ending, Ending):
            await self._books.answered(row, ending)
        elif self._again is not None and _passes(ending, result.code):
            await asyncio.to_thread(self._put, row)
        else:
            await self._books.failed(row, ending)

    def _response(self, row: Row, result: Result) -> LLMResponse | EmbeddingResponse | Ending:
        plan, key = self._part.plan, self._part.key or ""
        request = request_with(request_of(row, plan.model), model=plan.model)
        try:
            response = self._api.decode(row, request, result.answer or b"", key=key)
        except LLMException as error:
            return self._failure(row, error)
        return replace(response, cost=self._books.prices.cost(plan.provider, plan.model, response.usage))

    def _ending(self, row: Row, result: Result) -> Ending:
        if result.error is not None:
            return self._failure(row, result.error)
        return _coded(row, result.code or "server_error", result.message)

    def _failure(self, row: Row, error: LLMException) -> Ending:
        plan = self._part.plan
        error.provider, error.model, error.key = plan.provider, plan.model, self._part.key
        error.attempts = 1
        if error.status is None:
            error.status = 200  # it was answered, with what makes no sense
        return Ending(error_line(row, error), type(error).__name__, error)

    def _put(self, row: Row) -> None:
        """Put a row into the new part."""
        assert self._again is not None  # noqa: S101 - else nothing comes here
        writer = self._writer = self._writer or self._again()
        plan = writer.plan
        request = request_with(request_of(row, plan.model), model=plan.model)
        sent_id = self._api.sent_id(row, writer.mark, writer.rows)
        writer.add(row, self._api.row(row, request, sent_id), 1)


def _coded(row: Row, code: str, message: str) -> Ending:
    return Ending(coded_line(row, code, message), code, None)


def _passes(ending: Ending, code: str | None) -> bool:
    """Return whether a row is worth another try now: what somebody cancelled is for the next run."""
    record = record_of(ending.line)
    return code not in _FOR_LATER and record is not None and may_pass(record[1])


def _synced(files: Iterable[str]) -> None:
    for name in files:
        with suppress(FileNotFoundError):
            descriptor = os.open(name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
