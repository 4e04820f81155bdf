"""`watch: true`: the files that a configuration was read from are looked at, and read again when one changed.

Looked at by their times, size and place on the disk, so that a file which another took the place of is seen, too: by a
rename, or where a link on the way leads elsewhere now, as Kubernetes swaps them; and one that may be read again.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, NamedTuple

from .exceptions import LLMException, LLMPoolExhaustedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from pathlib import Path

    from llm.utils.clock import Clock, Timer

    from .config import LLMConfig
    from .sealed import SealedSource


_INTERVAL: Final = 2.0
"""Seconds between two looks."""

_SETTLES: Final = 0.2
"""Seconds for which a changed file must stay as it is; a part of one may well be a configuration."""

_logger = logging.getLogger("llm.config")


class Stamp(NamedTuple):
    """What changes with a file: nanoseconds of its times, bytes, and its place on the disk."""

    written: int
    changed: int
    size: int
    inode: int
    device: int


class Watch:
    """Looks at the files of a manager's configuration; a timer, and a task only while it looks."""

    def __init__(
        self, current: Callable[[], LLMConfig], reload: Callable[[], Awaitable[None]], *, clock: Clock
    ) -> None:
        """Look at nothing yet.

        Args:
            current: Returns the configuration in force.
            reload: Puts what the source says now in force.
            clock: Its time.
        """
        self._current = current
        self._reload = reload
        self._clock = clock
        self._source: SealedSource | None = None
        self._seen: dict[Path, Stamp | None] | None = None
        self._timer: Timer | None = None
        self._looking: asyncio.Task[None] | None = None

    def follow(self, source: SealedSource) -> None:
        """Look at the files of `source` from now on, where the configuration in force says so; else at none."""
        if not self._current().watch:
            self.stop()
        elif source is not self._source:
            self._source, self._seen = source, None
            self._start()

    def stop(self) -> None:
        """Look no more."""
        self._source = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def close(self) -> None:
        """Stop, give up what is being read, and wait until nothing is left."""
        self.stop()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])

    def _start(self) -> None:
        if self._timer is None and self._looking is None:
            self._timer = self._clock.call_later(_INTERVAL, self._due)

    def _due(self) -> None:
        self._timer = None
        self._looking = asyncio.get_running_loop().create_task(self._look())
        self._looking.add_done_callback(self._looked)

    def _looked(self, _: object) -> None:
        self._looking = None
        if self._source is not None:
            self._start()

    async def _look(self) -> None:
        try:
            await self._look_at_files()
        except RuntimeError:
            return  # there is no thread to look in, as where the loop is about to end

    async def _look_at_files(self) -> None:
        source, seen = self._source, self._seen
        if source is None:
            return
        if seen is not None and not await self._changed(seen):
            return
        # Before it is read, so that what changes meanwhile is seen at the next look. The first look reads it anyhow: it
        # may have changed since the manager opened.
        now = await asyncio.to_thread(lambda: _stamps(source.files()))
        if source is not self._source:
            return
        self._seen = now
        if not now:
            _logger.warning("watch: there is no file to watch; give a path, or have the file say `watch: false`")
            self.stop()
        elif _is_empty(source, now):
            # It would be a configuration; but whoever writes a file empties it first, and a full disk leaves it so.
            _logger.warning("the configuration's file is empty, and the one before stays in force")
        else:
            await self._read(source)

    async def _changed(self, seen: dict[Path, Stamp | None]) -> bool:
        """Return whether a file is another one, and stays as it is."""
        now = await asyncio.to_thread(_stamps, seen)
        if now == seen:
            return False
        await self._clock.sleep(_SETTLES)
        return await asyncio.to_thread(_stamps, seen) == now

    async def _read(self, source: SealedSource) -> None:
        try:
            if await asyncio.to_thread(source.load) != self._current():
                await self._reload()
                _logger.info("the configuration changed, and is in force")
        except LLMPoolExhaustedError:  # closed meanwhile
            return
        except LLMException as error:
            _logger.warning("the configuration changed, and the one before stays in force: %s", error)
        except Exception as error:  # noqa: BLE001 - what a provider's own code raises may hold a key, and is no end
            told = type(error).__name__
            _logger.warning("the configuration changed, and the one before stays in force: it raised %s", told)


def _is_empty(source: SealedSource, stamps: dict[Path, Stamp | None]) -> bool:
    file = source.file()
    stamp = None if file is None else stamps.get(file)
    return stamp is not None and not stamp.size


def _stamps(files: Iterable[Path]) -> dict[Path, Stamp | None]:
    return {file: _stamp(file) for file in files}


def _stamp(file: Path) -> Stamp | None:
    """Return the stamp of a file; None where there is none."""
    try:
        stat = file.stat()
    except (OSError, ValueError):
        return None
    return Stamp(stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino, stat.st_dev)
