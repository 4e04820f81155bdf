"""The states of a text's tokens as one vector.

Source: https://sbert.net/docs/package_reference/sentence_transformer/modules.html#pooling
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence


def pool(states: torch.Tensor, lengths: Sequence[int], modes: Sequence[str]) -> torch.Tensor:
    """Return a vector per text, the modes' one after the other; shape `(texts, modes times dimensions)`.

    Args:
        states: Shape `(texts, tokens, dimensions)`, float32; after a text's own tokens, whatever it is.
        lengths: Tokens of each text, one or more.
        modes: `cls` (the first token), `lasttoken`, `max`, `mean`, `mean_sqrt_len_tokens` (the sum over the root of the
            length) and `weightedmean` (by the token's place, from 1).
    """
    places = torch.arange(states.shape[1], device=states.device)
    counts = torch.tensor(lengths, device=states.device).unsqueeze(1)
    beyond = (places >= counts).unsqueeze(2)
    own = states.masked_fill(beyond, 0.0)
    return torch.cat([_pooled(mode, own, beyond, counts, places) for mode in modes], 1)


def _pooled(
    mode: str, states: torch.Tensor, beyond: torch.Tensor, counts: torch.Tensor, places: torch.Tensor
) -> torch.Tensor:
    match mode:
        case "cls":
            return states[:, 0]
        case "lasttoken":
            return states[torch.arange(len(states), device=states.device), counts[:, 0] - 1]
        case "max":
            return states.masked_fill(beyond, float("-inf")).amax(1)
        case "mean":
            return states.sum(1) / counts
        case "mean_sqrt_len_tokens":
            return states.sum(1) / counts.float().sqrt()
        case "weightedmean":
            weights = (places + 1).float().unsqueeze(1)
            return (states * weights).sum(1) / weights.masked_fill(beyond, 0.0).sum(1)
        case _:
            raise ValueError(f"no pooling mode is called {mode!r}")
