"""Six hundred jobs on several keys, audited at the server: no limit exceeded, hardly a refusal, nothing kept."""

# ruff: noqa: ANN401, S311 - options as they come; dice for sizes
from __future__ import annotations

import asyncio
import json
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Final

import pytest

from llm import LLMManager, LLMRequest, LLMResponse, TokenUsage
from llm.testing import FakeClock, Fault, MockUpstream

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from llm.testing.exchange import MockRequest

JOBS: Final = 600
NETWORK: Final = (0.005, 0.06)
MODELS: Final = {"openai": "gpt-4o-mini", "anthropic": "claude-3-5-haiku-20241022"}
KEYS: Final[tuple[str, ...]] = ("sk-exact-one", "sk-exact-two", "sk-exact-three", "sk-exact-four")
OTHERS: Final = "somebody else's"


@dataclass(frozen=True)
class Job:
    """A prompt, what it reserves, what its answer uses, and how long it takes."""

    number: int
    characters: int
    max_tokens: int
    output: int
    seconds: float
    stream: bool
    cancel: str | None = None
    share: float = 0.0

    @property
    def text(self) -> str:
        return f"job-{self.number:04d} ".ljust(self.characters, "x")

    @property
    def usage(self) -> TokenUsage:
        return TokenUsage(-(-self.characters // 4), self.output)


def number_of(text: str) -> int | None:
    return int(text[4:8]) if text.startswith("job-") else None


def make_jobs(seed: int, *, streams: bool = False, cancels: bool = False) -> list[Job]:
    """Jobs of many sizes; every seventh may be cancelled as it waits, once it is sent, or amid its answer."""
    random = Random(seed)
    jobs: list[Job] = []
    for number in range(JOBS):
        characters = int(random.lognormvariate(6.8, 0.7)) + 16
        most = random.choice([256, 512, 512, 1024, 1536])
        output = random.randint(20, most // 2)
        stream = streams and random.random() < 0.5
        place = random.choice(["queued", "sent", "answering"]) if cancels and number % 7 == 6 else None
        jobs.append(Job(number, characters, most, output, 0.5 + output / 200, stream, place, random.random()))
    return jobs


# --- the audit: what the server admitted, counted anew ----------------------------------------------------------------


class BucketAudit:
    """Full at the start, refilled steadily; what comes back is there at once."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.level = limit
        self.at = 0.0

    def takes(self, now: float, amount: float) -> bool:
        """Return whether that much was there."""
        self.level = min(self.limit, self.level + (now - self.at) * self.limit / 60.0) - amount
        self.at = now
        return amount <= 0 or self.level >= -1e-6


class WindowAudit:
    """No 60 seconds hold more than the limit."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.log: deque[tuple[float, float]] = deque()

    def takes(self, now: float, amount: float) -> bool:
        """Return whether that much was there; what comes back counts where the request did, at the earliest here."""
        while self.log and self.log[0][0] + 60.0 <= now + 1e-9:
            self.log.popleft()
        self.log.append((now, amount))
        return amount <= 0 or sum(part for _, part in self.log) <= self.limit + 1e-6


UNITS: Final = {
    "requests_per_minute": "requests",
    "tokens_per_minute": "total_tokens",
    "input_tokens_per_minute": "input_tokens",
    "output_tokens_per_minute": "output_tokens",
}


def overdrawn(w: World, *, window: bool) -> list[str]:
    """Return what the server admitted beyond its limits, by the log of its requests."""
    kind = WindowAudit if window else BucketAudit
    audits = {
        (account, name): kind(float(limit))
        for account, limits in w.limits.items()
        for name, limit in limits.items()
        if name in UNITS
    }
    events: list[tuple[float, int, MockRequest, Mapping[str, float]]] = []
    for record in w.upstream.requests:
        if record.charge is None:
            continue
        taken = {unit: float(getattr(record.charge, unit)) for unit in UNITS.values()}
        events.append((record.at, 1, record, taken))
        events.append((*w.settled(record), record, {unit: w.used(record)[unit] - taken[unit] for unit in taken}))
    found: list[str] = []
    for at, _, record, amounts in sorted(events, key=lambda event: event[:2]):
        account = w.groups.get(record.key or "", record.key or "")
        for name, unit in UNITS.items():
            audit = audits.get((account, name))
            if audit is not None and not audit.takes(at, amounts[unit]):
                found.append(f"{name} of {account} at {at:.3f}")
    return found


# --- a run ------------------------------------------------------------------------------------------------------------


@dataclass
class World:
    """A server with its limits, and what became of the jobs."""

    jobs: list[Job] = field(repr=False)
    limits: dict[str, dict[str, int]]
    groups: dict[str, str]
    upstream: MockUpstream = field(init=False)
    clock: FakeClock = field(init=False)
    tasks: dict[int, asyncio.Task[LLMResponse]] = field(default_factory=dict[int, Any], repr=False)
    finished: float = 0.0

    def start(self, dialect: Any, *, mode: Any, faults: tuple[Fault, ...]) -> None:
        self.clock = FakeClock(auto=True)
        self.upstream = MockUpstream(
            dialect,
            limits=self.limits,
            groups=self.groups,
            mode=mode,
            faults=faults,
            answer=self.answer,
            service=lambda request: self.seconds(request.messages[-1].text),
            network=NETWORK,
            clock=self.clock,
            seed=5,
        )

    def seconds(self, text: str) -> float:
        number = number_of(text)
        return 1.0 if number is None else self.jobs[number].seconds

    def answer(self, request: LLMRequest) -> LLMResponse:
        """Answer with the job's tag; and if the job is to end once it is sent, see to that."""
        text = request.messages[-1].text
        number = number_of(text)
        if number is None:
            return LLMResponse("", "", usage=TokenUsage(1, (request.max_tokens or 1) - 1))
        job = self.jobs[number]
        if job.cancel in ("sent", "answering"):
            share = job.share / 10 if job.cancel == "sent" else 0.2 + 0.7 * job.share
            self.clock.call_later(share * job.seconds, self.tasks[number].cancel)
        return LLMResponse("", text[:8] + " and so on" * 8, usage=job.usage)

    def settled(self, record: MockRequest) -> tuple[float, int]:
        """Return when the server corrected what a request took, and 0: before what is taken in the same moment."""
        by_itself = record.at + self.seconds(text_of(record))
        return (min(by_itself, record.ended or by_itself) if record.left and record.stream else by_itself), 0

    def used(self, record: MockRequest) -> dict[str, float]:
        """Return what a request used in the end; of a stream that was left, at least its prompt."""
        number = number_of(text_of(record))
        others = TokenUsage(1, record.body.get("max_tokens", 1) - 1)
        usage = others if number is None else self.jobs[number].usage
        output = 0 if record.left and record.stream else usage.output_tokens
        return {
            "requests": 1,
            "input_tokens": float(usage.input_tokens),
            "output_tokens": float(output),
            "total_tokens": float(usage.input_tokens + output),
        }

    async def run(self, *managers: LLMManager) -> None:
        """Begin all jobs at once, by turns through the managers, and wait until all have ended."""
        random = Random(11)
        for job in self.jobs:
            client = managers[job.number % len(managers)].get_client()
            self.tasks[job.number] = asyncio.get_running_loop().create_task(ask(client, job))
            if job.cancel == "queued":
                self.clock.call_later(random.uniform(0.0, 60.0), self.tasks[job.number].cancel)
        await asyncio.wait(self.tasks.values())
        self.finished = self.clock.now()

    def refusals(self) -> int:
        return sum(r.status == 429 and number_of(text_of(r)) is not None for r in self.upstream.requests)

    def wrong(self) -> list[str]:
        """Return the jobs without their own answer, but for those that were cancelled."""
        found: list[str] = []
        for number, task in self.tasks.items():
            job = self.jobs[number]
            if task.cancelled():
                found += [] if job.cancel else [f"{number}: cancelled"]
            elif task.exception() is not None:
                found.append(f"{number}: {task.exception()!r}")
            elif not task.result().content.startswith(f"job-{number:04d}"):
                found.append(f"{number}: {task.result().content}")
        return found

    def answered(self) -> Counter[int]:
        """How often each job was admitted."""
        numbers = (number_of(text_of(r)) for r in self.upstream.requests if r.charge is not None)
        return Counter(number for number in numbers if number is not None)

    async def check_nothing_is_kept(self, *managers: LLMManager) -> None:
        """A period after the end all limits are as they were, and nobody waits for anything."""
        await self.clock.sleep(70.0)
        for manager in managers:
            status = manager.get_status()
            assert (status["pool"]["calls"], status["pool"]["waiting"]) == (0, 0)
            for provider in status["providers"].values():
                for key in provider["keys"]:
                    assert key["calls"] == 0
                    assert {value for limits in key["models"].values() for value in limits.values()} <= {0.0}, key
            assert {value for limits in status["limits"].values() for value in limits.values()} <= {0.0}
        assert self.upstream.active == 0
        assert self.clock.timers == len(managers)  # each looks after its keys, and waits for nothing else


def text_of(record: MockRequest) -> str:
    return str(record.body["messages"][-1]["content"])


async def ask(client: Any, job: Job) -> LLMResponse:
    if not job.stream:
        whole: LLMResponse = await client.chat(job.text, max_tokens=job.max_tokens)
        return whole
    async with client.stream_complete(job.text, max_tokens=job.max_tokens) as stream:
        gathered: LLMResponse = await stream.response()
        return gathered


def configuration(w: World, dialect: str, *, windows: bool) -> dict[str, Any]:
    """What the client is told: keys, groups and limits, and not how they are counted."""
    groups = [w.groups.get(key, key) for key in KEYS]
    algorithm = {"algorithm": "sliding_window"} if windows else {}
    limits = [{**w.limits[group], **algorithm} for group in groups]
    section = {"api_keys": list(KEYS), "models": [MODELS[dialect]], "rate_limits": limits, "quota_groups": groups}
    return {
        "providers": {dialect: section},
        "retry": {"initial_delay": 0.1, "max_delay": 1, "max_attempts": 8},
        "limits": {"global": {"requests_per_minute": 100_000}},
        "pool": {"max_size": 2000},
    }


EQUAL = {key: {"requests_per_minute": 50, "tokens_per_minute": 44_000} for key in KEYS}
UNEQUAL = {
    key: {"requests_per_minute": 13 * factor, "tokens_per_minute": 9_000 * factor}
    for key, factor in zip(KEYS, (1, 2, 4, 10), strict=True)
}
ORGANISATIONS: dict[str, str] = dict(zip(KEYS, ("org-a", "org-a", "org-b", "org-c"), strict=True))
GROUPED = {
    name: {"requests_per_minute": 75, "tokens_per_minute": 60_000} for name in dict.fromkeys(ORGANISATIONS.values())
}
THREE = {
    key: {"requests_per_minute": 60, "input_tokens_per_minute": 27_000, "output_tokens_per_minute": 24_000}
    for key in KEYS
}
SHAPES: Final[dict[str, tuple[str, dict[str, dict[str, int]], dict[str, str]]]] = {
    "equal": ("openai", EQUAL, {}),
    "unequal": ("openai", UNEQUAL, {}),
    "grouped": ("openai", GROUPED, ORGANISATIONS),
    "anthropic": ("anthropic", THREE, {}),
}


async def run(  # noqa: PLR0913 - what a run may be made of
    shape: str,
    jobs: list[Job],
    *,
    faults: tuple[Fault, ...] = (),
    mode: str = "bucket",
    managers: int = 1,
    somebody_else: Callable[[World], Coroutine[None, None, None]] | None = None,
    windows: bool = False,
) -> World:
    """Run the jobs and check what holds for every run; `somebody_else` uses the first key meanwhile."""
    dialect, limits, groups = SHAPES[shape]
    w = World(jobs, limits, groups)
    w.start(dialect, mode=mode, faults=faults)
    opening = [
        LLMManager.open(configuration(w, dialect, windows=windows), transport=w.upstream.transport(), clock=w.clock)
        for _ in range(managers)
    ]
    opened = [await each for each in opening]
    other = asyncio.get_running_loop().create_task(somebody_else(w)) if somebody_else else None
    await w.run(*opened)
    if other is not None:
        other.cancel()
        with suppress(asyncio.CancelledError):
            await other
    assert w.wrong() == []
    assert overdrawn(w, window=mode == "sliding") == []
    await w.check_nothing_is_kept(*opened)
    for manager in opened:
        await manager.close()
    assert w.clock.timers == 0
    return w


async def use(w: World, share: float, *, pushing: bool) -> None:
    """Send through the first key what takes `share` of its limits; one who pushes repeats what is refused."""
    transport, key = w.upstream.transport(), KEYS[0]
    limits = w.limits[w.groups.get(key, key)]
    tokens = limits["tokens_per_minute"] // limits["requests_per_minute"]
    body = {"model": "gpt-4o-mini", "max_tokens": tokens, "messages": [{"role": "user", "content": OTHERS}]}
    headers = {"authorization": f"Bearer {key}"}
    pace = 60.0 / (share * limits["requests_per_minute"])
    while True:
        reply = await transport.request("POST", "/v1/chat/completions", headers=headers, body=json.dumps(body).encode())
        await reply.read()
        again = pushing and reply.status == 429
        await w.clock.sleep(float(reply.headers["retry-after-ms"]) / 1000 if again else pace)


@pytest.mark.parametrize("shape", SHAPES)
async def test_600_calls_half_of_them_streams_each_get_their_own_answer_with_at_most_5_refusals(shape: str) -> None:
    w = await run(shape, make_jobs(7, streams=True))
    assert w.refusals() <= 5
    assert w.answered() == dict.fromkeys(range(JOBS), 1)


@pytest.mark.parametrize("shape", ["unequal", "anthropic"])
async def test_what_cancelled_calls_held_comes_back_wherever_they_were_cancelled(shape: str) -> None:
    w = await run(shape, make_jobs(5, streams=True, cancels=True))
    assert w.refusals() <= 5
    assert sum(task.cancelled() for task in w.tasks.values()) > JOBS / 7 * 0.6
    assert set(w.answered().values()) == {1}


FAULTS: Final = (
    Fault("server_error", every=23),
    Fault("overloaded", every=31),
    Fault("reset_before", every=37),
    Fault("unavailable", every=41, retry_after=0.5),
    Fault("rate_limit", at=200, times=2, retry_after=3),
)


@pytest.mark.parametrize("shape", ["equal", "grouped"])
async def test_failures_cancellations_and_streams_together_lose_and_keep_nothing(shape: str) -> None:
    w = await run(shape, make_jobs(9, streams=True, cancels=True), faults=FAULTS)
    assert w.refusals() <= 5 + 2
    assert set(w.answered().values()) == {1}


async def test_windows_are_kept_too_with_at_most_10_refusals() -> None:
    w = await run("equal", make_jobs(7, streams=True, cancels=True), mode="sliding", windows=True)
    assert w.refusals() <= 10


async def test_two_managers_that_hold_the_same_keys_share_their_limits() -> None:
    w = await run("unequal", make_jobs(13), managers=2)
    assert w.refusals() <= 5
    assert w.answered() == dict.fromkeys(range(JOBS), 1)


@pytest.mark.parametrize("pushing", [False, True], ids=["gives up", "pushes"])
async def test_while_somebody_else_uses_a_key_at_most_5_calls_are_refused(*, pushing: bool) -> None:
    w = await run("equal", make_jobs(17, streams=True), somebody_else=partial(use, share=0.3, pushing=pushing))
    assert w.refusals() <= 5
