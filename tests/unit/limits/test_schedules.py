"""Random schedules through the public manager: what the limits promise holds after every step, whatever comes.


The upstream is a double that answers when it is told and keeps its own log of what it was sent. Two references count
that log anew. The generous one gives back whatever a vendor might, at once: what it calls too much is too much. The
cautious one gives nothing back to buckets, and waits out the guard: what it calls free is free.
"""

# ruff: noqa: ANN401 - a rule's arguments and JSON
from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from llm import LLMException, LLMManager, LLMRateLimitError, LLMResponse
from llm.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Mapping

pytestmark = pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again

T = TypeVar("T")

MODEL: Final = "gpt-4o-mini"
MINUTE: Final = 60.0
GUARD: Final = 0.1
TINY: Final = 1e-6
MOST_SECONDS_TO_LEAVE: Final = 60.0  # of a pause that nobody asked for
STEP: Final = 5.0  # seconds between two looks at what is to be answered, at the end
PROMPT: Final = 1  # tokens of every prompt


# --- references -------------------------------------------------------------------------------------------------------


@dataclass
class Taken:
    """What one request counts in one limit, by either reference."""

    at: float
    generous: float
    cautious: float


class Window:
    """So much in any 60 seconds."""

    def __init__(self, capacity: float) -> None:
        self.capacity = capacity
        self.log: list[Taken] = []

    def take(self, now: float, amount: float) -> Taken:
        self.log = [taken for taken in self.log if taken.at + 2 * MINUTE > now]
        self.log.append(Taken(now, amount, amount))
        return self.log[-1]

    def exceeded(self, now: float) -> bool:
        return self._sum(now, MINUTE) > self.capacity + TINY

    def free(self, now: float, amount: float) -> bool:
        held = sum(taken.cautious for taken in self.log if taken.at + MINUTE + GUARD + TINY > now)
        return held + amount <= self.capacity

    def blocks(self, now: float, amount: float) -> bool:
        """Return whether even the generous reference cannot pay."""
        return self._sum(now, MINUTE) + amount > self.capacity + TINY

    def settle(self, now: float, taken: Taken, generous: float, cautious: float) -> None:
        del now
        taken.generous, taken.cautious = generous, cautious

    def _sum(self, now: float, span: float) -> float:
        return sum(taken.generous for taken in self.log if taken.at + span > now + TINY)


class Bucket:
    """Full at the start, refilled steadily."""

    def __init__(self, capacity: float) -> None:
        self.capacity = capacity
        self.rate = capacity / MINUTE
        self.level = self.low = capacity
        self.at = self.low_at = 0.0

    def take(self, now: float, amount: float) -> Taken:
        self._fill(now)
        self.level -= amount
        self.low -= amount
        self.low_at = max(now, self.low_at) + GUARD
        return Taken(now, amount, amount)

    def exceeded(self, now: float) -> bool:
        self._fill(now)
        return self.level < -TINY

    def free(self, now: float, amount: float) -> bool:
        self._fill(now)
        return amount + TINY <= self.low

    def blocks(self, now: float, amount: float) -> bool:
        self._fill(now)
        return amount > self.level + TINY

    def settle(self, now: float, taken: Taken, generous: float, cautious: float) -> None:
        self._fill(now)
        self.level = min(self.capacity, self.level + taken.generous - generous)
        self.low -= max(0.0, cautious - taken.cautious)
        taken.generous, taken.cautious = generous, cautious

    def _fill(self, now: float) -> None:
        self.level = min(self.capacity, self.level + max(0.0, now - self.at) * self.rate)
        self.at = max(self.at, now)
        if now > self.low_at:
            self.low = min(self.capacity, self.low + (now - self.low_at) * self.rate)
            self.low_at = now


