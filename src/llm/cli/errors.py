"""From how a command ended to its exit status."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from llm.core.exceptions import (
    LLMConfigurationError,
    LLMContentFilterError,
    LLMContextLengthError,
    LLMException,
    LLMInvalidRequestError,
    LLMValidationError,
)


class ExitStatus(IntEnum):
    """What the shell is told.

    Attributes:
        DONE: All of it.
        FAILED: Rows of a batch have no answer; a file or a stream could not be read or written; what was named is not
            there.
        USAGE: Arguments, configuration or request are wrong: the caller has something to change.
        UNREACHABLE: A provider did not serve: no connection, no time, no credit, a refused key, an error of its own. Or
            the cache's store did not.
        INTERRUPTED: Ctrl-C.
        TERMINATED: SIGTERM.
    """

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    INTERRUPTED = 130
    TERMINATED = 143


_USAGE: Final = (
    LLMConfigurationError,
    LLMInvalidRequestError,
    LLMContextLengthError,
    LLMContentFilterError,
    LLMValidationError,
)


def exit_status(error: LLMException) -> ExitStatus:
    """Return the status of a command that this error ended."""
    return ExitStatus.USAGE if isinstance(error, _USAGE) else ExitStatus.UNREACHABLE


def told(error: LLMException) -> str:
    """Return what went wrong in one line, whatever a server said; of a configuration in a line for each mistake."""
    text = str(error)
    return text if isinstance(error, LLMConfigurationError) else " ".join(text.split())
