"""What is missing is said when the client is made, before the first call."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from llm.core.config.providers import ProviderConfig
from llm.core.exceptions import LLMConfigurationError
from llm.providers.direct.transport import DirectTransport
from llm.providers.sdk.clients import sdk_transport
from llm.utils.redact import Secret

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_ambient")
KEY = Secret("sk-test-0123456789abcdef")
VERTEX = {"client": "vertex", "region": "global", "project_id": "p"}


def told(kind: str, key: Secret | None = None, **sdk: str) -> str:
    section: dict[str, Any] = {"type": kind, "transport": "sdk", "sdk": sdk or None}
    with pytest.raises(LLMConfigurationError) as caught:
        sdk_transport("mine", ProviderConfig.model_validate(section), key, DirectTransport())
    assert caught.value.__cause__ is None
    return str(caught.value)


def test_no_key_anywhere_is_told() -> None:
    assert "providers.mine" in told("openai")
    assert "OPENAI_API_KEY" in told("openai")
    assert "ANTHROPIC_API_KEY" in told("anthropic")


def test_what_azure_lacks_is_told_in_its_clients_words() -> None:
    assert "api_version" in told("openai", KEY, client="azure")
    assert "AZURE_OPENAI_ENDPOINT" in told("openai", KEY, client="azure", api_version="2024-10-21")
    assert "AZURE_OPENAI_API_KEY" in told("openai", client="azure", api_version="2024-10-21")


def test_what_bedrock_lacks_is_told_in_its_clients_words() -> None:
    assert "AWS_REGION" in told("anthropic", KEY, client="bedrock")


@pytest.mark.parametrize(
    ("client", "module", "needed"),
    [("bedrock", "boto3", "boto3"), ("vertex", "google.auth", "google.auth"), ("vertex", "google", "google.auth")],
)
def test_a_missing_package_is_told_with_what_to_type(
    monkeypatch: pytest.MonkeyPatch, client: str, module: str, needed: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    message = told("anthropic", client=client)
    assert needed in message
    assert f"pip install 'llm-manifold[{client}]'" in message


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("no_such_module_here:f", "ModuleNotFoundError"),
        ("number_auth:absent", "AttributeError"),
        ("number_auth:number", "it is a int"),
    ],
)
def test_a_path_that_leads_to_no_function_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, reason: str
) -> None:
    (tmp_path / "number_auth.py").write_text("number = 7\n")
    monkeypatch.syspath_prepend(str(tmp_path))  # pyright: ignore[reportUnknownMemberType] # bare in pytest
    message = told("anthropic", None, **VERTEX, credentials=path)
    assert "sdk.credentials" in message
    assert reason in message


def test_a_client_that_repeats_its_key_is_told_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loud_auth.py").write_text(f"def f():\n    raise RuntimeError('no luck with {KEY.reveal()}')\n")
    monkeypatch.syspath_prepend(str(tmp_path))  # pyright: ignore[reportUnknownMemberType] # bare in pytest
    message = told("anthropic", KEY, **VERTEX, credentials="loud_auth:f")
    assert "no luck" in message
    assert KEY.reveal() not in message
