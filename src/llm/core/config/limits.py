"""Limits: what an account, a provider's user or the whole process may spend."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llm.core.exceptions import LLMConfigurationError

from . import fields

Algorithm = Literal["auto", "token_bucket", "sliding_window"]


class RateLimits(fields.Section):
    """What may be spent in a time. A limit that is absent does not exist; all that exist hold at once."""

    requests_per_minute: fields.Count | None = Field(default=None, description="Requests in a minute.", examples=[50])
    requests_per_hour: fields.Count | None = Field(default=None, description="Requests in an hour.")
    requests_per_day: fields.Count | None = Field(
        default=None, description="Requests in a day; refuses instead of waiting."
    )
    tokens_per_minute: fields.Count | None = Field(
        default=None, description="Input and output tokens together, in a minute."
    )
    tokens_per_hour: fields.Count | None = Field(
        default=None, description="Input and output tokens together, in an hour."
    )
    tokens_per_day: fields.Count | None = Field(
        default=None, description="Input and output tokens together, in a day; refuses."
    )
    input_tokens_per_minute: fields.Count | None = Field(default=None, description="Tokens of prompts, in a minute.")
    input_tokens_per_hour: fields.Count | None = Field(default=None, description="Tokens of prompts, in an hour.")
    input_tokens_per_day: fields.Count | None = Field(default=None, description="Tokens of prompts, in a day; refuses.")
    output_tokens_per_minute: fields.Count | None = Field(default=None, description="Tokens of answers, in a minute.")
    output_tokens_per_hour: fields.Count | None = Field(default=None, description="Tokens of answers, in an hour.")
    output_tokens_per_day: fields.Count | None = Field(
        default=None, description="Tokens of answers, in a day; refuses."
    )
    cost_per_day: fields.Budget | None = Field(
        default=None, description="US dollars in a day; refuses instead of waiting."
    )
    cost_per_call: fields.Budget | None = Field(
        default=None, description="US dollars that a single call may reserve; one that would cost more is refused."
    )
    concurrent_requests: fields.Count | None = Field(default=None, description="Calls in flight at once.")
    algorithm: Algorithm = Field(
        default="auto",
        description="token_bucket starts full and refills steadily; sliding_window gives each request a window of its "
        "own; auto: token_bucket for the vendors' own hosts, sliding_window elsewhere.",
    )

    @property
    def counts_dollars(self) -> bool:
        """Whether calls under these limits need a price."""
        return self.cost_per_day is not None or self.cost_per_call is not None

    def stated(self) -> dict[str, int | float | str]:
        """Return the limits that are set, by field name; empty when this states nothing."""
        return self.model_dump(exclude_defaults=True)

    def part(self, processes: int, place: str) -> RateLimits:
        """Return the part of one of so many processes, rounded down; what bounds a single call is not divided.

        Raises:
            LLMConfigurationError: A limit is smaller than their number; `place` is where these stand.
        """
        parts: dict[str, int | float] = {}
        for name, most in self.stated().items():
            if isinstance(most, str) or name == "cost_per_call":
                continue
            parts[name] = most / processes if isinstance(most, float) else most // processes
            if not parts[name]:
                raise LLMConfigurationError(
                    f"{place}.{name}: {most} cannot be divided among {processes} processes; have fewer of them, or "
                    "share the limits with `limits.store: redis`"
                )
        return self.model_copy(update=parts)


class LimitsConfig(fields.Section):
    """Limits above those of single keys, and where all limits are counted."""

    store: Literal["memory", "redis"] = Field(
        default="memory", description="memory: this process alone; redis: exact limits across processes."
    )
    url: fields.RedisAddress = Field(default="redis://localhost:6379/0", description="The store's address.", repr=False)
    on_store_loss: Literal["fail_closed", "fail_open", "share"] = Field(
        default="fail_closed",
        description="When the store is gone: refuse calls, let them pass, or count this process's part of the limits.",
    )
    processes: fields.Count = Field(
        default=1,
        description="memory: how many processes such as this one there are; each takes its part of every limit.",
    )
    global_: Annotated[RateLimits, fields.Defaulted()] = Field(
        default_factory=RateLimits, alias="global", description="Limits of everything together."
    )
    users: dict[fields.Text, Annotated[RateLimits, fields.Defaulted()]] = Field(
        default_factory=dict[str, RateLimits],
        description="Limits per tenant; `default` is for each user that is not named.",
    )
