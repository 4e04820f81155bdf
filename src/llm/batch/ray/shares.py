"""What each worker gets of a configuration that was written for all."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from llm.core.exceptions import LLMConfigurationError

if TYPE_CHECKING:
    from llm.core.config import LLMConfig

_LOCALHOST: Final = "localhost"


def shared(config: LLMConfig, workers: int) -> tuple[LLMConfig, list[str]]:
    """Return the configuration of each of so many workers, and what there is to say about it.

    Limits that no store counts for all are divided, as among the workers of the gateway.

    Raises:
        LLMConfigurationError: A limit is too small to be divided.
    """
    if workers == 1:
        return config, []
    said: list[str] = []
    parts = max(workers, config.limits.processes)
    divided = config.model_copy(update={"limits": config.limits.model_copy(update={"processes": parts})})
    if _limits(divided.own_part()) != _limits(config):
        config = divided
        said.append(f"each worker takes 1/{parts} of every limit; with `limits.store: redis` they share all of it")
    if config.cache is not None and config.cache.backend == "memory":
        said.append("each worker has a cache of its own; with `cache.backend: redis` they share one")
    if config.cache is not None and config.cache.backend == "disk":
        said.append("workers on one machine share a cache; with `cache.backend: redis` all do")
    return config, said


def _limits(config: LLMConfig) -> tuple[object, ...]:
    return config.limits.global_, config.limits.users, config.providers


def check_reach(config: LLMConfig) -> None:
    """Refuse a store that each of several machines would look for on itself.

    Raises:
        LLMConfigurationError: There is one; names the field.
    """
    stores = {"limits.url": config.limits.url if config.limits.store == "redis" else None}
    if config.cache is not None and config.cache.backend == "redis":
        stores["cache.url"] = config.cache.url
    for field, url in stores.items():
        own = None if url is None else _own(url)
        if own is not None:
            raise LLMConfigurationError(
                f"{field}: {own} is another machine for each worker; name the store by an address that all of them "
                "reach"
            )


def _own(url: str) -> str | None:
    """Return what of an address each machine takes for itself: a socket's path, or a host; None: it is another's."""
    parts = urlsplit(url)
    host = parts.path if parts.scheme == "unix" else parts.hostname or _LOCALHOST
    with suppress(ValueError):
        return host if ip_address(host).is_loopback else None
    return host if parts.scheme == "unix" or host == _LOCALHOST else None
