"""Answers kept: the key of a request, the contract of a backend, and the backends."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from .base import CacheBackend
from .key import compute_request_hash
from .memory import InMemoryCache

if TYPE_CHECKING:
    from .disk import DiskCache
    from .redis import RedisCache

__all__ = ["CacheBackend", "DiskCache", "InMemoryCache", "RedisCache", "compute_request_hash"]

_LAZY = {"DiskCache": "llm.cache.disk", "RedisCache": "llm.cache.redis"}


def __getattr__(name: str) -> object:
    home = _LAZY.get(name)
    if home is None:
        raise AttributeError(f"module 'llm.cache' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
