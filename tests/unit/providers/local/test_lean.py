from __future__ import annotations

import copy
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from llm.providers.local import packing
from llm.providers.local.lean import LeanLayer, lean
from llm.providers.local.memory import weight_bytes
from llm.providers.local.model import LoadedModel
from llm.providers.local.packing import (
    HalfEmbedding,
    HalfLinear,
    PackedLinear,
    chunk_beside_answers,
    computes_in,
    holds,
    pack,
    rows_like_one,
)
from llm.providers.local.ready import batched_logits, plain_logits, ready_for_batches

if TYPE_CHECKING:
    from transformers import PreTrainedModel

models: Any = import_module("transformers")
SIZES: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.3,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "Llama": {"attention_bias": True, "mlp_bias": True},
    "Mistral": {"sliding_window": 5},
    "Qwen2": {},
    "Qwen3": {"head_dim": 16},
}


def network_of(kind: str, **more: object) -> Any:  # noqa: ANN401 - each kind has a class
    """A network with random weights, norms and biases included."""
    torch.manual_seed(3)
    config = getattr(models, f"{kind}Config")(**{**SIZES, **more})
    made = getattr(models, f"{kind}ForCausalLM")(config).requires_grad_(requires_grad=False).eval()
    for weights in made.parameters():
        if weights.ndim == 1:
            weights.add_(torch.randn(len(weights)), alpha=0.1)
    return made


def saved_in_half(network: Any) -> Any:  # noqa: ANN401 - each kind has a class
    return network.to(torch.bfloat16).float()


def model_of(network: PreTrainedModel) -> LoadedModel:
    return LoadedModel("small", network, PreTrainedTokenizerBase(), 64, frozenset())


@pytest.mark.parametrize("kind", KINDS)
def test_lean_layers_with_halved_matrices_give_the_logits_of_transformers_own(kind: str) -> None:
    model = model_of(saved_in_half(network_of(kind, **KINDS[kind])))
    wanted = plain_logits(model)

    shape = ready_for_batches(model)

    assert any(isinstance(module, LeanLayer) for module in model.network.modules())
    assert any(isinstance(module, HalfLinear) for module in model.network.modules())
    assert any(isinstance(module, HalfEmbedding) for module in model.network.modules())
    assert float((batched_logits(model, shape) - wanted).abs().max()) < 2e-5


@pytest.mark.parametrize("kind", KINDS)
def test_lean_layers_in_sixteen_bits_are_no_farther_from_float32_than_transformers_own(kind: str) -> None:
    network = network_of(kind, **KINDS[kind], initializer_range=0.1).to(torch.bfloat16)
    exact = plain_logits(model_of(copy.deepcopy(network).float()))
    model = model_of(network)
    rounded = plain_logits(model)

    shape = ready_for_batches(model)

    assert any(isinstance(module, LeanLayer) for module in network.modules()) == computes_in(torch.bfloat16)
    assert network.dtype == shape.dtype == torch.bfloat16
    assert _apart(batched_logits(model, shape), exact) < 1.25 * _apart(rounded, exact)


def _apart(some: torch.Tensor, others: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(some - others, dim=-1, keepdim=False).max())


@pytest.mark.parametrize(("tiles", "rows", "chunk"), [(True, 32, 256), (False, 8, 128)])
def test_a_pass_takes_more_where_the_cpu_multiplies_tiles(
    tiles: bool,
    rows: int,
    chunk: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packing, "_has_tiles", lambda: tiles)
    network = network_of("Llama")

    assert (rows_like_one(network), chunk_beside_answers(network)) == (8, 128)
    network.to(torch.bfloat16)
    assert (rows_like_one(network), chunk_beside_answers(network)) == (rows, chunk)


def test_layers_that_are_not_known_stay_as_they_are() -> None:
    network = models.GPT2LMHeadModel(models.GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=97))

    assert not lean(network)
    assert not any(isinstance(module, LeanLayer) for module in network.modules())


def test_sixteen_bits_hold_what_was_saved_in_them_and_nothing_else() -> None:
    saved = torch.randn(300, 64).to(torch.bfloat16).float()

    assert holds(saved)
    assert holds(saved * 1e-6)  # off by a billionth at most
    assert not holds(torch.randn(300, 64))
    assert not holds(saved * 1e5)
    assert not holds(saved.to(torch.bfloat16))


def test_weights_of_more_digits_are_packed_with_all_of_them() -> None:
    network = network_of("Llama")
    wanted = network.lm_head(inputs := torch.randn(3, 32))

    pack(network)

    assert isinstance(network.lm_head, PackedLinear)
    assert float((network.lm_head(inputs) - wanted).abs().max()) < 1e-5
    assert not any(isinstance(module, HalfEmbedding) for module in network.modules())


def test_weights_that_were_saved_in_sixteen_bits_take_half_the_memory() -> None:
    network = saved_in_half(network_of("Llama"))
    before = weight_bytes(network)

    pack(network)

    norms = 5 * SIZES["hidden_size"]
    assert weight_bytes(network) == (before - 4 * norms) // 2 + 4 * norms
