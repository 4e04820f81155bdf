"""What was submitted, noted beside the output before and after each step.

A line for each step, on the disk before the next step begins; a last line that was cut short never happened.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from llm.batch.claim import telling
from llm.core.exceptions import LLMConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_JOURNAL: Final = "journal.jsonl"
_VERSION: Final = 1


class State(StrEnum):
    """Where a part is.

    Attributes:
        PLANNED: On our disk; the vendor has nothing of it, or refused it.
        SENDING: It may be at the vendor: that it would be submitted was noted, and not yet what came of it.
        SENT: It is at the vendor, under a known name.
    """

    PLANNED = "planned"
    SENDING = "sending"
    SENT = "sent"


@dataclass(frozen=True, slots=True)
class Plan:
    """Rows that go over together, as they lie on the disk.

    Attributes:
        number: The part's number in its run.
        provider: Section of the configuration.
        url: Where its rows go.
        model: Their model.
        rows: How many there are.
        tries: How often these rows were submitted before and came back without an answer.
    """

    number: int
    provider: str
    url: str
    model: str
    rows: int
    tries: int = 0


@dataclass(slots=True)
class Part:
    """A plan and what was done with it.

    Attributes:
        plan: The rows.
        mark: What it is called at the vendor, unlike any other part of any run.
        state: Where it is.
        key: Fingerprint of the key that it went over with.
        newest: The vendor's newest batch before this one; empty where there was none, or it was not submitted.
        asked: Fingerprint of the key with which `newest` was looked up; None where it never was.
        at: When it was about to be submitted, in seconds since 1970.
        file: The file that was uploaded for it, with that key.
        batch: Its name at the vendor.
    """

    plan: Plan
    mark: str
    state: State = State.PLANNED
    key: str | None = None
    newest: str = ""
    asked: str | None = None
    at: float = 0.0
    file: str | None = None
    batch: str | None = None


class Left(NamedTuple):
    """What an earlier run left at a vendor.

    Attributes:
        engine: Through which API.
        rows: Rows that are not collected.
        submitted: Of these, rows that are at the vendor, or may be.
        batches: Batches that they are in.
        folder: Where that is noted.
    """

    engine: str
    rows: int
    submitted: int
    batches: int
    folder: Path


def folder_beside(output: str | os.PathLike[str]) -> Path:
    """Return the folder where a run over an output file keeps what it submits: `x.batches` for `x.jsonl`."""
    path = Path(os.path.realpath(output))
    return path.parent / (path.name.removesuffix(".jsonl") + ".batches")


def left_beside(output: str | os.PathLike[str]) -> Left | None:
    """Return what an earlier run left uncollected; None where that is nothing. Nothing is changed.

    Raises:
        LLMConfigurationError: The notes cannot be read.
    """
    path = folder_beside(output) / _JOURNAL
    try:
        events = _events(path.read_bytes(), path)
    except FileNotFoundError:
        return None
    if not events:
        return None
    parts = _replayed(events, path).values()
    there = [part.plan.rows for part in parts if part.state is not State.PLANNED]
    if not parts:
        return None
    engine = str(events[0]["engine"])
    return Left(engine, sum(part.plan.rows for part in parts), sum(there), len(there), path.parent)


class Ledger:
    """The notes of one run, and of those that it goes on with.

    Attributes:
        folder: Where they are, and the parts beside them.
        run: The run's name, which no other has.
        parts: What is not over, by its number.
    """

    def __init__(self, output: str | os.PathLike[str], engine: str) -> None:
        """Open nothing yet."""
        self.folder: Path = folder_beside(output)
        self.run: str = ""
        self.parts: dict[int, Part] = {}
        self._engine = engine
        self._path = self.folder / _JOURNAL
        self._descriptor: int | None = None
        self._next = 1

    def open(self) -> None:
        """Read back what earlier runs noted, and go on behind it; blocks.

        Raises:
            LLMConfigurationError: It is of another engine, or cannot be read.
            OSError: Reading or writing failed.
        """
        with telling(str(self._path)):
            self.folder.mkdir(exist_ok=True)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            data = self._path.read_bytes()
            whole = data.rfind(b"\n") + 1
            os.ftruncate(self._descriptor, whole)
        events = _events(data[:whole], self._path)
        if not events:
            self.run = secrets.token_hex(6)
            self._append([{"event": "run", "version": _VERSION, "run": self.run, "engine": self._engine}])
            return
        if events[0]["engine"] != self._engine:
            raise LLMConfigurationError(
                f"{self.folder} holds batches of {events[0]['engine']}; go on with --engine {events[0]['engine']}, or "
                "name another output"
            )
        self.run = str(events[0]["run"])
        self.parts = _replayed(events, self._path)
        self._next = 1 + max((plan["number"] for event in events for plan in event.get("plans", [])), default=0)

    def close(self) -> None:
        """Give the file back; where no part is left, there is nothing to go on with, and the folder goes."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            if not self.parts:
                shutil.rmtree(self.folder, ignore_errors=True)

    def number(self) -> int:
        """Return a number for the next part."""
        self._next += 1
        return self._next - 1

    def mark(self, number: int) -> str:
        """Return what a part of this number is called at the vendor."""
        return f"{self.run}-{number}"

    async def planned(self, plans: Sequence[Plan]) -> None:
        """Note parts that lie on the disk whole."""
        await self._note({"event": "planned", "plans": _written(plans)})
        self._add(plans)

    async def uploaded(self, part: Part, key: str, file: str) -> None:
        """Note what the vendor calls the file of a part, which went over with a key."""
        await self._change(part, {"event": "uploaded", "part": part.plan.number, "key": key, "file": file})

    async def sending(self, part: Part, key: str, newest: str, wall: float) -> None:
        """Note that a part is about to be submitted with a key, and which batch was the newest before."""
        event = {"event": "sending", "part": part.plan.number, "key": key, "newest": newest, "at": wall}
        await self._change(part, event)

    async def sent(self, part: Part, batch: str) -> None:
        """Note what the vendor calls a part."""
        await self._change(part, {"event": "sent", "part": part.plan.number, "batch": batch})

    async def refused(self, part: Part, *, file: bool = True) -> None:
        """Note that the vendor has not got a part, for sure; `file`: whether what was uploaded is still of use."""
        await self._change(part, {"event": "refused", "part": part.plan.number, "file": part.file if file else None})

    async def over(self, part: Part, plans: Sequence[Plan] = ()) -> None:
        """Note that all rows of a part are finished but those that are in other parts now; both in one step."""
        await self._note({"event": "over", "part": part.plan.number, "plans": _written(plans)})
        self._add(plans)
        del self.parts[part.plan.number]

    async def _change(self, part: Part, event: Mapping[str, Any]) -> None:
        await self._note(event)
        _apply(part, event)

    def _add(self, plans: Sequence[Plan]) -> None:
        for plan in plans:
            self.parts[plan.number] = Part(plan, self.mark(plan.number))

    async def _note(self, event: Mapping[str, Any]) -> None:
        await asyncio.to_thread(self._append, [event])

    def _append(self, events: Iterable[Mapping[str, Any]]) -> None:
        assert self._descriptor is not None  # noqa: S101 - opened by whoever runs
        with telling(str(self._path)):
            os.write(self._descriptor, b"".join([orjson.dumps(event) + b"\n" for event in events]))
            os.fsync(self._descriptor)


