"""`llm.yaml`: every field, every default, and what is refused; seen through `manifold config` and `LLMManager.open`."""

# ruff: noqa: ANN401 - public names are looked up as tests run: a missing one fails its tests, not the collection

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from types import ModuleType

    Program = Callable[..., subprocess.CompletedProcess[str]]

KEY = "sk-planted-0123456789abcdef"
HASH = "sha256:" + "0f" * 32

# The contract's own file: each field once.
WHOLE = """\
watch: false
global:
  default_provider: openai
  fallback: [openai, anthropic, local]
  middleware: [rate_limit, retry, cache, logging, metrics]
  timeout: null
  timeouts: {connect: 5, first_token: 60, idle: 60, attempt: 600}
  log_content: false
retry: {max_attempts: 4, initial_delay: 0.5, max_delay: 30, retry_after_max: 120, after_send: true}
cache: {backend: memory, ttl: 3600, max_entries: 10000, max_bytes: 268435456, path: .cache/llm, url: null,
  memory_bytes: 67108864, scope: shared, single_flight: true, streams: true, stale_while_revalidate: 0,
  stale_if_error: 0}
limits:
  store: memory
  url: redis://localhost:6379/0
  on_store_loss: fail_closed
  global: {requests_per_minute: 1000}
  users:
    default: {requests_per_minute: 60, tokens_per_day: 1000000, cost_per_day: 5.0}
pool: {strategy: round_robin, min_size: 1, max_size: 512, max_waiting: 100000, acquire_timeout: null,
  idle_timeout: 300, max_lifetime: 3600, health_check_interval: 60}
circuit_breaker: {failure_rate: 0.5, window: 30, min_calls: 20, open_for: 15, half_open_calls: 3}
providers:
  anthropic:
    api_keys: ["${ANTHROPIC_KEY_1}", "${ANTHROPIC_KEY_2}", "${file:KEY_FILE}"]
    models: [claude-3-5-haiku-20241022, claude-3-5-sonnet-20241022, claude-3-opus-20240229]
    rate_limits:
      - {requests_per_minute: 50, input_tokens_per_minute: 50000, output_tokens_per_minute: 10000}
    quota_groups: [org-a, org-a, org-b]
    model_families: {haiku: [claude-3-5-haiku-20241022]}
  openai:
    type: openai
    base_url: http://127.0.0.1:9000/v1
    api_keys: [k1, k2]
    models: [gpt-4o-mini]
    rate_limits: [{requests_per_minute: 500, tokens_per_minute: 200000, requests_per_day: 10000,
      concurrent_requests: 32, algorithm: token_bucket}]
    transport: direct
  openrouter: {api_keys: ["${OPENROUTER_API_KEY}"], models: [meta-llama/llama-3.1-8b-instruct]}
  local:
    type: local
    models: [smollm2-135m]
    device: auto
aliases:
  fast: {targets: [openai/gpt-4o-mini, anthropic/claude-3-5-haiku-20241022, local/smollm2-135m], strategy: fallback}
features: {semantic_cache: false, dashboard: true, graphql: true}
gateway:
  host: 127.0.0.1
  port: 8000
  api_keys:
    alice: {key_hash: "KEY_HASH", user: alice, models: ["*"], expires: 2027-12-31}
    bob: {key: "${BOB_KEY}"}
  cors_origins: []
  max_body_bytes: 10485760
  header_timeout: 10
  body_timeout: 30
  drain: 30
  max_user_wait: 0
"""
# Only what has no default; an empty section is one that is switched on.
BARE = "providers: {openai: {api_keys: [k1], models: [gpt-4o-mini], rate_limits: {requests_per_minute: 5}}}\n"
SWITCHED_ON = BARE + "cache: {}\ncircuit_breaker: {}\n"

