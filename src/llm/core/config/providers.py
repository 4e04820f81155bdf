"""A provider's section: lists that make slots."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llm.core import kinds
from llm.core.exceptions import LLMConfigurationError
from llm.utils.redact import Secret

from . import fields, request_headers
from .limits import RateLimits
from .routing import RoutingConfig
from .sdk import SDKConfig  # noqa: TC001 - pydantic reads the annotation when the class is made
from .slots import SlotConfig, broadcast

Routing = RoutingConfig | None
LimitsList = Annotated[tuple[Annotated[RateLimits, fields.Defaulted()], ...], fields.OneOrMany()]


class EngineConfig(fields.Section):
    """How local models run; sections with the same device and the same words here share their models."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="Numbers; auto: as saved, but float32 on a CPU without instructions for that."
    )
    threads: fields.Count | None = Field(default=None, description="Cores to use; null: all physical ones.")
    memory_limit: fields.Count | None = Field(
        default=None, description="Bytes that models and their requests may have together; null: no limit."
    )
    max_batch: fields.Count = Field(default=64, description="Requests to one model that run at once.")
    max_waiting: fields.CountOrZero = Field(
        default=256, description="Requests that may wait for a place; with more, the model is overloaded."
    )
    prompt_lookup: bool = Field(
        default=True, description="Whether few requests at once guess their next tokens from the text so far."
    )


class ProviderConfig(fields.Section):
    """One upstream: its keys, models and limits.

    Each of the four lists takes one value or a list. Entry i makes slot i; a list of one is for all slots; other
    lengths must agree.
    """

    type: str = Field(
        default="",
        description=f"{', '.join(kinds.ALL)}, or a registered name; default: the section's name. `openai` with a "
        "base_url is any compatible server.",
        examples=["openai"],
    )
    base_url: fields.HTTPAddress | None = Field(
        default=None, description="Address, as the vendor's own client takes it; null: the vendor's.", repr=False
    )
    api_keys: fields.Keys = Field(default=(), description="Key i of slot i.", examples=[["${OPENAI_API_KEY}"]])
    models: fields.Texts = Field(
        default=(), description="Model i of slot i; `*` takes any model.", examples=[["gpt-4o-mini"]]
    )
    rate_limits: LimitsList = Field(
        default=(), description="Limits of slot i's account.", examples=[[{"requests_per_minute": 50}]]
    )
    quota_groups: fields.Texts = Field(
        default=(), description="Slot i's group: keys that draw on the same limits; default: each key its own."
    )
    model_families: dict[fields.Text, fields.Texts] = Field(
        default_factory=dict[str, tuple[str, ...]],
        description="Models with limits of their own, by family; default: all models of a group share.",
        examples=[{"haiku": ["claude-3-5-haiku-20241022"]}],
    )
    transport: Literal["direct", "sdk"] = Field(
        default="direct",
        description="direct: our own; sdk: through the vendor's client, for Azure, Bedrock and Vertex.",
    )
    sdk: SDKConfig | None = Field(default=None, description="Which of the vendor's clients `transport: sdk` means.")
    api: Literal["chat_completions", "responses"] = Field(
        default="chat_completions",
        description="Which of OpenAI's two interfaces is spoken; responses: only with `type: openai`.",
    )
    device: fields.Text = Field(default="auto", description="Where a local model runs: auto, cpu, cuda, cuda:1, mps.")
    engine: EngineConfig | None = Field(default=None, description="How local models run; null: as the defaults say.")
    headers: request_headers.Headers = Field(
        default_factory=dict[str, Secret | str],
        description="Headers of one's own, sent with every request; keys belong under api_keys.",
        examples=[{"HTTP-Referer": "https://app.example.org", "X-Title": "My app"}],
    )
    on_unsupported: Literal["drop", "refuse"] = Field(
        default="drop",
        description="OpenRouter: what becomes of a sampling parameter that the model does not take; drop: it is left "
        "out, and a warning says so once.",
    )
    models_ttl: fields.Seconds = Field(
        default=3600.0, description="OpenRouter: seconds after which the list of what models take is fetched again."
    )
    routing: Routing = Field(
        default=None, description="OpenRouter: which of the providers behind it serve, and which models otherwise."
    )

    @property
    def address(self) -> str | None:
        """Base URL for the dialect; None for the vendor's, and where a platform's client alone knows where calls go."""
        return None if self.sdk is not None and self.sdk.client is not None else self.base_url

    def part(self, processes: int, place: str) -> ProviderConfig:
        """Return the section with the part of one of so many processes of every limit.

        Raises:
            LLMConfigurationError: A limit is too small to be divided.
        """
        parts = [limits.part(processes, f"{place}.rate_limits[{at}]") for at, limits in enumerate(self.rate_limits)]
        return self.model_copy(update={"rate_limits": tuple(parts)})

    @property
    def slots(self) -> tuple[SlotConfig, ...]:
        """The slots that the lists make, made anew on each access.

        Raises:
            LLMConfigurationError: The lists do not fit together; never from a provider of a whole `LLMConfig`.
        """
        slots, faults = broadcast(self)
        if faults:
            message = "the provider's lists do not fit together"
            raise LLMConfigurationError(message, problems=faults)
        return slots
