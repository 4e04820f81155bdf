"""Many requests, collected as with OpenAI's client: each `create` is a row, and nothing is sent."""

from __future__ import annotations

import gzip
import io
import itertools
import os
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, cast, overload

from llm.core.exceptions import LLMInvalidRequestError

from .creating import Chat, Embeddings, Responses
from .dialect import request_of
from .jsonl import each_row
from .lines import write_line
from .plain import as_json
from .values import CHAT, EMBEDDINGS, RESPONSES, BadRow, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from .jsonl import Lines

_KINDS: Final = (CHAT, EMBEDDINGS, RESPONSES)
_SHOWN: Final = 10
_batches: Final = itertools.count(1)


class RequestBatch:
    """Requests to be answered together, each a row of OpenAI's Batch format.

    `batch.chat.completions.create(…)`, `batch.embeddings.create(…)` and `batch.responses.create(…)` take what OpenAI's
    client takes, and return the request's id: `custom_id`, or else one that is made. A made id is of the request's
    number and a hash (`request-1-5f3a9c1e2b7d`). A program that makes the same requests in the same order makes the
    same ids, so a rerun goes on where the last run ended; in other batches they are others, so batches can be merged.

    Attributes:
        chat: `chat.completions.create` adds a conversation.
        embeddings: `create` adds texts whose vectors are asked for.
        responses: `create` adds a request of the Responses API.
    """

    def __init__(self) -> None:
        """Begin without requests."""
        self._rows: list[Row] = []
        self._ids: set[str] = set()
        self._number = 0  # of this batch among the program's that make ids; 0 before its first
        self.chat: Chat = Chat(self.add)
        self.embeddings: Embeddings = Embeddings(self.add)
        self.responses: Responses = Responses(self.add)

    def __repr__(self) -> str:
        """Return how many requests there are."""
        return f"RequestBatch({len(self)} {'request' if len(self) == 1 else 'requests'})"

    def __len__(self) -> int:
        """Return how many requests there are."""
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        """Yield the requests in order."""
        return iter(self._rows)

    def rows(self) -> Sequence[Row]:
        """Return the requests there are now, in order."""
        return tuple(self._rows)

    def add(self, url: str, body: Mapping[str, object], *, custom_id: str | None = None) -> str:
        """Add a request in OpenAI's form; return its id.

        Args:
            url: `/v1/chat/completions`, `/v1/embeddings` or `/v1/responses`.
            body: The request; JSON, but for `Message` and `ToolDefinition`, which are written as OpenAI has them.
            custom_id: Its id, unique in the batch; None: one is made.

        Raises:
            LLMInvalidRequestError: A field is missing or wrong, or the id is taken; names it. Nothing is added.
        """
        if url not in _KINDS:
            raise LLMInvalidRequestError(f"url is none of {', '.join(_KINDS)}; pass one of these")
        text, plain = as_json(body)
        if custom_id is None:
            name = self._made(url, text)
        elif isinstance(cast("object", custom_id), str) and custom_id and not _halved(custom_id):
            name = custom_id
        else:
            raise LLMInvalidRequestError("custom_id is no text, or empty; pass a text of whole characters, or None")
        if name in self._ids:
            raise LLMInvalidRequestError(f"custom_id {name!r} is taken in this batch; give each request its own")
        row = Row(len(self._rows), name, url, plain)
        request_of(row)
        self._put(row)
        return name

    def _made(self, url: str, text: str) -> str:
        self._number = self._number or next(_batches)
        place = len(self._rows) + 1
        made = blake2b(f"{self._number} {place} {url} {text}".encode(), digest_size=6).hexdigest()
        return f"request-{place}-{made}"

    def merge(self, *others: RequestBatch) -> RequestBatch:
        """Add the requests of others behind those there are; return this batch.

        Raises:
            LLMInvalidRequestError: Ids occur twice, and it names them; or one is no batch. Nothing is added.
        """
        for other in cast("tuple[object, ...]", others):
            if not isinstance(other, RequestBatch):
                raise LLMInvalidRequestError(f"cannot merge a {type(other).__name__}; pass each batch by itself")
        ids = set(self._ids)
        twice: list[str] = []
        for row in itertools.chain.from_iterable(others):
            if row.custom_id in ids:
                twice.append(row.custom_id)
            ids.add(row.custom_id)
        if twice:
            raise LLMInvalidRequestError(
                f"custom_id occurs twice: {_listed(list(map(repr, twice)))}; give each request its own, and merge again"
            )
        for row in [row for other in others for row in other]:
            self._put(row)
        return self

    def chunks(self, size: int) -> Iterator[RequestBatch]:
        """Return the requests as batches of at most `size`, in order.

        Raises:
            LLMInvalidRequestError: `size` is no whole number of 1 or more.
        """
        if type(size) is not int or size < 1:
            raise LLMInvalidRequestError("size is no whole number of 1 or more; pass how many requests a chunk has")
        rows = self.rows()
        return (self._of(rows[start : start + size]) for start in range(0, len(rows), size))

    @classmethod
    def _of(cls, rows: Iterable[Row]) -> RequestBatch:
        batch = cls()
        for row in rows:
            batch._put(row)
        return batch

    def _put(self, row: Row) -> None:
        self._rows.append(replace(row, order=len(self._rows), line=None))
        self._ids.add(row.custom_id)

    @overload
    def to_jsonl(self, target: None = None) -> str: ...
    @overload
    def to_jsonl(self, target: str | os.PathLike[str] | IO[str] | IO[bytes]) -> None: ...
    def to_jsonl(self, target: str | os.PathLike[str] | IO[str] | IO[bytes] | None = None) -> str | None:
        """Write the requests as lines of OpenAI's Batch format, in ASCII.

        Args:
            target: A path, packed by gzip where it ends in `.gz`; an open file; or None, to return the text.

        Raises:
            OSError: The file cannot be written.
        """
        if target is None:
            return "".join(map(write_line, self._rows))
        if isinstance(target, (str, os.PathLike)):
            path = Path(target)
            with gzip.open(path, "wb") if path.suffix == ".gz" else path.open("wb") as file:
                file.writelines(write_line(row).encode() for row in self._rows)
        elif isinstance(target, io.TextIOBase):
            cast("IO[str]", target).writelines(map(write_line, self._rows))
        else:
            cast("IO[bytes]", target).writelines(write_line(row).encode() for row in self._rows)
        return None

    @classmethod
    def from_jsonl(cls, source: Lines) -> RequestBatch:
        """Return the requests of a file, of its content as bytes, or of its lines; a text is a path.

        It is all or nothing. A file with bad lines is run by its path, where each is one line of the errors file.

        Raises:
            LLMConfigurationError: The file cannot be read.
            LLMInvalidRequestError: Lines are bad, or ids occur twice; names the lines.
        """
        batch = cls()
        wrong: list[str] = []
        for row in each_row(source):
            if isinstance(row, BadRow):
                wrong.append(row.message)
            elif row.custom_id in batch._ids:
                wrong.append(f"line {row.line} repeats the custom_id {row.custom_id!r}; give each row its own")
            else:
                batch._put(row)
        if wrong:
            between = "\n  "
            raise LLMInvalidRequestError(f"these lines are no requests:\n  {_listed(wrong, between)}")
        return batch


def _listed(told: Sequence[str], between: str = ", ") -> str:
    rest = len(told) - _SHOWN
    return between.join([*told[:_SHOWN], *([f"and {rest} more"] if rest > 0 else [])])


def _halved(text: str) -> bool:
    try:
        return not text.isascii() and not text.encode()
    except UnicodeEncodeError:
        return True
