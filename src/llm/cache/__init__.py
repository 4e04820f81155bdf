"""Answers kept: the key of a request, the contract of a backend, and the backends."""

from __future__ import annotations

from .base import CacheBackend
from .key import compute_request_hash
from .memory import InMemoryCache

__all__ = ["CacheBackend", "InMemoryCache", "compute_request_hash"]
