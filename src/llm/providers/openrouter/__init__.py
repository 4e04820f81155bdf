"""OpenRouter: one address for the models of many providers.

Source: https://openrouter.ai/docs/api-reference/overview
"""

from __future__ import annotations

from .dialect import OpenRouterDialect
from .provider import OpenRouterFactory, OpenRouterProvider

__all__ = ["OpenRouterDialect", "OpenRouterFactory", "OpenRouterProvider"]
