"""The layers of the chain: each one class with one method, for unary calls and streams alike."""

from __future__ import annotations

from .cache import CacheMiddleware
from .logging import LoggingMiddleware
from .metrics import MetricsMiddleware
from .rate_limiter import RateLimitMiddleware
from .retry import RetryMiddleware

__all__ = ["CacheMiddleware", "LoggingMiddleware", "MetricsMiddleware", "RateLimitMiddleware", "RetryMiddleware"]
