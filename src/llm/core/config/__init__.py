"""`llm.yaml`: read strictly, checked whole, and kept as frozen values.

`load_config` is the way in, `LLMConfig` what comes out. Every mistake is told with its file, line, column and field,
all of them in one `LLMConfigurationError`; keys are `Secret` from the moment they are read.
"""

from __future__ import annotations

from .gateway import GatewayConfig, GatewayKey
from .limits import LimitsConfig, RateLimits
from .load import file_of, files_of, load_config, locate
from .model import LLMConfig
from .providers import ProviderConfig
from .schema import config_schema
from .sections import (
    AliasConfig,
    BreakerConfig,
    CacheConfig,
    FeaturesConfig,
    GlobalConfig,
    PoolConfig,
    Price,
    RetryConfig,
    Timeouts,
)
from .slots import ANY_MODEL, SlotConfig

__all__ = [
    "ANY_MODEL",
    "AliasConfig",
    "BreakerConfig",
    "CacheConfig",
    "FeaturesConfig",
    "GatewayConfig",
    "GatewayKey",
    "GlobalConfig",
    "LLMConfig",
    "LimitsConfig",
    "PoolConfig",
    "Price",
    "ProviderConfig",
    "RateLimits",
    "RetryConfig",
    "SlotConfig",
    "Timeouts",
    "config_schema",
    "file_of",
    "files_of",
    "load_config",
    "locate",
]
