"""Exceptions without the frames that they came through."""

from __future__ import annotations

from typing import TypeVar

_Error = TypeVar("_Error", bound=BaseException)


def bare(error: _Error) -> _Error:
    """Take traceback, context and cause off an error, and return it, to be raised outside its `except` block.

    Frames below hold headers, and what the provider sent, which may repeat a key; a traceback that shows local
    variables would show both.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error
