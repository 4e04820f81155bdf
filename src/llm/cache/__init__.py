"""Answers kept: the key of a request, the contract of a backend, and the backends."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .base import CacheBackend
from .key import compute_request_hash
from .memory import InMemoryCache

if TYPE_CHECKING:
    from .redis import RedisCache

__all__ = ["CacheBackend", "InMemoryCache", "RedisCache", "compute_request_hash"]

_LAZY = {"RedisCache": "redis"}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
