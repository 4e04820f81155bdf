"""A batch that came back: answers into the output, failures into the errors file, what may pass into a new part."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
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
from .values import CANCELLED, EXPIRED, Refusal, Result

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
    from typing import Self

    from llm.batch.values import Row
    from llm.core.types import EmbeddingResponse

    from .ledger import Part, Plan
    from .spool import PartRows, PartWriter
    from .vendor import BatchAPI

_FOR_LATER: Final = frozenset({CANCELLED, "invalid_request_error", "model_not_found"})
_PORTION: Final = 256  # rows
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


class Answer(NamedTuple):
    """How a row ended with one.

    Attributes:
        line: Its line in the output.
        response: The answer.
    """

    line: bytes
    response: LLMResponse | EmbeddingResponse


@dataclass(frozen=True, slots=True)
class Books:
    """Where rows that end are written and counted."""

    journal: Journal
    tally: Tally
    tracker: Hearing
    clock: Clock
    prices: BatchPrices
    files: tuple[str, ...]

    async def end(self, rows: Iterable[tuple[Row, Answer | Ending]]) -> None:
        """Write and count rows that have come to their end.

        Raises:
            OSError: A line cannot be written.
        """
        try:
            async with asyncio.TaskGroup() as group:  # what waits together goes out in one write
                for row, ended in rows:
                    group.create_task(self._end(row, ended))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def sync(self) -> None:
        """Have all that was written on the disk.

        Raises:
            OSError: That failed.
        """
        await asyncio.to_thread(_synced, self.files)

    async def _end(self, row: Row, ended: Answer | Ending) -> None:
        if isinstance(ended, Answer):
            response = ended.response
            await self.journal.answer(ended.line)
            self._count(ResponseWrapper(row.custom_id, row.order, response), "")
            self.tracker.answered(response.usage, response.cost, cached=False)
        else:
            await self.journal.error(ended.line)
            self._count(ResponseWrapper(row.custom_id, row.order, None, ended.error), ended.kind)
            self.tracker.failed(ended.kind)

    def _count(self, wrapper: ResponseWrapper, kind: str) -> None:
        self.tally.finished(wrapper, kind, self.clock.now())


class Collecting:
    """One part, row by row; an async context manager."""

    def __init__(  # noqa: PLR0913 - what is collected, from where and to where
        self,
        part: Part,
        rows: PartRows,
        *,
        api: BatchAPI,
        books: Books,
        again: Callable[[], PartWriter] | None,
        clean: Callable[[str], str] = str,
    ) -> None:
        """Collect `part`.

        Args:
            part: What came back.
            rows: Its rows.
            api: Whose results they are.
            books: Where rows are written.
            again: Begins a part for rows that are worth another try; None where none is any more.
            clean: Takes keys out of the vendor's words.
        """
        self._part = part
        self._rows = rows
        self._api = api
        self._books = books
        self._again = again
        self._clean = clean
        self._writer: PartWriter | None = None
        self._numbers: dict[str, int] = {}
        self._seen = bytearray()

    async def __aenter__(self) -> Self:
        """Look up which rows were finished before."""
        await asyncio.to_thread(self._open)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the rows; a part that was begun and not finished goes."""
        await asyncio.to_thread(self._close)

    @property
    def complete(self) -> bool:
        """Whether every row has come to its end."""
        return all(self._seen)

    async def take(self, results: AsyncIterator[Result]) -> None:
        """Take results to their end; those that were taken before are passed over, so it may begin anew.

        Raises:
            LLMException: They could not be read.
            OSError: A line cannot be written.
        """
        portion: dict[int, Result] = {}
        async for result in results:
            number = self._numbers.get(result.sent_id)
            if number is None or self._seen[number]:
                continue
            portion[number] = result
            if len(portion) >= _PORTION:
                await self._end(portion)
                portion = {}
        await self._end(portion)

    async def rest(self, code: str = EXPIRED, message: str = _OVERDUE) -> None:
        """End the rows of which nothing was said."""
        await self._each(lambda portion: self._end(dict.fromkeys(portion, Result("", code=code, message=message))))

    async def refuse(self, refusals: Mapping[int, Refusal]) -> None:
        """End rows whose requests the vendor does not take."""
        await self._end(
            {number: Result("", code=refusal.code, message=refusal.message) for number, refusal in refusals.items()},
            final=True,
        )

    async def refuse_all(self, refusal: Refusal) -> None:
        """End all rows so."""
        await self._each(lambda portion: self.refuse(dict.fromkeys(portion, refusal)))

    async def retry(self, numbers: range | None = None) -> None:
        """Put rows that have no end yet into the new part: these, or all."""
        await asyncio.to_thread(self._move, range(len(self._rows)) if numbers is None else numbers)

    async def finish(self) -> list[Plan]:
        """Have all of it on the disk; return the new part, where there is one."""
        await self._books.sync()
        writer, self._writer = self._writer, None
        return [] if writer is None else [await asyncio.to_thread(writer.finish)]

    async def _each(self, do: Callable[[list[int]], Awaitable[None]]) -> None:
        left = [number for number, seen in enumerate(self._seen) if not seen]
        for start in range(0, len(left), _PORTION):
            await do(left[start : start + _PORTION])

    async def _end(self, portion: Mapping[int, Result], *, final: bool = False) -> None:
        await self._books.end(await asyncio.to_thread(self._judge, portion, final))
        for number in portion:
            self._seen[number] = 1

    # From here on: in a thread.

    def _open(self) -> None:
        self._rows.__enter__()
        for number, row in enumerate(self._rows):
            self._numbers[self._api.sent_id(row, self._part.mark, number)] = number
            self._seen.append(self._books.journal.hold(row.custom_id))

    def _close(self) -> None:
        self._rows.__exit__(None, None, None)
        if self._writer is not None:
            self._writer.discard()

    def _judge(self, portion: Mapping[int, Result], final: bool) -> list[tuple[Row, Answer | Ending]]:  # noqa: FBT001 - for to_thread
        """Return rows with their ends; those that are worth another try go into the new part instead."""
        ends: list[tuple[Row, Answer | Ending]] = []
        for number, result in portion.items():
            row = self._rows[number]
            ended = self._ended(row, result)
            if isinstance(ended, Ending) and not final and self._again is not None and _passes(ended, result.code):
                self._put(row, self._again)
            else:
                ends.append((row, ended))
        return ends

    def _move(self, numbers: range) -> None:
        assert self._again is not None  # noqa: S101 - for who moves rows there is a way
        for number in numbers:
            if not self._seen[number]:
                self._put(self._rows[number], self._again)
                self._seen[number] = 1

    def _ended(self, row: Row, result: Result) -> Answer | Ending:
        if result.error is not None:
            return self._failure(row, result.error)
        if result.answer is None:
            return coded(row, result.code or "server_error", self._clean(result.message))
        plan, key = self._part.plan, self._part.key or ""
        request = request_with(request_of(row, plan.model), model=plan.model)
        try:
            told = self._api.decode(row, request, result.answer, key=key)
        except LLMException as error:
            return self._failure(row, error)
        response = replace(told, cost=self._books.prices.cost(plan.provider, plan.model, told.usage))
        return Answer(answer_line(row, response, created=int(self._books.clock.wall())), response)

    def _failure(self, row: Row, error: LLMException) -> Ending:
        plan = self._part.plan
        error.message = self._clean(error.message)
        error.args = (error.message,)
        error.provider, error.model, error.key = plan.provider, plan.model, self._part.key
        error.attempts = 1
        if error.status is None:
            error.status = 200  # it was answered, with what makes no sense
        return Ending(error_line(row, error), type(error).__name__, error)

    def _put(self, row: Row, again: Callable[[], PartWriter]) -> None:
        """Put a row into the new part."""
        writer = self._writer = self._writer or again()
        model = writer.plan.model
        request = request_with(request_of(row, model), model=model)
        sent_id = self._api.sent_id(row, writer.mark, writer.rows)
        writer.add(row, self._api.row(row, request, sent_id), 1)


def coded(row: Row, code: str, message: str) -> Ending:
    """Return the end of a row for a reason that has a code and no exception."""
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
