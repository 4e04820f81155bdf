"""OpenAI's Batch API: a file is uploaded, a batch is made of it, and its results are two files.

Sources: https://platform.openai.com/docs/guides/batch, https://platform.openai.com/docs/api-reference/batch,
https://platform.openai.com/docs/api-reference/files. Files for batches are kept for 30 days and then removed by the
vendor, so none is removed here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import orjson

from llm.batch.values import CHAT, EMBEDDINGS, RESPONSES
from llm.core.embedding import joined
from llm.providers.errors import error_for
from llm.providers.failure import read_failure
from llm.providers.openai import OpenAIDialect
from llm.providers.responses import ResponsesDialect
from llm.providers.wire import dump

from .fields import count, entries, line_of, mapping, named, text
from .listing import Listing
from .values import Bounds, Phase, Refusal, Result, Search, Standing

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Mapping

    from llm.batch.values import Row
    from llm.core.types import EmbeddingResponse, LLMRequest, LLMResponse

    from .doors import Door
    from .ledger import Part
    from .values import Engine, Pace

_OK: Final = 200
_NAME: Final = "manifold"
"""What our mark is called among the metadata of a batch."""

_PHASES: Final = {
    "validating": Phase.CHECKED,
    "failed": Phase.REFUSED,
    "completed": Phase.ENDED,
    "expired": Phase.ENDED,
    "cancelled": Phase.ENDED,
}


class OpenAIBatches:
    """The Batch API at one address; one endpoint and one model a batch, as the vendor demands."""

    engine: Engine = "openai-batch"
    kind: str = "openai"
    bounds: Bounds = Bounds(rows=50_000, size=200_000_000)
    """Source: https://platform.openai.com/docs/api-reference/batch/create, `input_file_id` and `endpoint`."""
    urls: frozenset[str] = frozenset({CHAT, EMBEDDINGS, RESPONSES})

    def __init__(self, provider: str, address: str | None, pace: Pace) -> None:
        """Speak to a provider at an address; None for the vendor's own."""
        self._provider = provider
        self._pace = pace
        self._chat = OpenAIDialect(address)
        self._responses = ResponsesDialect(address)
        root = self._chat.health_url.removesuffix("/models")
        self._files, self._batches = f"{root}/files", f"{root}/batches"
        self._listing = Listing(self._batches, after="after", seconds=pace.control)

    def sent_id(self, row: Row, mark: str, number: int) -> str:
        """As in `BatchAPI`: the user's own name."""
        del mark, number
        return row.custom_id

    def envelope(self, mark: str) -> tuple[bytes, bytes, bytes]:
        """As in `BatchAPI`: a form with a file in it. Source: RFC 7578."""
        edge = _edge(mark)
        head = (
            f'--{edge}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="{_file_name(mark)}"\r\n'
            "Content-Type: application/jsonl\r\n\r\n"
        )
        return head.encode(), b"\n", f"\n\r\n--{edge}--\r\n".encode()

    def row(self, row: Row, request: LLMRequest, sent_id: str) -> bytes:
        """As in `BatchAPI`."""
        if row.url == EMBEDDINGS:
            body = self._chat.embeddings.encode(request)
        elif row.url == RESPONSES:
            body = self._responses.encode(request, stream=False)
        else:
            body = self._chat.encode(request, stream=False)
        return orjson.dumps({"custom_id": sent_id, "method": "POST", "url": row.url, "body": orjson.Fragment(body)})

    async def newest(self, door: Door) -> str:
        """As in `BatchAPI`."""
        return await self._listing.newest(door)

    async def upload(self, door: Door, part: Part, body: bytes) -> str | None:
        """As in `BatchAPI`; what an earlier try has uploaded is found by its name."""
        found = await self._uploaded(door, part)
        if found is not None:
            return found
        kind = {"content-type": f"multipart/form-data; boundary={_edge(part.mark)}"}
        file = await door.ask("POST", self._files, body=body, headers=kind, seconds=self._pace.upload)
        return named(file)

    async def submit(self, door: Door, part: Part, body: bytes) -> str:
        """As in `BatchAPI`."""
        del body
        asked = {
            "input_file_id": part.file,
            "endpoint": part.plan.url,
            "completion_window": "24h",
            "metadata": {_NAME: part.mark},
        }
        return named(await door.ask("POST", self._batches, body=dump(asked), seconds=self._pace.control))

    async def find(self, door: Door, part: Part, known: Collection[str]) -> Search:
        """As in `BatchAPI`: by the mark among its metadata. One that the vendor refused is none."""
        async for batch in self._listing.newer_than(door, part.newest):
            name = text(batch.get("id"))
            is_ours = mapping(batch.get("metadata")).get(_NAME) == part.mark
            if is_ours and name not in known and batch.get("status") != "failed":
                return Search(name)
        return Search()

    async def look(self, door: Door, batch: str) -> Standing:
        """As in `BatchAPI`."""
        told = await door.ask("GET", f"{self._batches}/{batch}", seconds=self._pace.control)
        counts = mapping(told.get("request_counts"))
        files = (text(told.get("output_file_id")), text(told.get("error_file_id")))
        return Standing(
            _PHASES.get(text(told.get("status")), Phase.RUNNING),
            count(counts.get("completed")) + count(counts.get("failed")),
            count(counts.get("total")),
            tuple(filter(None, files)),
            tuple(_refusal(error) for error in entries(mapping(told.get("errors")).get("data"))),
        )

    async def cancel(self, door: Door, batch: str) -> None:
        """As in `BatchAPI`."""
        await door.ask("POST", f"{self._batches}/{batch}/cancel", body=b"", seconds=self._pace.control)

    async def results(self, door: Door, batch: str, standing: Standing, pace: Pace) -> AsyncGenerator[Result, None]:
        """As in `BatchAPI`."""
        del batch
        for file in standing.files:
            lines = door.lines(f"{self._files}/{file}/content", seconds=pace.quiet)
            try:
                async for line in lines:
                    if (result := _result(line)) is not None:
                        yield result
            finally:
                await lines.aclose()

    def decode(self, row: Row, request: LLMRequest, answer: bytes, *, key: str) -> LLMResponse | EmbeddingResponse:
        """As in `BatchAPI`."""
        if row.url == EMBEDDINGS:
            return joined([self._chat.embeddings.decode(answer, request, provider=self._provider, key=key)])
        dialect = self._responses if row.url == RESPONSES else self._chat
        return dialect.decode(answer, provider=self._provider, key=key)

    async def _uploaded(self, door: Door, part: Part) -> str | None:
        page = await door.ask("GET", f"{self._files}?purpose=batch&order=desc&limit=100", seconds=self._pace.control)
        name = _file_name(part.mark)
        return next((named(file) for file in entries(page.get("data")) if file.get("filename") == name), None)


def _edge(mark: str) -> str:
    return f"manifold-{mark}-edge"


def _file_name(mark: str) -> str:
    return f"manifold-{mark}.jsonl"


def _refusal(error: Mapping[str, Any]) -> Refusal:
    line: object = error.get("line")
    return Refusal(
        text(error.get("code")) or "invalid_request",
        text(error.get("message")) or "the vendor refused it, and does not say why",
        line if isinstance(line, int) else None,
    )


def _result(line: bytes) -> Result | None:
    """Return what a line of results says; None where it is none, such as one that was cut."""
    told = line_of(line)
    name, response = text(told.get("custom_id")), mapping(told.get("response"))
    status: object = response.get("status_code")
    if isinstance(status, int):
        body = response.get("body")
        if status == _OK:
            return Result(name, orjson.dumps(body))
        error = error_for(
            status, read_failure(cast("object", body)), request_id=text(response.get("request_id")) or None
        )
        return Result(name, error=error)
    said = mapping(told.get("error"))
    if not said:
        return None
    return Result(name, code=text(said.get("code")) or "server_error", message=text(said.get("message")))
