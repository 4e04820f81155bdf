"""Answers kept in a folder: one SQLite file that many processes use at once."""

from __future__ import annotations

from .cache import DiskCache

__all__ = ["DiskCache"]
