"""`sdk:`, which of the vendor's clients is meant and where its platform is, and what of it fits together."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final, Literal, Protocol

from pydantic import AfterValidator, Field

from . import fields
from .faults import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llm.utils.redact import Secret

_TYPES: Final = {"openai": (None, "azure"), "anthropic": (None, "bedrock", "vertex")}
"""Clients by the type of the provider; None is the vendor's plain one."""

_FIELDS: Final = {
    "azure": ("api_version", "azure_deployment", "azure_ad_token_provider"),
    "bedrock": ("aws_region", "aws_profile"),
    "vertex": ("region", "project_id", "credentials"),
}


def _function(path: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", path):
        fields.refuse("expected a function as package.module:name")
    return path


_Function = Annotated[fields.Text, AfterValidator(_function)]


class SDKConfig(fields.Section):
    """A platform that is reached through the vendor's own client.

    What is left out, the client looks for where its own documentation says, mostly in the environment.
    """

    client: Literal["azure", "bedrock", "vertex"] | None = Field(
        default=None,
        description="azure (type openai), bedrock or vertex (type anthropic); null: the vendor's plain client.",
        examples=["azure"],
    )
    api_version: fields.Text | None = Field(
        default=None, description="azure: version of the API.", examples=["2024-10-21"]
    )
    azure_deployment: fields.Text | None = Field(
        default=None, description="azure: deployment for every call; null: the one of the model's name."
    )
    azure_ad_token_provider: _Function | None = Field(
        default=None,
        description="azure: function without arguments that returns, or awaits, a token of Microsoft Entra ID; as "
        "package.module:name.",
    )
    aws_region: fields.Text | None = Field(default=None, description="bedrock: region.", examples=["us-east-1"])
    aws_profile: fields.Text | None = Field(default=None, description="bedrock: profile of the AWS configuration.")
    region: fields.Text | None = Field(default=None, description="vertex: region.", examples=["us-east5"])
    project_id: fields.Text | None = Field(default=None, description="vertex: project.")
    credentials: _Function | None = Field(
        default=None,
        description="vertex: function without arguments that returns credentials of google-auth, as "
        "package.module:name; null: the application's default ones.",
    )


class Through(Protocol):
    """What the checks read of a provider's section."""

    @property
    def type(self) -> str:
        """The kind of provider."""
        ...

    @property
    def transport(self) -> str:
        """`direct` or `sdk`."""
        ...

    @property
    def sdk(self) -> SDKConfig | None:
        """The vendor's client."""
        ...

    @property
    def api_keys(self) -> Sequence[Secret]:
        """The keys."""
        ...


def client_faults(provider: Through) -> Iterator[Fault]:
    """Tell what does not fit together; fields are named from the provider's section on."""
    if provider.transport != "sdk":
        if provider.sdk is not None:
            yield Fault("sdk", "belongs to `transport: sdk`; add that, or take this out", needs=("transport",))
        return
    if provider.type not in _TYPES:
        told = f"sdk is for the types {' and '.join(_TYPES)}, whose vendors have a client; use direct"
        yield Fault("transport", told, needs=("type",))
    elif provider.sdk is not None:
        yield from _faults(provider, provider.sdk)


def _faults(provider: Through, sdk: SDKConfig) -> Iterator[Fault]:
    of_type = _TYPES[provider.type]
    if sdk.client not in of_type:
        there = " or ".join(name for name in of_type if name)
        yield Fault("sdk.client", f"type {provider.type} has no client {sdk.client!r}; use {there}", needs=("type",))
        return
    for client, names in _FIELDS.items():
        for name in names:
            if client != sdk.client and getattr(sdk, name) is not None:
                yield Fault(f"sdk.{name}", f"belongs to `client: {client}`", needs=("sdk.client",))
    if provider.api_keys:
        yield from _two_credentials(sdk)


def _two_credentials(sdk: SDKConfig) -> Iterator[Fault]:
    if sdk.client == "vertex":
        yield Fault("api_keys", "vertex takes no keys; it asks with Google's credentials", needs=("sdk",))
    for name in ("azure_ad_token_provider", "aws_profile"):
        if getattr(sdk, name) is not None:
            yield Fault(f"sdk.{name}", "is a second way to sign beside api_keys; keep one", needs=("api_keys",))
