"""The choice of the next token: a pure function of the logits, the settings and one draw."""

from __future__ import annotations

import torch


def sample(
    logits: torch.Tensor,
    *,
    temperature: float,
    top_p: float = 1.0,
    top_k: int | None = None,
    generator: torch.Generator | None = None,
) -> int:
    """Return the next token.

    Exactly one number is drawn per sampled token and none per greedy one, so a request's draws depend on its own
    generator alone, whatever else runs.

    Args:
        logits: One score per token of the vocabulary, shape `(vocabulary,)`, of any float type, on any device.
        temperature: 0 takes the likeliest token; higher is flatter.
        top_p: Keep the likeliest tokens that together reach this share, at least one.
        top_k: Keep so many of the likeliest tokens; None: all.
        generator: Of the CPU; None: torch's own.
    """
    if temperature == 0:
        return int(logits.argmax())
    scores = logits.detach().to("cpu", torch.float64)
    scores, tokens = scores.topk(min(top_k, len(scores))) if top_k else scores.sort(descending=True, stable=True)
    shares = ((scores - scores[0]) / temperature).softmax(-1)  # less the largest: a tiny temperature cannot overflow
    reached = shares.cumsum(-1)
    kept = max(1, int((reached - shares < top_p).sum()))
    draw = torch.rand((), dtype=torch.float64, generator=generator) * reached[kept - 1]
    return int(tokens[min(kept - 1, int((reached[:kept] <= draw).sum()))])


def generator_for(seed: int | None) -> torch.Generator:
    """Return a generator of one request's own; without a seed it is seeded by the operating system."""
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator
