"""One scenario through the SDK, on a virtual clock."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from llm import LLMManager
from llm.testing import FakeClock

from .bound import bound_s
from .server import Tally, admitted, serve, tally
from .variation import send_others, vary

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm import LLMClient

    from .scenario import Job, Scenario
    from .variation import Course, Variation

Host: TypeAlias = Literal["vendor", "unknown"]
HOSTS: Final[tuple[Host, ...]] = ("vendor", "unknown")

_UNKNOWN: Final = "http://upstream.test"
_LONGEST: Final = 3600.0  # seconds of the virtual clock
_SAMPLE: Final = 1.0  # seconds
_LAST_ANSWER: Final = 5.0  # seconds that it takes at most


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run.

    Attributes:
        scenario: Its name.
        seed: Its seed.
        host: `vendor`: the vendor's own address, known to refill continuously. `unknown`: any other.
        variation: What else happened.
        jobs: Jobs whose answer was waited for.
        answered: Those that got an answer with their own tag.
        swapped: Those that got another answer.
        failed: Those that got none, by the name of the exception.
        tally: What the server saw.
        finish_s: Virtual seconds until the last of them.
        bound_s: The least that is possible.
        cpu_s: CPU seconds of client and server together.
        saturation: For each key, how full its fullest limit was each second, 0 to 1.
    """

    scenario: str
    seed: int
    host: str
    variation: str
    jobs: int
    answered: int
    swapped: int
    failed: dict[str, int]
    tally: Tally
    finish_s: float
    bound_s: float
    cpu_s: float
    saturation: list[list[float]] = field(repr=False)

    @property
    def ratio(self) -> float:
        """Finish time over the bound."""
        return self.finish_s / self.bound_s

    @property
    def met(self) -> bool:
        """Whether it did all of the work, as soon and with as few refusals as is asked for."""
        ratio, refusals = TARGETS["window" if self.scenario == "window" else "bucket"]
        whole = self.answered == self.jobs and not self.tally.doubled
        return whole and self.ratio <= ratio and self.tally.refused <= refusals


TARGETS: Final = {"bucket": (1.05, 5), "window": (1.10, 10)}
"""The most that finish time over the bound, and refusals, may be."""


async def run(
    scenario: Scenario, host: Host = "vendor", variation: Variation = "plain", *, watched: bool = True
) -> Outcome:
    """Send all jobs at once and wait for their answers; what is not `watched` tells no saturation."""
    course = vary(scenario, variation)
    clock = FakeClock(auto=True)
    crowd = _Crowd(course, clock)
    upstream = serve(course.scenario, clock, course.others, crowd.admitted)
    cpu = time.process_time()
    async with LLMManager.open(configuration(scenario, host), transport=upstream.transport(), clock=clock) as manager:
        watch = _Watch(manager, scenario, clock)
        async with asyncio.TaskGroup() as tasks:
            beside = [tasks.create_task(send_others(course, upstream, clock))]
            if watched:
                beside.append(tasks.create_task(watch.run()))
            async with clock.timeout(_LONGEST):
                await crowd.send(manager.get_client())
            for task in beside:
                task.cancel()
    requests = upstream.requests
    others = admitted(course.others, requests, until=crowd.finished - _LAST_ANSWER)
    return Outcome(
        scenario.name,
        scenario.seed,
        host,
        variation,
        jobs=len(scenario.jobs) - len(course.given_up),
        answered=crowd.answered,
        swapped=crowd.swapped,
        failed=crowd.failed,
        tally=tally(course.scenario.jobs, requests),
        finish_s=crowd.finished,
        bound_s=bound_s(course.least, {scenario.groups[scenario.keys[0]]: others}),
        cpu_s=time.process_time() - cpu,
        saturation=watch.saturation,
    )


def configuration(scenario: Scenario, host: Host) -> dict[str, Any]:
    """Return what a user would write: keys, model, groups and limits; nothing of how the server counts."""
    section: dict[str, Any] = {
        "type": scenario.dialect,
        "api_keys": list(scenario.keys),
        "models": [scenario.model],
        "quota_groups": [scenario.groups[key] for key in scenario.keys],
        "rate_limits": [scenario.limits[scenario.groups[key]].stated() for key in scenario.keys],
    }
    if host == "unknown":
        section["base_url"] = _UNKNOWN
    return {"providers": {scenario.dialect: section}}


class _Crowd:
    """The callers, one for each job."""

    def __init__(self, course: Course, clock: FakeClock) -> None:
        self._course = course
        self._clock = clock
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self.answered: int = 0
        self.swapped: int = 0
        self.failed: dict[str, int] = {}
        self.finished: float = 0.0

    async def send(self, client: LLMClient) -> None:
        async with asyncio.TaskGroup() as tasks:
            for job in self._course.scenario.jobs:
                self._tasks[job.id] = tasks.create_task(self._call(client, job))

    def admitted(self, job: Job) -> None:
        if job.id in self._course.given_up:
            leave: Callable[[], object] = self._tasks[job.id].cancel
            self._clock.call_later(job.service_s / 2, leave)

    async def _call(self, client: LLMClient, job: Job) -> None:
        try:
            text = await ask(client, job)
        except Exception as error:  # noqa: BLE001 - whatever it is, the table says so
            name = type(error).__name__
            self.failed[name] = self.failed.get(name, 0) + 1
            return
        self.answered += text == job.tag
        self.swapped += text != job.tag
        self.finished = max(self.finished, self._clock.now())


async def ask(client: LLMClient, job: Job) -> str:
    """Return the text of a job's answer."""
    if not job.stream:
        return str(await client.complete(job.prompt, max_tokens=job.max_tokens))
    async with client.stream_complete(job.prompt, max_tokens=job.max_tokens) as stream:
        return "".join([str(chunk) async for chunk in stream])


class _Watch:
    """Looks at the keys every second."""

    def __init__(self, manager: LLMManager, scenario: Scenario, clock: FakeClock) -> None:
        self._manager = manager
        self._scenario = scenario
        self._clock = clock
        self.saturation: list[list[float]] = [[] for _ in scenario.keys]

    async def run(self) -> None:
        while True:
            keys = self._manager.get_status()["providers"][self._scenario.dialect]["keys"]
            for history, key in zip(self.saturation, keys, strict=True):
                history.append(max(key["models"][self._scenario.model].values(), default=0.0))
            await self._clock.sleep(_SAMPLE)
