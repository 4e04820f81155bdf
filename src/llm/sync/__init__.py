"""The same client, blocking: for scripts, threads and notebooks.

    from llm.sync import get_llm_manager

    manager = get_llm_manager()
    print(manager.get_client().chat("Hello, how are you?"))

Everything runs on one event loop, in a thread that the first call starts and that ends with the interpreter.
"""

from __future__ import annotations

from .client import LLMClient
from .manager import LLMManager
from .singleton import close_llm_manager, get_llm_manager

__all__ = ["LLMClient", "LLMManager", "close_llm_manager", "get_llm_manager"]
