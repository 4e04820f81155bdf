"""How much memory a model takes, how much of it its requests may have, and how it is given back."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from typing import TYPE_CHECKING, Final

from .blocks import BLOCK, blocks_of

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from .kv import Shape

_EACH: Final = 1024  # tokens that each request of a full batch may have on average
_SHARE: Final = 4  # of this machine's memory, or of the limit, requests may have one such part
LEAST: Final = 16  # blocks with which a model can do anything


def saved_bytes(*folders: Path) -> int:
    """Return the size of the weights on disk."""
    return sum(file.stat().st_size for folder in folders for file in folder.glob("*.safetensors"))


def weight_bytes(network: nn.Module) -> int:
    """Return the size of a network's parameters, of those that are packed as they are then."""
    plain = sum(weights.numel() * weights.element_size() for weights in network.parameters())
    return plain + sum(getattr(module, "packed_bytes", 0) for module in network.modules())


def blocks_for(shape: Shape, *, window: int, size: int, limit: int | None) -> int:
    """Return how many blocks a model's requests may have.

    It is what a batch of `size` requests of 1,024 tokens takes, and two whole windows at least, but no more than a
    quarter of the memory.

    Args:
        shape: What one token takes.
        window: Tokens of the longest request.
        size: Requests that run at once.
        limit: Bytes for all models; None: what this machine has.
    """
    wanted = max(2 * blocks_of(window), blocks_of(size * _EACH))
    wanted += wanted // 8  # for prompts that begin alike
    there = _machine_bytes() if limit is None else limit
    return max(LEAST, min(wanted, there // _SHARE // (BLOCK * shape.token_bytes)))


def _machine_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def give_back() -> None:
    """Return the memory of what was dropped to the machine."""
    import torch

    gc.collect()  # modules know each other in rings
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    # glibc keeps what was freed below the top of its heaps, which after a model are hundreds of megabytes.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
