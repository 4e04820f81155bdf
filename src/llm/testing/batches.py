"""Batches at a `MockUpstream`: what is in them, and how they stand at a moment.

`batches_openai` and `batches_anthropic` say it as their vendors do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from .exchange import Play
    from .vendor import Failure, Stamp, Vendor

Outcome: TypeAlias = Literal["answered", "failed", "refused", "expired", "lost"]
"""What becomes of a row: `failed` is a 500, `refused` a 400, and of a `lost` one the results tell nothing."""

Stage: TypeAlias = Literal["validating", "invalid", "running", "cancelling", "ended"]

_FAILED: Final = "server_error"
_REFUSED: Final = "invalid"


@dataclass(frozen=True, slots=True)
class BatchScript:
    """How the batches of a `MockUpstream` go.

    Attributes:
        validating: Seconds until a batch is checked.
        running: Seconds from then until all its rows have their end; OpenAI's come evenly over it.
        cancelling: Seconds from a cancellation to its end.
        outcome: Returns what becomes of a row, by its `custom_id` and how often that id was submitted, from 1; without
            it every row is answered.
        invalid: Returns what is wrong with a row's request, None where nothing is; OpenAI then refuses its whole file.
        enqueued_tokens: Most tokens of the prompts of a key's batches that have not ended; OpenAI fails a batch beyond
            that. None for any number.
        most_rows: Most rows of a batch; None for the vendor's own.
    """

    validating: float = 0.0
    running: float = 0.0
    cancelling: float = 0.0
    outcome: Callable[[str, int], Outcome] | None = None
    invalid: Callable[[Mapping[str, Any]], str | None] | None = None
    enqueued_tokens: int | None = None
    most_rows: int | None = None


class MockRow(NamedTuple):
    """A row of a batch.

    Attributes:
        custom_id: Its name.
        url: Where it goes.
        body: Its request.
        outcome: What becomes of it, unless it is cancelled.
    """

    custom_id: str
    url: str
    body: Mapping[str, Any]
    outcome: Outcome


class Refusal(NamedTuple):
    """Why a batch was refused after it was taken.

    Attributes:
        code: The vendor's code.
        message: Its words.
        line: The line of the file, from 1; None where it is about all of it.
    """

    code: str
    message: str
    line: int | None = None


@dataclass(slots=True)
class MockBatch:
    """A batch that was submitted; `repr` shows neither key nor content.

    Attributes:
        id: Its name at the vendor.
        key: The key that submitted it.
        owner: The key or the group whose batches see each other.
        rows: What is in it.
        at: When it was submitted, in monotonic seconds.
        wall: The same in seconds since 1970.
        endpoint: Where its rows go.
        metadata: What was attached to it.
        input_file: The file that it was made of; empty where its rows came with it.
        refusals: Why it is refused; empty where it is not.
        cancelled_at: When it was cancelled, in monotonic seconds; None where it was not.
        tokens: Tokens of its prompts.
    """

    id: str
    key: str | None = field(repr=False)
    owner: str | None = field(repr=False)
    rows: list[MockRow] = field(repr=False)
    at: float
    wall: float
    endpoint: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    input_file: str = ""
    refusals: list[Refusal] = field(default_factory=list[Refusal])
    cancelled_at: float | None = None
    tokens: int = 0

    @property
    def custom_ids(self) -> list[str]:
        """The names of its rows."""
        return [row.custom_id for row in self.rows]

    def stage(self, now: float, script: BatchScript) -> Stage:
        """Return how far it is."""
        if self.cancelled_at is not None and now >= self.cancelled_at:
            return "ended" if now >= self.cancelled_at + script.cancelling else "cancelling"
        if now < self.at + script.validating:
            return "validating"
        if self.refusals:
            return "invalid"
        return "ended" if now >= self._end(script) else "running"

    def done(self, now: float, script: BatchScript) -> int:
        """Return how many rows have come to their end, the first before the others."""
        until = now if self.cancelled_at is None else min(now, self.cancelled_at)
        if self.refusals or until < self.at + script.validating:
            return 0
        if until >= self._end(script):
            return len(self.rows)
        return int(len(self.rows) * (until - self.at - script.validating) / script.running)

    def ended_at(self, script: BatchScript) -> float:
        """Return when it ends or has ended, in monotonic seconds."""
        if self.cancelled_at is not None:
            return self.cancelled_at + script.cancelling
        return self.at + script.validating if self.refusals else self._end(script)

    def outcomes(self, now: float, script: BatchScript) -> list[tuple[MockRow, Outcome | Literal["cancelled"]]]:
        """Return each row with what became of it."""
        done = self.done(now, script)
        return [(row, row.outcome if place < done else "cancelled") for place, row in enumerate(self.rows)]

    def _end(self, script: BatchScript) -> float:
        return self.at + script.validating + script.running


class Call(NamedTuple):
    """A request to a batch API.

    Attributes:
        method: Its method.
        path: Its path behind the version.
        query: What stands behind the question mark, by name.
        headers: Its headers, names in lower case.
        body: Its body.
        key: Its key.
        stamp: When it came.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    key: str | None
    stamp: Stamp


