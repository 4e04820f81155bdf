"""Managers that count their limits in a real store: what they share, what they say of it, and what stays with them."""

# ruff: noqa: ANN401 - configurations as they come
from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Protocol

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from llm import LLMManager
from llm.core.exceptions import LLMRateLimitError
from llm.telemetry.prometheus import ManagerCollector
from llm.testing import MockUpstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

KEY: Final = "sk-stored-0123456789abcdef"


class Server(Protocol):
    url: str

    def command(self, *words: str) -> bytes: ...


@pytest.fixture
def store(redis_server: Callable[[], AbstractContextManager[Server]]) -> Iterator[Server]:
    with redis_server() as server:
        yield server


def config(base_url: str, url: str, **limits: Any) -> dict[str, Any]:
    section = {"base_url": base_url, "api_keys": [KEY], "models": ["m"], "rate_limits": [{"tokens_per_day": 1000}]}
    users = {"default": {"requests_per_day": 2}}
    return {"providers": {"openai": section}, "limits": {"store": "redis", "url": url, "users": users, **limits}}


async def test_managers_share_budgets_of_keys_and_users_and_a_newcomer_knows_them(store: Server) -> None:
    async with MockUpstream() as upstream:
        stated = config(upstream.base_url, store.url)
        async with LLMManager.open(stated) as one, LLMManager.open(stated) as two:
            for manager in (one, two):
                await manager.get_client(user="ann").chat("hello", max_tokens=5)
            with pytest.raises(LLMRateLimitError, match="requests_per_day of the user"):
                await one.get_client(user="ann").chat("hello", max_tokens=5)
        async with LLMManager.open(stated) as late:
            await late.get_client(user="bob").chat("hello", max_tokens=5)
            [key] = late.get_status()["providers"]["openai"]["keys"]
            assert key["models"]["m"]["tokens_per_day"] > 0.0
            await late.reload(config(upstream.base_url, store.url, on_store_loss="share"))
            assert late.get_status()["limits"]["store"]["on_store_loss"] == "share"
            with pytest.raises(LLMRateLimitError):
                await late.get_client(user="ann").chat("hello", max_tokens=5)


async def test_no_key_no_user_and_no_address_is_to_be_read_in_the_store(store: Server) -> None:
    async with MockUpstream() as upstream, LLMManager.open(config(upstream.base_url, store.url)) as manager:
        await manager.get_client(user="ann@example.org").chat("hello", max_tokens=5)
        names = store.command("KEYS", "*")
        assert len(re.findall(rb"llm:(?:key|user|global)-[0-9a-f]{32}\}:log", names)) == 3
        for name in re.findall(rb"\{llm:[^}]+\}:log", names):
            said = names + store.command("XRANGE", name.decode(), "-", "+")
            assert not re.search(rb"sk-stored|ann@|example|127\.0\.0\.1|key-[0-9a-f]{8}\b", said)


async def test_the_status_and_the_metrics_say_how_the_store_is(store: Server) -> None:
    async with MockUpstream() as upstream, LLMManager.open(config(upstream.base_url, store.url)) as manager:
        assert manager.get_status()["limits"]["store"]["state"] == "unused"
        await manager.get_client().chat("hello", max_tokens=5)
        assert manager.get_status()["limits"]["store"] == {
            "state": "connected", "on_store_loss": "fail_closed", "processes": 1, "losses": 0, "calls_without": 0,
        }  # fmt: skip
        registry = CollectorRegistry()
        registry.register(ManagerCollector(manager))
        lines = generate_latest(registry).decode().splitlines()
        assert "llm_limit_store_lost 0.0" in lines
        assert "llm_limit_store_losses_total 0.0" in lines
        assert "llm_limit_store_calls_without_total 0.0" in lines
        assert manager.explain("hello").admitted
