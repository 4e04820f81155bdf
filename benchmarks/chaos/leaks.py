"""What is left over when all calls have ended."""

from __future__ import annotations

import asyncio
import gc
import os
import stat
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llm.core.call import Call, CallState
from llm.core.stream import LLMStream
from llm.limits.flow import Waiter
from llm.limits.grant import Grant
from llm.middleware.broadcast import Broadcast, Reader
from llm.middleware.flight import Flight
from llm.runtime.compose import Composition
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm import LLMManager

_CLOCK: Final = SystemClock()
_PATIENCE: Final = 5.0
_OF_A_CALL: Final = (Call, LLMStream, Waiter, Grant, Broadcast, Reader, Flight)


async def settles(what: Callable[[], list[str]], *, within: float = _PATIENCE) -> list[str]:
    """Return what is still found after so many seconds; nothing as soon as nothing is."""
    until = _CLOCK.now() + within
    while (found := what()) and _CLOCK.now() < until:
        await _CLOCK.sleep(0.02)
    return found


def held(manager: LLMManager) -> list[str]:
    """Return what a manager without a call still counts as taken."""
    status = manager.get_status()
    found = [f"{name}: {status['pool'][name]}" for name in ("calls", "waiting") if status["pool"][name]]
    for name, provider in status["providers"].items():
        for key in provider["keys"]:
            if key["calls"]:
                found.append(f"{key['key']} of {name}: {key['calls']} calls")
            found += [
                f"{key['key']} of {name}: {share} of concurrent_requests"
                for limits in key["models"].values()
                if (share := _concurrency(limits))
            ]
    return found + [
        f"{name}: {share} in flight" for name, limits in status["limits"].items() if (share := _concurrency(limits))
    ]


def _concurrency(limits: dict[str, float]) -> float:
    return max([share for name, share in limits.items() if name in {"concurrent_requests", "max_size"}], default=0.0)


def alive() -> Counter[type[object]]:
    """Return how many objects of calls and of managers there are, by kind."""
    gc.collect()
    everything: list[object] = gc.get_objects()
    return Counter(kind for kind in map(_kind, everything) if kind in _KINDS)


def objects(before: Counter[type[object]], *, compositions: int) -> list[str]:
    """Return what is alive beyond what was `before`, and beyond so many compositions."""
    more = alive() - before
    more[Composition] -= compositions
    return [f"{count} of {kind.__name__}" for kind, count in more.items() if count > 0]


def _kind(each: object) -> type[object]:
    return type(each)


_KINDS: Final[frozenset[type[object]]] = frozenset({*_OF_A_CALL, Composition})


def tasks() -> list[str]:
    """Return the tasks that run code of the package, but for its doubles of vendors."""
    return [repr(task) for task in asyncio.all_tasks() if _is_ours(task)]


def places() -> list[str]:
    """Return where calls hang, and the decision logs of those that have not ended."""
    waits = [_place(task.get_coro()) for task in asyncio.all_tasks()]
    logs = [
        f"{call.state.value}: {' '.join(decision.event for decision in call.log)}"
        for call in gc.get_objects()
        if type(call) is Call and call.state is not CallState.ENDED
    ]
    return [*logs, *(place for place in waits if "/llm/" in place)]


def _place(waiting: object) -> str:
    stack: list[str] = []
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
        if frame is None:
            stack.append(repr(waiting))
            break
        stack.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)
    return " → ".join(stack)


def _is_ours(task: asyncio.Task[object]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    path = "" if code is None else code.co_filename.replace(os.sep, "/")
    return "/llm/" in path and "/llm/testing/" not in path and task is not asyncio.current_task()


def sockets() -> int:
    """Return how many sockets this process has open."""
    count = 0
    for entry in Path("/dev/fd").iterdir():
        try:
            count += stat.S_ISSOCK(os.fstat(int(entry.name)).st_mode)
        except OSError:  # the listing's own, closed by now
            continue
    return count
