"""Call language models through many keys: pooled, limited, cached, observed.

    from llm import get_llm_manager

    manager = await get_llm_manager()
    print(await manager.get_client().chat("Hello, how are you?"))

Importing this loads no vendor's client and no web framework; those come when they are first used.
"""

from __future__ import annotations

if __name__ == "src.llm":
    from .utils.alias import install_alias

    install_alias(__name__)

import importlib
import warnings
from typing import TYPE_CHECKING

from .core.exceptions import (
    LLMAuthenticationError,
    LLMCircuitOpenError,
    LLMConfigurationError,
    LLMConnectionError,
    LLMContentFilterError,
    LLMContextLengthError,
    LLMException,
    LLMInvalidRequestError,
    LLMOverloadedError,
    LLMPoolExhaustedError,
    LLMProviderError,
    LLMQuotaExceededError,
    LLMRateLimitError,
    LLMServerError,
    LLMStreamInterruptedError,
    LLMTimeoutError,
    LLMValidationError,
)

if TYPE_CHECKING:
    from .utils.distribution import __version__

__all__ = [
    "LLMAuthenticationError",
    "LLMCircuitOpenError",
    "LLMConfigurationError",
    "LLMConnectionError",
    "LLMContentFilterError",
    "LLMContextLengthError",
    "LLMException",
    "LLMInvalidRequestError",
    "LLMOverloadedError",
    "LLMPoolExhaustedError",
    "LLMProviderError",
    "LLMQuotaExceededError",
    "LLMRateLimitError",
    "LLMServerError",
    "LLMStreamInterruptedError",
    "LLMTimeoutError",
    "LLMValidationError",
    "__version__",
]

_LAZY = {"__version__": "llm.utils.distribution"}


def __getattr__(name: str) -> object:
    home = _LAZY.get(name)
    if home is None:
        _warn_of_namesake(name)
        message = f"module 'llm' has no attribute {name!r}"
        raise AttributeError(message)
    value: object = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def _warn_of_namesake(name: str) -> None:
    if name.startswith("__"):  # the import system and inspectors ask for these as a matter of course
        return
    notice = importlib.import_module("llm.utils.distribution").namesake_notice()
    if notice:
        warnings.warn(notice, RuntimeWarning, stacklevel=3)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
