"""The whole configuration."""

from __future__ import annotations

import functools
from typing import Annotated, Any

from pydantic import Field, ModelWrapValidatorHandler, model_validator

from llm.core.exceptions import LLMConfigurationError
from llm.utils.redact import redact

from . import fields
from .examine import examine
from .faults import summary
from .gateway import GatewayConfig
from .limits import LimitsConfig
from .providers import ProviderConfig
from .scalars import Value, is_list, is_mapping
from .sections import (
    AliasConfig,
    BreakerConfig,
    CacheConfig,
    FeaturesConfig,
    GlobalConfig,
    PoolConfig,
    Price,
    RetryConfig,
    SemanticCacheConfig,
)


class LLMConfig(fields.Section):
    """Everything that `llm.yaml` says, checked: what it names exists, and its lists fit together.

    `load_config` reads one from a file, a mapping or the environment; `LLMConfig.model_validate` takes a mapping as it
    is, without variables.

    Raises:
        LLMConfigurationError: Anything is wrong; all mistakes in one message.
    """

    watch: fields.Switch = Field(
        default=False,
        description="Whether the file, and the secrets in files that it names, are read again when they change.",
    )
    global_: Annotated[GlobalConfig, fields.Defaulted()] = Field(
        default_factory=GlobalConfig, alias="global", description="What holds for every call."
    )
    retry: Annotated[RetryConfig, fields.Defaulted()] = Field(
        default_factory=RetryConfig, description="How failed attempts are repeated."
    )
    cache: CacheConfig | None = Field(default=None, description="Where answers are kept; without it nothing is cached.")
    semantic_cache: Annotated[SemanticCacheConfig, fields.Defaulted()] = Field(
        default_factory=SemanticCacheConfig, description="How `features.semantic_cache` finds similar questions."
    )
    limits: Annotated[LimitsConfig, fields.Defaulted()] = Field(
        default_factory=LimitsConfig, description="Limits above those of single keys."
    )
    pool: Annotated[PoolConfig, fields.Defaulted()] = Field(
        default_factory=PoolConfig, description="How calls take keys in turn."
    )
    circuit_breaker: BreakerConfig | None = Field(
        default=None, description="When a failing provider is left alone; without it never."
    )
    providers: dict[fields.Text, Annotated[ProviderConfig, fields.Defaulted()]] = Field(
        default_factory=dict[str, ProviderConfig],
        description="Upstreams by name; without them the keys in the environment make them.",
    )
    aliases: dict[fields.Text, AliasConfig] = Field(
        default_factory=dict[str, AliasConfig], description="Names of one's own for models."
    )
    features: Annotated[FeaturesConfig, fields.Defaulted()] = Field(
        default_factory=FeaturesConfig, description="Switches."
    )
    gateway: Annotated[GatewayConfig, fields.Defaulted()] = Field(
        default_factory=GatewayConfig, description="The HTTP gateway."
    )
    prices: dict[fields.Text, Price] = Field(
        default_factory=dict[str, Price],
        description="US dollars per million tokens, by model: where they are not known, or are one's own.",
    )

    @property
    def default_provider(self) -> str:
        """The provider of a call that names none: the one configured, else the first."""
        return self.global_.default_provider or next(iter(self.providers))

    def own_part(self) -> LLMConfig:
        """Return it with this process's part of every limit, where `limits.processes` count each on its own.

        Raises:
            LLMConfigurationError: A limit is too small to be divided.
        """
        limits, parts = self.limits, self.limits.processes
        if parts == 1 or limits.store == "redis":
            return self
        users = {name: user.part(parts, f"limits.users.{name}") for name, user in limits.users.items()}
        everything = limits.global_.part(parts, "limits.global")
        providers = {name: section.part(parts, f"providers.{name}") for name, section in self.providers.items()}
        own = limits.model_copy(update={"global_": everything, "users": users})
        return self.model_copy(update={"limits": own, "providers": providers})

    def masked(self) -> dict[str, Any]:
        """Return the configuration as JSON values, with every secret and every password in a URL as ten asterisks."""
        return _mapping_masked(self.model_dump(mode="json", by_alias=True))

    @model_validator(mode="wrap")
    @classmethod
    def _all_mistakes_at_once(cls, data: Value, handler: ModelWrapValidatorHandler[LLMConfig]) -> LLMConfig:
        config, faults = examine(data, handler, _schema)
        # What is raised below keeps this frame alive, and with it whatever key the mapping holds.
        del data, handler
        if config is None or faults:
            raise LLMConfigurationError(summary(len(faults)), problems=faults)
        return config


@functools.cache
def _schema() -> dict[str, Any]:
    # Made when there is a mistake: it takes longer than all the rest.
    return LLMConfig.model_json_schema()


def _mapping_masked(mapping: dict[str, Any]) -> dict[str, Any]:
    return {name: _masked(item) for name, item in mapping.items()}


def _masked(value: Value) -> Value:
    if is_mapping(value):
        return _mapping_masked(value)
    if is_list(value):
        return [_masked(item) for item in value]
    return redact(value) if isinstance(value, str) and "://" in value else value
