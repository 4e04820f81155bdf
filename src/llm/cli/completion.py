"""The words that a shell offers where Tab is pressed: names of the configuration. No network is asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer  # noqa: TC002 - typer reads the annotations

from llm.core.exceptions import LLMException

from .dotenv import load_dotenv

if TYPE_CHECKING:
    from llm.core.config import LLMConfig


def providers(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return the providers that begin so, each with its type."""
    config = _config(context)
    found = {} if config is None else {name: section.type for name, section in config.providers.items()}
    return _fitting(found, incomplete)


def models(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return the aliases and models that begin so, each with where it leads; of one provider where one is named."""
    config = _config(context)
    if config is None:
        return []
    chosen = context.params.get("provider")
    sections = {name: section for name, section in config.providers.items() if chosen in {None, name}}
    found: dict[str, str] = {}
    if chosen is None:
        found |= {name: ", ".join(alias.targets) for name, alias in config.aliases.items()}
    for name, section in sections.items():
        found |= {model: name for model in section.models if model != "*" and model not in found}
    if len(sections) > 1:
        whole = [(name, model) for name, section in sections.items() for model in section.models if model != "*"]
        found |= {f"{name}/{model}": name for name, model in whole}
    return _fitting(found, incomplete)


def _config(context: typer.Context) -> LLMConfig | None:
    """Return the configuration as the command would read it; None where it is wrong, which is not told here."""
    from llm.core.config import load_config

    named = next((each for level in _up(context) if (each := level.params.get("config"))), None)
    try:
        load_dotenv(Path(".env"))
        return load_config(named)
    except LLMException:
        return None


def _up(context: typer.Context) -> list[typer.Context]:
    """Return the command's context and those around it."""
    levels = [context]
    while levels[-1].parent is not None:
        levels.append(levels[-1].parent)  # type: ignore[arg-type]  # typer's contexts are click's
    return levels


def _fitting(found: dict[str, str], incomplete: str) -> list[tuple[str, str]]:
    return [(name, told) for name, told in found.items() if name.startswith(incomplete)]
