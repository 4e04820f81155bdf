"""Runs one engine and has it answer: a line of JSON on stdin is a turn, one on stdout what came of it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from llm.utils.clock import SystemClock

from .shape import Files, NotHereError, Request, Room
from .ways import way

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from .shape import Engine

_LONGEST: Final = 300.0
"""Seconds that a turn may take."""
_KIB: Final = 1024


async def main(name: str, files: Files, room: Room) -> None:
    """Start the engine, say whether it is there, and take turns until stdin ends."""
    try:
        async with way(name)(files, room) as engine:
            _say({"ready": True})
            for line in sys.stdin:
                _say(await turn(engine, json.loads(line)))
    except NotHereError as error:
        _say({"failed": str(error)})


async def turn(engine: Engine, asked: dict[str, Any]) -> dict[str, Any]:
    """Return what came of a turn, or why it failed."""
    try:
        return await _bounded(_idle(engine, asked["idle"]) if "idle" in asked else _answers(engine, asked["requests"]))
    except Exception as error:  # noqa: BLE001 - whatever an engine raises is its result
        return {"failed": _why(error)}


async def _answers(engine: Engine, asked: list[dict[str, Any]]) -> dict[str, Any]:
    requests = [Request(**one) for one in asked]
    _forget_peak(engine.process)
    answers = await engine.ask(requests)
    for request, answer in zip(requests, answers, strict=True):
        if answer.tokens != request.tokens:
            raise RuntimeError(f"an answer has {answer.tokens} tokens and not {request.tokens}")
    return {"answers": [asdict(answer) for answer in answers], **_memory(engine.process)}


async def _idle(engine: Engine, seconds: float) -> dict[str, Any]:
    before = _cpu(engine.process)
    await SystemClock().sleep(seconds)
    return {"cpu": _cpu(engine.process) - before, **_memory(engine.process)}


async def _bounded(turn: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    async with SystemClock().timeout(_LONGEST):
        return await turn


def _why(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return _why(cast("BaseExceptionGroup[BaseException]", error).exceptions[0])
    return " ".join(f"{type(error).__name__}: {error}".split())


def _memory(process: int) -> dict[str, int]:
    """Return resident memory and its peak in bytes; 0 where the system does not say."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return {"resident": 0, "peak": 0}
    told = dict(line.split(":", 1) for line in lines)
    return {name: int(told[field].split()[0]) * _KIB for name, field in (("resident", "VmRSS"), ("peak", "VmHWM"))}


def _forget_peak(process: int) -> None:
    file = Path(f"/proc/{process}/clear_refs")
    if file.exists():
        file.write_text("5", encoding="ascii")


def _cpu(process: int) -> float:
    """Return the seconds of CPU time that a process took so far; 0 where the system does not say."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _say(told: dict[str, Any]) -> None:
    print(json.dumps(told), flush=True)  # noqa: T201 - the way to tell it


if __name__ == "__main__":
    told = json.loads(sys.argv[2])
    asyncio.run(
        main(sys.argv[1], Files(**{name: Path(file) for name, file in told["files"].items()}), Room(**told["room"]))
    )
