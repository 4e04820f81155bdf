"""Attention over many requests in one pass, each over its own tokens.

The tokens of all requests stand in one row, one request after the other; no request is padded to the length of a chunk
or of another group. What is done per token (all the matrices) is done for the whole row at once. `attend` is what
transformers calls in each layer in the place of its own: it cuts the row into its parts and lets each part attend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import torch
from transformers import AttentionInterface

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME: Final = "llm_ragged"
"""What `set_attn_implementation` takes."""


class Where(NamedTuple):
    """A layer, and what it sees.

    Attributes:
        layer: Its number.
        scale: Factor of the products; None: one over the root of the dimensions.
        window: A token sees so many, itself included; None: all before it.
    """

    layer: int
    scale: float | None
    window: int | None


class Part(Protocol):
    """Tokens of a pass that attend together, and the memory of what came before them."""

    @property
    def tokens(self) -> int:
        """How many there are."""
        ...

    def attend(self, where: Where, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Remember the keys and values of these tokens in a layer, and return what their queries find.

        Args:
            where: The layer.
            query: Shape `(tokens, heads, dimensions)`, as is what comes back.
            key: Shape `(tokens, key heads, dimensions)`.
            value: As `key`.
        """
        ...


class _Layer(Protocol):
    layer_idx: int


def attend(  # noqa: PLR0913 - the signature is transformers'
    module: _Layer,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    llm_parts: Sequence[Part],
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: object,
) -> tuple[torch.Tensor, None]:
    """Let each part attend; called by a model of transformers, with tensors of shape `(1, heads, tokens, dimensions)`.

    Returns:
        What was found, shape `(1, tokens, heads, dimensions)`, and no weights.
    """
    del attention_mask, others
    query, key, value = query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1)
    return found_by(llm_parts, Where(module.layer_idx, scaling, sliding_window), query, key, value).unsqueeze(0), None


def found_by(
    parts: Sequence[Part], where: Where, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> torch.Tensor:
    """Let each part attend, and return what was found, with tensors as `Part.attend` has them, of all tokens."""
    if len(parts) == 1:
        return parts[0].attend(where, query, key, value)
    found: list[torch.Tensor] = []
    at = 0
    for part in parts:
        end = at + part.tokens
        found.append(part.attend(where, query[at:end], key[at:end], value[at:end]))
        at = end
    return torch.cat(found)


AttentionInterface.register(NAME, attend)
