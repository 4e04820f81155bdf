"""The store that programs share, as the commands of `manifold cache` see it."""

from __future__ import annotations

import asyncio
import base64
import re
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from llm.cache.answer import Answer
from llm.cache.base import CacheEntry
from llm.cache.memory import InMemoryCache
from llm.core.exceptions import LLMConfigurationError, LLMConnectionError, LLMInvalidRequestError
from llm.core.selection import Selection
from llm.runtime.stores import kind_of, open_store, place_of
from llm.utils.clock import SystemClock
from llm.utils.redact import redact

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Generator

    from llm.cache.base import CacheBackend, CacheUsage
    from llm.core.config.sections import CacheConfig

    from .shell import Shell

_Done = TypeVar("_Done")
_KEY: Final = re.compile(r"[0-9a-f]{1,64}")
_WHOLE: Final = 64  # digits of a key
_NAMED: Final = ("provider", "model", "user")
_ELSEWHERE: Final = frozenset({"provider", "cached", "cost", "latency", "attempts", "key", "raw", "parsed"})
_TOLD: Final = 4  # keys that an ambiguous one is told to mean


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer that is kept."""

    key: str
    entry: CacheEntry

    @property
    def facts(self) -> dict[str, Any]:
        """What is known of it beside its content, as JSON values; times in seconds, the size in bytes."""
        named = {name: value for name, _, value in (tag.partition(":") for tag in self.entry.tags) if name in _NAMED}
        return {
            "key": self.key,
            **{name: named.get(name) for name in _NAMED},
            "tags": [tag for tag in self.entry.tags if tag.partition(":")[0] not in _NAMED],
            "age": round(self.entry.age, 3),
            "expires_in": round(max(0.0, self.entry.ttl - self.entry.age), 3),
            "size": self.entry.size,
        }

    @property
    def answer(self) -> Answer | None:
        """The answer itself; None where it is damaged, or of another version."""
        return Answer.decode(self.entry.value)

    @property
    def whole(self) -> dict[str, Any]:
        """All of it as JSON values; `answer` is None where it is damaged, or of another version."""
        answer = self.answer
        if answer is None:
            return {**self.facts, "answer": None}
        streamed = None if answer.chunks is None else [chunk.content for chunk in answer.chunks]
        return {**self.facts, "answer": {**_plain(answer.response), "chunks": streamed}}


class Store:
    """The backend of the configuration; what goes wrong with it is told as one kind of error."""

    def __init__(self, stated: CacheConfig, backend: CacheBackend) -> None:
        """Take over the backend."""
        self.stated: CacheConfig = stated
        self._backend = backend

    @property
    def place(self) -> str:
        """Where it is, without a password."""
        return place_of(self.stated)

    async def usage(self) -> CacheUsage:
        """Return how full it is."""
        with self._telling():
            return await self._backend.usage()

    async def scan(self, chosen: Selection) -> AsyncGenerator[Kept]:
        """Go over the answers that fit, in the store's order; the semantic cache's questions beside them are none."""
        async with aclosing(self._entries(chosen)) as entries:
            async for kept in entries:
                if len(kept.key) == _WHOLE and _KEY.fullmatch(kept.key):
                    yield kept

    async def count(self, chosen: Selection) -> int:
        """Return how many entries fit, which `remove` would take."""
        return sum([1 async for _ in self._entries(chosen)])

    async def _entries(self, chosen: Selection) -> AsyncGenerator[Kept]:
        found = self._backend.scan(tags=chosen.names, older_than=chosen.older_than)
        with self._telling():
            async with aclosing(cast("AsyncGenerator[tuple[str, CacheEntry]]", found)):  # each backend's is one
                async for key, entry in found:
                    yield Kept(key, entry)

    async def find(self, begin: str) -> Kept | None:
        """Return the answer whose key begins so; None where there is none.

        Raises:
            LLMInvalidRequestError: It is no key, or several begin so.
        """
        begin = begin.lower()
        if not _KEY.fullmatch(begin):
            raise LLMInvalidRequestError(
                f"{begin!r} is no key; expected up to 64 hex digits, as `manifold cache list` has"
            )
        if len(begin) == _WHOLE:
            with self._telling():
                entry = await self._backend.get(begin)
            return None if entry is None else Kept(begin, entry)
        found = [kept async for kept in _first(_TOLD, begin, self.scan(Selection()))]
        if len(found) > 1:
            keys = ", ".join(kept.key[:16] for kept in found)
            raise LLMInvalidRequestError(f"several keys begin with {begin!r} ({keys}, …); give more of it")
        return found[0] if found else None

    async def delete(self, key: str) -> bool:
        """Remove an answer; returns whether it was there."""
        with self._telling():
            return await self._backend.delete(key)

    async def remove(self, chosen: Selection) -> int:
        """Remove the answers that fit; returns how many."""
        with self._telling():
            return await self._backend.remove(tags=chosen.names, older_than=chosen.older_than)

    async def clear(self) -> None:
        """Remove all."""
        with self._telling():
            await self._backend.clear()

    @contextmanager
    def _telling(self) -> Generator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the store's
            why = f"{type(error).__name__}: {redact(str(error))}"
            raise LLMConnectionError(
                f"the cache at {self.place} cannot be used ({why}); programs go on without it meanwhile, so see to it "
                "and try again"
            ) from None


def with_store(shell: Shell, work: Callable[[Store], Coroutine[Any, Any, _Done]]) -> _Done:
    """Return what `work` makes of the store that the configuration names.

    Raises:
        LLMConfigurationError: There is none that a second process could see.
        LLMConnectionError: It cannot be used.
    """
    stated = _shared(shell.load_config().cache)

    async def run() -> _Done:
        backend = _opened(shell, stated)
        try:
            return await work(Store(stated, backend))
        finally:
            await backend.close()

    return asyncio.run(run())


def _opened(shell: Shell, stated: CacheConfig) -> CacheBackend:
    if stated.backend == "disk" and kind_of(stated.path) == "nothing":  # looking must not make it
        where = "" if stated.path.is_absolute() else ", or the path is meant from another folder"
        shell.remark(f"there is no {place_of(stated)}: nothing was cached yet{where}")
        return InMemoryCache()
    return open_store(stated, SystemClock())


def _shared(stated: CacheConfig | None) -> CacheConfig:
    if stated is None or stated.backend == "none":
        raise LLMConfigurationError(
            "nothing is cached; switch the cache on with `cache: {backend: disk}` in llm.yaml, or redis with its url"
        )
    if stated.backend == "memory":
        raise LLMConfigurationError(
            "cache.backend is memory: each process keeps its own answers, which end with it, so there is nothing that "
            "this one could see; set cache.backend to disk, or to redis with its url"
        )
    return stated


async def _first(number: int, begin: str, found: AsyncGenerator[Kept]) -> AsyncGenerator[Kept]:
    try:
        async for kept in found:
            if number and kept.key.startswith(begin):
                number -= 1
                yield kept
            if not number:
                return
    finally:
        await found.aclose()


def _plain(value: object) -> Any:  # noqa: ANN401 - JSON
    """Return a value as JSON has it."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value) if each.name not in _ELSEWHERE}
    if isinstance(value, tuple):
        return [_plain(item) for item in cast("tuple[object, ...]", value)]
    return base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else value
