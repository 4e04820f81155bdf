"""The gateway: a manager's keys, limits and caches for programs that speak HTTP, WebSocket or GraphQL.

Needs the extra `gateway`; importing this door loads none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm.core.exceptions import LLMConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["serve"]


def serve(
    config: Path | None = None,
    host: str | None = None,
    port: int | None = None,
    workers: int = 1,
    *,
    say: Callable[[str], object] = lambda _: None,
) -> int:
    """Serve until a signal comes; for the main thread of a process of its own.

    Args:
        config: A file; None: the usual places.
        host: Address to listen on; None: what the environment says, else the configuration.
        port: Port to listen on; 0: any free one, None: as for `host`.
        workers: Processes that share the port.
        say: Takes remarks for whoever started it.

    Returns:
        The exit status: 130 after Ctrl-C, 143 after SIGTERM.

    Raises:
        LLMConfigurationError: The configuration, the address or the environment is wrong, or a package is missing.
        LLMException: What it serves could not be opened.
    """
    try:
        from .starting import start
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("llm"):
            raise
        raise LLMConfigurationError(
            f"the gateway needs {error.name}, which is not installed; type: pip install 'llm-manifold[gateway]'"
        ) from error
    return start(config, host, port, workers, say)
