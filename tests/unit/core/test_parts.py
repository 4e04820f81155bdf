"""Routes: what a client holds, and what a reload swaps under it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm import LLMManager, register_provider
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
