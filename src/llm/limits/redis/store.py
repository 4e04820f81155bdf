"""A ledger in a Redis: what is asked and written while a message is under way goes along with the next one."""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from llm.core.call import Charge
from llm.limits.backoff import full_jitter
from llm.limits.ledger import Gone, Read, Settled, StoreLostError, Waiting

from .book import Book
from .link import Link

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from llm.limits.ledger import Ask, Entry, Event, Position
    from llm.utils.clock import Clock, Timer

    from .link import Message

_logger = logging.getLogger("llm.limits")

_NOTHING: Final = Charge(requests=0)
_BEAT: Final = 5.0  # seconds; a process of which nothing is heard for three of them is taken for dead
_SOON: Final = 0.05  # seconds
_LATEST: Final = 1.0  # seconds


class _Asked:
    """Messages that somebody waits for, in whose answers each is one account's."""

    __slots__ = ("answer", "books", "messages", "number", "sent")

    def __init__(self, books: list[Book], messages: list[Message], number: int) -> None:
        self.books = books
        self.messages = messages
        self.number = number
        self.sent = False
        self.answer: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()


class RedisLedger:
    """The logs of all accounts in a Redis, or Valkey; a `Ledger`. It belongs to one event loop.

    Messages go one after the other, so what is given first is heard first, and all that gathers meanwhile goes
    together. While the store is lost, up to 100,000 events of an account are kept to be written.
    """

    def __init__(self, url: str, *, clock: Clock, dice: Callable[[], float]) -> None:
        """Keep the address, a secret; nothing is connected before the first message.

        Args:
            url: `redis://`, or `rediss://` for TLS, with user, password and number of the database where there are any.
            clock: For waiting; what is counted is counted by the server's own.
            dice: Random numbers, 0 to 1, for the pauses before the next attempt to reach it.

        Raises:
            LLMConfigurationError: The package `redis` is missing, or the address is none.
        """
        self.process: str = secrets.token_hex(8)
        self._link = Link(url, clock)
        self._clock = clock
        self._dice = dice
        self._books: dict[str, Book] = {}
        self._by_key: dict[str, Book] = {}
        self._asked: list[_Asked] = []
        self._to_write: dict[str, Book] = {}  # a set that keeps the order
        self._numbers = count(1)
        self._carrier: asyncio.Task[None] | None = None
        self._returning: asyncio.Task[None] | None = None
        self._ears: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._beat: Timer | None = None
        self._lost = False
        self._closed = False
        self._skipped_any = False
        self._heard: Callable[[str], None] = _ignore
        self._changed: Callable[[bool], None] = _ignore

    @property
    def lost(self) -> bool:
        """Whether the store cannot be reached now."""
        return self._lost

    @property
    def processes(self) -> int:
        """How many processes use the store, as far as known; 1 or more."""
        return max((1, *(book.alive for book in self._books.values())))

    async def ask(self, asks: Sequence[Ask]) -> list[Read]:
        """Write all of a call's takings, or none; see `Ledger.ask`.

        Raises:
            StoreLostError: The store cannot be reached; nothing of it counts, and what was written is taken back.
        """
        number = next(self._numbers)
        books = [self._book(ask.account) for ask in asks]
        asked = _Asked(books, [book.asking(ask, number) for book, ask in zip(books, asks, strict=True)], number)
        try:
            answers = await self._answered(asked)
        except BaseException:
            if asked.sent:
                self._take_back(asked, asks)
            raise
        reads = [self._read(book, answer, ask.call) for book, answer, ask in zip(books, answers, asks, strict=True)]
        self._arm()
        if all(read.taken for read in reads):
            return reads
        return [self._untaken(read, ask) if read.taken else read for read, ask in zip(reads, asks, strict=True)]

    async def read(self, account: str, after: Position) -> Read:
        """Return what was written after that place.

        Raises:
            StoreLostError: The store cannot be reached.
        """
        book = self._book(account)
        entries: list[Entry] = []
        afresh = False
        while True:
            [answer] = await self._answered(_Asked([book], [book.reading(after)], 0))
            read = self._read(book, answer, None)
            entries.extend(read.entries)
            afresh |= read.afresh
            if not book.more:
                return read._replace(entries=entries, afresh=afresh)
            after = read.upto

    def write(self, account: str, event: Event) -> None:
        """Write an event soon, after all that was given before; while the store is lost, once it is back."""
        if self._closed:
            return
        book = self._book(account)
        book.put(event)
        self._to_write[account] = book
        self._arm()
        if isinstance(event, Waiting):
            self._listen()
        self._go()

    def listen(self, heard: Callable[[str], None], changed: Callable[[bool], None]) -> None:
        """Tell what happens from now on; see `Ledger.listen`."""
        self._heard, self._changed = heard, changed

    async def close(self) -> None:
        """Write what is to be written, leave all lines, and give back what is held; as often as one likes."""
        if self._closed:
            return
        for book in self._books.values():
            self.write(book.account, Gone(dead=True))
        self._closed = True
        _fail(self._asked, StoreLostError("the store of limits is closed"))
        if self._beat is not None:
            self._beat.cancel()
        try:
            if self._carrier is not None and not self._lost:
                await asyncio.wait([self._carrier])
        finally:
            await self._end_tasks()
            await self._link.close()

    # What is asked and written, and the answers.

    def _read(self, book: Book, answer: list[bytes], call: str | None) -> Read:
        read = book.read(answer, call)
        if book.queued and not self._closed:
            self._to_write[book.account] = book
            self._go()
        return read

    async def _answered(self, asked: _Asked) -> list[Any]:
        if self._closed or self._lost:
            raise StoreLostError("the store of limits is closed" if self._closed else "the store of limits is lost")
        self._asked.append(asked)
        self._go()
        return await asked.answer

    def _go(self) -> None:
        if self._carrier is None and not self._lost:
            self._carrier = self._start(self._carry())

    async def _carry(self) -> None:
        try:
            while self._asked or self._to_write:
                await self._exchange()
        except StoreLostError as error:
            if not self._closed:
                self._lose(error)
        finally:
            self._carrier = None

    async def _exchange(self) -> None:
        """Send all that there is, first what is to be written, and pass on the answers."""
        books, self._to_write = list(self._to_write.values()), {}
        asked, self._asked = [one for one in self._asked if not one.answer.done()], []
        messages = [book.writing() for book in books]
        for one in asked:
            one.sent = True
            messages.extend(one.messages)
        try:
            answers = await self._link.run(messages) if messages else []
        except BaseException as error:
            for book in books:
                book.unsent()
                self._to_write[book.account] = book
            closed = StoreLostError("the store of limits is closed")
            _fail(asked, error if isinstance(error, StoreLostError) else closed)
            raise
        self._pass_on(books, asked, answers)

    def _pass_on(self, books: list[Book], asked: list[_Asked], answers: list[Any]) -> None:
        at = len(books)
        for one in asked:
            if not one.answer.done():
                one.answer.set_result(answers[at : at + len(one.messages)])
            at += len(one.messages)
        for book, answer in zip(books, answers, strict=False):
            missed = book.wrote(answer)
            if book.queued:
                self._to_write[book.account] = book
            if missed:
                self._heard(book.account)

    def _take_back(self, asked: _Asked, asks: Sequence[Ask]) -> None:
        """Give back what an ask may have taken whose answer nobody has; what comes late of it is not heard any more."""
        for book, ask in zip(asked.books, asks, strict=True):
            book.void = max(book.void, asked.number)
            self.write(book.account, Settled(ask.call, _NOTHING))

    def _untaken(self, read: Read, ask: Ask) -> Read:
        self.write(ask.account, Settled(ask.call, _NOTHING))
        entries = [entry for entry in read.entries if getattr(entry.event, "call", None) != ask.call]
        return read._replace(taken=False, entries=entries)

    def _book(self, account: str) -> Book:
        book = self._books.get(account)
        if book is None:
            book = self._books[account] = Book(account, self.process, self._skipped)
            self._by_key[f"{book.key}:log"] = book
        return book

    def _skipped(self, account: str) -> None:
        if not self._skipped_any:
            self._skipped_any = True
            _logger.warning(
                "limits: the log of account %s has entries that are none of ours; they are skipped", account
            )

    # Being alive, and being woken.

    def _arm(self) -> None:
        if self._beat is None and any(book.holds for book in self._books.values()):
            self._beat = self._clock.call_later(_BEAT, self._live)

    def _live(self) -> None:
        self._beat = None
        self._to_write.update({book.account: book for book in self._books.values() if book.holds})
        self._arm()
        self._go()

    def _listen(self) -> None:
        if self._ears is None and not self._lost:
            self._ears = self._start(self._hear())

    async def _hear(self) -> None:
        attempts = count(1)
        while True:
            with suppress(StoreLostError):
                await self._link.listen(f"llm:wake:{self.process}", self._catch_up, self._woken)
            await self._pause(next(attempts))

    def _catch_up(self) -> None:
        for book in self._books.values():
            if book.waiting is not None:
                self._heard(book.account)

    def _woken(self, key: bytes) -> None:
        book = self._by_key.get(key.decode(errors="replace"))
        if book is not None:
            self._heard(book.account)

    # Being lost, and coming back.

    def _lose(self, error: StoreLostError) -> None:
        self._lost = True
        _logger.warning("limits: %s", error)
        if self._ears is not None:
            self._ears.cancel()
        self._returning = self._start(self._return())
        self._changed(True)  # noqa: FBT003 - the seam's

    async def _return(self) -> None:
        attempts = count(1)
        while self._lost:
            await self._pause(next(attempts))
            self._to_write.update(self._books)
            with suppress(StoreLostError):
                while self._to_write:
                    await self._exchange()
                self._lost = False
        if self._ears is not None:
            self._ears = None
            self._listen()
        self._changed(False)  # noqa: FBT003 - the seam's

    async def _pause(self, attempt: int) -> None:
        await self._clock.sleep(full_jitter(attempt, (1 + self._dice()) / 2, initial=_SOON, maximum=_LATEST))

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


def _fail(asked: Sequence[_Asked], error: StoreLostError) -> None:
    for one in asked:
        if not one.answer.done():
            one.answer.set_exception(error)


def _ignore(_: object) -> None:
    """Nobody listens yet."""
