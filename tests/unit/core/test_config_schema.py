from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import ValidationError

from llm.core.config import CacheConfig, LLMConfig, RateLimits, RetryConfig, config_schema, load_config

SHIPPED = Path(__file__).parents[3] / "config"


def test_the_shipped_schema_is_the_models_own() -> None:
    text = (SHIPPED / "llm.schema.json").read_text(encoding="utf-8")
    current = json.dumps(config_schema(), indent=2, ensure_ascii=False) + "\n"
    assert text == current, "the models changed: manifold config schema > config/llm.schema.json"


def test_editors_find_the_schema_from_the_file() -> None:
    first = (SHIPPED / "llm.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=llm.schema.json"


def fields(node: object, path: str = "") -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    if isinstance(node, dict):
        mapping = cast("dict[str, Any]", node)
        for name, below in mapping.items():
            if name == "properties":
                found += [(f"{path}.{field}", schema) for field, schema in below.items()]
            found += fields(below, f"{path}.{name}")
    return found


def test_every_field_is_described_and_nothing_else_is_allowed() -> None:
    schema = config_schema()
    undescribed = [path for path, field in fields(schema) if "description" not in field and "$ref" not in str(field)]
    assert undescribed == []
    assert all(model["additionalProperties"] is False for model in schema["$defs"].values())
    assert schema["title"]
    assert schema["$schema"].startswith("https://json-schema.org/")


def test_every_field_stands_in_the_shipped_file() -> None:
    text = (SHIPPED / "llm.yaml").read_text(encoding="utf-8")
    names = {path.rpartition(".")[2] for path, _ in fields(config_schema())} - {"key"}
    assert [name for name in sorted(names) if name not in text] == []


def test_the_contracts_example_is_read_whole() -> None:
    config = load_config(
        {
            "global": {"default_provider": "openai", "fallback": ["openai", "local"], "timeouts": {"connect": 1}},
            "retry": {"max_attempts": 2},
            "cache": {"path": "/tmp/x", "url": None},  # noqa: S108 - a path that is only compared
            "circuit_breaker": {},
            "limits": {"global": {"requests_per_minute": 1000}, "users": {"default": {"cost_per_day": 5}}},
            "providers": {
                "openai": {"base_url": "http://h/v1", "api_keys": ["k1", "k2"], "models": "m", "rate_limits": {}},
                "local": {"models": "smollm2-135m", "device": "cpu"},
            },
            "aliases": {
                "fast": {"targets": ["openai/m", "local/smollm2-135m"], "strategy": "weighted", "weights": [1, 2]}
            },
            "features": {"dashboard": False},
            "gateway": {"api_keys": {"a": {"key": "k", "expires": "2027-12-31", "models": "m", "user": "u"}}},
            "prices": {"m": {"input": 1, "output": 2}},
        },
        environ={},
    )
    assert (config.default_provider, config.global_.timeouts.connect, config.global_.timeouts.idle) == ("openai", 1, 60)
    assert config.global_.fallback_after is None
    assert config.cache == CacheConfig(path=Path("/tmp/x"))  # noqa: S108 - as above
    assert config.circuit_breaker is not None
    assert config.limits.users["default"].cost_per_day == 5.0
    assert config.aliases["fast"].weights == (1.0, 2.0)
    assert (config.features.dashboard, config.features.graphql) == (False, True)
    key = config.gateway.api_keys["a"]
    assert (key.user, key.models, key.expires) == ("u", ("m",), date(2027, 12, 31))
    assert (config.prices["m"].output, config.prices["m"].cached_input) == (2.0, None)


def test_what_is_absent_has_the_contracts_defaults() -> None:
    config = load_config({}, environ={})
    assert config.cache is None
    assert config.circuit_breaker is None
    assert config.retry == RetryConfig()
    assert config.global_.middleware == ("rate_limit", "retry", "cache", "logging", "metrics")
    assert (config.pool.max_size, config.pool.max_waiting, config.gateway.drain) == (512, 100_000, 30)
    assert RateLimits().stated() == {}
    empty: dict[str, None] = dict.fromkeys(
        ["global", "retry", "limits", "pool", "features", "gateway", "cache", "providers"]
    )
    assert load_config(empty, environ={}) == config


def test_a_configuration_is_frozen() -> None:
    config = load_config({}, environ={})
    with pytest.raises(ValidationError, match="frozen"):
        config.retry.max_attempts = 3
    assert isinstance(config, LLMConfig)
    assert config.masked() == json.loads(json.dumps(config.masked()))
