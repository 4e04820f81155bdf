"""What the models accept, as OpenRouter's list of them says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from llm.providers.wire import read_object, senseless

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a model takes.

    Attributes:
        parameters: Names of the body's fields; empty where the list says nothing of them.
        inputs: Kinds of content: `text`, `image`, `audio` and others; empty where the list says nothing of them.
    """

    parameters: frozenset[str] = frozenset()
    inputs: frozenset[str] = frozenset()


class Knowledge(Protocol):
    """What is known of the models now, and who hears of what was left out."""

    def accepted(self, model: str) -> Accepted | None:
        """Return what a model takes; None where nobody knows."""
        ...

    def dropped(self, model: str, parameters: list[str]) -> None:
        """Hear which parameters were left out of a request for a model."""


class Nothing:
    """Nobody knows anything: every request goes out as it is."""

    def accepted(self, model: str) -> Accepted | None:
        """Return None."""
        del model
        return None

    def dropped(self, model: str, parameters: list[str]) -> None:
        """Hear nothing: what is not known is not left out."""


def read_models(body: bytes) -> dict[str, Accepted]:
    """Read the list of models; of one that makes no sense by itself nothing is known.

    Raises:
        LLMServerError: It is no such list, or an empty one.

    Source: https://openrouter.ai/docs/guides/overview/models
    """
    listed = read_object(body).get("data")
    entries = cast("list[object]", listed) if isinstance(listed, list) else []
    found: dict[str, Accepted] = {}
    for entry in entries:
        match entry:
            case {"id": str(name), "canonical_slug": str(slug)}:
                found[name] = _accepted(cast("dict[str, Any]", entry))
                found.setdefault(slug, found[name])
            case {"id": str(name)}:
                found[name] = _accepted(cast("dict[str, Any]", entry))
            case _:
                pass
    if not found:
        raise senseless("something that is no list of models")
    return found


def find(models: Mapping[str, Accepted], name: str) -> Accepted | None:
    """Return what is known of a model; `vendor/model:nitro` is `vendor/model` unless it is listed by itself."""
    return models.get(name) or models.get(name.partition(":")[0])


def _accepted(entry: Mapping[str, Any]) -> Accepted:
    architecture = entry.get("architecture")
    inputs = cast("Mapping[str, Any]", architecture).get("input_modalities") if isinstance(architecture, dict) else None
    return Accepted(_words(entry.get("supported_parameters")), _words(inputs))


def _words(listed: object) -> frozenset[str]:
    if not isinstance(listed, list):
        return frozenset()
    return frozenset(word for word in cast("list[object]", listed) if isinstance(word, str))
