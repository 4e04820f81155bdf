"""Anthropic's message batches, at a `MockUpstream`.

Source: https://docs.claude.com/en/api/creating-message-batches and its neighbours
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, cast

import orjson

from llm.providers.serving.fields import is_mapping

from .batches import Call, MockBatch, MockRow
from .batches_openai import jsonl
from .service import whole
from .vendor import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .batches import Outcome, Shelf
    from .exchange import Play

_BAD: Final = "invalid_request_error"
_GONE: Final = Failure(404, "not_found_error", "Not found")
_MOST_ROWS: Final = 100_000
_PATH: Final = re.compile(r"/messages/batches(?:/([\w-]+)(?:/(cancel|results))?)?")
_MESSAGES: Final = "/v1/messages"
_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_RESULTS: Final = {"expired": "expired", "cancelled": "canceled"}


class AnthropicDesk:
    """Message batches."""

    def __init__(self, shelf: Shelf) -> None:
        """Keep batches on `shelf`."""
        self.shelf: Shelf = shelf

    def owns(self, method: str, path: str) -> bool:
        """As in `Desk`."""
        return method in {"GET", "POST", "DELETE"} and _PATH.fullmatch(path) is not None

    def serve(self, call: Call) -> Play | Failure:
        """As in `Desk`."""
        found = cast("re.Match[str]", _PATH.fullmatch(call.path))
        name, action = found.groups()
        if name is None:
            return self._create(call) if call.method == "POST" else self._list(call)
        batch = self.shelf.find(name, call.key)
        if batch is None:
            return _GONE
        script, now = self.shelf.script, call.stamp.now
        ended = batch.stage(now, script) == "ended"
        if action == "results":
            return jsonl(self._results(batch, call), now) if ended else _GONE
        if call.method == "DELETE":
            if not ended:
                return Failure(400, _BAD, "a batch that has not ended cannot be deleted")
            self.shelf.batches.remove(batch)
            return _said({"id": name, "type": "message_batch_deleted"}, call)
        if action == "cancel" and not ended:
            batch.cancelled_at = now
        return _said(self._shown(batch, call), call)

    def _list(self, call: Call) -> Play:
        page, more = self.shelf.page(call, "after_id")
        shown = [self._shown(batch, call) for batch in page]
        ids = {"first_id": shown[0]["id"], "last_id": shown[-1]["id"]} if shown else {"first_id": None, "last_id": None}
        return _said({"data": shown, "has_more": more, **ids}, call)

    def _create(self, call: Call) -> Play | Failure:
        read: object = orjson.loads(call.body)
        asked: list[Mapping[str, Any]] = read.get("requests", []) if is_mapping(read) else []
        given = [(str(row.get("custom_id")), _MESSAGES, cast("Mapping[str, Any]", row.get("params"))) for row in asked]
        wrong = self._wrong(given)
        if wrong is not None:
            return Failure(400, _BAD, wrong)
        rows = self.shelf.rows(given)
        name = f"msgbatch_{call.stamp.number:024x}"
        batch = MockBatch(name, call.key, self.shelf.owner(call.key), rows, call.stamp.now, call.stamp.wall, _MESSAGES)
        self.shelf.batches.append(batch)
        return _said(self._shown(batch, call), call)

    def _wrong(self, given: list[tuple[str, str, Mapping[str, Any]]]) -> str | None:
        names = [name for name, _, _ in given]
        if not names or len(names) > (self.shelf.script.most_rows or _MOST_ROWS):
            return f"requests: List should have from 1 to {self.shelf.script.most_rows or _MOST_ROWS} items"
        if len(set(names)) < len(names):
            return "requests: custom_id must be unique"
        bad = next((place for place, name in enumerate(names) if not _NAME.fullmatch(name)), None)
        return (
            None if bad is None else f"requests.{bad}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'"
        )

    def _shown(self, batch: MockBatch, call: Call) -> dict[str, Any]:
        script, now = self.shelf.script, call.stamp.now
        stage = batch.stage(now, script)
        ended = stage == "ended"
        outcomes = batch.outcomes(now, script) if ended else []
        counts = Counter(_result_type(outcome) for _, outcome in outcomes)
        host = call.headers.get("host", "upstream.test")
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": "ended" if ended else "canceling" if stage == "cancelling" else "in_progress",
            "request_counts": {
                "processing": 0 if ended else len(batch.rows),
                **{kind: counts[kind] for kind in ("succeeded", "errored", "canceled", "expired")},
            },
            "created_at": _rfc3339(batch.wall),
            "expires_at": _rfc3339(batch.wall + 86_400),
            "ended_at": _rfc3339(call.stamp.wall + batch.ended_at(script) - now) if ended else None,
            "cancel_initiated_at": None if batch.cancelled_at is None else _rfc3339(call.stamp.wall),
            "archived_at": None,
            "results_url": f"http://{host}/v1/messages/batches/{batch.id}/results" if ended else None,
        }

    def _results(self, batch: MockBatch, call: Call) -> bytes:
        lines: list[bytes] = []
        for place, (row, outcome) in enumerate(batch.outcomes(call.stamp.now, self.shelf.script)):
            if outcome == "lost":
                continue
            lines.append(orjson.dumps({"custom_id": row.custom_id, "result": self._result(row, outcome, place, call)}))
        return b"".join([line + b"\n" for line in lines])

    def _result(self, row: MockRow, outcome: str, place: int, call: Call) -> dict[str, Any]:
        if outcome in _RESULTS:
            return {"type": _RESULTS[outcome]}
        invalid = self.shelf.script.invalid
        wrong = None if invalid is None else invalid({"custom_id": row.custom_id, "params": row.body})
        if wrong is not None:
            body: bytes | Failure = Failure(400, _BAD, wrong)
        else:
            body = self.shelf.answer(row, cast("Outcome", outcome), call.stamp._replace(number=place))
        if isinstance(body, Failure):
            error = {"type": "error", "error": {"type": body.type, "message": body.message}, "request_id": None}
            return {"type": "errored", "error": error}
        return {"type": "succeeded", "message": orjson.Fragment(body)}


def _result_type(outcome: str) -> str:
    return {"answered": "succeeded", **_RESULTS}.get(outcome, "errored")


def _said(value: Mapping[str, Any], call: Call) -> Play:
    return whole(orjson.dumps(value), call.stamp.now)


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
