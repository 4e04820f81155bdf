from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from llm.core.config.providers import ProviderConfig
from llm.core.protocols import ProviderSettings
from llm.providers.anthropic import AnthropicDialect
from llm.providers.base import HTTPProvider
from llm.providers.openai import OpenAIDialect
from llm.providers.responses import ResponsesDialect
from llm.providers.sdk.clients import sdk_transport
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.providers.conftest import Server

    from llm.providers.dialect import Dialect
    from llm.providers.direct.transport import DirectTransport
    from llm.providers.sdk.transport import SDKTransport
    from llm.utils.redact import Secret

DIALECTS: dict[str, Callable[[str | None], Dialect]] = {
    "openai": OpenAIDialect,
    "responses": ResponsesDialect,
    "anthropic": AnthropicDialect,
}

Through: TypeAlias = Callable[..., HTTPProvider]


@pytest.fixture
def no_ambient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing that the vendors' clients would find by themselves."""
    found = ("OPENAI", "ANTHROPIC", "AZURE", "AWS", "GOOGLE", "CLOUD_ML", "XDG_CONFIG")
    for name in tuple(os.environ):
        if name.startswith(found):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
async def through(server: Server, transport: DirectTransport, key: Secret, no_ambient: None) -> AsyncIterator[Through]:
    """Makes a provider of a type whose calls go through the vendor's client to the test's server."""
    made: list[SDKTransport] = []

    def make(
        kind: str,
        *,
        with_key: bool = True,
        base_url: str | None = None,
        headers: dict[str, Any] | None = None,
        **sdk: str,
    ) -> HTTPProvider:
        section = ProviderConfig.model_validate(
            {
                "type": "openai" if kind == "responses" else kind,
                "transport": "sdk",
                "base_url": base_url or server.url,
                "api_keys": key if with_key else (),
                "sdk": sdk or None,
                "headers": headers or {},
            }
        )
        # In a thread, as a manager does it: the vendors' clients load their parts when they are asked for.
        way = thread.submit(sdk_transport, "section", section, key if with_key else None, transport).result()
        made.append(way)
        settings = ProviderSettings(
            name="section",
            models=("m",),
            clock=SystemClock(),
            transport=way,
            key=key if with_key else None,
            base_url=section.address,
            headers=section.headers,
        )
        return HTTPProvider(settings, DIALECTS[kind](settings.base_url))

    assert no_ambient is None
    with ThreadPoolExecutor(1) as thread:
        yield make
    for each in made:
        await each.close()
