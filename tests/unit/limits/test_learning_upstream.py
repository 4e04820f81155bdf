"""All of it through a manager, against a vendor on the same virtual clock."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import orjson
import pytest

from llm import LLMManager
from llm.testing import FakeClock, MockUpstream
from llm.testing.in_process import InProcessReply

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from llm import LLMClient
    from llm.core.protocols import Reply, Transport

HEADERS = ("x-ratelimit", "anthropic-ratelimit")


class Quiet:
    """A transport that drops headers."""

    def __init__(self, inner: Transport, *dropped: str) -> None:
        self.inner = inner
        self.dropped = dropped

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
        reply = await self.inner.request(method, url, headers=headers, body=body)
        assert isinstance(reply, InProcessReply)
        reply.headers = {name: value for name, value in reply.headers.items() if not name.startswith(self.dropped)}
        return reply

    async def close(self) -> None:
        await self.inner.close()


@dataclass
class Run:
    """Calls of one client, and what became of them."""

    up: MockUpstream
    clock: FakeClock
    answered: list[float] = field(default_factory=list[float])

    async def calls(
        self,
        count: int,
        section: Mapping[str, Any],
        *,
        dropped: tuple[str, ...] = (),
        beside: Coroutine[Any, Any, None] | None = None,
    ) -> None:
        transport: Any = Quiet(self.up.transport(), *dropped) if dropped else self.up.transport()
        config = {"providers": {"it": {"models": ["m"], "base_url": "http://upstream.test", **section}}}
        async with (
            LLMManager.open({**config, "cache": {"backend": "none"}}, transport=transport, clock=self.clock) as manager,
            asyncio.TaskGroup() as group,
        ):
            client = manager.get_client()
            other = None if beside is None else group.create_task(beside)
            await asyncio.wait([group.create_task(self.one(client, number)) for number in range(count)])
            if other is not None:
                other.cancel()

    async def one(self, client: LLMClient, number: int) -> None:
        assert str(await client.complete(f"job {number}", max_tokens=100)) == f"job {number}"
        self.answered.append(self.clock.now())

    def refused(self, key: str, after: float = 0.0) -> int:
        return sum(seen.status == 429 and seen.key == key and seen.at > after for seen in self.up.requests)


Mode: TypeAlias = Literal["bucket", "fixed", "sliding"]
Dialect: TypeAlias = Literal["openai", "anthropic"]


def run(dialect: Dialect, limits: Mapping[str, float], *, service: float = 0.0, mode: Mode = "bucket") -> Run:
    clock = FakeClock(auto=True)
    network = (0.005, 0.06)
    up = MockUpstream(dialect, limits={"k": limits}, mode=mode, clock=clock, service=service, network=network)
    return Run(up, clock)


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
@pytest.mark.parametrize("mode", ["bucket", "sliding", "fixed"])
@pytest.mark.parametrize(("dialect", "service"), [("openai", 0.0), ("openai", 3.0), ("anthropic", 2.0)])
async def test_who_states_nothing_is_paced_by_headers_after_the_first_answer(
    dialect: Dialect, service: float, mode: Mode
) -> None:
    it = run(dialect, {"requests_per_minute": 3}, service=service, mode=mode)
    await it.calls(60, {"type": dialect, "api_keys": ["k"]})
    assert len(it.answered) == 60
    assert max(it.answered) < 1.05 * 19 * 60
    assert it.refused("k", after=1.0) <= 3  # before that all were sent, for nothing was known


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
@pytest.mark.parametrize("dropped", [HEADERS, (*HEADERS, "retry-after")])
@pytest.mark.parametrize(("mode", "longest"), [("bucket", 1.1), ("sliding", 1.4), ("fixed", 1.2)])
async def test_without_headers_a_pace_is_learned_from_the_refusals(
    dropped: tuple[str, ...], mode: Mode, longest: float
) -> None:
    it = run("openai", {"requests_per_minute": 3}, mode=mode)
    await it.calls(60, {"type": "openai", "api_keys": ["k"]}, dropped=dropped)
    assert len(it.answered) == 60
    assert max(it.answered) < longest * 19 * 60
    assert it.refused("k") <= 2 * 60


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
async def test_a_bucket_at_an_unknown_host_is_filled_as_one_soon_after_the_first_answers() -> None:
    it = run("openai", {"requests_per_minute": 60}, service=1.0)
    stated = {"requests_per_minute": 60}
    await it.calls(120, {"type": "openai", "api_keys": ["k"], "rate_limits": [stated]})
    assert max(it.answered) < 63.0
    assert it.refused("k") == 0


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
async def test_a_window_is_found_out_before_its_bucket_is_overdrawn() -> None:
    it = run("openai", {"requests_per_minute": 60}, service=1.0, mode="sliding")
    stated = {"requests_per_minute": 60}
    await it.calls(
        120, {"type": "openai", "api_keys": ["k"], "rate_limits": [stated], "base_url": "https://api.openai.com"}
    )
    assert max(it.answered) < 63.0
    assert it.refused("k") == 0


async def test_a_stated_limit_above_the_providers_gives_way_to_it() -> None:
    it = run("openai", {"requests_per_minute": 20}, service=1.0)
    await it.calls(60, {"type": "openai", "api_keys": ["k"], "rate_limits": [{"requests_per_minute": 40}]})
    assert it.refused("k", after=1.0) <= 2
    assert max(it.answered) < 1.05 * 120 + 2


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
@pytest.mark.parametrize("until", [1000.0, 40.0])
async def test_somebody_else_on_the_key_costs_almost_no_refusals_and_no_more_than_he_takes(until: float) -> None:
    it = run("openai", {"requests_per_minute": 60, "tokens_per_minute": 60_000}, service=1.5)
    taken = 0

    async def foreign() -> None:
        nonlocal taken
        random, raw = Random(1), it.up.transport()  # noqa: S311 - somebody's pauses
        body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * 400}], "max_tokens": 100})
        headers = {"authorization": "Bearer k"}
        while it.clock.now() < until:
            reply = await raw.request("POST", it.up.base_url + "/chat/completions", headers=headers, body=body)
            await reply.read()
            taken += reply.status == 200
            again = float(reply.headers.get("retry-after-ms", 0)) / 1000
            await it.clock.sleep(again or random.uniform(2.0, 4.5))

    stated = {"requests_per_minute": 60, "tokens_per_minute": 60_000}
    await it.calls(200, {"type": "openai", "api_keys": ["k"], "rate_limits": [stated]}, beside=foreign())
    ours = [seen.at for seen in it.up.requests if seen.status == 429 and "job" in str(seen.body)]
    assert taken > (30 if until > 100 else 8)
    assert len(ours) <= 4
    assert max(it.answered) < 1.05 * (200 + taken - 60) + 1.5
