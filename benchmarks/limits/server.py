"""The server of the benchmark: a `MockUpstream` that knows every job by its tag."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from llm.core.types import LLMResponse, TokenUsage
from llm.testing import MockUpstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from llm.core.types import LLMRequest
    from llm.testing.exchange import MockRequest
    from llm.utils.clock import Clock

    from .scenario import Job, Scenario


@dataclass(frozen=True, slots=True)
class Tally:
    """What the server saw of the jobs.

    Attributes:
        sent: Requests.
        refused: Those that were answered with a 429.
        doubled: Jobs that were admitted more than once.
    """

    sent: int
    refused: int
    doubled: int


def serve(
    scenario: Scenario, clock: Clock, others: Iterable[Job] = (), on_admission: Callable[[Job], object] | None = None
) -> MockUpstream:
    """Make the server.

    Args:
        scenario: Its limits and jobs.
        clock: Its time.
        others: Jobs of somebody else that it answers too.
        on_admission: Is told of every job as it is admitted.
    """
    known = {job.tag: job for job in (*scenario.jobs, *others)}

    def job_of(request: LLMRequest) -> Job:
        return known[_tag(request.messages[-1].text)]

    def answer(request: LLMRequest) -> LLMResponse:
        job = job_of(request)
        if on_admission is not None:
            on_admission(job)
        return LLMResponse("", job.tag, "", usage=TokenUsage(job.prompt_tokens, job.output_tokens))

    return MockUpstream(
        scenario.dialect,
        {group: limits.enforced() for group, limits in scenario.limits.items()},
        groups=scenario.groups,
        answer=answer,
        service=lambda request: job_of(request).service_s,
        network=scenario.net_s,
        clock=clock,
        seed=scenario.seed,
    )


def tally(jobs: Iterable[Job], requests: Iterable[MockRequest]) -> Tally:
    """Count what came for these jobs."""
    own = {job.tag for job in jobs}
    statuses = [(tag, request.status) for request in requests if (tag := _tag(_prompt(request.body))) in own]
    admitted = [tag for tag, status in statuses if status == HTTPStatus.OK]
    refused = sum(status == HTTPStatus.TOO_MANY_REQUESTS for _, status in statuses)
    return Tally(len(statuses), refused, len(admitted) - len(set(admitted)))


def admitted(jobs: Iterable[Job], requests: Iterable[MockRequest], until: float) -> list[Job]:
    """Return those of the jobs that were admitted until some time."""
    known = {job.tag: job for job in jobs}
    taken = [_tag(_prompt(request.body)) for request in requests if request.charge is not None and request.at <= until]
    return [known[tag] for tag in taken if tag in known]


def _tag(prompt: str) -> str:
    return prompt.partition(" ")[0]


def _prompt(body: Mapping[str, Any]) -> str:
    content: Any = body["messages"][-1]["content"]
    return content if isinstance(content, str) else str(content[0]["text"])
