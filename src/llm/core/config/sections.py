"""The sections that are a plain list of settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from . import fields

CHAIN = ("rate_limit", "retry", "cache", "logging", "metrics")
"""The chain as it comes, outermost first."""


class Timeouts(fields.Section):
    """How long one attempt may take, in seconds."""

    connect: fields.Seconds = Field(default=5.0, description="Seconds until the connection stands.")
    first_token: fields.Seconds = Field(default=60.0, description="Seconds until a stream's first chunk.")
    idle: fields.Seconds = Field(default=60.0, description="Seconds between two chunks of a stream.")
    attempt: fields.Seconds = Field(default=600.0, description="Seconds of a whole attempt.")


class GlobalConfig(fields.Section):
    """What holds for every call."""

    default_provider: fields.Text | None = Field(
        default=None, description="Provider of a call that names none; null: the first one.", examples=["openai"]
    )
    fallback: fields.Texts = Field(
        default=(),
        description="Providers, tried in this order when one cannot serve.",
        examples=[["openai", "anthropic"]],
    )
    fallback_after: fields.SecondsOrZero | None = Field(
        default=None, description="Seconds of waiting for capacity after which the next provider is tried; null: never."
    )
    middleware: fields.Texts = Field(
        default=CHAIN,
        description="The chain, outermost first: rate_limit, retry, cache, logging, metrics, tracing, or "
        "`package.module:Class`.",
    )
    timeout: fields.Seconds | None = Field(
        default=None,
        description="Seconds of the whole call, waiting and retries included; null: as long as the limits need.",
    )
    timeouts: Annotated[Timeouts, fields.Defaulted()] = Field(
        default_factory=Timeouts, description="Seconds of one attempt."
    )
    log_content: fields.Switch = Field(
        default=False, description="Whether logs and errors may hold prompts and answers."
    )


class RetryConfig(fields.Section):
    """How often, and how long after, a failed attempt is repeated."""

    max_attempts: fields.Count = Field(default=4, description="Attempts of a call, the first included.")
    initial_delay: fields.SecondsOrZero = Field(default=0.5, description="Seconds, the upper bound of the first wait.")
    max_delay: fields.SecondsOrZero = Field(default=30.0, description="Seconds, the upper bound of every wait.")
    retry_after_max: fields.SecondsOrZero = Field(
        default=120.0, description="Seconds; a provider that asks for a longer wait ends the call."
    )
    after_send: fields.Switch = Field(
        default=True, description="Whether to repeat what may have reached the provider but gave the caller nothing."
    )
    budget: fields.Share | None = Field(
        default=0.5,
        description="Retries of a provider's failures for each of its calls, of about the last ten seconds, above 0 "
        "and at most 1; ten a second are always allowed. null: no bound.",
    )


class CacheConfig(fields.Section):
    """Where answers are kept, and for how long. Without this section nothing is cached."""

    backend: Literal["none", "memory", "disk", "redis"] = Field(default="memory", description="Where answers are kept.")
    ttl: fields.Seconds = Field(default=3600.0, description="Seconds until an entry ends.")
    max_entries: fields.Count = Field(default=10_000, description="Entries kept; the least recently used leave first.")
    max_bytes: fields.Count = Field(default=268_435_456, description="Bytes kept.")
    path: fields.Folder = Field(default=Path(".cache/llm"), description="Folder of the disk backend.")
    url: fields.RedisAddress | None = Field(default=None, description="Address for the redis backend.", repr=False)
    memory_bytes: fields.CountOrZero = Field(
        default=67_108_864,
        description="Bytes that each process keeps in memory in front of the disk or redis backend; 0: none.",
    )
    scope: Literal["shared", "user"] = Field(default="shared", description="Whether users see each other's entries.")
    single_flight: fields.Switch = Field(default=True, description="Whether identical calls at once make one request.")
    streams: fields.Switch = Field(default=True, description="Whether streams are cached.")
    stale_while_revalidate: fields.SecondsOrZero = Field(
        default=0.0, description="Seconds after its end that an entry is given while it is asked for again."
    )
    stale_if_error: fields.SecondsOrZero = Field(
        default=0.0, description="Seconds after its end that an entry is given where the provider fails."
    )


class SemanticCacheConfig(fields.Section):
    """How `features.semantic_cache` finds questions that mean the same. It needs `cache:`."""

    model: fields.Text | None = Field(
        default=None,
        description="Model that makes the vectors: `provider/model` or an alias; the feature needs one.",
        examples=["openai/text-embedding-3-small"],
    )
    threshold: fields.Share = Field(
        default=0.95, description="Cosine, above 0 and at most 1, from which two questions may share an answer."
    )
    max_entries: fields.Count = Field(
        default=10_000, description="Questions that are compared with; the least recently used leave first."
    )
    timeout: fields.Seconds = Field(
        default=2.0, description="Seconds that a call waits for a vector before it goes on without."
    )


class PoolConfig(fields.Section):
    """How calls take keys in turn. `max_size` is the most calls of a provider in flight."""

    strategy: Literal["round_robin"] = Field(default="round_robin", description="The order in which slots take turns.")
    min_size: fields.CountOrZero = Field(default=1, description="Clients that stay, also when idle.")
    max_size: fields.Count = Field(default=512, description="The most calls of a provider in flight.")
    max_waiting: fields.CountOrZero = Field(default=100_000, description="Calls that may wait; one more is refused.")
    acquire_timeout: fields.Seconds | None = Field(
        default=None, description="Seconds that a call may wait for a key; null: as long as its deadline allows."
    )
    idle_timeout: fields.Seconds = Field(default=300.0, description="Seconds after which an idle client is closed.")
    max_lifetime: fields.Seconds = Field(default=3600.0, description="Seconds after which a client is made anew.")
    health_check_interval: fields.Seconds = Field(
        default=60.0,
        description="Seconds between two looks at the keys: a refused one (401) is asked how it is, and comes back "
        "when it is well; one out of credit is tried by one call after 5 minutes, then 10, up to an hour; idle clients "
        "are closed.",
    )


class BreakerConfig(fields.Section):
    """When a provider that fails is left alone. Without this section it never is."""

    failure_rate: fields.Share = Field(
        default=0.5, description="Share of failed attempts, above 0 and at most 1, that opens."
    )
    window: fields.Seconds = Field(default=30.0, description="Seconds that are looked back on.")
    min_calls: fields.Count = Field(default=20, description="Attempts in the window before the rate says anything.")
    open_for: fields.Seconds = Field(default=15.0, description="Seconds of refusal.")
    half_open_calls: fields.Count = Field(
        default=3, description="Attempts let through then; it closes when they succeed."
    )
    slow_call: fields.Seconds | None = Field(
        default=None,
        description="Seconds to a whole answer, or to a stream's first chunk, above which an attempt counts as failed; "
        "null: never.",
    )


class AliasConfig(fields.Section):
    """A name of one's own for one or more models."""

    targets: fields.Texts = Field(description="`provider/model`, in order.", examples=[["openai/gpt-4o-mini"]])
    strategy: Literal["fallback", "weighted", "cheapest", "fastest"] = Field(
        default="fallback", description="How one of the targets is chosen."
    )
    weights: fields.Weights | None = Field(
        default=None, description="For weighted: a number for each target; null: all the same.", examples=[[3, 1]]
    )


class FeaturesConfig(fields.Section):
    """Switches, also changed by a reload."""

    semantic_cache: fields.Switch = Field(default=False, description="Whether similar prompts may share an answer.")
    dashboard: fields.Switch = Field(default=True, description="Whether the gateway serves /dashboard.")
    graphql: fields.Switch = Field(default=True, description="Whether the gateway serves /graphql.")


class Price(fields.Section):
    """What a model costs, in US dollars per million tokens."""

    input: fields.Dollars = Field(description="US dollars per million tokens of prompt.")
    output: fields.Dollars = Field(description="US dollars per million tokens of answer.")
    cached_input: fields.Dollars | None = Field(
        default=None, description="US dollars per million tokens that the provider had cached; null: as `input`."
    )
