"""From the name that a caller gives to a provider and a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .exceptions import LLMConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


@dataclass(frozen=True, slots=True)
class Target:
    """Where a call goes.

    Attributes:
        provider: Section of the configuration.
        model: Model; None: any of the provider's.
    """

    provider: str
    model: str | None


def resolve(
    name: str | None, *, default: str, providers: Collection[str], aliases: Mapping[str, tuple[str, ...]]
) -> Target:
    """Return the target of a name: an alias, `provider/model`, a model of the default provider, or None for any.

    A prefix that is no provider's name belongs to the model, as in OpenRouter's `meta-llama/llama-3.1-8b-instruct`. Of
    an alias the first target is taken.
    """
    if name is None:
        return Target(default, None)
    if name in aliases:
        name = aliases[name][0]
    prefix, slash, rest = name.partition("/")
    if slash and rest and prefix in providers:
        return Target(prefix, rest)
    return Target(default, name)


def check_provider(name: str, providers: Collection[str]) -> str:
    """Return `name` where it is a provider's.

    Raises:
        LLMConfigurationError: It is none; names those there are.
    """
    if name not in providers:
        raise LLMConfigurationError(
            f"there is no provider {name!r}; there are: {', '.join(sorted(providers))}. Add it under `providers:`, or "
            "name one of these"
        )
    return name
