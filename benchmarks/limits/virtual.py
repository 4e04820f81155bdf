"""Many runs on the virtual clock, as many at once as there are cores."""

from __future__ import annotations

import asyncio
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING

from .run import Host, run
from .variation import Variation
from .workload import scenario

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .run import Outcome


@dataclass(frozen=True, slots=True)
class Case:
    """What to run.

    Attributes:
        scenario: A scenario's name.
        seed: Its seed.
        host: As whose host the server is taken.
        variation: What else happens.
    """

    scenario: str
    seed: int
    host: Host
    variation: Variation


def run_all(cases: Iterable[Case]) -> Iterator[Outcome]:
    """Run the cases and yield what came of them, in their order."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        yield from pool.map(_run, cases)


def _run(case: Case) -> Outcome:
    return asyncio.run(run(scenario(case.scenario, case.seed), case.host, case.variation))
