"""Call language models through many keys: pooled, limited, cached, observed.

    from llm import get_llm_manager

    manager = await get_llm_manager()
    print(await manager.get_client().chat("Hello, how are you?"))

Importing this loads no vendor's client and no web framework; those come when they are first used.
"""

from __future__ import annotations

import sys

if sys.argv and sys.argv[0].endswith(("-m", "manifold", "manifold.exe")):
    from .utils.interrupt import hush, is_command_line

    if is_command_line():
        hush()

if __name__ == "src.llm":
    from .utils.alias import install_alias

    install_alias(__name__)

import importlib
import warnings
from typing import TYPE_CHECKING

from .core.choices import Choice, TokenLogprob
from .core.client import LLMClient
from .core.exceptions import (
    ConfigProblem,
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
from .core.manager import LLMManager
from .core.messages import (
    AudioPart,
    DocumentPart,
    ImagePart,
    Message,
    MessageRole,
    Part,
    TextPart,
    ThinkingPart,
    ToolCall,
)
from .core.protocols import CallNext, Middleware, Provider, ProviderSettings
from .core.standing import Admission, HealthStatus
from .core.stats import TokenStats
from .core.stream import LLMResult, LLMStream
from .core.types import (
    CachePolicy,
    EmbeddingResponse,
    LLMProvider,
    LLMRequest,
    LLMResponse,
    StreamChunk,
    TokenUsage,
    ToolCallDelta,
    ToolDefinition,
)
from .core.vendor import CachePoint, VendorPart
from .runtime import close_llm_manager, get_llm_manager, register_provider

if TYPE_CHECKING:
    from .core.config import LLMConfig
    from .utils.distribution import __version__

__all__ = [
    "Admission",
    "AudioPart",
    "CachePoint",
    "CachePolicy",
    "CallNext",
    "Choice",
    "ConfigProblem",
    "DocumentPart",
    "EmbeddingResponse",
    "HealthStatus",
    "ImagePart",
    "LLMAuthenticationError",
    "LLMCircuitOpenError",
    "LLMClient",
    "LLMConfig",
    "LLMConfigurationError",
    "LLMConnectionError",
    "LLMContentFilterError",
    "LLMContextLengthError",
    "LLMException",
    "LLMInvalidRequestError",
    "LLMManager",
    "LLMOverloadedError",
    "LLMPoolExhaustedError",
    "LLMProvider",
    "LLMProviderError",
    "LLMQuotaExceededError",
    "LLMRateLimitError",
    "LLMRequest",
    "LLMResponse",
    "LLMResult",
    "LLMServerError",
    "LLMStream",
    "LLMStreamInterruptedError",
    "LLMTimeoutError",
    "LLMValidationError",
    "Message",
    "MessageRole",
    "Middleware",
    "Part",
    "Provider",
    "ProviderSettings",
    "StreamChunk",
    "TextPart",
    "ThinkingPart",
    "TokenLogprob",
    "TokenStats",
    "TokenUsage",
    "ToolCall",
    "ToolCallDelta",
    "ToolDefinition",
    "VendorPart",
    "__version__",
    "close_llm_manager",
    "get_llm_manager",
    "register_provider",
]

_LAZY = {"LLMConfig": "llm.core.config", "__version__": "llm.utils.distribution"}


def __getattr__(name: str) -> object:
    home = _LAZY.get(name)
    if home is None:
        _warn_of_namesake(name)
        raise AttributeError(f"module 'llm' has no attribute {name!r}")
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


if "llm.utils.interrupt" in sys.modules:
    from .utils.interrupt import speak

    speak()