class Running:
    """So many at once."""

    def __init__(self, capacity: float) -> None:
        self.capacity = capacity
        self.running = 0.0

    def take(self, now: float, amount: float) -> Taken:
        self.running += amount
        return Taken(now, amount, amount)

    def exceeded(self, now: float) -> bool:
        del now
        return self.running > self.capacity

    def free(self, now: float, amount: float) -> bool:
        del now
        return self.running + amount <= self.capacity

    def blocks(self, now: float, amount: float) -> bool:
        return not self.free(now, amount)

    def settle(self, now: float, taken: Taken, generous: float, cautious: float) -> None:
        del now, generous, cautious
        self.running -= taken.generous
        taken.generous = taken.cautious = 0.0


Reference = Window | Bucket | Running


class Account:
    """The references of one account's limits."""

    def __init__(self, stated: Mapping[str, Any], *, bucket: bool) -> None:
        algorithm = stated.get("algorithm", "token_bucket" if bucket else "sliding_window")
        kind = Bucket if algorithm == "token_bucket" else Window
        self.limits: dict[str, Reference] = {
            name: kind(float(stated[name])) for name in ("requests_per_minute", "tokens_per_minute") if name in stated
        }
        if "concurrent_requests" in stated:
            self.limits["concurrent_requests"] = Running(float(stated["concurrent_requests"]))
        self.unsure = False  # refused without a time: how long it is left alone, and how slowly it starts, is its own

    def capacity(self) -> float:
        """Tokens of the largest request that fits."""
        limit = self.limits.get("tokens_per_minute")
        return limit.capacity if limit is not None else 10_000.0

    def free(self, now: float, tokens: float) -> bool:
        return all(limit.free(now, amount_of(name, tokens)) for name, limit in self.limits.items())

    def blocks(self, now: float, tokens: float) -> bool:
        return any(limit.blocks(now, amount_of(name, tokens)) for name, limit in self.limits.items())

    def share(self, tokens: float) -> float:
        """Return the largest part of a limit of time that so many tokens take."""
        timed = [(n, limit) for n, limit in self.limits.items() if not isinstance(limit, Running)]
        return max((amount_of(name, tokens) / limit.capacity for name, limit in timed), default=0.0)


def amount_of(name: str, tokens: float) -> float:
    return tokens if name.startswith("tokens") else 1.0


# --- the upstream -----------------------------------------------------------------------------------------------------


