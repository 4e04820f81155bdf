"""Configurations that a reload goes to and fro between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .servers import KEYS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llm.testing import MockUpstream

MODELS: Final[Mapping[str, str]] = {
    "alpha": "gpt-4o-mini",
    "beta": "claude-3-5-haiku-20241022",
    "gamma": "gpt-4o-mini",
    "delta": "meta-llama/llama-3.1-8b-instruct",
    "epsilon": "claude-3-5-haiku-20241022",
}
WITNESS: Final = "benchmarks.chaos.witness:Witness"
CHAIN: Final = ("rate_limit", "retry", "cache", "logging", "metrics", WITNESS)

_SECTIONS: Final[Mapping[str, dict[str, Any]]] = {
    "alpha": {"type": "openai"},
    "beta": {"type": "anthropic"},
    "gamma": {"type": "openai", "api": "responses", "transport": "sdk"},
    "delta": {"type": "openrouter"},
    "epsilon": {"type": "anthropic", "transport": "sdk"},
}


def configuration(
    servers: Mapping[str, MockUpstream],
    *,
    keys: Iterable[int] = (0, 1, 2),
    without: str | None = None,
    chain: Iterable[str] = CHAIN,
    concurrent: int = 12,
) -> dict[str, Any]:
    """Return a configuration.

    Args:
        servers: Where the providers are.
        keys: Which of each provider's keys it has.
        without: A provider that it leaves out.
        chain: Its layers.
        concurrent: Calls in flight on a key.
    """
    return {
        "global": {
            "default_provider": "alpha",
            "middleware": list(chain),
            "timeouts": {"connect": 5.0, "first_token": 1.0, "idle": 1.0, "attempt": 1.0},
        },
        "retry": {"max_attempts": 3, "initial_delay": 0.01, "max_delay": 0.1, "retry_after_max": 5.0},
        "cache": {"max_entries": 500},
        "limits": {
            "global": {"concurrent_requests": 56},
            "users": {"default": {"concurrent_requests": 24}, "poor": {"requests_per_day": 40}},
        },
        "pool": {"health_check_interval": 1.0, "max_lifetime": 3.0},
        "providers": {
            name: {
                **section,
                "base_url": servers[name].base_url,
                "api_keys": [KEYS[name][key] for key in keys],
                "models": [MODELS[name]],
                "rate_limits": [{"concurrent_requests": concurrent, "requests_per_minute": 60_000}],
            }
            for name, section in _SECTIONS.items()
            if name != without
        },
    }


def courses(servers: Mapping[str, MockUpstream]) -> list[dict[str, Any]]:
    """Return what is reloaded in turn; the last is refused."""
    return [
        configuration(servers, keys=(0, 2, 3)),
        configuration(servers, concurrent=6),
        configuration(servers, chain=[layer for layer in CHAIN if layer != "logging"]),
        configuration(servers, without="delta"),
        configuration(servers, keys=(0, 1, 2, 3)),
        configuration(servers, keys=(1, 2)),
        configuration(servers),
        configuration(servers) | {"cache": {"backend": "none"}},
    ]
