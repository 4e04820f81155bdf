"""Figures as JSON, and back."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import orjson

from .figures import Figures, Promise, Turn

if TYPE_CHECKING:
    from pathlib import Path


def as_json(figures: Figures) -> bytes:
    """Return all figures, medians, ratios and targets included, as JSON."""
    medians = [figures.middle(turn.engine, turn.at_once) for turn in figures.turns if not turn.number]
    return orjson.dumps(
        {
            **asdict(figures),
            "medians": [asdict(turn) for turn in medians if turn is not None],
            "targets": [{**asdict(target), "word": target.word} for target in figures.targets()],
        }
    )


def save(path: Path, figures: Figures) -> None:
    """Write figures; a file that was there is whole until the new one is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(as_json(figures))
    new.replace(path)


def load(path: Path) -> Figures:
    """Return the figures that were saved.

    Raises:
        OSError: The file cannot be read.
        ValueError: It does not hold figures of this benchmark as it is today.
    """
    told = orjson.loads(path.read_bytes())
    try:
        return Figures(
            told["made"],
            [_turn(row) for row in told["turns"]],
            [Promise(**row) for row in told["promises"]],
            told["failed"],
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} does not hold figures of this benchmark: {error!r}") from error


def _turn(row: dict[str, Any]) -> Turn:
    fields: dict[str, Any] = {**row, "first": tuple(row["first"]), "gaps": tuple(row["gaps"])}
    return Turn(**fields)
