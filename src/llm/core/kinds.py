"""Kinds of provider that the package brings, as far as a configuration must know them.

What a kind does is told where it is built; a test holds the names there and here together.
"""

from __future__ import annotations

from typing import Final

VENDORS: Final = ("openai", "anthropic", "openrouter")
"""Those with a dialect of their own."""

HOSTED: Final = ("deepseek", "fireworks", "gemini", "groq", "mistral", "together", "xai")
"""Servers of others that speak OpenAI's chat dialect; they ask for a key."""

SELF_HOSTED: Final = ("llamacpp", "lmstudio", "ollama", "vllm")
"""Servers on one's own machine that speak it, and need none."""

COMPATIBLE: Final = (*HOSTED, *SELF_HOSTED)
ON_HTTP: Final = (*VENDORS, *COMPATIBLE)
ALL: Final = (*ON_HTTP, "local")
