"""How those who observe a call are told of its one outcome."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from .types import LLMResponse

_logger = logging.getLogger("llm.stream")

EndHook: TypeAlias = "Callable[[LLMResponse | None, BaseException | None], None]"
"""Is told the outcome once: the whole response, or the error; `GeneratorExit` is a stream that was left early."""


def tell(hook: EndHook, response: LLMResponse | None, error: BaseException | None) -> None:
    """Call a hook, which cannot fail the call."""
    try:
        hook(response, error)
    except Exception:
        _logger.exception("an observer of a call failed; the call itself did not")
