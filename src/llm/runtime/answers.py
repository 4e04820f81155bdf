"""The answers that are kept: how many they are, and how they are taken out again."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from llm.cache.key import cache_key
from llm.cache.memory import InMemoryCache
from llm.core.exceptions import LLMConnectionError
from llm.core.types import CachePolicy
from llm.utils.redact import redact

from .stores import is_same_store, open_cache, place_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable

    from llm.cache.base import CacheBackend
    from llm.core.config.sections import CacheConfig
    from llm.core.selection import Selection
    from llm.core.types import LLMRequest
    from llm.utils.clock import Clock

_Done = TypeVar("_Done")
_PATIENCE = 1.0  # seconds that removing waits for what is being written


class Answers:
    """The answers that a manager keeps.

    Attributes:
        backend: Where they are.
    """

    def __init__(
        self,
        stated: CacheConfig,
        *,
        clock: Clock,
        spawn: Callable[[Coroutine[object, object, None]], None],
        before: Answers | None = None,
        beside: Answers | None = None,
    ) -> None:
        """Open the store; what was kept `before` stays, and so does what is on its way there.

        Args:
            stated: Where they are kept.
            clock: Its time.
            spawn: Runs what must not delay a call.
            before: Those of the configuration before this one.
            beside: Those of another loop; a store in memory is one for both, and theirs to close.

        Raises:
            LLMConfigurationError: There is no such store.
        """
        self._stated = stated
        kin = before if beside is None or stated.backend != "memory" else beside
        same = kin is not None and is_same_store(stated, kin._stated)
        self.backend: CacheBackend = kin.backend if kin is not None and same else open_cache(stated, clock)
        self._borrowed: bool = same and kin is not None and (kin is beside or kin._borrowed)
        self._clock = clock
        self._spawn = spawn
        self._writing: set[asyncio.Future[None]] = set() if before is None else before._writing

    def write(self, work: Coroutine[object, object, None]) -> None:
        """Run what puts an answer into the store, beside the calls."""
        done = asyncio.get_running_loop().create_future()
        self._writing.add(done)
        self._spawn(self._counted(work, done))

    def key(self, provider: str, request: LLMRequest) -> str:
        """Return the key of the answer that a provider gives to a request.

        Raises:
            LLMInvalidRequestError: It has no JSON form, and so no key.
        """
        policy = request.cache if isinstance(request.cache, CachePolicy) else None
        scope = (None if policy is None else policy.scope) or self._stated.scope
        return cache_key(request, provider=provider, scope=scope, user=request.user)

    async def has(self, key: str) -> bool:
        """Return whether an answer is kept under the key, which does not count as its use; False where that fails."""
        try:
            return await self.backend.exists(key)
        except Exception:  # noqa: BLE001 - whatever it is, calls go on without the cache, too
            return False

    async def remove(self, keys: Iterable[str]) -> int:
        """Remove the answers under these keys; returns how many there were.

        Raises:
            LLMConnectionError: The store failed.
        """
        await self._written()
        return sum([await self._asked(self.backend.delete(key)) for key in dict.fromkeys(keys)])

    async def remove_all(self, chosen: Selection) -> int:
        """Remove the answers that fit; returns how many there were.

        Raises:
            LLMConnectionError: The store failed.
        """
        await self._written()
        return await self._asked(self.backend.remove(tags=chosen.names, older_than=chosen.older_than))

    async def clear(self) -> None:
        """Remove every answer.

        Raises:
            LLMConnectionError: The store failed.
        """
        await self._written()
        await self._asked(self.backend.clear())

    def status(self) -> dict[str, Any]:
        """Return which store it is, and how much is in it where that takes no waiting; JSON-serialisable."""
        held = self.backend.held() if isinstance(self.backend, InMemoryCache) else None
        entries, size = (None, None) if held is None else (held.entries, held.bytes)
        return {"backend": self._stated.backend, "entries": entries, "bytes": size}

    async def close(self) -> None:
        """Close the store, where nobody else uses it."""
        if not self._borrowed:
            await self.backend.close()

    async def _counted(self, work: Coroutine[object, object, None], done: asyncio.Future[None]) -> None:
        try:
            await work
        finally:
            self._writing.discard(done)
            done.set_result(None)

    async def _written(self) -> None:
        """Wait for what is being written now, so that it is there to be removed."""
        if self._writing:
            with suppress(TimeoutError):
                async with self._clock.timeout(_PATIENCE):
                    await asyncio.wait(tuple(self._writing))

    async def _asked(self, work: Awaitable[_Done]) -> _Done:
        try:
            return await work
        except Exception as error:
            raise LLMConnectionError(
                f"the cache ({place_of(self._stated)}) failed with {type(error).__name__}: {redact(str(error))}; what "
                "was to be removed may be given still, so try again when it is back",
            ) from error
