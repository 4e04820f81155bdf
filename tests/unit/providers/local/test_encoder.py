"""Folders in the layout of sentence-transformers: what becomes of a text, and what is refused."""

from __future__ import annotations

import asyncio
import json
import math
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests.unit.providers.local.encoders import WIDTH, pooled_by_hand, put, save_encoder, save_layout

from llm.core.exceptions import LLMConfigurationError, LLMContextLengthError, LLMInvalidRequestError
from llm.core.protocols import EngineSettings, ProviderSettings
from llm.core.texts import EmbeddingInput
from llm.core.types import LLMRequest
from llm.providers.local import InferenceEngine
from llm.providers.local.layout import read_layout
from llm.providers.local.provider import LocalProvider
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

library: Any = import_module("transformers")
TEXTS = ["a", "hello", "abcdefghijklmnopqrstuvwxyz", "Capital", "x" * 40, "hello"]
MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


async def vectors_of(folder: Path, texts: Sequence[str] = TEXTS) -> tuple[tuple[float, ...], ...]:
    engine = InferenceEngine(device="cpu", threads=1)
    await engine.load_model(str(folder))
    try:
        return (await engine.embed(texts)).values
    finally:
        await engine.close()


def states_of(folder: Path, texts: Sequence[str] = TEXTS, kind: str = "AutoModel") -> Iterator[list[list[float]]]:
    """Return the states of the tokens of each text, read alone and as the library itself reads it."""
    network = getattr(library, kind).from_pretrained(str(folder)).eval()
    tokenizer = library.AutoTokenizer.from_pretrained(str(folder))
    for text in texts:
        given = tokenizer(text, return_tensors="pt")
        given.pop("token_type_ids", None)
        with torch.inference_mode():
            yield network(**given).last_hidden_state[0].tolist()


def unit(vector: Sequence[float]) -> list[float]:
    length = math.hypot(*vector)
    return [number / length for number in vector]


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "llama", "t5"])
@pytest.mark.parametrize("flag", MODES)
async def test_a_vector_is_pooled_as_the_layout_says(tmp_path: Path, kind: str, flag: str) -> None:
    folder = save_layout(save_encoder(tmp_path, kind), {name: name == flag for name in MODES})
    reader = "T5EncoderModel" if kind == "t5" else "AutoModel"
    for states, vector in zip(states_of(folder, kind=reader), await vectors_of(folder), strict=True):
        assert vector == pytest.approx(pooled_by_hand(states, MODES[flag]), abs=2e-5)


@pytest.mark.parametrize(
    ("pooling", "modes"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, ["cls", "mean"]),
        ({"pooling_mode": ["max", "cls"]}, ["max", "cls"]),
        ({"pooling_mode": "lasttoken", "embedding_dimension": WIDTH}, ["lasttoken"]),
        ({}, ["mean"]),
    ],
)
async def test_several_modes_are_joined_and_the_newer_form_is_read(
    tmp_path: Path, pooling: dict[str, Any], modes: list[str]
) -> None:
    of = "sentence_transformers.sentence_transformer.modules.pooling"
    folder = save_layout(save_encoder(tmp_path), pooling, "Normalize", of=of)
    [states] = states_of(folder, ["hello"])
    joined = [number for mode in modes for number in pooled_by_hand(states, mode)]
    [vector] = await vectors_of(folder, ["hello"])
    assert vector == pytest.approx(unit(joined), abs=1e-5)


PROJECTED: list[tuple[dict[str, Any], Callable[[float], float]]] = [
    ({}, math.tanh),
    ({"activation_function": "torch.nn.modules.linear.Identity"}, float),
    ({"activation_function": "torch.nn.modules.activation.ReLU", "use_residual": True}, lambda x: max(x, 0.0)),
]


@pytest.mark.parametrize(("dense", "activate"), PROJECTED)
async def test_a_dense_and_a_normalize_come_after_it(
    tmp_path: Path, dense: dict[str, Any], activate: Callable[[float], float]
) -> None:
    folder = save_layout(save_encoder(tmp_path), {"pooling_mode": "cls"}, "Dense", "Normalize", dense=dense)
    weights = import_module("safetensors.torch").load_file(folder / "2_Dense" / "model.safetensors")

    def product(name: str, vector: Sequence[float]) -> list[float]:
        return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in weights[name].tolist()]

    [[first, *_]] = states_of(folder, ["hello"])
    after = [
        activate(number + bias)
        for number, bias in zip(product("linear.weight", first), weights["linear.bias"].tolist(), strict=True)
    ]
    if dense.get("use_residual"):
        after = [a + b for a, b in zip(after, product("residual.weight", first), strict=True)]
    [vector] = await vectors_of(folder, ["hello"])
    assert vector == pytest.approx(unit(after), abs=1e-5)


async def test_a_plain_encoder_gives_the_mean_of_length_one(tmp_path: Path) -> None:
    folder = save_encoder(tmp_path)
    for states, vector in zip(states_of(folder), await vectors_of(folder), strict=True):
        assert vector == pytest.approx(unit(pooled_by_hand(states, "mean")), abs=1e-5)


