"""What else can happen while the jobs run: all as streams, calls that are given up, somebody else on a key."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import orjson

from .scenario import Job, Scenario

if TYPE_CHECKING:
    from llm.testing import MockUpstream
    from llm.utils.clock import Clock


Variation: TypeAlias = Literal["plain", "streams", "cancelled", "shared"]
VARIATIONS: Final[tuple[Variation, ...]] = ("plain", "streams", "cancelled", "shared")

_EVERY: Final = 10
_SHARE: Final = 1 / 3
_OTHERS: Final = 10_000  # more than there is time for
_OTHERS_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Course:
    """A scenario as it is varied.

    Attributes:
        scenario: Its jobs.
        least: The same, each job with the least that it can use.
        given_up: Identifiers of the jobs whose caller leaves in the middle of the answer.
        others: Another program's jobs, on the first key.
        every_s: Seconds from one to the next.
    """

    scenario: Scenario
    least: Scenario
    given_up: frozenset[int] = frozenset()
    others: tuple[Job, ...] = ()
    every_s: float = 0.0


def vary(scenario: Scenario, variation: Variation) -> Course:
    """Return a scenario's course.

    `streams`: all answers come as streams. `cancelled`: every tenth caller leaves in the middle of its answer, every
    second of them a stream. `shared`: another program takes a third of what the first key's group refills.
    """
    match variation:
        case "plain":
            return Course(scenario, scenario)
        case "streams":
            streamed = replace(scenario, jobs=tuple(replace(job, stream=True) for job in scenario.jobs))
            return Course(streamed, streamed)
        case "cancelled":
            return _cancelled(scenario)
        case "shared":
            return _shared(scenario)


def _cancelled(scenario: Scenario) -> Course:
    given_up = frozenset(range(_EVERY - 1, len(scenario.jobs), _EVERY))
    streams = frozenset(range(_EVERY - 1, len(scenario.jobs), 2 * _EVERY))
    jobs = tuple(replace(job, stream=True) if job.id in streams else job for job in scenario.jobs)
    # A unary answer is paid for whole, for the server works on; a stream's so far as it was sent, a quarter at least.
    least = tuple(
        replace(job, output_tokens=job.output_tokens // 4) if job.id in given_up & streams else job for job in jobs
    )
    return Course(replace(scenario, jobs=jobs), replace(scenario, jobs=least), given_up)


def _shared(scenario: Scenario) -> Course:
    per_minute = scenario.limits[scenario.groups[scenario.keys[0]]].per_minute
    size = {resource: amount // per_minute["requests"] for resource, amount in per_minute.items()}
    prompt = size["input"] if "input" in size else size["tokens"] // 2
    output = size["output"] if "output" in size else size["tokens"] - prompt
    most = size.get("output", size.get("tokens", 0))
    jobs = tuple(
        Job(-1 - number, f"other-{number}", 4 * prompt, prompt, most, output, _OTHERS_S, stream=False)
        for number in range(_OTHERS)
    )
    return Course(scenario, scenario, others=jobs, every_s=60 / per_minute["requests"] / _SHARE)


async def send_others(course: Course, upstream: MockUpstream, clock: Clock) -> None:
    """Be the other program: one request after the other, evenly, whatever becomes of it."""
    scenario = course.scenario
    path = "/v1/messages" if scenario.dialect == "anthropic" else "/v1/chat/completions"
    url = f"{upstream.base_url.removesuffix('/v1')}{path}"
    headers = {"authorization": f"Bearer {scenario.keys[0]}", "x-api-key": scenario.keys[0]}
    transport = upstream.transport()
    for job in course.others:
        messages = [{"role": "user", "content": job.prompt}]
        body = {"model": scenario.model, "max_tokens": job.max_tokens, "messages": messages}
        reply = await transport.request("POST", url, headers=headers, body=orjson.dumps(body))
        reply.close()
        await clock.sleep(course.every_s - _OTHERS_S)
