"""The values that a benchmark of limits is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

Dialect: TypeAlias = Literal["openai", "anthropic"]
Mode: TypeAlias = Literal["bucket", "fixed", "sliding"]
Resource: TypeAlias = Literal["requests", "tokens", "input", "output"]

FIELDS: dict[Resource, str] = {
    "requests": "requests_per_minute",
    "tokens": "tokens_per_minute",
    "input": "input_tokens_per_minute",
    "output": "output_tokens_per_minute",
}
"""A resource's name under `rate_limits` in `llm.yaml`."""


@dataclass(frozen=True, slots=True)
class Job:
    """One request and what its answer will be.

    Attributes:
        id: Its number, from 0.
        tag: Text that no other job has; the prompt begins with it, and the answer is it.
        prompt_chars: Characters of the prompt.
        prompt_tokens: Input tokens that the server counts in the end.
        max_tokens: The request's `max_tokens`.
        output_tokens: Output tokens that the server counts in the end.
        service_s: Seconds from admission to the last token.
        stream: Whether the answer is asked for as a stream.
    """

    id: int
    tag: str
    prompt_chars: int
    prompt_tokens: int
    max_tokens: int
    output_tokens: int
    service_s: float
    stream: bool

    @property
    def prompt(self) -> str:
        """A text of `prompt_chars` characters that begins with the tag."""
        return f"{self.tag} ".ljust(self.prompt_chars, "x")


@dataclass(frozen=True, slots=True)
class GroupLimits:
    """What the keys of one group may use together.

    Attributes:
        mode: `bucket`: full at the start, refilled continuously. `fixed`: a whole allowance at the start, the next at
            `phase_s`, then one every minute. `sliding`: no 60 seconds hold more.
        per_minute: Resource → so many a minute.
        phase_s: When a fixed window first ends, in seconds; 0 in other modes.
    """

    mode: Mode
    per_minute: Mapping[Resource, int]
    phase_s: float = 0.0

    def stated(self) -> dict[str, float | str]:
        """Return what a client is told: the limits, under their names in `llm.yaml`; not how they are counted."""
        return {FIELDS[resource]: amount for resource, amount in self.per_minute.items()}

    def enforced(self) -> dict[str, float | str]:
        """Return what a `MockUpstream` is given."""
        phase: dict[str, float | str] = {"phase": self.phase_s} if self.mode == "fixed" else {}
        return {**self.stated(), "mode": self.mode, **phase}


@dataclass(frozen=True, slots=True)
class Scenario:
    """Jobs, all submitted at once, and the keys that they go to.

    Attributes:
        name: One of `SCENARIOS`.
        seed: What it was made from.
        dialect: Whose server it is.
        model: The model that is asked.
        keys: The keys.
        groups: Key → limit group.
        limits: Limit group → its limits.
        net_s: Least and most seconds that a message takes, one way.
        jobs: The jobs.
    """

    name: str
    seed: int
    dialect: Dialect
    model: str
    keys: tuple[str, ...]
    groups: Mapping[str, str]
    limits: Mapping[str, GroupLimits]
    net_s: tuple[float, float]
    jobs: tuple[Job, ...]

    def charge(self, job: Job) -> dict[Resource, int]:
        """Return what the server takes when it admits a job.

        Source: `MockUpstream`; for OpenAI the larger of an estimate and `max_tokens`, for Anthropic each by itself.
        """
        estimate = -(-job.prompt_chars // 4)
        if self.dialect == "anthropic":
            return {"requests": 1, "input": estimate, "output": job.max_tokens}
        return {"requests": 1, "tokens": max(estimate, job.max_tokens)}

    def use(self, job: Job) -> dict[Resource, int]:
        """Return what a job has taken when its answer has ended."""
        if self.dialect == "anthropic":
            return {"requests": 1, "input": job.prompt_tokens, "output": job.output_tokens}
        return {"requests": 1, "tokens": job.prompt_tokens + job.output_tokens}
