"""Rows answered by many machines: on each a worker that holds a manager, and one process that reads and writes.

The process that runs the batch sifts the rows and keeps the files as it does without Ray, so that the files are the
same. A worker is an actor of Ray: it takes rows, and tells what became of each as soon as it ended. Ray says at once
when one dies, and its rows go to the next.
"""

from __future__ import annotations

from .cluster import RayCluster
from .run import run_ray

__all__ = ["RayCluster", "run_ray"]