@dataclass
class Reply:
    """An answer, whole."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict[str, str])

    async def read(self) -> bytes:
        return self.body

    async def chunk(self) -> bytes:
        body, self.body = self.body, b""
        return body

    def waiting(self) -> bool:
        return bool(self.body)

    def close(self) -> None:
        self.body = b""


@dataclass(eq=False)
class Sent:
    """A request that the upstream has."""

    key: str
    job: Job
    answer: asyncio.Future[Reply]
    held: list[tuple[str, Reference, Taken]]

    def settle(self, now: float, *, requests: float, tokens: float, cautious: float) -> None:
        for name, limit, taken in self.held:
            by_tokens = name.startswith("tokens")
            limit.settle(now, taken, tokens if by_tokens else requests, cautious if by_tokens else 1.0)
        self.held = []


@dataclass(eq=False)
class Job:
    """A call, and what became of it."""

    number: int
    tokens: int
    user: str | None
    priority: int
    deadline: float | None
    task: asyncio.Task[LLMResponse] = field(init=False)
    sent: Sent | None = None
    cancelled: bool = False


class Upstream:
    """A transport that answers when it is told."""

    def __init__(self, machine: Schedules) -> None:
        self.machine = machine
        self.revoked: set[str] = set()
        self.ever_revoked = False
        self.pending: list[Sent] = []
        self.exceeded: list[str] = []

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
        del url
        key = dict(headers)["authorization"].removeprefix("Bearer ")
        if method == "GET":
            return error(401, "invalid_api_key") if key in self.revoked else Reply(200, b'{"object":"list","data":[]}')
        asked = json.loads(body or b"")
        job = self.machine.jobs[int(asked["messages"][-1]["content"])]
        sent = self._admit(key, job)
        try:
            return await sent.answer
        finally:
            now = self.machine.clock.now()
            if sent in self.pending:  # the client left: the request counts, and of the tokens at least the prompt
                self.pending.remove(sent)
                doubt = PROMPT // 20 + 1  # of the prompt, which nobody counted: a twentieth
                sent.settle(now, requests=1.0, tokens=PROMPT, cautious=job.tokens + doubt)
            job.sent = None

    async def close(self) -> None:
        for sent in tuple(self.pending):
            sent.answer.cancel()

    def _admit(self, key: str, job: Job) -> Sent:
        machine, held = self.machine, list[tuple[str, Reference, Taken]]()
        now = machine.clock.now()
        for level, account in machine.accounts_of(key, job):
            for name, limit in account.limits.items():
                held.append((name, limit, limit.take(now, amount_of(name, job.tokens))))
                if limit.exceeded(now):
                    self.exceeded.append(f"{name} of {level} at {now:.4f} by job {job.number}")
        sent = job.sent = Sent(key, job, asyncio.get_running_loop().create_future(), held)
        self.pending.append(sent)
        return sent


def error(status: int, code: str, headers: dict[str, str] | None = None) -> Reply:
    body = json.dumps({"error": {"message": code, "type": code, "code": code}}).encode()
    return Reply(status, body, headers or {})


def completion(text: str, tokens: int) -> Reply:
    usage = {"prompt_tokens": PROMPT, "completion_tokens": tokens - PROMPT, "total_tokens": tokens}
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    made = {"id": text, "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice], "usage": usage}
    return Reply(200, json.dumps(made).encode(), {"content-type": "application/json"})


# --- the machine ------------------------------------------------------------------------------------------------------


def optional(numbers: st.SearchStrategy[int]) -> st.SearchStrategy[int | None]:
    return st.none() | numbers


@st.composite
def some_limits(draw: st.DrawFn, *, running: bool) -> dict[str, Any]:
    """Limits of an account; some absent."""
    stated = {
        "requests_per_minute": draw(optional(st.integers(1, 8))),
        "tokens_per_minute": draw(st.sampled_from([None, 50, 100, 400])),
        "concurrent_requests": draw(optional(st.integers(1, 3))) if running else None,
        "algorithm": draw(st.sampled_from([None, "token_bucket", "sliding_window"])),
    }
    return {name: value for name, value in stated.items() if value is not None}


class Schedules(RuleBasedStateMachine):
    """Calls come, are answered, refused, fail and are left, in any order; time goes on in steps."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        self.jobs: list[Job] = []
        self.upstream = Upstream(self)
        self.manager: LLMManager | None = None

    @initialize(
        keys=st.lists(some_limits(running=True), min_size=1, max_size=3),
        everything=some_limits(running=False),
        users=some_limits(running=False),
        max_size=st.sampled_from([2, 100]),
        grouped=st.booleans(),
    )
    def open(
        self,
        keys: list[dict[str, Any]],
        everything: dict[str, Any],
        users: dict[str, Any],
        max_size: int,
        *,
        grouped: bool,
    ) -> None:
        names = [f"sk-schedule-{number}" for number in range(len(keys))]
        groups = [names[0], names[0], *names[2:]][: len(names)] if grouped else names
        keys = [keys[names.index(group)] for group in groups]
        self.groups = dict(zip(names, groups, strict=True))
        self.keys = {group: Account(limits, bucket=True) for group, limits in zip(groups, keys, strict=True)}
        self.everything = Account(everything, bucket=False)
        self.users = {user: Account(users, bucket=False) for user in ("alice", "bob")}
        self.pool = Account({"concurrent_requests": max_size}, bucket=False)
        section = {"api_keys": names, "models": [MODEL], "rate_limits": keys, "quota_groups": groups}
        config = {
            "global": {"middleware": ["rate_limit", "retry"]},
            "providers": {"openai": section},
            "limits": {"global": everything, "users": {"default": users}},
            "pool": {"max_size": max_size},
            "retry": {"initial_delay": 0, "max_delay": 0},
        }
        self.manager = self.run(opened(LLMManager.open(config, transport=self.upstream, clock=self.clock)))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def rest(self, seconds: float = 0.0) -> None:
        """Let time go on, and all run that can."""
        self.run(self.clock.advance(seconds))

    def accounts_of(self, key: str, job: Job) -> Iterable[tuple[str, Account]]:
        yield "global", self.everything
        yield "pool", self.pool
        if job.user is not None:
            yield job.user, self.users[job.user]
        yield key, self.keys[self.groups[key]]

    # --- what can happen ----------------------------------------------------------------------------------------------

    @rule(
        count=st.integers(1, 3),
        tokens=st.integers(2, 50) | st.sampled_from([50, 51, 100, 400]),
        user=st.sampled_from([None, None, "alice", "bob"]),
        priority=st.sampled_from([0, 0, 0, 1]),
        timeout=st.sampled_from([None, None, None, 5.0, 90.0]),
    )
    def calls_come(self, count: int, tokens: int, user: str | None, priority: int, timeout: float | None) -> None:
        assert self.manager is not None
        client = self.manager.get_client()
        for _ in range(count):
            deadline = None if timeout is None else self.clock.now() + timeout
            job = Job(len(self.jobs), tokens, user, priority, deadline)
            self.jobs.append(job)
            text = f"{job.number:04d}"
            work = client.chat(text, max_tokens=tokens, user=user, priority=priority, timeout=timeout)
            job.task = self.loop.create_task(work)
        self.rest()

    @precondition(lambda self: self.upstream.pending)
    @rule(place=st.integers(0, 99), share=st.sampled_from([0.1, 0.5, 1.0, 1.0, 4.0]))
    def an_answer_comes(self, place: int, share: float) -> None:
        sent = self._pending(place)
        used = max(PROMPT + 1, int(sent.job.tokens * share))
        sent.settle(self.clock.now(), requests=1.0, tokens=used, cautious=used)
        sent.answer.set_result(completion(f"{sent.job.number:04d}", used))
        self.rest()

    @precondition(lambda self: self.upstream.pending)
    @rule(place=st.integers(0, 99), status=st.sampled_from([500, 529]))
    def an_attempt_fails(self, place: int, status: int) -> None:
        sent = self._pending(place)
        sent.settle(self.clock.now(), requests=1.0, tokens=PROMPT, cautious=sent.job.tokens)
        sent.answer.set_result(error(status, "server_error"))
        self.rest()

    @precondition(lambda self: self.upstream.pending)
    @rule(place=st.integers(0, 99), seconds=st.none() | st.sampled_from([0.5, 5.0, 30.0]))
    def a_call_is_refused(self, place: int, seconds: float | None) -> None:
        sent = self._pending(place)
        sent.settle(self.clock.now(), requests=0.0, tokens=0.0, cautious=sent.job.tokens)
        account = self.keys[self.groups[sent.key]]
        account.unsure = account.unsure or seconds is None
        headers = {} if seconds is None else {"retry-after": f"{seconds:g}"}
        sent.answer.set_result(error(429, "rate_limit_exceeded", headers))
        self.rest()

    @precondition(lambda self: self.upstream.pending)
    @rule(place=st.integers(0, 99))
    def a_key_is_revoked(self, place: int) -> None:
        sent = self._pending(place)
        sent.settle(self.clock.now(), requests=0.0, tokens=0.0, cautious=sent.job.tokens)
        self.upstream.revoked.add(sent.key)
        self.upstream.ever_revoked = True
        sent.answer.set_result(error(401, "invalid_api_key"))
        self.rest()

    @precondition(lambda self: self.upstream.revoked)
    @rule()
    def keys_return(self) -> None:
        assert self.manager is not None
        self.upstream.revoked.clear()
        self.run(self.manager.health_check())
        self.rest()

    @precondition(lambda self: self.live())
    @rule(place=st.integers(0, 99))
    def a_caller_leaves(self, place: int) -> None:
        live = self.live()
        job = live[place % len(live)]
        job.cancelled = True
        job.task.cancel()
        self.rest()

    @rule(seconds=st.sampled_from([0.05, 0.5, 2.0, 7.0, 20.0, 59.0]))
    def time_goes_on(self, seconds: float) -> None:
        self.rest(seconds)

    def _pending(self, place: int) -> Sent:
        return self.upstream.pending.pop(place % len(self.upstream.pending))

    # --- what holds ---------------------------------------------------------------------------------------------------

    @invariant()
    def all_promises_hold(self) -> None:
        self.no_limit_is_exceeded()
        self.every_call_that_ended_has_its_answer_or_our_error()
        self.what_can_never_fit_is_refused_and_nothing_else_is()
        self.no_call_outlives_its_deadline()
        self.the_status_counts_who_waits_and_who_was_sent()
        self.nobody_waits_who_could_go()

    def live(self) -> list[Job]:
        return [job for job in self.jobs if not job.task.done()]

    def waiting(self) -> list[Job]:
        return [job for job in self.live() if job.sent is None]

    def no_limit_is_exceeded(self) -> None:
        assert self.upstream.exceeded == []

    def every_call_that_ended_has_its_answer_or_our_error(self) -> None:
        for job in self.jobs:
            if not job.task.done():
                continue
            if job.task.cancelled():
                assert job.cancelled, job
            elif job.task.exception() is not None:
                assert isinstance(job.task.exception(), LLMException), job.task.exception()
            else:
                assert job.task.result().content == f"{job.number:04d}"

    def what_can_never_fit_is_refused_and_nothing_else_is(self) -> None:
        for job in self.jobs:
            fits = self._fits(job)
            if not fits:
                assert job.task.done(), job
            found = job.task.exception() if job.task.done() and not job.task.cancelled() else None
            if isinstance(found, LLMRateLimitError):
                assert "never fit" not in str(found) or not fits or self.upstream.ever_revoked, found

    def no_call_outlives_its_deadline(self) -> None:
        now = self.clock.now()
        assert [job for job in self.live() if job.deadline is not None and now > job.deadline + TINY] == []

    def the_status_counts_who_waits_and_who_was_sent(self) -> None:
        if self.manager is not None:
            pool = self.manager.get_status()["pool"]
            assert (pool["calls"], pool["waiting"]) == (len(self.live()), len(self.waiting()))

    def nobody_waits_who_could_go(self) -> None:
        now, waiting = self.clock.now(), self.waiting()
        if not waiting:
            return
        for key in self._open_keys():
            could = {job for job in waiting if self._free(key, job, now)}
            for job in could:
                before = [other for other in waiting if other is not job and self._may_be_before(other, job, key, now)]
                assert not all(other in could for other in before), f"job {job.number} could go with {key} at {now}"

    def _fits(self, job: Job) -> bool:
        outer = [self.everything.capacity(), *([self.users[job.user].capacity()] if job.user else [])]
        return job.tokens <= min(max(account.capacity() for account in self.keys.values()), *outer)

    def _open_keys(self) -> list[str]:
        """Keys that take part and do not rest."""
        assert self.manager is not None
        shown = self.manager.get_status()["providers"]["openai"]["keys"]
        return [
            name
            for name, key in zip(self.groups, shown, strict=True)
            if key["state"] == "available" and not key["cooling_seconds"] and not self.keys[self.groups[name]].unsure
            # after a refusal that no limit explains, calls leave one by one at first
            if not any(limits.get("learned_pace") for limits in key["models"].values())
        ]

    def _free(self, key: str, job: Job, now: float) -> bool:
        return all(account.free(now, job.tokens) for _, account in self.accounts_of(key, job))

    def _may_be_before(self, other: Job, job: Job, key: str, now: float) -> bool:
        """Return whether `other` may have a right to the key that is better than the job's."""
        if other.priority < job.priority:
            return False
        shared = self.everything.free(now, other.tokens) and self.pool.free(now, other.tokens)
        if shared and other.tokens > self.keys[self.groups[key]].capacity():
            return False
        if (
            other.priority == job.priority
            and other.user == job.user
            and other.number > job.number
            and other.tokens <= job.tokens
        ):
            return False
        if other.user == job.user:
            return (
                True  # one user's calls keep their order, also where only the first is too large for the user's limit
            )
        return other.user is None or not self.users[other.user].blocks(now, other.tokens)

    # --- the end ------------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            if self.manager is not None:
                self._come_to_rest(self.manager)
        finally:
            for job in self.jobs:
                job.task.cancel()
            if self.manager is not None:
                self.rest()
                self.run(self.manager.close(drain=0.0))
            for job in self.jobs:
                _ = job.task.cancelled() or job.task.exception()
            self.run(self.loop.shutdown_default_executor())
            self.loop.close()

    def _come_to_rest(self, manager: LLMManager) -> None:
        """Answer all at once from now on: everybody leaves in time, and then nothing is taken any more."""
        self.upstream.revoked.clear()
        self.run(manager.health_check())
        until = self.clock.now() + self._bound()
        while self.live():
            assert self.clock.now() <= until, f"waits for ever: {[job.number for job in self.live()]}"
            while self.upstream.pending:
                self.an_answer_comes(0, 1.0)
            self.every_call_that_ended_has_its_answer_or_our_error()
            self.no_limit_is_exceeded()
            self.rest(STEP)
        self.rest(5 * MINUTE + MOST_SECONDS_TO_LEAVE + 1.0)  # an answer may owe four times what a limit holds
        status = manager.get_status()
        assert status["pool"]["calls"] == status["pool"]["waiting"] == 0
        limits = [
            *status["limits"].values(),
            *(models for key in status["providers"]["openai"]["keys"] for models in key["models"].values()),
        ]
        assert {value for of in limits for name, value in of.items() if name != "learned_pace"} <= {0.0}, limits
        assert self.clock.timers == 1  # the manager looks after its keys; nobody waits for anything
        fits = int(min(self.everything.capacity(), *(account.capacity() for account in self.keys.values())))
        self.calls_come(1, fits, None, 0, None)
        assert len(self.upstream.pending) == 1, "all is free, and a full request waits"
        self.an_answer_comes(0, 1.0)
        self.rest()
        assert self.jobs[-1].task.done()

    def _bound(self) -> float:
        """Seconds in which all that waits must have left, one after the other, each with the largest key."""
        jobs = [job for job in self.live() if self._fits(job)]
        largest = max(self.keys.values(), key=lambda account: account.capacity())
        shares = [max(a.share(j.tokens) for _, a in self._levels(largest, j)) for j in jobs]
        cooled = 31.0 + MOST_SECONDS_TO_LEAVE
        return (2.0 * sum(shares) + 2.0) * (MINUTE + GUARD) + cooled + STEP * (len(jobs) + 2)

    def _levels(self, account: Account, job: Job) -> Iterable[tuple[str, Account]]:
        yield "key", account
        yield "global", self.everything
        if job.user is not None:
            yield job.user, self.users[job.user]


async def opened(opening: Any) -> LLMManager:
    manager: LLMManager = await opening
    return manager


Schedules.TestCase.settings = settings(
    max_examples=settings().max_examples,
    stateful_step_count=30,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # to shorten a case takes minutes
    suppress_health_check=[HealthCheck.too_slow],
)
TestSchedules = Schedules.TestCase
