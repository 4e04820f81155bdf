"""`manifold models`: which models there are, and the small ones fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .fetching import shown
from .shell import ConfigOption, JsonOption, QuietOption, Shell

if TYPE_CHECKING:
    from llm.core.config import LLMConfig

app: typer.Typer = typer.Typer(short_help="List the models, or fetch a small one for this machine.")


@app.callback(invoke_without_command=True)
def models(
    context: typer.Context, *, config: ConfigOption = None, as_json: JsonOption = False, quiet: QuietOption = False
) -> None:
    """List the configured models, or fetch a small one that runs on this machine."""
    shell = Shell.of(context, config, as_json, quiet)
    if context.invoked_subcommand is not None:
        return
    found = _models(shell.load_config())
    if shell.json:
        shell.put_json(found)
    else:
        shell.put_rows(
            ("provider", "model", "keys", ""),
            [(row["provider"], row["model"], str(row["keys"]), "default" if row["default"] else "") for row in found],
        )


@app.command(short_help="Fetch a small model for this machine, once.")
def fetch(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="The model: smollm2-135m answers, all-minilm-l6-v2 makes vectors of texts."
        ),
    ],
    *,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Fetch a small model for this machine and print its folder: about 90 MB to download, up to 360 MB on disk, once.

    It goes to $LLM_MODELS_DIR, else to llm-manifold/models in the user's cache folder.
    """
    shell = Shell.of(context, config, as_json, quiet)
    from llm.providers.local.fetch import fetch_model

    with shown(shell, name) as progress:
        folder = fetch_model(name, progress=progress)
    if not progress.began:
        shell.remark(f"{name} is here already")
    if shell.json:
        shell.put_json({"model": name, "folder": str(folder), "fetched": progress.began})
    else:
        shell.put(str(folder))


def _models(config: LLMConfig) -> list[dict[str, Any]]:
    """Return a row per provider and model, in the configuration's order; `*` stands for any other model."""
    return [
        {
            "provider": name,
            "type": section.type,
            "model": model,
            "keys": len({slot.key for slot in section.slots if slot.model == model and slot.key is not None}),
            "default": name == config.default_provider,
        }
        for name, section in config.providers.items()
        for model in dict.fromkeys(slot.model for slot in section.slots)
    ]
