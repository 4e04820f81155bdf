"""OpenAI's files and batches, at a `MockUpstream`.

Source: https://platform.openai.com/docs/api-reference/files and https://platform.openai.com/docs/api-reference/batch
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import orjson

from llm.providers.serving.fields import is_mapping

from .batches import Call, MockBatch, MockRow, Refusal
from .echo import CHARACTERS_PER_TOKEN
from .exchange import Frame, Play
from .service import whole
from .vendor import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .batches import Outcome, Shelf, Stage

_BAD: Final = "invalid_request_error"
_GONE: Final = Failure(404, _BAD, "No such object.")
_MOST_ROWS: Final = 50_000
_PIECE: Final = 64 * 1024
_PATH: Final = re.compile(r"/(files|batches)(?:/([\w-]+)(?:/(content|cancel))?)?")
_STATUS: Final[Mapping[Stage, str]] = {
    "validating": "validating",
    "invalid": "failed",
    "running": "in_progress",
    "cancelling": "cancelling",
    "ended": "completed",
}
_BOUNDARY: Final = re.compile(r'boundary="?([^";]+)"?')
_FIELD: Final = re.compile(rb'name="(\w+)"(?:; filename="([^"]*)")?')


@dataclass(frozen=True, slots=True)
class _File:
    id: str
    owner: str | None
    name: str
    data: bytes
    wall: float

    def shown(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "file",
            "bytes": len(self.data),
            "created_at": int(self.wall),
            "filename": self.name,
            "purpose": "batch",
            "status": "processed",
        }


class OpenAIDesk:
    """Files and batches."""

    def __init__(self, shelf: Shelf) -> None:
        """Keep batches on `shelf`."""
        self.shelf: Shelf = shelf
        self._files: dict[str, _File] = {}

    def owns(self, method: str, path: str) -> bool:
        """As in `Desk`."""
        return method in {"GET", "POST", "DELETE"} and _PATH.fullmatch(path) is not None

    def serve(self, call: Call) -> Play | Failure:
        """As in `Desk`."""
        found = cast("re.Match[str]", _PATH.fullmatch(call.path))
        kind, name, action = found.groups()
        if kind == "files":
            return self._serve_file(call, name, action)
        return self._serve_batch(call, name, action)

    def _serve_file(self, call: Call, name: str | None, action: str | None) -> Play | Failure:
        owner = self.shelf.owner(call.key)
        if name is None:
            return self._upload(call) if call.method == "POST" else self._list_files(call)
        file = self._file(name, call)
        if file is None or file.owner != owner:
            return _GONE
        if action == "content":
            return jsonl(file.data, call.stamp.now)
        if call.method == "DELETE":
            self._files.pop(name, None)
            return _said({"id": name, "object": "file", "deleted": True}, call)
        return _said(file.shown(), call)

    def _upload(self, call: Call) -> Play | Failure:
        fields = _parts(call)
        name, data = fields.get("file", ("", b""))
        if fields.get("purpose") != ("", b"batch") or "file" not in fields:
            return Failure(400, _BAD, "expected a file and the purpose `batch`")
        identifier = f"file-{call.stamp.number:024x}"
        file = _File(identifier, self.shelf.owner(call.key), name, data, call.stamp.wall)
        self._files[identifier] = file
        return _said(file.shown(), call)

    def _list_files(self, call: Call) -> Play:
        owner, limit = self.shelf.owner(call.key), int(call.query.get("limit", "10000"))
        seen = [file for file in reversed(self._files.values()) if file.owner == owner]
        start = next((n + 1 for n, file in enumerate(seen) if file.id == call.query.get("after")), 0)
        page = [file.shown() for file in seen[start : start + limit]]
        return _listed(page, call, more=len(seen) > start + limit)

    def _file(self, name: str, call: Call) -> _File | None:
        """Return a file that was uploaded, or one of a batch's results."""
        if name in self._files:
            return self._files[name]
        which, _, batch_id = name.partition("-of-")
        batch = self.shelf.find(batch_id, call.key)
        if batch is None:
            return None
        answers, errors = self._results(batch, call)
        data = answers if which == "file-answers" else errors
        return _File(name, batch.owner, f"{batch_id}.jsonl", data, batch.wall) if data else None

    def _serve_batch(self, call: Call, name: str | None, action: str | None) -> Play | Failure:
        if name is None:
            if call.method == "POST":
                return self._create(call)
            page, more = self.shelf.page(call, "after")
            return _listed([self._shown(batch, call) for batch in page], call, more=more)
        batch = self.shelf.find(name, call.key)
        if batch is None:
            return _GONE
        if action == "cancel" and batch.stage(call.stamp.now, self.shelf.script) in {"validating", "running"}:
            batch.cancelled_at = call.stamp.now
        return _said(self._shown(batch, call), call)

    def _create(self, call: Call) -> Play | Failure:
        read: object = orjson.loads(call.body)
        asked: Mapping[str, Any] = read if is_mapping(read) else {}
        file = self._files.get(str(asked.get("input_file_id")))
        if file is None or file.owner != self.shelf.owner(call.key):
            return Failure(400, _BAD, "input_file_id names no file")
        endpoint = str(asked.get("endpoint"))
        rows, refusals = self._read(file.data, endpoint)
        tokens = len(file.data) // CHARACTERS_PER_TOKEN
        batch = MockBatch(
            f"batch_{call.stamp.number:024x}",
            call.key,
            file.owner,
            rows,
            call.stamp.now,
            call.stamp.wall,
            endpoint,
            asked.get("metadata") or {},
            file.id,
            refusals,
            tokens=tokens,
        )
        most = self.shelf.script.enqueued_tokens
        if most is not None and self.shelf.enqueued(file.owner, call.stamp.now) + tokens > most:
            said = f"Enqueued token limit reached. Limit: {most:,} enqueued tokens."
            batch.refusals = [Refusal("token_limit_exceeded", said)]
        self.shelf.batches.append(batch)
        return _said(self._shown(batch, call), call)

    def _read(self, data: bytes, endpoint: str) -> tuple[list[MockRow], list[Refusal]]:
        script = self.shelf.script
        given: list[tuple[str, str, Mapping[str, Any]]] = []
        refusals: list[Refusal] = []
        models: set[object] = set()
        for number, line in enumerate(data.rstrip(b"\n").split(b"\n"), 1):
            read: Mapping[str, Any] = orjson.loads(line)
            body = read["body"]
            wrong = None if script.invalid is None else script.invalid(read)
            if read.get("url") != endpoint:
                refusals.append(Refusal("invalid_url", "The URL differs from the batch's endpoint.", number))
            elif wrong is not None:
                refusals.append(Refusal("invalid_request", wrong, number))
            models.add(body.get("model"))
            given.append((read["custom_id"], read["url"], body))
        if len(models) > 1:
            refusals.append(Refusal("mismatched_model", "All requests of a file must be for one model."))
        if len(given) > (script.most_rows or _MOST_ROWS):
            refusals.append(Refusal("invalid_file", "The file has too many requests."))
        return self.shelf.rows(given), refusals

    def _shown(self, batch: MockBatch, call: Call) -> dict[str, Any]:
        script, now = self.shelf.script, call.stamp.now
        stage = batch.stage(now, script)
        done = batch.outcomes(now, script)[: batch.done(now, script)]
        answered = sum(outcome == "answered" for _, outcome in done)
        answers, errors = self._results(batch, call) if stage == "ended" else (b"", b"")
        return {
            "id": batch.id,
            "object": "batch",
            "endpoint": batch.endpoint,
            "errors": {"object": "list", "data": [_refusal(refusal) for refusal in batch.refusals]}
            if stage == "invalid"
            else None,
            "input_file_id": batch.input_file,
            "completion_window": "24h",
            "status": self._status(batch, stage, done),
            "output_file_id": f"file-answers-of-{batch.id}" if answers else None,
            "error_file_id": f"file-errors-of-{batch.id}" if errors else None,
            "created_at": int(batch.wall),
            "expires_at": int(batch.wall) + 86_400,
            "request_counts": {
                "total": 0 if stage in {"validating", "invalid"} else len(batch.rows),
                "completed": answered,
                "failed": len(done) - answered,
            },
            "metadata": batch.metadata,
        }

    def _status(self, batch: MockBatch, stage: Stage, done: list[Any]) -> str:
        if stage != "ended":
            return _STATUS[stage]
        if batch.cancelled_at is not None:
            return "cancelled"
        return "expired" if any(outcome == "expired" for _, outcome in done) else "completed"

    def _results(self, batch: MockBatch, call: Call) -> tuple[bytes, bytes]:
        answers, errors = list[bytes](), list[bytes]()
        for place, (row, outcome) in enumerate(batch.outcomes(call.stamp.now, self.shelf.script)):
            if outcome == "lost":
                continue
            name = f"batch_req_{place:024x}"
            if outcome in {"expired", "cancelled"}:
                said = {"code": f"batch_{outcome}", "message": f"This request was not executed: the batch {outcome}."}
                errors.append(_line(name, row, None, said))
                continue
            stamp = call.stamp._replace(number=place)
            body = self.shelf.answer(row, cast("Outcome", outcome), stamp)
            if isinstance(body, Failure):
                error = {"error": {"message": body.message, "type": body.type, "param": None, "code": body.code}}
                errors.append(_line(name, row, {"status_code": body.status, "request_id": name, "body": error}, None))
            else:
                told = {"status_code": 200, "request_id": name, "body": orjson.Fragment(body)}
                answers.append(_line(name, row, told, None))
        return b"".join(answers), b"".join(errors)


