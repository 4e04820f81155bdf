"""Small encoders of random weights in the layout of sentence-transformers, and what the layout says of a text."""

from __future__ import annotations

import json
import math
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

WIDTH = 16
LETTERS = "abcdefghijklmnopqrstuvwxyz"
_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]  # where XLM-R has them, which counts places from the padding's
_TOKENS = {token: at for at, token in enumerate([*_SPECIAL, *LETTERS, *LETTERS.upper()])}
_SIZES = {"vocab_size": len(_TOKENS), "pad_token_id": 1, "initializer_range": 0.4}
_USUAL = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
_T5 = {"d_model": WIDTH, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
_KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertConfig", "BertModel", {**_USUAL, "max_position_embeddings": 64}),
    "xlm-roberta": ("XLMRobertaConfig", "XLMRobertaModel", {**_USUAL, "max_position_embeddings": 66}),
    "llama": ("LlamaConfig", "LlamaModel", {**_USUAL, "max_position_embeddings": 64}),
    "t5": ("T5Config", "T5EncoderModel", _T5),
}
_library: Any = import_module("transformers")


def save_encoder(folder: Path, kind: str = "bert") -> Path:
    """Make a folder with a network and its tokenizer, whose tokens are letters, and nothing of the layout."""
    torch.manual_seed(3)
    config, network, sizes = _KINDS[kind]
    getattr(_library, network)(getattr(_library, config)(**_SIZES, **sizes)).save_pretrained(str(folder))
    tokens = Tokenizer(models.WordLevel(_TOKENS, unk_token="<unk>"))  # noqa: S106 - a token of text
    tokens.normalizer = normalizers.NFC()
    tokens.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokens.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    PreTrainedTokenizerFast(tokenizer_object=tokens, pad_token="<pad>").save_pretrained(str(folder))  # noqa: S106
    return folder


def put(file: Path, content: object) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")


def save_layout(
    folder: Path,
    pooling: Mapping[str, Any],
    *others: str,
    of: str = "sentence_transformers.models",
    sentence: Mapping[str, Any] | None = None,
    dense: Mapping[str, Any] | None = None,
) -> Path:
    """Add the files of the layout: pooling, other modules by name, and what `sentence_bert_config.json` says."""
    kinds = ["Transformer", "Pooling", *others]
    paths = ["", *(f"{at}_{kind}" for at, kind in enumerate(kinds[1:], 1))]
    put(
        folder / "modules.json",
        [
            {"idx": at, "name": str(at), "path": path, "type": f"{of}.{kind}"}
            for at, (path, kind) in enumerate(zip(paths, kinds, strict=True))
        ],
    )
    put(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": WIDTH, **pooling})
    if sentence is not None:
        put(folder / "sentence_bert_config.json", sentence)
    for at, kind in enumerate(others, 2):
        if kind == "Dense":
            put(folder / f"{at}_Dense" / "config.json", {"in_features": WIDTH, "out_features": 6, **(dense or {})})
            weights = {"linear.weight": torch.randn(6, WIDTH), "linear.bias": torch.randn(6)}
            if (dense or {}).get("use_residual"):
                weights["residual.weight"] = torch.randn(6, WIDTH)
            save_file(weights, folder / f"{at}_Dense" / "model.safetensors")
    return folder


def pooled_by_hand(rows: list[list[float]], mode: str) -> list[float]:
    """Return what a mode makes of the states of one text's tokens, number by number."""
    columns = list(zip(*rows, strict=True))
    count = len(rows)
    return {
        "cls": rows[0],
        "lasttoken": rows[-1],
        "max": [max(column) for column in columns],
        "mean": [math.fsum(column) / count for column in columns],
        "mean_sqrt_len_tokens": [math.fsum(column) / math.sqrt(count) for column in columns],
        "weightedmean": [
            math.fsum(at * number for at, number in enumerate(column, 1)) / (count * (count + 1) / 2)
            for column in columns
        ],
    }[mode]
