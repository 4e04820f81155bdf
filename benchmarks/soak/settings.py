"""The vendors behind the gateway, its configuration, and the keys that its callers have."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from benchmarks.chaos.servers import faults
from llm.testing import MockUpstream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

GPT: Final = "gpt-4o-mini"
CLAUDE: Final = "claude-haiku-4-5"
VECTORS: Final = "text-embedding-3-small"
SHAKY: Final = "shaky"
"""The model of a provider that fails."""

KEYS: Final[Mapping[str, str]] = {
    name: f"gw-soak-{name}-0123456789abcdef" for name in ("alice", "bob", "carol", "dave", "erin")
}
"""Keys of callers: Alice may do anything, Bob may ask Claude alone, Carol has a limit, Dave's key comes and goes with
each reload, and Erin's has expired."""

HEADER_TIMEOUT: Final = 1.0
MOST_BYTES: Final = 1_000_000
_SHARE: Final = 0.4
_SERVICE: Final = 0.03
_PATIENCE: Final = 5.0  # seconds; of the provider that fails some answers stall


@asynccontextmanager
async def vendors(seed: int, *, stalls: bool) -> AsyncGenerator[Mapping[str, MockUpstream]]:
    """Serve all providers, of which `shaky` fails in every way; with `stalls` it also says nothing at times."""
    faulty = [fault for fault in faults(_SHARE) if stalls or fault.kind != "stalled"]
    servers = {
        "openai": MockUpstream("openai", service=_SERVICE, seed=seed),
        "anthropic": MockUpstream("anthropic", service=_SERVICE, seed=seed),
        SHAKY: MockUpstream("openai", service=_SERVICE, faults=faulty, seed=seed),
    }
    async with AsyncExitStack() as stack:
        for server in servers.values():
            await stack.enter_async_context(server)
        yield servers


def configuration(servers: Mapping[str, MockUpstream], *, with_dave: bool) -> dict[str, Any]:
    """Return what the gateway reads; Dave's key comes and goes."""
    keys: dict[str, dict[str, Any]] = {name: {"key": key, "user": name} for name, key in KEYS.items()}
    keys["bob"]["models"] = [CLAUDE]
    keys["erin"]["expires"] = "2020-01-01"
    if not with_dave:
        del keys["dave"]

    def section(kind: str, server: str, *models: str) -> dict[str, Any]:
        upstream = servers[server].base_url
        return {"type": kind, "base_url": upstream, "api_keys": [f"k-{server}-1", f"k-{server}-2"], "models": models}

    return {
        "global": {"timeouts": {"first_token": _PATIENCE, "idle": _PATIENCE, "attempt": 3 * _PATIENCE}},
        "retry": {"max_attempts": 2, "initial_delay": 0.01, "max_delay": 0.1, "retry_after_max": 1.0},
        "cache": {"max_entries": 200},
        "limits": {"users": {"carol": {"requests_per_minute": 60}}},
        "providers": {
            "openai": section("openai", "openai", GPT, VECTORS),
            "anthropic": section("anthropic", "anthropic", CLAUDE),
            SHAKY: section("openai", SHAKY, SHAKY),
        },
        "gateway": {"api_keys": keys, "header_timeout": HEADER_TIMEOUT, "max_body_bytes": MOST_BYTES, "drain": 2},
    }
