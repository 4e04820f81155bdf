from __future__ import annotations

import asyncio

import pytest

from llm.core.exceptions import LLMConfigurationError, LLMConnectionError, LLMServerError
from llm.providers.local.job import Job
from llm.providers.local.worker import Worker
from llm.utils.clock import SystemClock


def fail() -> int:
    raise RuntimeError("no memory")


async def test_work_that_fails_fails_its_own_request_and_not_the_thread() -> None:
    worker = Worker("test")
    broken, whole = Job(fail), Job(lambda: 7)
    worker.submit(broken)
    worker.submit(whole)
    with pytest.raises(LLMServerError, match="the model on the box failed: RuntimeError: no memory") as caught:
        await broken.result()
    assert caught.value.retryable
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert await whole.result() == 7
    worker.stop()


async def test_all_who_wait_for_one_job_are_told() -> None:
    job = Job(lambda: 7)
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(job.result()) for _ in range(3)]
        await SystemClock().sleep(0)
        await asyncio.to_thread(job.run)
    assert [task.result() for task in waiting] == [7] * 3


async def test_a_stopped_worker_fails_what_waits_and_takes_no_more() -> None:
    worker = Worker("test")
    waiting = Job(lambda: 7)
    worker.stop()
    with pytest.raises(LLMConfigurationError, match="this engine is closed"):
        worker.submit(waiting)
    waiting.cancel(LLMConnectionError("closed"))
    waiting.run()
    with pytest.raises(LLMConnectionError):
        await waiting.result()


def test_a_job_whose_loop_was_closed_counts_as_cancelled() -> None:
    async def make() -> Job[int]:
        return Job(lambda: 7)

    assert asyncio.run(make()).cancelled
