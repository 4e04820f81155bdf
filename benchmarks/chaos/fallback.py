"""The second phase: a provider fails at three of ten calls, and another one takes over."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from llm import LLMException, LLMManager
from llm.testing import Fault, MockUpstream

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm import LLMClient

PROMISED: Final = 0.999
"""Share of the calls that is answered."""

_FAILING: Final = 0.3
_AT_ONCE: Final = 64
_MODEL: Final = "gpt-4o-mini"
_KINDS: Final = ("server_error", "bad_gateway", "unavailable", "overloaded", "reset_before", "reset_after", "html")


@dataclass
class Fallen:
    """What happened.

    Attributes:
        calls: How many were made.
        answered: With their own answer.
        others: Of these, by the other provider.
        requests: At the provider that fails.
        failed: Of these, those that failed.
        broken: Promises that were not kept.
    """

    calls: int = 0
    answered: int = 0
    others: int = 0
    requests: int = 0
    failed: int = 0
    broken: list[str] = field(default_factory=list[str])


def _configuration(first: MockUpstream, second: MockUpstream) -> dict[str, Any]:
    def section(kind: str, server: MockUpstream) -> dict[str, Any]:
        keys = [f"sk-chaos-{kind}-{number}" for number in range(3)]
        return {"type": kind, "base_url": server.base_url, "api_keys": keys, "models": [_MODEL]}

    return {
        "global": {"default_provider": "first", "fallback": ["first", "second"]},
        "retry": {"max_attempts": 1},  # so that it is the fallback that answers
        "providers": {"first": section("openai", first), "second": section("anthropic", second)},
    }


async def run(calls: int, *, seed: int = 1, advance: Callable[[int], object] = lambda _: None) -> Fallen:
    """Make so many calls, half of them streams."""
    met, faults = 0.0, list[Fault]()
    for kind in _KINDS:
        part = _FAILING / len(_KINDS)
        faults.append(Fault(kind, rate=part / (1.0 - met)))
        met += part
    async with (
        MockUpstream("openai", faults=faults, seed=seed) as first,
        MockUpstream("anthropic", seed=seed) as second,
        LLMManager.open(_configuration(first, second)) as manager,
    ):
        return await _all(manager, calls, first, advance)


async def _all(manager: LLMManager, calls: int, first: MockUpstream, advance: Callable[[int], object]) -> Fallen:
    fallen = Fallen(calls)
    client, gate = manager.get_client(), asyncio.Semaphore(_AT_ONCE)

    async def one(number: int) -> None:
        async with gate:
            await _ask(client, number, fallen)
        advance(1)

    async with asyncio.TaskGroup() as group:
        for number in range(calls):
            group.create_task(one(number))
    fallen.requests = len(first.requests)
    fallen.failed = sum(request.fault is not None for request in first.requests)
    metrics = manager.get_status()["metrics"]
    if fallen.answered < PROMISED * calls:
        fallen.broken.append(f"with fallback {PROMISED:.1%} are answered: {fallen.answered / calls:.3%}")
    if (metrics["total_requests"], metrics["successful_requests"]) != (calls, fallen.answered):
        fallen.broken.append(f"metrics add up: {calls} calls, {fallen.answered} answered, told {metrics}")
    return fallen


async def _ask(client: LLMClient, number: int, fallen: Fallen) -> None:
    question = f"question number {number} of many, to be answered as it is asked"
    try:
        if number % 2:
            async with client.stream_complete(question, model=_MODEL) as stream:
                response = await stream.response()
        else:
            response = await client.complete(question, model=_MODEL)
    except LLMException:
        return
    if response.content != question:
        fallen.broken.append(f"every call ends in its own answer: {number} got {response.content!r}")
    fallen.answered += 1
    fallen.others += response.provider == "second"
