"""One of the processes: says that it is ready, does its jobs when it is told to go, and says what came of them.

It speaks lines of JSON: the work comes in, `{"ready": true}` goes out, a line to go comes in; then each answer goes out
as it comes, and at the end what the limits' store saw.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from llm import LLMManager


def configuration(work: dict[str, Any]) -> dict[str, Any]:
    """Return what a user would write."""
    section = {
        "base_url": work["base_url"],
        "api_keys": work["keys"],
        "models": [work["model"]],
        "quota_groups": work["groups"],
        "rate_limits": [{**limits, "algorithm": "token_bucket"} for limits in work["limits"]],
    }
    return {
        "providers": {"openai": section},
        "pool": {"max_size": 1000},
        "limits": {"store": "redis", "url": work["url"], **work.get("more", {})},
    }


def _say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)  # noqa: T201 - the way to tell it


async def main() -> None:
    """Do what comes on stdin."""
    work = json.loads(sys.stdin.readline())
    async with LLMManager.open(configuration(work)) as manager:
        client = manager.get_client()
        _say({"ready": True})
        await asyncio.to_thread(sys.stdin.readline)
        cpu = time.process_time()

        async def one(job: dict[str, Any]) -> None:
            try:
                text = str(await client.complete(job["prompt"], max_tokens=job["max_tokens"]))
            except Exception as error:  # noqa: BLE001 - whatever it is, the table says so
                _say({"tag": job["tag"], "error": type(error).__name__})
            else:
                _say({"tag": job["tag"], "right": text == job["tag"]})

        async with asyncio.TaskGroup() as tasks:
            for job in work["jobs"]:
                tasks.create_task(one(job))
        _say({"store": manager.get_status()["limits"].get("store"), "cpu": time.process_time() - cpu})


if __name__ == "__main__":
    asyncio.run(main())