DEFAULTS: dict[str, object] = {
    "global.middleware": ["rate_limit", "retry", "cache", "logging", "metrics"],
    "global.timeout": None,
    "global.timeouts": {"connect": 5, "first_token": 60, "idle": 60, "attempt": 600},
    "global.log_content": False,
    "retry.max_attempts": 4,
    "retry.initial_delay": 0.5,
    "retry.max_delay": 30,
    "retry.retry_after_max": 120,
    "retry.after_send": True,
    "retry.budget": 0.5,
    "cache.backend": "memory",
    "cache.ttl": 3600,
    "cache.max_entries": 10_000,
    "cache.max_bytes": 268_435_456,
    "cache.path": ".cache/llm",
    "cache.url": None,
    "cache.memory_bytes": 67_108_864,
    "cache.scope": "shared",
    "cache.single_flight": True,
    "cache.streams": True,
    "cache.stale_while_revalidate": 0,
    "cache.stale_if_error": 0,
    "semantic_cache.model": None,
    "semantic_cache.threshold": 0.95,
    "semantic_cache.max_entries": 10_000,
    "semantic_cache.timeout": 2,
    "limits.store": "memory",
    "limits.on_store_loss": "fail_closed",
    "limits.processes": 1,
    "pool.strategy": "round_robin",
    "pool.min_size": 1,
    "pool.max_size": 512,
    "pool.max_waiting": 100_000,
    "pool.acquire_timeout": None,
    "pool.idle_timeout": 300,
    "pool.max_lifetime": 3600,
    "pool.health_check_interval": 60,
    "circuit_breaker.failure_rate": 0.5,
    "circuit_breaker.window": 30,
    "circuit_breaker.min_calls": 20,
    "circuit_breaker.open_for": 15,
    "circuit_breaker.half_open_calls": 3,
    "circuit_breaker.slow_call": None,
    "providers.openai.type": "openai",
    "providers.openai.transport": "direct",
    "providers.openai.rate_limits.0.algorithm": "auto",
    "watch": False,
    "features.semantic_cache": False,
    "features.dashboard": True,
    "features.graphql": True,
    "gateway.host": "127.0.0.1",
    "gateway.port": 8000,
    "gateway.api_keys": {},
    "gateway.cors_origins": [],
    "gateway.max_body_bytes": 10_485_760,
    "gateway.header_timeout": 10,
    "gateway.body_timeout": 30,
    "gateway.drain": 30,
    "gateway.max_user_wait": 0,
    "gateway.max_connections": 2048,
}
STATED: dict[str, object] = {
    "global.default_provider": "openai",
    "global.fallback": ["openai", "anthropic", "local"],
    "limits.url": "redis://localhost:6379/0",
    "limits.global.requests_per_minute": 1000,
    "limits.users.default.requests_per_minute": 60,
    "limits.users.default.tokens_per_day": 1_000_000,
    "limits.users.default.cost_per_day": 5.0,
    "providers.anthropic.quota_groups": ["org-a", "org-a", "org-b"],
    "providers.anthropic.model_families": {"haiku": ["claude-3-5-haiku-20241022"]},
    "providers.anthropic.rate_limits.0.input_tokens_per_minute": 50_000,
    "providers.anthropic.rate_limits.0.output_tokens_per_minute": 10_000,
    "providers.openai.base_url": "http://127.0.0.1:9000/v1",
    "providers.openai.rate_limits.0.requests_per_minute": 500,
    "providers.openai.rate_limits.0.tokens_per_minute": 200_000,
    "providers.openai.rate_limits.0.requests_per_day": 10_000,
    "providers.openai.rate_limits.0.concurrent_requests": 32,
    "providers.openai.rate_limits.0.algorithm": "token_bucket",
    "providers.openrouter.models": ["meta-llama/llama-3.1-8b-instruct"],
    "providers.local.type": "local",
    "providers.local.device": "auto",
    "aliases.fast.targets": ["openai/gpt-4o-mini", "anthropic/claude-3-5-haiku-20241022", "local/smollm2-135m"],
    "aliases.fast.strategy": "fallback",
    "gateway.api_keys.alice.user": "alice",
    "gateway.api_keys.alice.models": ["*"],
    "gateway.api_keys.alice.expires": "2027-12-31",
    "gateway.api_keys.alice.operator": False,
}
IN_THE_FILE = {path: value for path, value in DEFAULTS.items() if path != "gateway.api_keys"} | STATED
REFUSED = {
    "an unknown section": ("provider: {}\n" + BARE, "provider", 1),
    "an unknown field": (BARE + "retry: {max_attemps: 3}\n", "retry.max_attemps", 2),
    "a repeated key": (BARE + "retry: {max_attempts: 3}\nretry: {max_attempts: 4}\n", "retry", 3),
    "a number out of range": (BARE + "pool:\n  max_size: 0\n", "pool.max_size", 3),
    "a share above one": (BARE + "circuit_breaker:\n  failure_rate: 1.5\n", "circuit_breaker.failure_rate", 3),
    "a negative limit": (
        BARE + "limits:\n  global: {requests_per_minute: -1}\n",
        "limits.global.requests_per_minute",
        3,
    ),
    "the wrong kind": (BARE + "cache:\n  ttl: soon\n", "cache.ttl", 3),
    "an unknown word": (BARE + "cache:\n  backend: floppy\n", "cache.backend", 3),
    "an unknown strategy": (BARE + "pool:\n  strategy: best\n", "pool.strategy", 3),
    "an unknown middleware": (BARE + "global:\n  middleware: [retry, nonsense]\n", "global.middleware", 3),
    "a default that is no provider": (BARE + "global:\n  default_provider: nobody\n", "global.default_provider", 3),
    "an unset variable": (BARE.replace("[k1]", '["${NOT_SET_ANYWHERE}"]'), "providers.openai.api_keys", 1),
}


