"""Tokens into text as they come: never a piece of a character, and nothing of a stop string."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_UNFINISHED = "\ufffd"  # what a tokenizer writes for bytes that are no whole character


class Detokenizer:
    """Decodes token by token.

    A token alone does not decode to what it means in its place (characters span tokens, words begin with a mark for
    the blank before them), so each is decoded together with the few before it, and only what is new is given out.
    """

    def __init__(self, decode: Callable[[list[int]], str], before: Sequence[int] = ()) -> None:
        """Take the tokenizer's `decode`, and the last tokens of the prompt that the text goes on from."""
        self._decode = decode
        self._window = list(before)  # tokens that are given out, as context, then those that are held
        self._given = len(self._window)
        self._known = decode(self._window) if self._window else ""

    def push(self, token: int) -> str:
        """Return the text that this token completes; empty while a character lacks bytes."""
        self._window.append(token)
        text = self._decode(self._window)
        if text.endswith(_UNFINISHED):
            return ""
        return self._give(text)

    def flush(self) -> str:
        """Return what is held: a character that stayed without its last bytes, as U+FFFD."""
        return self._give(self._decode(self._window)) if self._given < len(self._window) else ""

    def _give(self, text: str) -> str:
        new = text[len(self._known) :]
        if new:
            self._window = self._window[self._given :]
            self._given = len(self._window)
            self._known = self._decode(self._window)
        return new


class StopFilter:
    """Ends a text before the first stop string in it, also where that comes in pieces."""

    def __init__(self, stops: Sequence[str] = ()) -> None:
        """Take the stop strings, each of one character or more."""
        self._stops = tuple(stops)
        self._held = ""
        self.stopped: bool = False

    def push(self, text: str) -> str:
        """Return the text that can be given out: up to a stop string, or to what may become one."""
        if not self._stops:
            return text
        text = self._held + text
        found = [at for at in map(text.find, self._stops) if at >= 0]
        self.stopped = bool(found)
        keep = min(found) if found else len(text) - max(overlap(text, stop) for stop in self._stops)
        self._held = "" if found else text[keep:]
        return text[:keep]

    def flush(self) -> str:
        """Return what was held: no stop string came of it."""
        held, self._held = self._held, ""
        return held


def overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of a text another one may begin with, and go on."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
