"""The other promises: a warm prefix, a stream beside a long prompt, idle time, memory after many requests."""

from __future__ import annotations

from random import Random
from statistics import median
from typing import TYPE_CHECKING, Final

from .figures import HELD_UP, IDLE, KEPT, WARM_PREFIX, Promise, gaps_of
from .measure import FailedError, answers_of, started, warm_up
from .prompts import prompt, prompts
from .shape import LLAMA, OURS, SERVE, Request, Room

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .measure import Tell, Worker
    from .shape import Files

ENGINES: Final = (OURS, SERVE, LLAMA)
"""Those that take a request while another runs."""
_ROOM: Final = Room(2, 4096)
_PREFIX: Final = 1000  # tokens
_QUESTION: Final = 20
_PREFIXES: Final = 3
_LONG: Final = 2800
_RUNNING: Final = 256
_COMES: Final = 0.3  # seconds after the stream was asked for
_IDLE: Final = 5.0
_SHORT: Final = 16
_BATCH: Final = 32
_BATCHES: Final = 32
_WARM_BATCHES: Final = 3


def promises(engines: Sequence[str], files: Files, tell: Tell, *, memory: bool) -> Iterator[list[Promise]]:
    """Give what engines come to, again after each; they have fresh processes. Memory takes minutes: it is asked for."""
    looked: dict[str, Callable[[Worker], float]] = {WARM_PREFIX: warm_prefix, HELD_UP: held_up, IDLE: idle}
    found: list[Promise] = []
    for engine in (name for name in ENGINES if name in engines):
        found += _of(engine, _ROOM, looked, files, tell)
        yield found
        if memory and engine == OURS:
            found += _of(engine, Room(_BATCH, 256), {KEPT: kept}, files, tell)
            yield found


def _of(
    engine: str, room: Room, looked: dict[str, Callable[[Worker], float]], files: Files, tell: Tell
) -> list[Promise]:
    found: list[Promise] = []
    try:
        with started(engine, files, room) as worker:
            warm_up(worker)
            for what, look in looked.items():
                tell(f"{engine}: {what}")
                found.append(Promise(what, engine, _value(look, worker)))
    except FailedError:
        return [Promise(what, engine, None) for what in looked]
    return found


def _value(look: Callable[[Worker], float], worker: Worker) -> float | None:
    try:
        return look(worker)
    except FailedError:
        return None


def warm_prefix(worker: Worker) -> float:
    """Return the time to the first token behind a prefix that was read before, over that of the first time."""
    ratios: list[float] = []
    for number in range(_PREFIXES):
        random = Random(f"prefix {number}")  # noqa: S311 - not for secrets
        prefix = prompt(_PREFIX, random)
        cold, warm = (_first(worker, f"{prefix} {prompt(_QUESTION, random)}") for _ in range(2))
        ratios.append(warm / cold)
    return median(ratios)


def held_up(worker: Worker) -> float:
    """Return the longest gap of a stream, in seconds, from a long prompt's coming on."""
    random = Random("long")  # noqa: S311 - not for secrets
    stream = Request(prompt(_QUESTION, random), _RUNNING)
    long = Request(prompt(_LONG, random), 2, after=_COMES)
    running, late = answers_of(worker, [stream, long])[0]
    gaps = gaps_of(running, late.begun)
    if not gaps:
        raise FailedError("the stream ended before the long prompt came")
    return max(gaps)


def idle(worker: Worker) -> float:
    """Return the seconds of CPU time that nothing takes."""
    return float(worker({"idle": _IDLE})["cpu"])


def kept(worker: Worker) -> float:
    """Return by how many MiB resident memory grows over a thousand short requests, behind a hundred others."""
    _short(worker, "first", _WARM_BATCHES)
    before = worker({"idle": 0.5})["resident"]
    _short(worker, "then", _BATCHES)
    return float(worker({"idle": 0.5})["resident"] - before) / 2**20


def _short(worker: Worker, name: str, batches: int) -> None:
    for number in range(batches):
        texts = [text[:200].rpartition(" ")[0] for text in prompts(_BATCH, seed=f"{name} {number}")]
        answers_of(worker, [Request(text, _SHORT) for text in texts])


def _first(worker: Worker, text: str) -> float:
    (answer,), _ = answers_of(worker, [Request(text, 2)])
    return answer.pieces[0] - answer.begun
