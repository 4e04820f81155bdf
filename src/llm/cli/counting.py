"""What a command's calls come to, added to what is kept between runs: while it runs, and at its end."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Final, Self

from llm.utils.clock import SystemClock

from .ledger import Ledger, LedgerError, Usage
from .state import state_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from llm.utils.clock import Clock

    from .shell import Shell

_EVERY: Final = 30.0  # seconds: what is lost at most where the process is killed
_NOTHING: Final = Usage()


class Counting:
    """Keeps what calls come to; a file that cannot be used is one remark and fails nothing.

    `async with` adds every half minute, and at the end, however that comes. `add` does so now.
    """

    def __init__(
        self, shell: Shell, command: str, status: Callable[[], Mapping[str, Any]], *, clock: Clock | None = None
    ) -> None:
        """Start from nothing.

        Args:
            shell: Where the remark goes.
            command: Whose calls they are.
            status: Returns what calls came to so far: `get_status` of a manager.
            clock: Its time; the machine's by default.
        """
        self._shell = shell
        self._command = command
        self._status = status
        self._clock = clock or SystemClock()
        folder = state_folder()
        self._ledger = None if folder is None else Ledger(folder)
        self._written: dict[str, Usage] = {}
        self._lock = threading.Lock()  # a thread may be writing still as the end comes
        self._told = False
        self._ended = False
        self._task: asyncio.Task[None] | None = None

    def add(self) -> None:
        """Add what came since the last time."""
        self._write(self._now())

    async def __aenter__(self) -> Self:
        """Add from time to time from now on."""
        if self._ledger is not None:
            self._task = asyncio.create_task(self._repeat())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Add what is left."""
        if self._task is not None:
            self._task.cancel()
        await asyncio.to_thread(self.add)
        self._ended = True

    async def _repeat(self) -> None:
        while True:
            await self._clock.sleep(_EVERY)
            await asyncio.to_thread(self._write, self._now())

    def _now(self) -> dict[str, Usage]:
        return {name: usage_of(shown) for name, shown in self._status()["models"].items()}

    def _write(self, now: dict[str, Usage]) -> None:
        with self._lock:
            used = {name: usage - self._written.get(name, _NOTHING) for name, usage in now.items()}
            rows = [(*_names(name), usage) for name, usage in used.items() if usage]
            if self._ledger is None or self._ended or not rows:
                return
            try:
                self._ledger.add(self._command, rows, wall=self._clock.wall())
            except LedgerError as error:
                self._tell(error)
            else:
                self._written = now

    def _tell(self, error: LedgerError) -> None:
        if not self._told:
            self._told = True
            self._shell.remark(f"what this run comes to is not in `manifold stats`: {error}")


def usage_of(shown: Mapping[str, Any]) -> Usage:
    """Return the numbers of what `get_status()["models"]` shows of a model."""
    calls, tokens, saved = shown["calls"], shown["tokens"], shown["saved"]
    return Usage(
        calls=sum(calls.values()),
        failed=calls["failed"],
        cancelled=calls["cancelled"],
        cache_hits=calls["cached"],
        unpriced=calls["answered"] if shown["cost"] is None else 0,
        input_tokens=tokens["input"],
        output_tokens=tokens["output"],
        cached_input_tokens=tokens["cached_input"],
        tokens_saved=saved["tokens"],
        cost=shown["cost"] or 0.0,
        cost_saved=saved["cost"],
    )


def _names(shown: str) -> tuple[str, str]:
    provider, _, model = shown.partition("/")
    return provider, model
