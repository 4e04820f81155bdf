"""Routes: what a client holds, and what a reload swaps under it."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from tests.patience import until

from llm import LLMConfigurationError, LLMManager, register_provider
from llm.testing import FakeClock, FakeProvider, RecordingMiddleware

if TYPE_CHECKING:
    from llm.core.protocols import Provider, ProviderSettings


def config(*providers: str, **sections: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    named = {name: {"type": "double", "api_keys": [f"key-of-{name}"], "models": ["m"]} for name in providers}
    return {"providers": named, **sections}


def double(settings: ProviderSettings) -> Provider:
    return FakeProvider(f"from {settings.name}")


async def test_a_client_of_its_own_layers_keeps_them_on_the_way_to_another_provider_and_through_a_reload() -> None:
    register_provider("double", double)
    events: list[str] = []
    layer = RecordingMiddleware("layer", events)
    async with LLMManager.open(config("a", "b"), clock=FakeClock()) as manager:
        client = manager.get_client("a", middleware=[layer])
        assert str(await client.chat("x")) == "from a"
        assert str(await client.chat("x", model="b/m")) == "from b"
        assert str(await client.chat("x", model="b/m")) == "from b"
        before = len(events)
        await manager.reload(config("a", "b", aliases={"other": {"targets": ["b/m"]}}))
        assert str(await client.chat("x", model="other")) == "from b"
        assert str(await client.chat("x")) == "from a"
        assert len(events) == before // 3 * 5


async def test_a_provider_that_a_reload_takes_away_is_freed_and_its_clients_go_on_when_it_is_back() -> None:
    register_provider("double", double)
    async with LLMManager.open(config("a", "b")) as manager:
        client = manager.get_client("b")
        manager.get_client("a")
        await manager.reload(config("a"))
        with pytest.raises(LLMConfigurationError):
            manager.get_client("b")
        await manager.reload(config("a", "b", retry={"max_attempts": 2}))
        assert str(await client.chat("x")) == "from b"
        assert str(await manager.get_client("b").chat("x")) == "from b"
        pool = weakref.ref(manager._routes.parts.chains["b"].pool)  # pyright: ignore[reportPrivateUsage]
        del client
        await manager.reload(config("a"))

        def is_freed() -> bool:
            gc.collect()
            return pool() is None

        await until(is_freed)
