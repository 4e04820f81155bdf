"""The vendors' own clients, made from a provider's section: for their plain addresses, Azure, Bedrock and Vertex."""

from __future__ import annotations

import importlib
import inspect
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from llm.core.config.sdk import SDKConfig
from llm.core.exceptions import LLMConfigurationError
from llm.providers import anthropic as anthropic_dialect
from llm.providers import openai as openai_dialect
from llm.providers.dialect import root_of
from llm.utils.redact import Secret, redact

from .line import client_on
from .transport import SDKTransport, Vendor

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm.core.config.providers import ProviderConfig
    from llm.core.protocols import Transport

_NEEDED: Final = {"bedrock": ("boto3", "botocore"), "vertex": ("google.auth", "requests")}

# What our dialect writes and reads, in the words of each platform; what a client of today would say in its place is
# another format. Sources: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages.html,
# https://cloud.google.com/vertex-ai/generative-ai/docs/partner-models/claude/use-claude
_BEDROCK: Final = "bedrock-2023-05-31"
_VERTEX: Final = "vertex-2023-10-16"


def sdk_transport(name: str, section: ProviderConfig, key: Secret | None, carrier: Transport) -> SDKTransport:
    """Return a transport through the vendor's client for one key of a provider.

    Args:
        name: The provider's.
        section: Its section.
        key: The key; None where the client finds its credentials elsewhere.
        carrier: What carries the requests that the client has written.

    Raises:
        LLMConfigurationError: The client cannot be made of this; says what is missing.
    """
    sdk = section.sdk or SDKConfig()
    make = _MAKERS[section.type, sdk.client]
    if sdk.credentials is None:
        _check_installed(name, sdk.client)
    secrets = () if key is None else (key,)
    hidden = {name.lower(): value for name, value in section.headers.items() if isinstance(value, Secret)}
    common = {"http_client": client_on(carrier, hidden), "max_retries": 0}
    try:
        vendor = make(section, sdk, None if key is None else key.reveal(), common)
        return SDKTransport(vendor, hidden=frozenset(hidden))
    except Exception as error:  # noqa: BLE001 - whatever the client's constructor, and what it asks, may raise
        reason = redact(" ".join(str(error).split()), secrets)
    raise LLMConfigurationError(f"providers.{name}: the vendor's client cannot be made: {reason}")


def _check_installed(name: str, client: str | None) -> None:
    missing = [module for module in _NEEDED.get(client or "", ()) if not _is_installed(module)]
    if missing:
        raise LLMConfigurationError(
            f"providers.{name}.sdk.client: {client} needs {' and '.join(missing)}; type: pip install "
            f"'llm-manifold[{client}]'"
        )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package in a package, the outer one
        return False


def _plain_openai(section: ProviderConfig, _: SDKConfig, key: str | None, common: dict[str, Any]) -> Vendor:
    from openai import AsyncOpenAI, OpenAIError

    root = root_of(section.base_url or openai_dialect.BASE_URL, version="/v1")
    return Vendor(AsyncOpenAI(api_key=key, base_url=root, **common), OpenAIError, root)


def _azure(section: ProviderConfig, sdk: SDKConfig, key: str | None, common: dict[str, Any]) -> Vendor:
    from openai import AsyncAzureOpenAI, OpenAIError

    stated: dict[str, Any] = {
        "api_key": key,
        "azure_ad_token_provider": _function("azure_ad_token_provider", sdk.azure_ad_token_provider),
        "azure_endpoint": section.base_url,
        "azure_deployment": sdk.azure_deployment,
        "api_version": sdk.api_version,
    }
    client = AsyncAzureOpenAI(**stated, **common)
    return Vendor(client, OpenAIError, openai_dialect.BASE_URL, rewrites=True)


def _plain_anthropic(section: ProviderConfig, _: SDKConfig, key: str | None, common: dict[str, Any]) -> Vendor:
    from anthropic import AnthropicError, AsyncAnthropic

    root = root_of(section.base_url or anthropic_dialect.BASE_URL, version="").removesuffix("/v1")
    client = AsyncAnthropic(api_key=key, base_url=root, **common, **_untraced(AsyncAnthropic))
    if client.api_key is None and client.auth_token is None and client.credentials is None:
        raise LLMConfigurationError("no key; give api_keys, or what AsyncAnthropic finds by itself: ANTHROPIC_API_KEY")
    return Vendor(client, AnthropicError, root)


def _bedrock(section: ProviderConfig, sdk: SDKConfig, key: str | None, common: dict[str, Any]) -> Vendor:
    from anthropic import AnthropicError
    from anthropic.lib.bedrock import AsyncAnthropicBedrock

    importlib.import_module("botocore.eventstream")  # now, for a stream that waits for it would stop the others
    stated: dict[str, Any] = {
        "api_key": key,
        "aws_region": sdk.aws_region,
        "aws_profile": sdk.aws_profile,
        "base_url": section.base_url,
    }
    client = AsyncAnthropicBedrock(**stated, **common, **_untraced(AsyncAnthropicBedrock))
    return Vendor(
        client, AnthropicError, anthropic_dialect.BASE_URL, rewrites=True, version=_BEDROCK, frames=True, lists=False
    )


def _vertex(section: ProviderConfig, sdk: SDKConfig, _: str | None, common: dict[str, Any]) -> Vendor:
    from anthropic import AnthropicError
    from anthropic.lib.vertex import AsyncAnthropicVertex

    found = _function("credentials", sdk.credentials)
    stated: dict[str, Any] = {"region": sdk.region, "project_id": sdk.project_id, "base_url": section.base_url}
    given = {name: value for name, value in stated.items() if value is not None}
    signed: dict[str, Any] = {"credentials": None if found is None else found()}
    client = AsyncAnthropicVertex(**given, **signed, **common, **_untraced(AsyncAnthropicVertex))
    return Vendor(client, AnthropicError, anthropic_dialect.BASE_URL, rewrites=True, version=_VERTEX, lists=False)


def _untraced(client: type) -> dict[str, Any]:
    # Its spans would tell of what it sees, and it sees no failure. A version that makes none takes no such option.
    return {"open_telemetry": False} if "open_telemetry" in inspect.signature(client).parameters else {}


_MAKERS: Final[
    dict[tuple[str, str | None], Callable[[ProviderConfig, SDKConfig, str | None, dict[str, Any]], Vendor]]
] = {
    ("openai", None): _plain_openai,
    ("openai", "azure"): _azure,
    ("anthropic", None): _plain_anthropic,
    ("anthropic", "bedrock"): _bedrock,
    ("anthropic", "vertex"): _vertex,
}


def _function(field: str, path: str | None) -> Callable[[], Any] | None:
    if path is None:
        return None
    module, _, name = path.partition(":")
    try:
        found: Callable[[], Any] = getattr(importlib.import_module(module), name)
    except Exception as error:  # noqa: BLE001 - a module of the user's may raise anything
        reason = type(error).__name__
    else:
        if callable(found):
            return found
        reason = f"it is a {type(found).__name__}"
    raise LLMConfigurationError(f"sdk.{field}: {path} is no function that can be used ({reason})")
