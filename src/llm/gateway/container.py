"""The environment of a container: eight bare names, which the gateway alone reads.

Those that mean a field become that field's own variable (`PORT` is `LLM__GATEWAY__PORT`), so that they hold for every
reading of the configuration: the first, after a reload, and in each worker. A field's own variable goes first.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llm.core.config import load_config
from llm.core.exceptions import ConfigProblem, LLMConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping
    from pathlib import Path
    from typing import TypeVar

    from llm.core.config import LLMConfig

    T = TypeVar("T")

_SWITCHES: Final = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}
_LEVELS: Final = ("debug", "info", "warning", "error", "critical")


@dataclass(frozen=True, slots=True)
class Container:
    """What those names say that is no field of the configuration.

    Attributes:
        model: Model of a request that names none; None: one of the default provider's.
        max_tokens: Most new tokens of `/v1/generate`.
        temperature: Temperature of `/v1/generate`.
        metrics: Whether `/v1/metrics` is there.
        level: From which level on is logged, as `logging` has it.
    """

    model: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    metrics: bool = True
    level: int = logging.INFO


def read_container(environ: MutableMapping[str, str], config: Path | None) -> tuple[LLMConfig, Container]:
    """Return the configuration with what the environment adds to it.

    Raises:
        LLMConfigurationError: The configuration is wrong, or a variable; names it.
    """
    for name in ("HOST", "PORT"):
        _set(environ, f"LLM__GATEWAY__{name}", environ.get(name))
    found = load_config(config, environ=environ)
    local = {name for name, section in found.providers.items() if section.type == "local"}
    for name in local:
        _set(environ, f"LLM__PROVIDERS__{name.upper()}__DEVICE", environ.get("DEVICE"))
    model = environ.get("MODEL_NAME") or None
    if found.default_provider in local:
        _set(environ, f"LLM__PROVIDERS__{found.default_provider.upper()}__MODELS", model)
        model = None
    return load_config(config, environ=environ), Container(
        model=model,
        max_tokens=_read(environ, "MAX_LENGTH", _count, "a number of tokens from 1 on"),
        temperature=_read(environ, "TEMPERATURE", _temperature, "a number from 0 to 2"),
        metrics=_read(environ, "METRICS_ENABLED", _switch, "true or false") is not False,
        level=_read(environ, "LOG_LEVEL", _level, f"one of {', '.join(_LEVELS)}") or logging.INFO,
    )


def _set(environ: MutableMapping[str, str], name: str, value: str | None) -> None:
    if value:
        environ.setdefault(name, value)


def _read(environ: MutableMapping[str, str], name: str, read: Callable[[str], T | None], expected: str) -> T | None:
    """Return a variable's value; None where it is not set, or empty."""
    text = environ.get(name, "").strip()
    if not text:
        return None
    try:
        value = read(text)
    except ValueError:
        value = None
    if value is None:
        problem = ConfigProblem(name, f"expected {expected}")
        raise LLMConfigurationError("a variable of the environment is wrong:", problems=[problem])
    return value


def _count(text: str) -> int | None:
    return int(text) if int(text) >= 1 else None


def _temperature(text: str) -> float | None:
    return float(text) if 0.0 <= float(text) <= 2.0 else None  # noqa: PLR2004 - what all vendors take at most


def _switch(text: str) -> bool | None:
    return _SWITCHES.get(text.lower())


def _level(text: str) -> int | None:
    return logging.getLevelNamesMapping()[text.upper()] if text.lower() in _LEVELS else None