class Desk(Protocol):
    """The batch API of one vendor."""

    shelf: Shelf
    """What it knows."""

    def owns(self, method: str, path: str) -> bool:
        """Return whether a request to this path, behind the version, is for it."""
        ...

    def serve(self, call: Call) -> Play | Failure:
        """Answer a request for which `owns` holds."""
        ...


class Speaks(Protocol):
    """Answers a row: with the body of an answer, or with the failure there is instead."""

    def __call__(self, url: str, body: Mapping[str, Any], stamp: Stamp) -> bytes | Failure:
        """Answer the request `body` to the path `url`."""
        ...


class Shelf:
    """All batches of a server, the latest last.

    Attributes:
        batches: What was submitted.
        script: How they go.
    """

    def __init__(self, vendor: Vendor, script: BatchScript, groups: Mapping[str, str], speaks: Speaks) -> None:
        """Start empty; keys of one group see each other's batches."""
        self.batches: list[MockBatch] = []
        self.script: BatchScript = script
        self._vendor = vendor
        self._groups = groups
        self._speaks = speaks
        self._submitted: Counter[str] = Counter()

    def owner(self, key: str | None) -> str | None:
        """Return whose batches a key sees."""
        return None if key is None else self._groups.get(key, key)

    def rows(self, given: list[tuple[str, str, Mapping[str, Any]]]) -> list[MockRow]:
        """Take rows that are submitted: names, paths and bodies."""
        taken: list[MockRow] = []
        for custom_id, url, body in given:
            self._submitted[custom_id] += 1
            outcome = self.script.outcome
            made: Outcome = "answered" if outcome is None else outcome(custom_id, self._submitted[custom_id])
            taken.append(MockRow(custom_id, url, body, made))
        return taken

    def find(self, name: str, key: str | None) -> MockBatch | None:
        """Return a batch that a key sees."""
        owner = self.owner(key)
        return next((batch for batch in self.batches if batch.id == name and batch.owner == owner), None)

    def page(self, call: Call, after: str) -> tuple[list[MockBatch], bool]:
        """Return the batches that a list shows, the latest first, and whether there are more behind them.

        Args:
            call: Who asks, with its `limit`.
            after: Name of the parameter that names the batch before the first.
        """
        owner, limit = self.owner(call.key), int(call.query.get("limit", "20"))
        seen = [batch for batch in reversed(self.batches) if batch.owner == owner]
        start = next((n + 1 for n, batch in enumerate(seen) if batch.id == call.query.get(after)), 0)
        return seen[start : start + limit], len(seen) > start + limit

    def enqueued(self, owner: str | None, now: float) -> int:
        """Return the tokens of the prompts of the batches that have not ended."""
        open_ones = [batch for batch in self.batches if batch.owner == owner]
        waiting = {"validating", "running", "cancelling"}
        return sum(batch.tokens for batch in open_ones if batch.stage(now, self.script) in waiting)

    def answer(self, row: MockRow, outcome: Outcome, stamp: Stamp) -> bytes | Failure:
        """Return the body of a row's answer, or its failure."""
        if outcome == "answered":
            return self._speaks(row.url, row.body, stamp)
        return self._vendor.failure(_REFUSED if outcome == "refused" else _FAILED)
