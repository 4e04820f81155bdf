"""Calls of tools in a model's text, as they come."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

from llm.core.messages import ToolCall
from llm.core.types import ToolCallDelta

from .text import overlap

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .tools import CallForm


class Heard(NamedTuple):
    """What a piece of a model's text says.

    Attributes:
        text: Text.
        calls: Pieces of calls.
    """

    text: str
    calls: tuple[ToolCallDelta, ...]


class CallReader:
    """Tells calls from text, in pieces of any size. What it reads was held to the form of calls: it does not guess."""

    def __init__(self, form: CallForm) -> None:
        """Begin an answer."""
        self.calls: int = 0
        self._form = form
        self._held = ""
        self._begun = False  # a call, whose name is not there yet
        self._arguments: _Depth | None = None
        self._texts = False  # some came, so that nothing without a mark is a call

    def push(self, text: str) -> Heard:
        """Take a piece, and return what it completes."""
        self._held += text
        texts, deltas = list[str](), list[ToolCallDelta]()
        while self._step(texts, deltas):
            pass
        return Heard("".join(texts), tuple(deltas))

    def flush(self) -> str:
        """Return what was held: no call came of it."""
        held, self._held = self._held, ""
        return "" if self._begun or self._arguments is not None else held

    def _step(self, texts: list[str], deltas: list[ToolCallDelta]) -> bool:
        # Whether there is more to tell in what is held.
        if self._arguments is not None:
            return self._read_arguments(self._arguments, deltas)
        if self._begun:
            return self._read_name(deltas)
        return self._read_text(texts)

    def _read_text(self, texts: list[str]) -> bool:
        begin = self._form.begin
        if self._form.marks:
            at = self._held.find(begin)
            keep = at if at >= 0 else len(self._held) - overlap(self._held, begin)
        else:  # a call is the whole answer, or none is
            at = 0 if self._held.startswith(begin) and not self._texts else -1
            may_be = at == 0 or (begin.startswith(self._held) and not self._texts)
            keep = 0 if may_be else len(self._held)
        text, self._held = self._held[:keep], self._held[keep:]
        if not self.calls or text.strip():  # else it is what stands between calls
            texts.append(text)
            self._texts = self._texts or bool(text)
        self._begun = at >= 0
        if self._begun:
            self._held = self._held.removeprefix(begin)
        return self._begun

    def _read_name(self, deltas: list[ToolCallDelta]) -> bool:
        name, middle, rest = self._held.partition(self._form.middle)
        if not middle:
            return False
        deltas.append(ToolCallDelta(self.calls, f"call_{uuid4().hex[:24]}", json.loads(name)))
        self._held, self._begun, self._arguments = rest, False, _Depth()
        return True

    def _read_arguments(self, depth: _Depth, deltas: list[ToolCallDelta]) -> bool:
        end = depth.read(self._held)
        if piece := self._held[:end]:
            deltas.append(ToolCallDelta(self.calls, arguments=piece))
        self._held = self._held[end:]
        if not depth.whole or len(self._held) < len(self._form.end):
            return False
        self._held = self._held.removeprefix(self._form.end)
        self._arguments = None
        self.calls += 1
        return True


class _Depth:
    """Where a JSON object ends that comes in pieces."""

    def __init__(self) -> None:
        self.whole = False
        self._open = 0
        self._in_text = False
        self._escaped = False

    def read(self, text: str) -> int:
        """Return how many characters of a piece belong to it."""
        for at, letter in enumerate(text):
            if self.whole:
                return at
            self._take(letter)
        return len(text)

    def _take(self, letter: str) -> None:
        if self._in_text:
            if not self._escaped and letter == '"':
                self._in_text = False
            self._escaped = not self._escaped and letter == "\\"
        elif letter == '"':
            self._in_text = True
        elif letter in "{[":
            self._open += 1
        elif letter in "}]":
            self._open -= 1
            self.whole = self._open == 0


def gathered(deltas: Iterable[ToolCallDelta]) -> tuple[ToolCall, ...]:
    """Return whole calls from their pieces."""
    names: dict[int, tuple[str, str]] = {}
    arguments: dict[int, str] = {}
    for delta in deltas:
        if delta.name is not None:
            names[delta.index] = (delta.id or "", delta.name)
        arguments[delta.index] = arguments.get(delta.index, "") + delta.arguments
    return tuple(ToolCall(*names[index], arguments[index]) for index in sorted(names))