def at(tree: Any, path: str) -> Any:
    found = tree
    for step in path.split("."):
        found = found[int(step) if step.isdigit() else step]
    return found


@pytest.fixture(scope="module")
def shown(manifold: Program, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """What a configuration comes to, as `manifold config show --json` prints it; each one asked for once."""
    folder = tmp_path_factory.mktemp("shown")
    (folder / "third.key").write_text(KEY + "-3\n", encoding="utf-8")
    variables = dict.fromkeys(("ANTHROPIC_KEY_1", "OPENROUTER_API_KEY", "BOB_KEY"), KEY) | {
        "ANTHROPIC_KEY_2": KEY + "-2"
    }

    @cache
    def run(text: str) -> subprocess.CompletedProcess[str]:
        written = text.replace("KEY_FILE", str(folder / "third.key")).replace("KEY_HASH", HASH)
        (folder / "llm.yaml").write_text(written, encoding="utf-8")
        return manifold("config", "show", "--json", cwd=folder, **variables)

    def show(text: str) -> Any:
        done = run(text)
        assert done.returncode == 0, done.stderr
        assert KEY not in done.stdout + done.stderr
        assert "**********" in done.stdout
        return json.loads(done.stdout)

    return show


@pytest.mark.parametrize(("path", "value"), DEFAULTS.items())
def test_a_fields_default(shown: Callable[[str], Any], path: str, value: object) -> None:
    assert at(shown(SWITCHED_ON), path) == value


@pytest.mark.parametrize(("path", "value"), IN_THE_FILE.items())
def test_the_contracts_own_file_loads_field_by_field(shown: Callable[[str], Any], path: str, value: object) -> None:
    assert at(shown(WHOLE), path) == value


def test_nothing_is_cached_without_a_cache_section(shown: Callable[[str], Any]) -> None:
    assert (shown(BARE).get("cache") or {"backend": "none"})["backend"] == "none"


def test_no_breaker_without_its_section(shown: Callable[[str], Any]) -> None:
    assert shown(BARE).get("circuit_breaker") is None


@pytest.mark.parametrize(
    "seed",
    [
        BARE.replace("[k1]", "k1"),
        BARE.replace("[gpt-4o-mini]", "gpt-4o-mini"),
        BARE.replace("{requests_per_minute: 5}", "[{requests_per_minute: 5}]"),
    ],
    ids=["one key", "one model", "a list of limits"],
)
def test_one_value_means_a_list_of_one(shown: Callable[[str], Any], seed: str) -> None:
    assert shown(seed) == shown(BARE)


async def test_a_mapping_and_a_file_mean_the_same(llm: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_text(BARE, encoding="utf-8")
    mapping = {
        "providers": {
            "openai": {"api_keys": ["k1"], "models": ["gpt-4o-mini"], "rate_limits": {"requests_per_minute": 5}}
        }
    }
    async with llm.LLMManager.open(tmp_path / "some.yaml") as one, llm.LLMManager.open(mapping) as other:
        assert list(one.get_status()["providers"]) == list(other.get_status()["providers"]) == ["openai"]


@pytest.mark.parametrize("why", REFUSED)
async def test_a_mistake_is_refused_with_file_line_column_and_field(llm: ModuleType, tmp_path: Path, why: str) -> None:
    text, field, line = REFUSED[why]
    path = tmp_path / "llm.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(llm.LLMConfigurationError) as caught:
        await llm.LLMManager.open(path)
    error = caught.value
    assert (error.file, error.line) == (str(path), line)
    assert error.column >= 1
    assert error.field.startswith(field)
    assert f"{path}:{line}:{error.column}" in str(error)


async def test_all_mistakes_come_in_one_message(llm: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "llm.yaml"
    path.write_text(BARE + "retry: {max_attempts: -1}\ncache: {ttll: 3}\npool: {strategy: best}\n", encoding="utf-8")
    with pytest.raises(llm.LLMConfigurationError) as caught:
        await llm.LLMManager.open(path)
    told = str(caught.value)
    assert [line for line in (2, 3, 4) if f"{path}:{line}:" not in told] == []


LISTS_DISAGREE = "providers: {openai: {api_keys: [k1, k2, k3], models: [gpt-4o-mini, gpt-4o]}}\n"
LIMITS_DISAGREE = """\
providers:
  openai:
    api_keys: [k1, k2]
    models: [gpt-4o-mini]
    quota_groups: [org-a, org-a]
    rate_limits: [{requests_per_minute: 10}, {requests_per_minute: 20}]
"""


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (LISTS_DISAGREE, ["api_keys", "models", "3", "2"]),
        (LIMITS_DISAGREE, ["org-a", "rate_limits[0]", "rate_limits[1]", "requests_per_minute"]),
    ],
    ids=["lengths", "limits of one account"],
)
async def test_lists_that_disagree_are_named(llm: ModuleType, tmp_path: Path, text: str, named: list[str]) -> None:
    path = tmp_path / "llm.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(llm.LLMConfigurationError) as caught:
        await llm.LLMManager.open(path)
    assert [word for word in named if word not in str(caught.value)] == []


async def test_a_mistake_never_shows_a_key(llm: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "llm.yaml"
    path.write_text(
        BARE.replace("k1", KEY) + f"gateway: {{api_keys: {{bob: {{key: {KEY}, usr: 1}}}}}}\n", encoding="utf-8"
    )
    with pytest.raises(llm.LLMConfigurationError) as caught:
        await llm.LLMManager.open(path)
    assert KEY not in str(caught.value) + repr(caught.value)


SECTIONS = {
    "global",
    "retry",
    "cache",
    "limits",
    "pool",
    "circuit_breaker",
    "providers",
    "aliases",
    "features",
    "gateway",
}


def test_the_schema_for_editors_knows_every_section(manifold: Program) -> None:
    done = manifold("config", "schema")
    schema = json.loads(done.stdout)
    assert done.returncode == 0
    assert "json-schema.org" in schema["$schema"]
    assert schema["properties"].keys() >= SECTIONS
    assert schema["additionalProperties"] is False


def test_the_shipped_file_is_valid_and_takes_its_providers_from_the_environment(manifold: Program) -> None:
    path = Path(__file__).parents[2] / "config" / "llm.yaml"
    done = manifold("config", "show", "--json", "--config", str(path), OPENAI_API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)["providers"]) == ["openai"]
    assert KEY not in done.stdout


def test_the_environment_beats_the_file(manifold: Program, tmp_path: Path) -> None:
    (tmp_path / "llm.yaml").write_text(BARE + "retry: {max_attempts: 2}\n", encoding="utf-8")
    done = manifold("config", "show", "--json", cwd=tmp_path, LLM__RETRY__MAX_ATTEMPTS="7")
    assert json.loads(done.stdout)["retry"]["max_attempts"] == 7


def test_the_command_line_beats_the_environment(manifold: Program, tmp_path: Path) -> None:
    for name, attempts in {"named.yaml": 2, "given.yaml": 3}.items():
        (tmp_path / name).write_text(BARE + f"retry: {{max_attempts: {attempts}}}\n", encoding="utf-8")
    done = manifold("config", "show", "--json", "--config", "given.yaml", cwd=tmp_path, LLM_CONFIG="named.yaml")
    assert json.loads(done.stdout)["retry"]["max_attempts"] == 3
