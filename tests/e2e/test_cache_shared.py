"""Processes that share a store in Redis ask a question once: real processes, a real server, a mock on a socket."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from llm.testing import MockUpstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

PROCESSES = 4
CALLS = 25
PROGRAM = """
import asyncio, json, sys
from llm import LLMManager

async def whole(client):
    return await client.complete("What is it?")

async def streamed(client):
    async with client.stream_complete("And what else?") as chunks:
        return await chunks.response()

async def main():
    config, calls = json.loads(sys.argv[1])
    async with LLMManager.open(config) as manager:
        client = manager.get_client()
        print("ready", flush=True)
        sys.stdin.readline()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(client)) for ask in (whole, streamed) for _ in range(calls)]
        answers = [task.result() for task in tasks]
        counts = manager.get_status()["cache"]
    print(json.dumps({"texts": [a.content for a in answers], "cached": [a.cached for a in answers], **counts}))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def store(redis_server: Callable[..., Any]) -> Iterator[str]:
    with redis_server("valkey") as server:
        yield server.url


@pytest.fixture
async def upstream() -> AsyncIterator[MockUpstream]:
    async with MockUpstream("openai", service=0.2) as up:
        yield up


async def test_a_hundred_identical_calls_in_four_processes_make_one_request_streams_too(
    root: Path, store: str, upstream: MockUpstream
) -> None:
    config = {
        "providers": {"openai": {"base_url": upstream.base_url, "api_keys": ["k1"], "models": ["gpt-4o-mini"]}},
        "cache": {"backend": "redis", "url": store},
    }
    told = await at_once(root, [json.dumps([config, CALLS])] * PROCESSES)
    assert len(upstream.requests) == 2  # a hundred for each question
    for calls in (slice(CALLS), slice(CALLS, None)):
        assert len({text for each in told for text in each["texts"][calls]}) == 1
        assert sum(cached for each in told for cached in each["cached"][calls]) == PROCESSES * CALLS - 1
    assert sum(each["misses"] for each in told) == 2
    assert sum(each["errors"] for each in told) == 0


async def at_once(root: Path, arguments: list[str]) -> list[dict[str, Any]]:
    """Run the program once for each, all from the same moment on, and return what they tell."""
    async with asyncio.TaskGroup() as group:
        starting = [group.create_task(started(root, argument)) for argument in arguments]
    processes = [task.result() for task in starting]
    async with asyncio.TaskGroup() as group:
        ending = [group.create_task(process.communicate(b"go\n")) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return [json.loads(task.result()[0]) for task in ending]


async def started(root: Path, argument: str) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, argument),
        env=os.environ | {"PYTHONPATH": str(root / "src")},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process