def jsonl(data: bytes, at: float) -> Play:
    """Return the play of a file, in pieces."""
    frames = [Frame(at, data[start : start + _PIECE]) for start in range(0, len(data), _PIECE)]
    return Play(200, {"content-type": "application/octet-stream"}, frames, at, length=len(data))


def _line(name: str, row: MockRow, response: object, error: object) -> bytes:
    return orjson.dumps({"id": name, "custom_id": row.custom_id, "response": response, "error": error}) + b"\n"


def _refusal(refusal: Refusal) -> dict[str, Any]:
    return {"code": refusal.code, "message": refusal.message, "param": None, "line": refusal.line}


def _said(value: Mapping[str, Any], call: Call) -> Play:
    return whole(orjson.dumps(value), call.stamp.now)


def _listed(page: list[dict[str, Any]], call: Call, *, more: bool) -> Play:
    ids = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {"first_id": None, "last_id": None}
    return _said({"object": "list", "data": page, **ids, "has_more": more}, call)


def _parts(call: Call) -> dict[str, tuple[str, bytes]]:
    """Return the fields of a form: the name of a file, and what it holds. Source: RFC 7578."""
    boundary = _BOUNDARY.search(call.headers.get("content-type", ""))
    fields: dict[str, tuple[str, bytes]] = {}
    if boundary is None:
        return fields
    for part in call.body.split(b"--" + boundary[1].encode()):
        head, _, data = part.partition(b"\r\n\r\n")
        named = _FIELD.search(head)
        if named is not None:
            fields[named[1].decode()] = ((named[2] or b"").decode(), data.removesuffix(b"\r\n"))
    return fields