def _events(data: bytes, path: Path) -> list[dict[str, Any]]:
    try:
        return [orjson.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]
    except orjson.JSONDecodeError:
        pass
    raise _damaged(path)


def _written(plans: Sequence[Plan]) -> list[dict[str, Any]]:
    return [asdict(plan) for plan in plans]


def _replayed(events: Sequence[Mapping[str, Any]], path: Path) -> dict[int, Part]:
    try:
        run, parts = str(events[0]["run"]), dict[int, Part]()
        if events[0]["version"] != _VERSION:
            raise LLMConfigurationError(f"{path} was written by another version; go on with that one")
        for event in events[1:]:
            if event["event"] not in {"planned", "over"}:
                _apply(parts[event["part"]], event)
                continue
            for plan in event["plans"]:
                parts[plan["number"]] = Part(Plan(**plan), f"{run}-{plan['number']}")
            if event["event"] == "over":
                del parts[event["part"]]
    except (KeyError, TypeError):
        pass
    else:
        return parts
    raise _damaged(path)


def _damaged(path: Path) -> LLMConfigurationError:
    return LLMConfigurationError(
        f"{path} is damaged, so it is not known what is at the vendor; look there, then remove the folder"
    )


def _apply(part: Part, event: Mapping[str, Any]) -> None:
    """Change a part by what was noted of it."""
    match event["event"]:
        case "uploaded":
            part.key, part.file = event["key"], event["file"]
        case "sending":
            part.file = part.file if part.key == event["key"] else None
            part.state, part.key, part.at = State.SENDING, event["key"], event["at"]
            if part.asked != part.key:  # of several tries the first knows best what was there before
                part.newest, part.asked = event["newest"], part.key
        case "sent":
            part.state, part.batch = State.SENT, event["batch"]
        case _:
            part.state, part.batch, part.file = State.PLANNED, None, event["file"]