async def test_what_stands_before_each_text_and_small_letters_are_as_stated(tmp_path: Path) -> None:
    folder = save_layout(save_encoder(tmp_path), {"pooling_mode": "mean"}, sentence={"do_lower_case": True})
    told = {"prompts": {"ask": "query"}, "default_prompt_name": "ask"}
    put(folder / "config_sentence_transformers.json", told)
    [states] = states_of(folder, ["queryhello"])
    wanted = pooled_by_hand(states, "mean")
    [vector] = await vectors_of(folder, ["HeLLo"])
    assert vector == pytest.approx(wanted, abs=1e-5)
    put(folder / "1_Pooling" / "config.json", {"pooling_mode": "mean", "include_prompt": False})
    with pytest.raises(LLMConfigurationError, match="take default_prompt_name out of"):
        await asyncio.to_thread(read_layout, folder)


@pytest.mark.parametrize(("kind", "stated", "most"), [("bert", 10, 10), ("bert", 99, 64), ("xlm-roberta", None, 64)])
async def test_a_text_longer_than_the_model_reads_is_refused_and_one_as_long_is_not(
    tmp_path: Path, kind: str, stated: int | None, most: int
) -> None:
    sentence = {"max_seq_length": stated}
    folder = save_layout(save_encoder(tmp_path, kind), {"pooling_mode": "cls"}, sentence=sentence)
    engine = InferenceEngine(device="cpu", threads=1)
    await engine.load_model(str(folder))
    assert (await engine.embed(["x" * (most - 2)])).input_tokens == most
    with pytest.raises(
        LLMContextLengthError, match=f"the text has {most + 1} tokens and .* reads {most}; shorten"
    ) as no:
        await engine.embed(["x", "x" * (most - 1)])
    assert (no.value.limit, no.value.requested) == (most, most + 1)
    await engine.close()


def renamed(folder: Path, kind: str) -> None:
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    modules[2]["type"] = kind
    put(folder / "modules.json", modules)


def densely(folder: Path, **fields: object) -> None:
    put(folder / "2_Dense" / "config.json", {"in_features": WIDTH, "out_features": 6, **fields})


def headless(folder: Path) -> None:
    files: Any = import_module("safetensors.torch")
    weights = files.load_file(folder / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "layer.1.attention" not in name}
    files.save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


SPOILT: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: (folder / "1_Pooling" / "config.json").unlink(), "names 1_Pooling, and .* is not there"),
    (lambda folder: put(folder / "modules.json", {}), "holds a dict, where a list is expected"),
    (lambda folder: (folder / "modules.json").write_text("["), "modules.json is no JSON"),
    (lambda folder: put(folder / "modules.json", []), "does not begin with Transformer and Pooling"),
    (
        lambda folder: renamed(folder, "sentence_transformers.models.CNN"),
        "'sentence_transformers.models.CNN', which",
    ),
    (lambda folder: renamed(folder, "custom.Dense"), "names the module 'custom.Dense', which is not known here"),
    (lambda folder: renamed(folder, "sentence_transformers.models.Pooling"), "has a second Pooling"),
    (lambda folder: put(folder / "1_Pooling" / "config.json", {"pooling_mode": "best"}), "'best' as pooling_mode"),
    (
        lambda folder: put(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 99}),
        "states of 99 numbers, and the network's have 16",
    ),
    (lambda folder: densely(folder, activation_function="os.system"), "'os.system' as activation_function"),
    (lambda folder: densely(folder, activation_function="torch.nn.Linear"), "'torch.nn.Linear' as activation"),
    (lambda folder: densely(folder, module_input_name="token_embeddings"), "module_input_name other than"),
    (lambda folder: densely(folder, in_features="many"), "expected whole numbers"),
    (lambda folder: densely(folder, in_features=WIDTH * 2), "do not load"),
    (lambda folder: (folder / "2_Dense" / "model.safetensors").unlink(), "do not load .*No such file"),
    (headless, "lack .*attention"),
]


@pytest.mark.parametrize(("spoil", "message"), SPOILT)
async def test_a_folder_that_is_not_whole_or_not_known_is_refused_by_name(
    tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    folder = save_layout(save_encoder(tmp_path), {"pooling_mode": "mean"}, "Dense")
    spoil(folder)
    engine = InferenceEngine(device="cpu", threads=1)
    with pytest.raises(LLMConfigurationError, match=message):
        await engine.load_model(str(folder))
    assert engine.models == ()
    await engine.close()


async def test_as_a_provider_it_embeds_and_counts_and_answers_nobody(tmp_path: Path) -> None:
    folder = save_layout(save_encoder(tmp_path), {"pooling_mode": "mean"}, "Normalize")
    own = EngineSettings(max_waiting=7)  # and so an engine that no other test has
    settings = ProviderSettings("box", (str(folder),), SystemClock(), None, device="cpu", engine=own)  # type: ignore[arg-type]  # no network
    provider = LocalProvider(settings)
    await provider.initialize()
    made = await provider.embed(LLMRequest((), embed=EmbeddingInput(["one", "three"], 4)))
    assert [len(vector) for vector in made.embeddings] == [4, 4]
    assert made.usage.input_tokens == 3 + 5 + 4
    assert await provider.count_tokens(LLMRequest("three")) == 7
    tool: Any = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    for request in (LLMRequest("Hi"), LLMRequest("Hi", tools=tool)):
        with pytest.raises(
            LLMInvalidRequestError, match="makes vectors of texts and answers none; have it embed"
        ) as no:
            await provider.complete(request)
        assert no.value.provider == "box"
        with pytest.raises(LLMInvalidRequestError, match="answers none"):
            await provider.stream(request)
    standing = provider.engine_standing()
    assert standing is not None
    assert standing.saturation == {str(folder): {"max_batch": 0.0, "max_waiting": 0.0}}
    await provider.close()
