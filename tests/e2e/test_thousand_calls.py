"""A thousand calls at once, on four keys, through a server that fails: each gets its own answer."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

import pytest

from llm import LLMManager
from llm.testing import Fault, MockUpstream

if TYPE_CHECKING:
    from llm import LLMClient

CALLS = 1_000
KEYS = ["sk-test-one", "sk-test-two", "sk-test-three", "sk-test-four"]
FAULTS = [
    Fault("rate_limit", every=211, retry_after=0.2),
    Fault("server_error", every=31),
    Fault("bad_gateway", every=37),
    Fault("unavailable", every=41, retry_after=0.1),
    Fault("overloaded", every=43),
    Fault("reset_before", every=47),
    Fault("reset_after", every=53),
    Fault("truncated", every=59),
    Fault("garbage", every=61),
    Fault("empty", every=67),
    Fault("error_in_200", every=71),
]


def config(upstream: MockUpstream, dialect: str) -> dict[str, Any]:
    model = "gpt-4o-mini" if dialect == "openai" else "claude-3-5-haiku-20241022"
    provider = {"base_url": upstream.base_url, "api_keys": KEYS, "models": [model]}
    patient = {"timeouts": {"connect": 60.0}}  # a slow machine is none of the faults: an attempt that never arrived
    return {
        "global": patient,
        "retry": {"max_attempts": 12, "initial_delay": 0.02, "max_delay": 0.2},
        "providers": {dialect: provider},
    }


async def ask(client: LLMClient, number: int, *, stream: bool) -> tuple[str, str]:
    question = f"question number {number} of many"
    if not stream:
        return question, str(await client.chat(question, max_tokens=64))
    async with client.stream_complete(question, max_tokens=64) as answer:
        return question, str(await answer.response())


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_a_thousand_calls_under_faults_each_get_their_own_answer(
    *, dialect: Literal["openai", "anthropic"], stream: bool
) -> None:
    # A stream that broke after its first chunk cannot be repeated, so streams meet what comes before it.
    damages = {"reset_after", "truncated", "garbage", "empty", "error_in_200"}
    faults = [fault for fault in FAULTS if not (stream and fault.kind in damages)]
    async with (
        MockUpstream(dialect, faults=faults) as upstream,
        LLMManager.open(config(upstream, dialect)) as manager,
    ):
        client = manager.get_client()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(client, number, stream=stream)) for number in range(CALLS)]
        answers = [task.result() for task in tasks]
        status = manager.get_status()

        assert [answer for question, answer in answers if answer != question] == []
        assert len({answer for _, answer in answers}) == CALLS
        metrics = status["metrics"]
        assert metrics["total_requests"] == metrics["successful_requests"] == CALLS
        assert metrics["retries"] == len(upstream.requests) - CALLS
        assert status["pool"]["calls"] == status["pool"]["waiting"] == 0
        whole = Counter(record.key for record in upstream.requests if record.fault is None)
        assert set(whole) == set(KEYS)
        assert sum(whole.values()) == CALLS
        assert min(whole.values()) > CALLS / len(KEYS) / 2


async def test_several_keys_take_turns() -> None:
    async with MockUpstream("openai") as upstream, LLMManager.open(config(upstream, "openai")) as manager:
        client = manager.get_client()
        for number in range(8):
            await ask(client, number, stream=False)
        assert [record.key for record in upstream.requests] == KEYS * 2
