"""From the name that a caller gives to providers and models: the one that is asked, and those that follow it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .exceptions import LLMConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence


@dataclass(frozen=True, slots=True)
class Target:
    """Where a call goes.

    Attributes:
        provider: Section of the configuration.
        model: Model; None: any of the provider's.
    """

    provider: str
    model: str | None

    def __str__(self) -> str:
        """Return it as it is written in the configuration."""
        return self.provider if self.model is None else f"{self.provider}/{self.model}"


def resolve(name: str | None, *, default: str, providers: Collection[str]) -> Target:
    """Return the target of a name that is no alias: `provider/model`, a model of the default provider, or None for any.

    A prefix that is no provider's name belongs to the model, as in OpenRouter's `meta-llama/llama-3.1-8b-instruct`.
    """
    if name is None:
        return Target(default, None)
    prefix, slash, rest = name.partition("/")
    if slash and rest and prefix in providers:
        return Target(prefix, rest)
    return Target(default, name)


def followers(first: Target, fallback: Sequence[str], models: Callable[[str], Collection[str]]) -> tuple[Target, ...]:
    """Return the targets that are tried, in order, where the first cannot serve.

    A named model is asked of the providers that list it; where none is named, each provider chooses one of its own, so
    one that lists none is left out.

    Args:
        first: The target that is asked first.
        fallback: Providers in the order in which they are tried.
        models: Returns the models that a provider lists.
    """
    others = [(provider, models(provider)) for provider in fallback if provider != first.provider]
    serve = [provider for provider, listed in others if (listed if first.model is None else first.model in listed)]
    return tuple([Target(provider, first.model) for provider in serve])


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
