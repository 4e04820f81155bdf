"""`manifold config`: check the configuration, show what is in force, print its schema."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import typer

from .shell import ConfigOption, JsonOption, QuietOption, Shell

if TYPE_CHECKING:
    from llm.core.config import LLMConfig, ProviderConfig

app: typer.Typer = typer.Typer(no_args_is_help=True, short_help="Check the configuration, show it, print its schema.")


@app.callback()
def config_group(
    context: typer.Context, *, config: ConfigOption = None, as_json: JsonOption = False, quiet: QuietOption = False
) -> None:
    """Check the configuration, show what is in force, print its JSON Schema."""
    Shell.of(context, config, as_json, quiet)


@app.command(short_help="Tell every mistake with its place, or that there is none.")
def check(
    context: typer.Context, *, config: ConfigOption = None, as_json: JsonOption = False, quiet: QuietOption = False
) -> None:
    """Tell every mistake with its file, line and column, or that there is none (exit status 2 or 0)."""
    shell = Shell.of(context, config, as_json, quiet)
    loaded = shell.load_config()
    asyncio.run(_opened(loaded))
    from llm.core.config import locate

    file = shell.config or locate()
    place = "environment" if file is None else str(file)
    if shell.json:
        shell.put_json({"ok": True, "source": place, "providers": list(loaded.providers)})
    elif not shell.quiet:
        told = "; ".join(f"{name}: {_size(section)}" for name, section in loaded.providers.items())
        shell.put(f"{place}: good ({told})")


@app.command(short_help="Print what is in force, secrets masked.")
def show(
    context: typer.Context, *, config: ConfigOption = None, as_json: JsonOption = False, quiet: QuietOption = False
) -> None:
    """Print the whole configuration in force, defaults filled in and secrets masked, as YAML or JSON."""
    shell = Shell.of(context, config, as_json, quiet)
    masked = shell.load_config().masked()
    if shell.json:
        shell.put_json(masked)
        return
    import yaml

    shell.put(yaml.safe_dump(masked, sort_keys=False, allow_unicode=True), end="")


@app.command(short_help="Print the JSON Schema for editors.")
def schema(
    context: typer.Context, *, config: ConfigOption = None, as_json: JsonOption = False, quiet: QuietOption = False
) -> None:
    """Print the JSON Schema by which editors complete and check llm.yaml; it is the same for every configuration."""
    from llm.core.config import config_schema

    shell = Shell.of(context, config, as_json, quiet)
    shell.put(json.dumps(config_schema(), indent=None if shell.json else 2, ensure_ascii=False))


async def _opened(loaded: LLMConfig) -> None:
    """Build all that calls go through, and send nothing: kinds of provider and layers may come from anywhere.

    Raises:
        LLMConfigurationError: A kind, a layer or an address cannot be used.
    """
    from llm.core.manager import LLMManager

    async with LLMManager.open(loaded):
        pass


def _size(section: ProviderConfig) -> str:
    keys, models = len(set(section.api_keys)), len(dict.fromkeys(section.models))
    return f"{_count(keys, 'key')}, {_count(models, 'model')}" if keys else _count(models, "model")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
