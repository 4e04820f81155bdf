"""The gateway's section: where it listens, and who may call."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import Field, model_validator

from llm.utils.gateway_key import hash_of

from . import fields
from .scalars import Value, is_mapping


class GatewayKey(fields.Section):
    """Who may call with a key, stored hashed.

    A `key` is hashed as it is read and then forgotten: `key_hash` is always there, `key` never.
    """

    key_hash: str | None = Field(
        default=None,
        pattern="^sha256:[0-9a-f]{64}$",
        description="`sha256:` and the key's hash, 64 lower-case hex digits; `manifold keys create` prints it.",
    )
    key: fields.Key | None = Field(
        default=None,
        description="Instead of key_hash: the key itself, hashed as it is read.",
        examples=["${ALICE_KEY}"],
    )
    user: fields.Text | None = Field(
        default=None, description="The user that its calls count for; null: the entry's name."
    )
    models: fields.Texts = Field(default=("*",), description="Models that it may use; `*`: all.")
    expires: fields.Day | None = Field(
        default=None, description="The last day on which it is valid, in UTC; null: no end."
    )
    operator: fields.Switch = Field(
        default=False,
        description="Whether its dashboard shows the calls of all users, and costs; else those calls of its own user.",
    )

    @model_validator(mode="after")
    def _hash(self) -> GatewayKey:
        if self.key is not None and self.key_hash is not None:
            fields.refuse("has both key and key_hash; keep key_hash")
        if self.key is None and self.key_hash is None:
            fields.refuse('has no key; run `manifold keys create`, or add `key: "${VARIABLE}"`')
        if self.key is not None:
            # The model is frozen for everyone but its own reading.
            vars(self).update(key_hash=hash_of(self.key.reveal()), key=None)
        return self


class GatewayConfig(fields.Section):
    """The HTTP gateway that `manifold serve` starts."""

    host: fields.Text = Field(
        default="127.0.0.1", description="Address to listen on; another than loopback needs keys."
    )
    port: fields.Port = Field(default=8000, description="Port to listen on; 0: any free one.")
    api_keys: dict[fields.Text, GatewayKey] = Field(
        default_factory=dict[str, GatewayKey], description="Who may call, by name."
    )
    cors_origins: Annotated[fields.Origins, fields.OneOrMany()] = Field(
        default=(), description="Origins that browsers may call from, exactly.", examples=[["https://app.example.org"]]
    )
    max_body_bytes: fields.Count = Field(default=10_485_760, description="Bytes of a request's body; more is a 413.")
    header_timeout: fields.Seconds = Field(default=10.0, description="Seconds until a request's head must be there.")
    body_timeout: fields.Seconds = Field(default=30.0, description="Seconds until a request's body must be there.")
    drain: fields.SecondsOrZero = Field(default=30.0, description="Seconds that running calls get after SIGTERM.")
    max_user_wait: fields.SecondsOrZero = Field(
        default=0.0, description="Seconds that a user's own limit may hold a call before it is a 429."
    )
    max_connections: fields.Count = Field(
        default=2048, description="Connections at once, to each worker; one more is a 503."
    )

    @property
    def local(self) -> bool:
        """Whether the host is one that only this machine reaches; of names `localhost` alone is known to be."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @model_validator(mode="before")
    @classmethod
    def _users(cls, data: Value) -> Value:
        """Name the user of an entry after the entry, where it names none."""
        entries = data.get("api_keys") if is_mapping(data) else None
        if not is_mapping(entries):
            return data
        named = {
            name: {**entry, "user": name} if is_mapping(entry) and entry.get("user") is None else entry
            for name, entry in entries.items()
        }
        return {**data, "api_keys": named}
