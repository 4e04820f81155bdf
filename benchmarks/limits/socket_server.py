"""The server as a program: says its address on stdout, and what it saw when its stdin ends."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict

from llm.utils.clock import SystemClock

from .generate import generate
from .server import serve, tally
from .workload import scenario as stored


async def main(name: str, seed: int, times: float, jobs: int = 600) -> None:
    """Serve a scenario until stdin ends; with `times` 0 the stored one of its seed."""
    scenario = stored(name, seed) if times == 0.0 else generate(name, seed, jobs=jobs, times=times)
    async with serve(scenario, SystemClock()) as upstream:
        print(upstream.base_url, flush=True)  # noqa: T201 - the way to tell it
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    print(json.dumps(asdict(tally(scenario.jobs, upstream.requests))))  # noqa: T201 - the way to tell it


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), *map(int, sys.argv[4:])))
