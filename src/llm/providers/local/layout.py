"""What a folder says of how a text becomes a vector: an encoder, a way to pool its states, and what comes after.

Source: https://sbert.net/docs/sentence_transformer/usage/custom_models.html, the structure of saved models; the names
of version 2 to 6 are understood.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from llm.core.exceptions import LLMConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MODULES: Final = "modules.json"
CONFIG: Final = "config.json"
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_LIBRARY: Final = "sentence_transformers."
_KNOWN: Final = ("Transformer", "Pooling", "Dense", "Normalize")
_GENERATING: Final = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
_ENCODER_CONFIGS: Final = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_FLAGS: Final = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Modes by the fields that stated them before version 6; several are joined in this order."""
_ACTIVATIONS: Final = ("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid")


@dataclass(frozen=True, slots=True)
class Dense:
    """A product with a matrix, and a function of each number.

    Attributes:
        folder: Where its weights are.
        inputs: Numbers of a vector before it.
        outputs: And after it.
        bias: Whether a vector is added to the product.
        activation: The function, by the name of its class in `torch.nn`.
        residual: Whether the vector before is added, through a matrix of its own where the lengths differ.
    """

    folder: Path
    inputs: int
    outputs: int
    bias: bool = True
    activation: str = "Tanh"
    residual: bool = False


@dataclass(frozen=True, slots=True)
class Normalize:
    """The vector brought to length one."""


Step: TypeAlias = Dense | Normalize


@dataclass(frozen=True, slots=True)
class Layout:
    """How a text becomes a vector.

    Attributes:
        encoder: Folder of the network and its tokenizer.
        modes: How the states of the tokens become one vector; several are joined.
        steps: What becomes of that, in order.
        states: Numbers of a token's state; None: as the network has it.
        most_tokens: Most tokens of a text; None: as many as the network has places for.
        lowercase: Whether capitals are made small letters first.
        prompt: What stands before each text.
    """

    encoder: Path
    modes: tuple[str, ...] = ("mean",)
    steps: tuple[Step, ...] = ()
    states: int | None = None
    most_tokens: int | None = None
    lowercase: bool = False
    prompt: str = ""

    @property
    def folders(self) -> tuple[Path, ...]:
        """Folders that hold weights."""
        return (self.encoder, *(step.folder for step in self.steps if isinstance(step, Dense)))


def read_layout(folder: Path) -> Layout | None:
    """Return how the model in a folder makes vectors; None: it is one that answers.

    An encoder without `modules.json`, such as a plain BERT, has the mean of its states, of length one.

    Raises:
        LLMConfigurationError: A file of the layout is missing or damaged, or asks for what is not known here.
    """
    if not (folder / MODULES).is_file():
        return Layout(folder, steps=(Normalize(),)) if _is_encoder(folder) else None
    modules = list(_modules(folder))
    if [kind for kind, _ in modules[:2]] != ["Transformer", "Pooling"]:
        raise _wrong(folder / MODULES, "does not begin with Transformer and Pooling, as it must")
    (_, encoder), (_, pooled), *others = modules
    stated = next((read for name in _ENCODER_CONFIGS if (read := _read(encoder / name))), _NOTHING)
    pooling, prompt = _needed(pooled, folder), _prompt(folder)
    if prompt and pooling.get("include_prompt", True) is not True:
        raise _wrong(
            pooled / CONFIG,
            "leaves the prompt out of the vector, which is not done here; take default_prompt_name out of "
            "config_sentence_transformers.json",
        )
    return Layout(
        encoder,
        _modes(pooling, pooled),
        tuple(_step(kind, at, folder) for kind, at in others),
        pooling.get("embedding_dimension", pooling.get("word_embedding_dimension")),
        stated.get("max_seq_length"),
        bool(stated.get("do_lower_case")),
        prompt,
    )


def _is_encoder(folder: Path) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as ENCODERS

    config = _read(folder / CONFIG)
    generating = any(str(name).endswith(_GENERATING) for name in config.get("architectures") or ())
    whole = config.get("is_decoder") or config.get("is_encoder_decoder")
    return config.get("model_type") in ENCODERS and not generating and not whole


def _modules(folder: Path) -> Iterator[tuple[str, Path]]:
    for module in cast("list[Mapping[str, Any]]", _json(folder / MODULES, list)):
        named, path = str(module.get("type")), str(module.get("path", ""))
        kind = named.rpartition(".")[2]
        if not named.startswith(_LIBRARY) or kind not in _KNOWN:
            raise _wrong(
                folder / MODULES,
                f"names the module {named!r}, which is not known here; take a model of {', '.join(_KNOWN)}",
            )
        yield kind, folder / path


def _modes(pooling: Mapping[str, Any], at: Path) -> tuple[str, ...]:
    stated: object = pooling.get("pooling_mode")
    modes = [stated] if isinstance(stated, str) else cast("list[object]", stated or [])
    modes = modes or [mode for flag, mode in _FLAGS.items() if pooling.get(flag)] or ["mean"]
    if unknown := [mode for mode in modes if mode not in _FLAGS.values()]:
        raise _wrong(at / CONFIG, f"has {unknown[0]!r} as pooling_mode; expected one of {', '.join(_FLAGS.values())}")
    return tuple(map(str, modes))


def _step(kind: str, at: Path, folder: Path) -> Step:
    if kind == "Normalize":
        return Normalize()
    if kind != "Dense":
        raise _wrong(folder / MODULES, f"has a second {kind}; after Pooling, Dense and Normalize may come")
    config = _needed(at, folder)
    named = str(config.get("activation_function", "torch.nn.Tanh"))
    activation = named.rpartition(".")[2]
    if not named.startswith("torch.nn.") or activation not in _ACTIVATIONS:
        raise _wrong(
            at / CONFIG, f"has {named!r} as activation_function; expected one of torch.nn's {', '.join(_ACTIVATIONS)}"
        )
    if config.get("module_input_name", "sentence_embedding") != "sentence_embedding":
        raise _wrong(at / CONFIG, "has a module_input_name other than sentence_embedding; take a model without it")
    lengths = config.get("in_features"), config.get("out_features")
    if not all(isinstance(length, int) for length in lengths):
        raise _wrong(at / CONFIG, f"has {lengths} as in_features and out_features; expected whole numbers")
    inputs, outputs = cast("tuple[int, int]", lengths)
    return Dense(at, inputs, outputs, bool(config.get("bias", True)), activation, bool(config.get("use_residual")))


def _prompt(folder: Path) -> str:
    config = _read(folder / "config_sentence_transformers.json")
    prompts: Mapping[str, Any] = config.get("prompts") or _NOTHING
    return str(prompts.get(str(config.get("default_prompt_name"))) or "")


def _needed(at: Path, folder: Path) -> Mapping[str, Any]:
    if not (at / CONFIG).is_file():
        raise _wrong(folder / MODULES, f"names {at.name}, and {at / CONFIG} is not there; copy the whole model")
    return _read(at / CONFIG)


def _read(file: Path) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", _json(file, dict)) if file.is_file() else _NOTHING


def _json(file: Path, kind: type) -> object:
    try:
        read: object = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _wrong(file, f"is no JSON ({error}); copy it again") from error
    if not isinstance(read, kind):
        raise _wrong(file, f"holds a {type(read).__name__}, where a {kind.__name__} is expected; copy it again")
    return read


def _wrong(file: Path, what: str) -> LLMConfigurationError:
    return LLMConfigurationError(f"{file} {what}")
