"""Vectors of texts, and of models that answer how they are made: the mean of the last layer's states, of length one."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm.core.exceptions import LLMInvalidRequestError

from .job import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    import torch
    from transformers import PreTrainedModel

    from llm.core.choices import TokenLogprob
    from llm.core.exceptions import LLMException

    from .request import GenerationResult


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors of texts, in the texts' order.

    Attributes:
        values: A vector per text.
        input_tokens: Tokens of all texts.
    """

    values: tuple[tuple[float, ...], ...]
    input_tokens: int


class Pool:
    """The mean over the tokens of one text, which may be read in several passes."""

    def __init__(self, wait: Waiting, index: int) -> None:
        """Start with none; the vector is for a text of those that somebody waits for."""
        self._wait = wait
        self._index = index
        self._sum: torch.Tensor | None = None

    def add(self, states: torch.Tensor) -> None:
        """Take the states of more tokens, shape `(tokens, dimensions)`."""
        more = states.float().sum(0)
        self._sum = more if self._sum is None else self._sum + more

    def done(self) -> None:
        """Hand the vector over: its direction is that of the mean, its length one."""
        if self._sum is not None:
            self._wait.put(self._index, unit(self._sum))


def unit(vector: torch.Tensor) -> tuple[float, ...]:
    """Return a vector's numbers, as one of length one."""
    return tuple((vector / vector.norm().clamp(min=1e-12)).tolist())


def shortened(vector: Sequence[float], dimensions: int | None) -> tuple[float, ...]:
    """Return the first numbers of a vector, as one of length one; None: all of it.

    Raises:
        LLMInvalidRequestError: It has fewer.
    """
    if dimensions is None:
        return tuple(vector)
    if dimensions > len(vector):
        raise LLMInvalidRequestError(
            f"dimensions is {dimensions}, and the model's vectors have {len(vector)}; ask for less"
        )
    part = vector[:dimensions]
    length = math.hypot(*part) or 1.0
    return tuple(number / length for number in part)


class Waiting(Task[Vectors]):
    """Who waits for the vectors of some texts; it belongs to the loop in which it was made."""

    def __init__(self, begin: Callable[[Waiting], None]) -> None:
        """Keep how it begins."""
        super().__init__(lambda: begin(self))
        self._vectors: dict[int, tuple[float, ...]] = {}
        self._expected: list[int] = []

    def expect(self, tokens: list[int]) -> None:
        """Wait for the vectors of texts with so many tokens."""
        self._expected = tokens

    def put(self, index: int, vector: tuple[float, ...]) -> None:
        """Take the vector of one text; with the last, all are the outcome."""
        self._vectors[index] = vector
        if len(self._vectors) == len(self._expected):
            values = tuple(self._vectors[at] for at in range(len(self._expected)))
            self.settle(Vectors(values, sum(self._expected)))

    def drop(self) -> None:
        """End without vectors, unless there is an outcome: nobody waits any more."""
        self.settle(Vectors((), 0))


class Silent:
    """The listener of a text that is read and not answered."""

    def __init__(self, wait: Waiting) -> None:
        """Tell those who wait for the vector of a failure."""
        self._wait = wait

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits any more."""
        return self._wait.cancelled or self._wait.ended

    def push(self, text: str, logprobs: tuple[TokenLogprob, ...] = ()) -> None:
        """Take nothing: there are no pieces."""

    def settle(self, value: GenerationResult) -> None:
        """Take nothing: there is no text, and it ended early."""
        del value
        self._wait.drop()

    def fail(self, error: LLMException) -> None:
        """Tell of it."""
        self._wait.fail(error)


@contextmanager
def watched(network: PreTrainedModel, *, not_at_all: bool = False) -> Generator[list[torch.Tensor]]:
    """Get what the last layer says of each token, of the passes within; shape `(texts, tokens, dimensions)`."""
    seen: list[torch.Tensor] = []
    if not_at_all:
        yield seen
        return

    def see(module: object, given: object, output: Any) -> None:  # noqa: ANN401 - each network has a type of its own
        del module, given
        seen.append(output[0])

    hook = network.base_model.register_forward_hook(see)
    try:
        yield seen
    finally:
        hook.remove()
