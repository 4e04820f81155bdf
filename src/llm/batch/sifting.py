"""What an earlier run left in a file: read back line by line, and put right."""

from __future__ import annotations

import os
from array import array
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

import orjson

from llm.core.exceptions import LLMConfigurationError

from .claim import Claim, Replacement
from .outlast import GivenUpError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_MOST: Final = 1 << 28  # bytes
_BUFFER: Final = 1 << 20  # bytes
_BEGINNING: Final = b'{"id":'  # of a line, as we and OpenAI write it
_NOTHING: Final = b"\0 \t\r\n"  # a file system may leave blocks of zeros where power was lost


class Verdict(Enum):
    """What is to become of a line.

    Attributes:
        KEEP: It stays.
        DROP: It goes.
        FOREIGN: It is no result of a batch.
    """

    KEEP = auto()
    DROP = auto()
    FOREIGN = auto()


@dataclass(slots=True)
class Sifted:
    """What was found in a file.

    Attributes:
        kept: Lines that stay.
        torn: Whether its last line was cut short, and is gone.
        damaged: Lines that were no results, blocks of zeros included.
        aside: The file to which those were moved; None where there were none worth it.
    """

    kept: int = 0
    torn: bool = False
    damaged: int = 0
    aside: str | None = None


def sift(
    claimed: Claim, judge: Callable[[bytes], Verdict], stopped: Callable[[], bool], *, most: int = _MOST
) -> Sifted:
    """Read a file's lines and let it hold those alone that are to stay, each with its newline.

    At any moment the file is as it was or as it is to be. Lines that are no results are moved to a file beside it,
    whose name ends in `.damaged`. It takes the memory of one line.

    Args:
        claimed: The file.
        judge: Says of a line what becomes of it; asked once, in the order of the file.
        stopped: Whether to give up; asked at each line.
        most: Bytes of a line; what is longer is no result.

    Raises:
        GivenUpError: It was to give up; the file is as it was.
        LLMConfigurationError: It holds lines, none of which is a result: it is somebody's other file.
        OSError: It cannot be read or written.
    """
    work = _Work(claimed)
    try:
        for start, line, whole in _lines(claimed, most):
            _go_on(stopped)
            work.take(start, line, _verdict(line, judge if whole else _foreign, work.found, most))
        work.finish()
    except BaseException:
        work.give_up()
        raise
    return work.found


def _go_on(stopped: Callable[[], bool]) -> None:
    if stopped():
        raise GivenUpError


def _verdict(line: bytes, judge: Callable[[bytes], Verdict], found: Sifted, most: int) -> Verdict:
    if not line.strip(_NOTHING):
        found.damaged += b"\0" in line
        return Verdict.DROP
    verdict = judge(line)
    if verdict is Verdict.FOREIGN and len(line) < most and _is_torn(line):
        found.torn = True
        return Verdict.DROP
    return verdict


def _is_torn(line: bytes) -> bool:
    """Return whether a line is the beginning of a result; JSON that is whole, without a newline, is somebody's own."""
    if line.endswith(b"\n") or not (line.startswith(_BEGINNING) or _BEGINNING.startswith(line)):
        return False
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return True
    return False


def _foreign(_: bytes) -> Verdict:
    return Verdict.FOREIGN


def _lines(claimed: Claim, most: int) -> Generator[tuple[int, bytes, bool]]:
    """Where each line begins, the line, and whether it is one: of what is too long, only the first piece passes."""
    start, whole = 0, True
    with open(claimed.descriptor, "rb", buffering=_BUFFER, closefd=False) as file:
        file.seek(0)
        while line := file.readline(most):
            yield start, line, whole
            start += len(line)
            whole = line.endswith(b"\n")


@dataclass(slots=True)
class _Work:
    """A file on its way to what it is to be: nothing is copied before something that stays follows what goes."""

    claimed: Claim
    found: Sifted = field(default_factory=Sifted)
    good: int = 0  # where the first line begins that goes; to there the file is as it is to be
    clean: bool = True  # whether none went yet
    newline: bool = True  # whether the last line that stays has one
    new: Replacement | None = None
    foreign: array[int] = field(default_factory=lambda: array("Q"))  # where lines begin and end that are moved

    def take(self, start: int, line: bytes, verdict: Verdict) -> None:
        if verdict is Verdict.KEEP:
            self._keep(start, line)
            return
        self.clean = False
        if verdict is Verdict.FOREIGN:
            self.found.damaged += 1
            self._move(start, start + len(line))

    def _keep(self, start: int, line: bytes) -> None:
        self.found.kept += 1
        if not self.clean and self.new is None:
            self.new = Replacement(self.claimed)
            self.new.copy(0, self.good)
        self.newline = line.endswith(b"\n")
        if self.new is None:
            self.good = start + len(line)
        else:
            self.new.write(line if self.newline else line + b"\n")

    def _move(self, start: int, end: int) -> None:
        if self.foreign and self.foreign[-1] == start:
            self.foreign[-1] = end
        else:
            self.foreign.extend((start, end))

    def finish(self) -> None:
        if self.foreign:
            self._set_aside()
        if self.new is not None:
            self.new.commit()
        elif not self.clean:
            os.ftruncate(self.claimed.descriptor, self.good)
        if self.new is None and not self.newline:
            os.write(self.claimed.descriptor, b"\n")

    def _set_aside(self) -> None:
        path = self.claimed.path
        if not self.found.kept:
            raise LLMConfigurationError(
                f"{path} holds {self.found.damaged} lines, none of which is a result of a batch; name another file"
            )
        self.found.aside = f"{path}.damaged"
        with open(self.found.aside, "ab") as aside:  # noqa: PTH123 - a text
            last = b"\n"
            for start, end in zip(self.foreign[::2], self.foreign[1::2], strict=True):
                for piece in self.claimed.pieces(start, end):
                    aside.write(piece)
                    last = piece[-1:]
            if last != b"\n":
                aside.write(b"\n")
            aside.flush()
            os.fsync(aside.fileno())

    def give_up(self) -> None:
        if self.new is not None:
            self.new.discard()
