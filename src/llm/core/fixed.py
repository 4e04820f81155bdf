"""What a reload cannot change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .exceptions import LLMConfigurationError

if TYPE_CHECKING:
    from .config import LLMConfig

_FIXED: Final = (
    "limits.store", "limits.url", "cache.backend", "cache.url", "cache.path", "gateway.host", "gateway.port",
)  # fmt: skip


def check_unchanged(old: LLMConfig, new: LLMConfig) -> None:
    """Refuse a configuration in which one of these is another.

    Raises:
        LLMConfigurationError: It is; names each. Or it would open the gateway to everybody.
    """
    changed = [path for path in _FIXED if _at(old, path) != _at(new, path)]
    if changed:
        raise LLMConfigurationError(
            f"a reload cannot change {' and '.join(changed)}; restart the program, or set back what was there"
        )
    if old.gateway.api_keys and not (new.gateway.api_keys or new.gateway.local):
        raise LLMConfigurationError(
            "a reload cannot take away the last of gateway.api_keys where gateway.host is reached from elsewhere; keep "
            "one, or restart on 127.0.0.1"
        )


def _at(config: LLMConfig, path: str) -> object:
    value: object = config
    for name in path.split("."):
        value = getattr(value, name, None)
    return value
