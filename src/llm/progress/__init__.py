"""How far a run of many rows is: `ProgressTracker` counts, `show` draws."""

from __future__ import annotations

from .show import show
from .tracker import Progress, ProgressTracker

__all__ = ["Progress", "ProgressTracker", "show"]
