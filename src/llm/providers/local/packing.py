"""Matrices of a network in the order in which this CPU's multiplication reads them.

The plain layout is made for long products; with the few rows of a running batch the library spends most of its time on
fetching and reordering the matrix. Packed once at load time, products of 2 to 64 rows take half to two thirds of the
time (float32, AVX2), others the same.
"""

from __future__ import annotations

import torch
from torch import nn

_ROWS = 32  # of the products that the order is chosen for


class PackedLinear(nn.Module):
    """What `nn.Linear` computes, with the matrix packed; the plain one is not kept."""

    def __init__(self, linear: nn.Linear) -> None:
        """Pack the matrix of a layer."""
        super().__init__()
        self.in_features: int = linear.in_features
        self.out_features: int = linear.out_features
        self.bias: torch.Tensor | None = None if linear.bias is None else linear.bias.detach()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _ROWS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the product with each row of `x`, shape `(…, in_features)`."""
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "none", [], "")


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


def pack(network: nn.Module) -> None:
    """Replace the plain linear layers of a network."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, PackedLinear(child))
