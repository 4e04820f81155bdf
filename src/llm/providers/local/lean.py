"""Layers of a Llama in few operations, which is what a pass of few rows spends its time on besides matrices.

What is multiplied with the same numbers is one matrix: queries, keys and values, and both halves of the feed-forward
part. The numbers of a head that rotary positions turn together stand side by side, so that one product of complex
numbers turns them; a product of a query and a key does not depend on the order. The rest is the arithmetic of
transformers' own layers, whose place these take in the network. Where weights have sixteen bits, norms and positions
are computed in float32, for which the CPU has more and quicker operations, and rounded at their end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn
from torch.nn.functional import silu

from .attention import Where, found_by

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .attention import Part

_TYPES: Final = frozenset({torch.float32, torch.bfloat16, torch.float16})
_KNOWN: Final = frozenset({"LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer"})


class _Norm:
    """Root mean square normalisation of the last dimension."""

    def __init__(self, norm: Any, order: torch.Tensor | None = None) -> None:  # noqa: ANN401 - each model has a class
        weight: torch.Tensor = norm.weight.detach().float()
        self._weight = weight if order is None else weight[order]
        self._share = 1.0 / len(weight)
        self._epsilon = torch.tensor([norm.variance_epsilon])

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        exact = x.float()
        size = torch.linalg.vector_norm(exact, dim=-1, keepdim=True)
        scale = torch.addcmul(self._epsilon, size, size, value=self._share).rsqrt_()
        return (exact * scale).mul_(self._weight).to(x.dtype)


class LeanRotary(nn.Module):
    """Positions as complex numbers of length one, shape `(tokens, 1, dimensions / 2)`."""

    def __init__(self, rotary: nn.Module) -> None:
        """Take the module that gives cosines and sines."""
        super().__init__()
        self._rotary = rotary

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        """Return the numbers for the positions of a row of tokens, shape `(1, tokens)`."""
        cosines, sines = self._rotary(x.float(), position_ids=position_ids)
        half = cosines.shape[-1] // 2
        return torch.complex(cosines[0, :, None, :half], sines[0, :, None, :half])


class LeanLayer(nn.Module):
    """What a decoder layer computes for one row of tokens, in half of its operations."""

    def __init__(self, layer: Any) -> None:  # noqa: ANN401 - each model has a class
        """Take the weights of a layer that `lean` knows."""
        super().__init__()
        attention, mlp = layer.self_attn, layer.mlp
        self._size: int = attention.head_dim
        self._queries: int = attention.q_proj.out_features // self._size
        self._keys: int = attention.k_proj.out_features // self._size
        order = torch.arange(self._size).view(2, -1).transpose(0, 1).flatten()
        heads = torch.arange((self._queries + self._keys) * self._size).view(-1, self._size)[:, order].flatten()
        self.qkv_proj = _joined([attention.q_proj, attention.k_proj, attention.v_proj], heads)
        self.o_proj: nn.Module = attention.o_proj
        self.gate_up_proj = _joined([mlp.gate_proj, mlp.up_proj])
        self.down_proj: nn.Module = mlp.down_proj
        self._before = _Norm(layer.input_layernorm)
        self._between = _Norm(layer.post_attention_layernorm)
        named = hasattr(attention, "q_norm")
        self._norms = (_Norm(attention.q_norm, order), _Norm(attention.k_norm, order)) if named else None
        window = getattr(attention, "sliding_window", getattr(attention.config, "sliding_window", None))
        self._where = Where(attention.layer_idx, attention.scaling, window)

    def forward(
        self, hidden_states: torch.Tensor, *, position_embeddings: torch.Tensor, llm_parts: Sequence[Part], **_: object
    ) -> torch.Tensor:
        """Return what comes of a row of tokens, shape `(1, tokens, dimensions)`, in the same memory."""
        x = hidden_states[0]
        x += self.o_proj(self._attend(self.qkv_proj(self._before(x)), position_embeddings, llm_parts))
        gate, up = self.gate_up_proj(self._between(x)).chunk(2, dim=-1)
        x += self.down_proj(silu(gate).mul_(up))
        return hidden_states

    def _attend(self, joined: torch.Tensor, turns: torch.Tensor, parts: Sequence[Part]) -> torch.Tensor:
        tokens, turned = len(joined), self._queries + self._keys
        heads = joined.view(tokens, turned + self._keys, self._size)
        values, heads = heads[:, turned:], heads[:, :turned]
        if self._norms is not None:
            queries, keys = self._norms
            heads = torch.cat([queries(heads[:, : self._queries]), keys(heads[:, self._queries :])], dim=1)
        pairs = torch.view_as_complex(heads.float().unflatten(-1, (-1, 2)))
        heads = torch.view_as_real(pairs * turns).flatten(-2).to(values.dtype)
        found = found_by(parts, self._where, heads[:, : self._queries], heads[:, self._queries :], values)
        return found.view(tokens, -1)


def lean(network: Any) -> bool:  # noqa: ANN401 - each model has a class
    """Replace the layers of a network that are known, and return whether there are such."""
    model = network.get_decoder()
    layers = getattr(model, "layers", [])
    if network.dtype not in _TYPES or {type(layer).__name__ for layer in layers} - _KNOWN or not layers:
        return False
    for at, layer in enumerate(layers):
        layers[at] = LeanLayer(layer)
    model.rotary_emb = LeanRotary(model.rotary_emb)
    return True


def _joined(linears: Sequence[nn.Linear], order: torch.Tensor | None = None) -> nn.Linear:
    # One layer for all outputs; the first of them in another order.
    weight = torch.cat([linear.weight.detach() for linear in linears])
    bias = None
    if any(linear.bias is not None for linear in linears):
        bias = torch.cat([_bias(linear) for linear in linears])
    joined = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    joined.weight = nn.Parameter(_reordered(weight, order), requires_grad=False)
    if bias is not None:
        joined.bias = nn.Parameter(_reordered(bias, order), requires_grad=False)
    return joined


def _bias(linear: nn.Linear) -> torch.Tensor:
    if linear.bias is None:
        return torch.zeros([linear.out_features], dtype=linear.weight.dtype)
    return linear.bias.detach()


def _reordered(rows: torch.Tensor, order: torch.Tensor | None) -> torch.Tensor:
    return rows if order is None else torch.cat([rows[order], rows[len(order) :]])
