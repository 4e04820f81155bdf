"""Figures as JSON, and back, so that a later run goes on with them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import orjson

from .figures import Cost, Figures, Imports, Memory, targets
from .shape import Shape

if TYPE_CHECKING:
    from pathlib import Path


def as_json(figures: Figures) -> bytes:
    """Return all figures, ratios and targets included, as JSON."""
    return orjson.dumps(
        {
            "made": figures.made,
            "missing": figures.missing,
            "costs": [{**asdict(cost), "ratio": None if cost.failed else cost.ratio} for cost in figures.costs],
            "memory": [asdict(memory) for memory in figures.memory],
            "imports": asdict(figures.imports),
            "targets": [{**asdict(target), "met": target.met} for target in targets(figures)],
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
            [_cost(row) for row in told["costs"]],
            [Memory(**row) for row in told["memory"]],
            Imports(**told["imports"]),
            told["made"],
            told["missing"],
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} does not hold figures of this benchmark: {error!r}") from error


def _cost(row: dict[str, Any]) -> Cost:
    return Cost(row["way"], Shape(**row["shape"]), row["us"], row["bare"], row["failed"])
