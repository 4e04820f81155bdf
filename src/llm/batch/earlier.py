"""What earlier runs left in an output and its errors file."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from .claim import telling
from .finished import record_of
from .sifting import Verdict, sift

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .claim import Claim
    from .index import IdIndex
    from .sifting import Sifted

_logger = logging.getLogger("llm.batch")

FINISHED: Final = 1
"""The mark of a row that an earlier run finished."""


@dataclass(frozen=True, slots=True)
class Found:
    """What earlier runs left.

    Attributes:
        answers: Lines of the output file.
        errors: Lines of the errors file; rows that are finished, too.
        again: Rows taken out of the errors file, to be met again.
        torn: Lines that were cut short at the end of a file, and are gone; their rows are asked again.
        damaged: Lines that were no results.
        aside: Files to which those lines were moved.
    """

    answers: int = 0
    errors: int = 0
    again: int = 0
    torn: int = 0
    damaged: int = 0
    aside: tuple[str, ...] = ()


def read_back(
    output: Claim,
    errors: Claim,
    index: IdIndex,
    may_pass: Callable[[Mapping[str, Any]], bool],
    stopped: Callable[[], bool],
) -> Found:
    """Mark what is finished, and put both files right, as `sift` does.

    Args:
        output: The file of answers.
        errors: The file of errors; it loses bad rows, failures that may pass, and rows that the output has.
        index: Where finished rows are marked.
        may_pass: Whether the row of a line of the errors file is worth asking again.
        stopped: Whether to give up.

    Raises:
        GivenUpError: It was to give up.
        LLMConfigurationError: A file is somebody's other file.
        OSError: Reading or writing failed.
    """
    judges = _Judges(index, may_pass)
    with telling(output.path):
        answers = sift(output, judges.of_answer, stopped)
    with telling(errors.path):
        failures = sift(errors, judges.of_error, stopped)
    return _sum(answers, failures, judges.again)


class _Judges:
    def __init__(self, index: IdIndex, may_pass: Callable[[Mapping[str, Any]], bool]) -> None:
        self._index = index
        self._may_pass = may_pass
        self.again = 0

    def of_answer(self, line: bytes) -> Verdict:
        if (record := record_of(line)) is None:
            return Verdict.FOREIGN
        self._index.mark(record[0], FINISHED)
        return Verdict.KEEP

    def of_error(self, line: bytes) -> Verdict:
        if (record := record_of(line)) is None:
            return Verdict.FOREIGN
        name, content = record
        if name in self._index:
            return Verdict.DROP
        if isinstance(name, int) or self._may_pass(content):  # a bad row is met again, if the input still has it
            self.again += 1
            return Verdict.DROP
        self._index.mark(name, FINISHED)
        return Verdict.KEEP


def _sum(answers: Sifted, errors: Sifted, again: int) -> Found:
    for one in (answers, errors):
        if one.aside is not None:
            _logger.warning("%d damaged lines were moved to %s", one.damaged, one.aside)
    return Found(
        answers=answers.kept,
        errors=errors.kept,
        again=again,
        torn=answers.torn + errors.torn,
        damaged=answers.damaged + errors.damaged,
        aside=tuple(one.aside for one in (answers, errors) if one.aside is not None),
    )
