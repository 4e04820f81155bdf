"""The output file as the journal of a batch: what a rerun finds finished, and lines that are there or not."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llm.core.exceptions import LLMConfigurationError
from llm.utils.clock import SystemClock

from .appending import Appender, Tail
from .claim import Claim, claim
from .earlier import FINISHED, Found, read_back
from .index import IdIndex
from .outlast import outlast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Self

    from llm.utils.clock import Clock

_MET: Final = FINISHED << 1  # in this run's input
_HELD: Final = FINISHED << 2


class Standing(Enum):
    """What is known of a row as the input brings it.

    Attributes:
        NEW: It is to be asked.
        FINISHED: An earlier run has its answer, or a failure that is its own.
        REPEATED: The input had a row of this name before.
        HELD: Somebody is asked for it already.
    """

    NEW = auto()
    FINISHED = auto()
    REPEATED = auto()
    HELD = auto()


def errors_beside(output: str | os.PathLike[str]) -> Path:
    """Return the errors file of an output file that names none: `x.errors.jsonl` for `x.jsonl`."""
    path = Path(output)
    return path.parent / (path.name.removesuffix(".jsonl") + ".errors.jsonl")


class Journal:
    """An output file and its errors file, which nobody else writes meanwhile: an async context manager.

    Opening it reads back what earlier runs left, in a thread and with the memory of one line and of the index (about 21
    bytes a row). A last line that was cut short goes, as its row is asked again; one that lacks only its newline gets
    it. Lines that are no results are moved to a file of the same name with `.damaged`, and logged; a file with lines
    and no result among them is refused. Bad rows and failures that may have passed are taken out of the errors file.
    Each of these happens at once or not at all, wherever the process ends.

    A line is whole in its file or absent from it. It is handed to the system when `answer` or `error` returns, so that
    a kill of the process loses none, and on the disk about a second later, so that a loss of power loses that second.
    """

    def __init__(  # noqa: PLR0913 - named, most of them seldom given
        self,
        output: str | os.PathLike[str],
        *,
        may_pass: Callable[[Mapping[str, Any]], bool],
        errors: str | os.PathLike[str] | None = None,
        source: str | os.PathLike[str] | None = None,
        restart: bool = False,
        clock: Clock | None = None,
    ) -> None:
        """Open nothing yet.

        Args:
            output: The file of answers.
            may_pass: Whether the row of a line of the errors file is worth asking again.
            errors: The file of errors; beside the output by default.
            source: The input, where that is a file: it must be none of these two.
            restart: Skip nothing. What the files hold is kept under their names with `.bak`, `.bak2`, …
            clock: Its time.
        """
        self._output = os.fspath(output)
        self._errors = os.fspath(errors_beside(output) if errors is None else errors)
        self._source = source
        self._may_pass = may_pass
        self._restart = restart
        self._index = IdIndex()
        self._appender = Appender(clock or SystemClock())
        self._stopped = threading.Event()
        self._finished = 0
        self._met = 0
        self.found: Found = Found()

    async def __aenter__(self) -> Self:
        """Open and lock both files, make those that are missing, and read them back.

        Raises:
            LLMConfigurationError: A file cannot be used: its folder is missing, it is no plain file or somebody else's,
                another run writes it, or two of the three are one.
            OSError: Reading or writing failed.
        """
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        threading.Thread(target=self._run, args=(opened,), name="llm-batch-journal", daemon=True).start()
        try:
            await outlast(opened, self._stopped.set)
        except asyncio.CancelledError:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None, /
    ) -> None:
        """Write what waits, have it on the disk and give the files back; a cancellation does not cut that short.

        Raises:
            OSError: Something could not be written.
        """
        await self._end()
        self._index = IdIndex()  # who sorts now has its memory
        if exc_val is None:
            for tail in (self._answers, self._failures):
                if tail.failure is not None:
                    raise tail.failure

    def met(self, custom_id: str) -> Standing:
        """Say what is known of a row, and note that the input brought it."""
        before = self._index.mark(custom_id, _MET)
        if before & _MET:
            return Standing.REPEATED
        if before & FINISHED:
            self._met += 1
            return Standing.FINISHED
        return Standing.HELD if before else Standing.NEW

    def hold(self, custom_id: str) -> bool:
        """Note that somebody is asked for a row already; return whether an earlier run finished it all the same."""
        return bool(self._index.mark(custom_id, _HELD) & FINISHED)

    @property
    def unmet(self) -> int:
        """How many finished rows the input has not brought so far."""
        return self._finished - self._met

    @property
    def failed(self) -> bool:
        """Whether a line could not be written; no later one of its file will be."""
        return self._answers.failure is not None or self._failures.failure is not None

    async def answer(self, line: bytes) -> None:
        """Add a line, with its newline, to the output.

        Returns once the system has it. A caller that is cancelled meanwhile leaves it to be written.

        Raises:
            OSError: It could not be written, and nothing of it is there; no later one will be.
            RuntimeError: The journal is closed.
        """
        await self._appender.add(self._answers, line)

    async def error(self, line: bytes) -> None:
        """Add a line to the errors file, as `answer` does to the output."""
        await self._appender.add(self._failures, line)

    async def _end(self) -> None:
        self._appender.end()
        await outlast(self._ended, self._stopped.set)

    # From here on: the thread.

    def _run(self, opened: asyncio.Future[None]) -> None:
        claims: list[Claim] = []
        try:
            self._open(claims)
        except BaseException as error:  # noqa: BLE001 - who waits hears of it
            for claimed in claims:
                claimed.close(keep=not claimed.made)
            self._tell(opened, error)
        else:
            self._tell(opened)
            self._appender.run()
            claims[0].close()
            claims[1].close(keep=not (claims[1].made or self.found.again))
        finally:
            self._tell(self._ended)

    def _tell(self, future: asyncio.Future[None], error: BaseException | None = None) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            if error is None:
                self._loop.call_soon_threadsafe(future.set_result, None)
            else:
                self._loop.call_soon_threadsafe(future.set_exception, error)

    def _open(self, claims: list[Claim]) -> None:
        claims.append(claim(self._output))
        self._refuse_twins((self._output, "output"), (self._errors, "errors file"), (self._source, "input"))
        claims.append(claim(self._errors))
        output, errors = claims
        if self._restart:
            errors.put_back()  # first: were only the output gone, these rows would count as finished
            output.put_back()
        self.found = read_back(output, errors, self._index, self._may_pass, self._stopped.is_set)
        self._finished = len(self._index)
        self._answers, self._failures = Tail(output), Tail(errors)

    def _refuse_twins(self, *files: tuple[str | os.PathLike[str] | None, str]) -> None:
        for n, (one, its_word) in enumerate(files):
            for other, other_word in files[n + 1 :]:
                if one is not None and other is not None and _are_one(one, other):
                    raise LLMConfigurationError(f"{one} is the {its_word} and the {other_word}; name a file for each")


def _are_one(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    with suppress(OSError):
        return Path(one).samefile(other)
    return os.path.realpath(one) == os.path.realpath(other)
