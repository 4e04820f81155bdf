"""The gateway's log: one JSON object a line, with no key, no prompt and no answer in it."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TextIO

import orjson

from llm.core.exceptions import kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from .exchange import Exchange

LOGGER: Final = logging.getLogger("llm.gateway")

_PATH_CHARS: Final = 200
_MODEL_CHARS: Final = 256
_ONE_WRITE: Final = 4096
"""Bytes that several processes may write into one pipe without a line of one within a line of another."""

_OF_KEYS: Final = "llm.keys"
"""Tells why a key went, in its provider's words behind its own."""

_HELD_SECONDS: Final = 0.05
_MOST_HELD: Final = 512  # lines


def tell_request(exchange: Exchange, *, seconds: float, wall: float) -> None:
    """Log a request that was answered; `wall` in seconds since 1970."""
    if not LOGGER.isEnabledFor(logging.INFO):
        return
    scope, caller, call, usage = exchange.scope, exchange.caller, exchange.call, exchange.usage
    told: dict[str, Any] = {
        "time": _time(wall),
        "level": "info",
        "request_id": exchange.request_id.decode(),
        "method": scope["method"],
        "path": scope["path"][:_PATH_CHARS],
        "status": exchange.status,
        "seconds": round(seconds, 6),
    }
    if caller.name is not None:
        told["key"], told["user"] = caller.name, caller.user
    if exchange.model is not None:
        told["model"] = exchange.model[:_MODEL_CHARS]
    if exchange.provider is not None:
        told["provider"] = exchange.provider
        told["cached"] = exchange.cached
    if usage is not None:
        told["tokens"] = {"input": usage.input_tokens, "output": usage.output_tokens}
    if call is not None and (call.sends > 1 or call.waited):
        told["attempts"], told["waited"] = call.sends, round(call.queue_seconds, 6)
    if exchange.error is not None:
        told["error"] = kind_of(exchange.error)
    text = _line(told)
    writer = only_writer()
    if writer is not None:
        writer.add(text)  # a record costs as much as all the rest
    else:
        LOGGER.handle(LOGGER.makeRecord(LOGGER.name, logging.INFO, "", 0, text, (), None))


def tell_fault(error: BaseException, exchange: Exchange) -> None:
    """Log a fault of the gateway's own: where it happened, and nothing of what it said, which may be a prompt."""
    request = exchange.request_id.decode()
    where = _way_to(error.__traceback__)
    LOGGER.error("request %s failed by a fault of the gateway's own: %s at %s", request, type(error).__name__, where)


def only_writer() -> JSONLines | None:
    """Return who alone would hear a record, where that is our own writer."""
    only: logging.Handler | None = None
    logger: logging.Logger | None = LOGGER
    while logger is not None:
        for handler in logger.handlers:
            if type(handler) is logging.NullHandler:  # as the package's own logger has
                continue
            if only is not None:
                return None
            only = handler
        logger = logger.parent if logger.propagate else None
    return only if type(only) is JSONLines else None


class JSONLines(logging.Handler):
    """Writes records as JSON, a line each, those of a moment together.

    A record that is JSON already, as those of requests are, is written as it is.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        """Write to `stream`, or to the standard error."""
        super().__init__()
        self._stream = stream or sys.stderr
        self._lines: list[str] = []
        self._due: asyncio.TimerHandle | None = None

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        if record.name == LOGGER.name and isinstance(record.msg, str) and record.msg.startswith("{"):
            return record.msg
        told: dict[str, Any] = {
            "time": _time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _words(record),
        }
        if record.exc_info is not None and record.exc_info[0] is not None:
            told["error"] = record.exc_info[0].__name__
            told["where"] = _way_to(record.exc_info[2])
        return _line(told)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record."""
        self.add(self.format(record))

    def add(self, line: str) -> None:
        """Take a line that is JSON already."""
        self._lines.append(line)
        if self._due is not None and len(self._lines) < _MOST_HELD and not self._due.cancelled():
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        if loop is None or len(self._lines) >= _MOST_HELD:
            self.flush()
        else:
            self._due = loop.call_later(_HELD_SECONDS, self.flush)

    def flush(self) -> None:
        """Write what waits."""
        due, self._due = self._due, None
        if due is not None:
            due.cancel()
        lines, self._lines = self._lines, []
        piece, size = list[str](), 0
        for line in lines:
            length = len(line.encode()) + 1
            if size + length > _ONE_WRITE and piece:
                self._write(piece)
                piece, size = [], 0
            piece.append(line)
            size += length
        if piece:
            self._write(piece)

    def _write(self, lines: list[str]) -> None:
        self._stream.write("\n".join(lines) + "\n")
        self._stream.flush()


def _line(told: Mapping[str, Any]) -> str:
    """Return a line that is one for every reader; to some of them there are more ends of lines than one."""
    text = orjson.dumps(told).decode()
    return text if text.isascii() else json.dumps(told, separators=(",", ":"))


def _words(record: logging.LogRecord) -> str:
    """Return what a record says, without what may repeat a prompt: a provider's own words, and values of libraries."""
    if record.name.partition(".")[0] != "llm":
        return str(record.msg).partition("\n")[0][:_PATH_CHARS]
    words = record.getMessage()
    if record.name == _OF_KEYS:
        return words.partition(": ")[0]
    error: object = getattr(record, "error", None)  # of a call that failed
    return words.replace(error, error.partition(":")[0]) if isinstance(error, str) and error else words


def _time(wall: float) -> str:
    return _moment(int(wall * 1000.0))


@lru_cache(maxsize=2)  # several requests end in one, where there are many
def _moment(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{_second(seconds)}.{rest:03d}Z"


@lru_cache(maxsize=2)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _way_to(place: TracebackType | None) -> str:
    """Return the functions and lines that led to a failure, without what they say."""
    frames = traceback.walk_tb(place)
    return " > ".join(f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}:{line}" for frame, line in frames)
