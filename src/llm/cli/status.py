"""`manifold status`: every provider asked how it is, and what is known of its keys."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import typer

from llm.core.manager import LLMManager

from .errors import ExitStatus
from .shell import ConfigOption, JsonOption, QuietOption, Shell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm.core.standing import HealthStatus


_COLUMNS: Final = ("provider", "health", "latency", "key", "state", "models")


def status(
    context: typer.Context, *, config: ConfigOption = None, as_json: JsonOption = False, quiet: QuietOption = False
) -> None:
    """Ask every provider how it is, through every key; exit status 3 when one cannot serve."""
    shell = Shell.of(context, config, as_json, quiet)
    health, snapshot = asyncio.run(_asked(shell))
    if shell.json:
        shell.put_json({"health": {name: asdict(answer) for name, answer in health.items()}, **snapshot})
    else:
        shell.put_rows(_COLUMNS, rows(health, snapshot))
    for name, answer in health.items():
        if answer.error is not None:
            shell.error(" ".join(f"{name}: {answer.error}".split()))
    for reason in reasons(snapshot):
        shell.remark(reason)
    if not all(health.values()):
        raise typer.Exit(ExitStatus.UNREACHABLE)


async def _asked(shell: Shell) -> tuple[dict[str, HealthStatus], dict[str, Any]]:
    async with LLMManager.open(shell.config) as manager:
        return await manager.health_check(), manager.get_status()


def rows(health: dict[str, HealthStatus], snapshot: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Go over the table's rows, a key each, from what providers answered and `get_status()` tells."""
    for name, answer in health.items():
        word = "healthy" if answer.healthy else "down"
        latency = "" if answer.latency is None else f"{answer.latency:.3f} s"
        for key in snapshot["providers"][name]["keys"]:
            yield name, word, latency, key["key"], _state(key), _models(key)


def reasons(snapshot: dict[str, Any]) -> Iterator[str]:
    """Go over the keys that may not be used, or not for all their models, and say why."""
    for name, provider in snapshot["providers"].items():
        for key in provider["keys"]:
            if key["reason"] is not None:
                yield f"{name}, {key['key']}: {key['reason']}"


def _state(key: dict[str, Any]) -> str:
    return f"cooling {key['cooling_seconds']:.0f} s" if key["state"] == "cooling" else str(key["state"])


def _models(key: dict[str, Any]) -> str:
    forbidden = set(key["forbidden_models"])
    return ", ".join(f"{model} (forbidden)" if model in forbidden else model for model in key["models"])
