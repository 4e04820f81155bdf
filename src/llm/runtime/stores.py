"""Where answers are kept: the backend that the configuration names, opened."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from llm.cache.base import Invalidating
from llm.cache.memory import InMemoryCache
from llm.core.exceptions import LLMConfigurationError
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from llm.cache.base import CacheBackend
    from llm.core.config.sections import CacheConfig
    from llm.utils.clock import Clock


def open_cache(stated: CacheConfig, clock: Clock) -> CacheBackend:
    """Return where a process keeps its answers: the store, and memory in front of disk and Redis.

    Raises:
        LLMConfigurationError: As `open_store`.
    """
    store = open_store(stated, clock)
    if stated.memory_bytes == 0 or not isinstance(store, Invalidating):  # memory must hear what others take out
        return store
    from llm.cache.levels import TwoLevels  # noqa: PLC0415 - only where there are two

    near = InMemoryCache(max_entries=stated.max_entries, max_bytes=stated.memory_bytes, clock=clock)
    return TwoLevels(near, store)


def open_store(stated: CacheConfig, clock: Clock) -> CacheBackend:
    """Return the backend itself; connects to nothing yet.

    A store that is away for a while, a full disk among them, is no mistake: it makes calls slower, and is counted.

    Raises:
        LLMConfigurationError: It can never work as it is stated; tells what to change.
    """
    if stated.backend == "disk":
        return _disk(stated, clock)
    if stated.backend == "redis":
        return _redis(stated, clock)
    return InMemoryCache(max_entries=stated.max_entries, max_bytes=stated.max_bytes, clock=clock)


def place_of(stated: CacheConfig) -> str:
    """Return where the answers are, in words that hold no password."""
    if stated.backend == "disk":
        return str(stated.path.expanduser().absolute())
    if stated.backend != "redis" or stated.url is None:
        return stated.backend
    parts = urlsplit(stated.url)
    host = (parts.hostname or "") + ("" if parts.port is None else f":{parts.port}")
    return f"{parts.scheme}://{host}{parts.path}"


def is_same_store(one: CacheConfig, other: CacheConfig) -> bool:
    """Return whether what is kept by one configuration can stay as it is in the other."""
    return (one.max_entries, one.max_bytes, one.memory_bytes) == (
        other.max_entries, other.max_bytes, other.memory_bytes,
    )  # fmt: skip


def _disk(stated: CacheConfig, clock: Clock) -> CacheBackend:
    from llm.cache.disk import DiskCache  # noqa: PLC0415 - only where it is used

    folder = stated.path.expanduser()
    if folder.exists() and not folder.is_dir():
        raise LLMConfigurationError(f"cache.path: {stated.path} is a file; name a folder, which is made if need be")
    return DiskCache(stated.path, max_entries=stated.max_entries, max_bytes=stated.max_bytes, clock=clock)


def _redis(stated: CacheConfig, clock: Clock) -> CacheBackend:
    from llm.cache.redis import RedisCache  # noqa: PLC0415 - only where it is used

    url = stated.url or ""  # without one the configuration is refused before
    of_its_own = None if isinstance(clock, SystemClock) else clock  # Redis has a time that all machines share
    return RedisCache(url, max_entries=stated.max_entries, max_bytes=stated.max_bytes, clock=of_its_own)
