from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm.core.config import load_config
from llm.core.exceptions import LLMConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("section", "field", "said"),
    [
        ("type: openai, transport: sdk, sdk: {client: azure, ^api_versoin: v}", "sdk.api_versoin", "api_version"),
        ("type: openai, transport: sdk, sdk: {client: ^azur}", "sdk.client", "azure"),
        ("type: openai, transport: sdk, sdk: {client: ^bedrock}", "sdk.client", "use azure"),
        ("type: anthropic, transport: sdk, sdk: {client: ^azure}", "sdk.client", "use bedrock or vertex"),
        ("type: openai, transport: sdk, sdk: {client: azure, aws_region: ^r}", "sdk.aws_region", "client: bedrock"),
        ("type: openai, transport: sdk, sdk: {api_version: ^v}", "sdk.api_version", "client: azure"),
        ("type: openai, base_url: 'http://h', sdk: ^{client: azure}", "sdk", "transport: sdk"),
        ("type: openrouter, transport: ^sdk, sdk: {}", "transport", "openai and anthropic"),
        ("type: anthropic, api_keys: ^k, transport: sdk, sdk: {client: vertex}", "api_keys", "no keys"),
        (
            "type: anthropic, api_keys: k, transport: sdk, sdk: {client: bedrock, aws_profile: ^x}",
            "sdk.aws_profile",
            "second way",
        ),
        (
            "type: openai, api_keys: k, transport: sdk, sdk: {client: azure, azure_ad_token_provider: ^'a:b'}",
            "sdk.azure_ad_token_provider",
            "second way",
        ),
        (
            "type: openai, transport: sdk, sdk: {client: azure, azure_ad_token_provider: ^nowhere}",
            "sdk.azure_ad_token_provider",
            "package.module:name",
        ),
    ],
)
def test_a_mistake_in_the_vendors_client_is_told_with_its_place(
    section: str, field: str, said: str, tmp_path: Path
) -> None:
    line = f"  p: {{{section}, models: [m]}}"
    file = tmp_path / "llm.yaml"
    file.write_text(f"providers:\n{line.replace('^', '')}\n", encoding="utf-8")
    with pytest.raises(LLMConfigurationError) as caught:
        load_config(file, environ={})
    (problem,) = caught.value.problems
    assert (problem.line, problem.column, problem.field) == (2, line.index("^") + 1, f"providers.p.{field}")
    assert said in problem.message


def test_a_platform_needs_no_key_and_gives_the_dialect_no_address() -> None:
    azure = {"client": "azure", "api_version": "v"}
    config = load_config(
        {
            "providers": {
                "a": {"type": "openai", "transport": "sdk", "base_url": "http://h", "models": "m", "sdk": azure},
                "b": {"type": "openai", "transport": "sdk", "base_url": "http://h", "models": "m", "sdk": {}},
            }
        },
        environ={},
    )
    assert (config.providers["a"].address, config.providers["b"].address) == (None, "http://h")
