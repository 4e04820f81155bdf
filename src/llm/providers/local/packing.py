"""Matrices of a network in the order in which this CPU's multiplication reads them.

The plain layout is made for long products; with the few rows of a running batch the library spends most of its time on
fetching and reordering the matrix. Packed once at load time, in sixteen bits where these hold what was saved, a product
of one row takes half the time or less (float32, AVX2), of 32 rows two thirds, and of 256 rows no more.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Final

import torch
from torch import cpu, nn

_ROWS: Final = 32  # of the products that the order is chosen for
_TILE_ROWS: Final = 32  # that read each number of a matrix once: two tiles
_VECTOR_ROWS: Final = 8
_QUICK_CHUNK: Final = 256
_SLOW_CHUNK: Final = 128
_PIECE: Final = 256  # rows of a matrix that are looked at together
_SPACING: Final = 2.0**-24  # of the smallest numbers in float16; whatever is off by half of it, is off by 3e-8


class PackedLinear(nn.Module):
    """What `nn.Linear` computes, with the matrix packed by oneDNN; the plain one is not kept."""

    def __init__(self, linear: nn.Linear) -> None:
        """Pack the matrix of a layer."""
        super().__init__()
        self.in_features: int = linear.in_features
        self.out_features: int = linear.out_features
        self.bias: torch.Tensor | None = None if linear.bias is None else linear.bias.detach()
        self.packed_bytes: int = linear.weight.numel() * linear.weight.element_size()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _ROWS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the product with each row of `x`, shape `(…, in_features)`."""
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "none", [], "")


class HalfLinear(nn.Module):
    """What `nn.Linear` computes in float32, with the matrix in sixteen bits, packed by FBGEMM.

    Each number is read as float32 when it is multiplied: half the memory is fetched, and nothing else is rounded.
    """

    def __init__(self, linear: nn.Linear) -> None:
        """Pack the matrix of a layer; `holds` says whether it fits."""
        super().__init__()
        self.in_features: int = linear.in_features
        self.out_features: int = linear.out_features
        self.packed_bytes: int = linear.weight.numel() * torch.float16.itemsize
        bias = None if linear.bias is None else linear.bias.detach()
        self._packed = torch.ops.quantized.linear_prepack_fp16(linear.weight.detach().contiguous(), bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the product with each row of `x`, shape `(…, in_features)`."""
        return torch.ops.quantized.linear_dynamic_fp16(x, self._packed)


class HalfEmbedding(nn.Module):
    """What `nn.Embedding` looks up in float32, from numbers of sixteen bits."""

    def __init__(self, embedding: nn.Embedding) -> None:
        """Keep the vectors; `holds` says whether they fit."""
        super().__init__()
        self._vectors = embedding.weight.detach().to(
            torch.float16
        )  # no parameter: it would pass for the network's type
        self.packed_bytes: int = self._vectors.numel() * torch.float16.itemsize

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the vectors of tokens, shape `(…, dimensions)`."""
        return nn.functional.embedding(tokens, self._vectors).float()


def can_pack(network: nn.Module) -> bool:
    """Return whether the network's matrices can be packed: on a CPU that computes in their type."""
    weights = next(network.parameters())
    return (
        weights.device.type == "cpu"
        and torch.backends.mkldnn.is_available()
        and (weights.dtype == torch.float32 or computes_in(weights.dtype))
    )


def computes_in(dtype: torch.dtype) -> bool:
    """Return whether this CPU has instructions for a half-sized type; without, it is slower than float32."""
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float16 and bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())


def rows_like_one(network: nn.Module) -> int:
    """Return of how many rows a product takes little longer than of one, for the matrix is fetched either way.

    With AMX, SmolLM2-135M takes per pass of one token 64 ms, of eight 72, of 16 in four texts 93 and of 32 there 112;
    in float32 with AVX2 it is 45, 63, 120 and 164 (CPU time in one thread, matrices and all the rest).
    """
    return _TILE_ROWS if _multiplies_in_tiles(network) else _VECTOR_ROWS


def chunk_beside_answers(network: nn.Module) -> int:
    """Return how many tokens of prompts a pass may read, for whose end all that answer wait.

    With AMX, 32 requests of SmolLM2-135M that come at once make 1.2 to 1.3 times the tokens per second with chunks of
    256 that they make with 128, and the longest gap but one in a hundred grows from 0.26 to 0.28 s; in float32 with
    AVX2 from 0.39 to 0.50 s.
    """
    on_device = next(network.parameters()).device.type != "cpu"
    return _QUICK_CHUNK if on_device or _multiplies_in_tiles(network) else _SLOW_CHUNK


def holds(weights: torch.Tensor) -> bool:
    """Return whether float16 holds float32 weights as they are, but for the last digits of the tiniest.

    It does where they were saved in bfloat16 or float16, and neither as float32 nor scaled beyond its range.
    """
    if weights.dtype != torch.float32 or not _halves():
        return False
    return all(  # in pieces that stay in the CPU's own memory
        float((rows.to(torch.float16).float() - rows).abs().max()) <= _SPACING / 2 for rows in weights.split(_PIECE)
    )


def pack(network: nn.Module) -> None:
    """Replace the plain linear layers of a network, and the vectors of its tokens."""
    places = [(module, *child) for module in network.modules() for child in module.named_children()]
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:  # which does most of its work without Python's lock
        for (module, name, child), packed in zip(places, threads.map(_packed, places), strict=True):
            if packed is not child:
                setattr(module, name, packed)


def _packed(place: tuple[nn.Module, str, nn.Module]) -> nn.Module:
    _, _, layer = place
    if type(layer) is nn.Linear:
        return HalfLinear(layer) if holds(layer.weight.detach()) else PackedLinear(layer)
    if type(layer) is nn.Embedding and holds(layer.weight.detach()):
        return HalfEmbedding(layer)
    return layer


def _halves() -> bool:
    # FBGEMM is there on x86 with AVX2; `quantized.engine` is what torch found out about this machine.
    return torch.backends.quantized.engine in {"x86", "fbgemm"}


def _multiplies_in_tiles(network: nn.Module) -> bool:
    weights = next(network.parameters())
    return weights.device.type == "cpu" and weights.dtype == torch.bfloat16 and _has_tiles()


def _has_tiles() -> bool:
    told = getattr(cpu, "_is_amx_tile_supported", None)  # not by the oldest torch that will do
    return told is not None and bool(told()) and computes_in(torch.bfloat16)
