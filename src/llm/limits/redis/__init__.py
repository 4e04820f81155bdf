"""One limit for many processes: their ledger in a Redis."""

from .store import RedisLedger

__all__ = ["RedisLedger"]
