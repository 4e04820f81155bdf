"""The choice of the next token: a pure function of the logits, the settings and one draw."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .constraint import Constraint

if TYPE_CHECKING:
    from collections.abc import Sequence

_HEAD = 256  # likeliest tokens that are sorted first; top_p seldom needs more, and to sort all takes many times as long


@dataclass(frozen=True, slots=True)
class Chooser:
    """How one request chooses its tokens.

    Attributes:
        temperature: 0 takes the likeliest token; higher is flatter.
        top_p: Keep the likeliest tokens that together reach this share, at least one.
        top_k: Keep so many of the likeliest tokens; None: all.
        generator: Of the CPU; None: torch's own.
        constraint: What the answer is held to; None: nothing.
    """

    temperature: float
    top_p: float = 1.0
    top_k: int | None = None
    generator: torch.Generator | None = None
    constraint: Constraint | None = None

    @property
    def plain(self) -> bool:
        """Whether it takes the likeliest token, and nothing else plays a part."""
        return self == Chooser(0, self.top_p, self.top_k, self.generator)


def choose(logits: torch.Tensor, choosers: Sequence[Chooser]) -> list[int]:
    """Return the next token of each request; `logits` has a row for each, shape `(requests, vocabulary)`."""
    tokens = logits.argmax(-1).tolist()
    for row, chooser in enumerate(choosers):
        if chooser.temperature != 0 or chooser.constraint is not None:
            tokens[row] = _choose_one(logits[row], chooser)
    return tokens


def _choose_one(scores: torch.Tensor, chooser: Chooser) -> int:
    def draw(scores: torch.Tensor) -> int:
        return sample(
            scores,
            temperature=chooser.temperature,
            top_p=chooser.top_p,
            top_k=chooser.top_k,
            generator=chooser.generator,
        )

    return draw(scores) if chooser.constraint is None else chooser.constraint.choose(scores, draw)


def unusable(logits: torch.Tensor) -> list[bool]:
    """Return of each row whether it holds what is no number, or an infinite one; shape as for `choose`."""
    return [not abs(largest) < math.inf for largest in logits.amax(-1).tolist()]  # what is no number counts as largest


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
        temperature: As `Chooser`, as are the others.
        top_p: Share.
        top_k: Number.
        generator: Where the number comes from.
    """
    if temperature == 0:
        return int(logits.argmax())
    scores = logits.detach().to("cpu", torch.float64)
    weights = ((scores - scores.max()) / temperature).exp()  # less the largest: a tiny temperature cannot overflow
    draw = torch.rand((), dtype=torch.float64, generator=generator)
    if top_k is None and top_p >= 1:
        return _pick(weights, draw)
    kept, tokens = _likeliest(weights, top_p, top_k)
    return int(tokens[_pick(kept, draw)])


def _likeliest(weights: torch.Tensor, top_p: float, top_k: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    # The weights that are kept, and their tokens, the likeliest first. top_p is a share of what top_k leaves.
    size = len(weights)
    head, tokens = weights.topk(min(size, top_k or _HEAD))
    whole = float(head.sum() if top_k else weights.sum())
    reached = head.cumsum(-1)
    if top_k is None and float(reached[-1]) < top_p * whole and len(head) < size:
        head, tokens = weights.sort(descending=True, stable=True)
        reached = head.cumsum(-1)
    kept = max(1, int((reached - head < top_p * whole).sum()))
    return head[:kept], tokens[:kept]


def _pick(weights: torch.Tensor, draw: torch.Tensor) -> int:
    reached = weights.cumsum(-1)
    return min(int((reached <= draw * reached[-1]).sum()), len(weights) - 1)


def generator_for(seed: int | None) -> torch.Generator:
    """Return a generator of one request's own; without a seed it is seeded by the operating system."""
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator
