"""One request in the batch: its tokens, its text, and how it chooses and ends."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from .guessing import Guesses
from .likelihood import likelihood
from .request import GenerationResult
from .sampling import Chooser, generator_for
from .text import Detokenizer, StopFilter

if TYPE_CHECKING:
    import torch

    from llm.core.choices import TokenLogprob

    from .constraint import Constraint
    from .job import Listener
    from .model import LoadedModel
    from .request import Ending, Settings
    from .vectors import Pool

_CONTEXT = 8  # last tokens of the prompt that the first ones of the answer are decoded with


class Sequence:
    """A prompt and the answer to it, in the making.

    Attributes:
        tokens: The prompt's, then the answer's.
        read: How many of them the network has read.
        job: Who waits for the answer.
        number: Its place among all that came.
        arrived: When it came, in seconds.
        cached: Tokens of the prompt that were read for another one before.
        others: Those with the same prompt that come in when it was read.
        likely: How many of the likeliest tokens are told in the place of each; None: nothing is told of them.
        pool: Takes what the network says of each token, in place of an answer; None: an answer is wanted.
        guesses: At its next tokens.
    """

    def __init__(self, model: LoadedModel, tokens: list[int], settings: Settings, job: Listener, most: int) -> None:
        """Start with a prompt that was read by nobody, and may be answered with `most` tokens."""
        self.tokens: list[int] = tokens
        self.read: int = 0
        self.job: Listener = job
        self.others: list[Sequence] = []
        self.likely: int | None = settings.logprobs
        self.pool: Pool | None = None
        self.chooser: Chooser = _chooser(model, settings)
        self.number: int = 0
        self.arrived: float = 0.0
        self.cached: int = 0
        self.guesses: Guesses = Guesses()
        self._prompt = len(tokens)
        self._most = most
        self._ends = frozenset[int]() if settings.ignore_eos else model.end_tokens
        self._detokenizer = Detokenizer(model.decode, tokens[-_CONTEXT:])
        self._filter = StopFilter(settings.stop)
        self._texts: list[str] = []
        self._tokenizer = model.tokenizer
        self._logprobs: list[TokenLogprob] = []
        self._untold: deque[tuple[TokenLogprob, int]] = deque()  # and after how many characters
        self._pushed = 0
        self._given = 0

    @property
    def made(self) -> int:
        """Tokens of the answer so far."""
        return len(self.tokens) - self._prompt

    @property
    def most(self) -> int:
        """Most tokens of the answer."""
        return self._most

    def hold(self, constraint: Constraint) -> None:
        """Hold the answer to a form; before its first token."""
        self.chooser = replace(self.chooser, constraint=constraint)

    def observe(self, scores: torch.Tensor, token: int) -> None:
        """Note how likely the next token is, before it is accepted; scores are of shape `(vocabulary,)`."""
        told = likelihood(scores, token, self.likely or 0, self._tokenizer)
        self._untold.append((told, self._pushed))

    @property
    def left(self) -> int:
        """Tokens that the answer may still have."""
        return self._most - self.made

    def accept(self, token: int) -> Ending | None:
        """Take the next token, and return how the answer ends with it; None: it goes on.

        Raises:
            LLMServerError: It is held to a form that cannot be followed any more.
        """
        self.tokens.append(token)
        held = self.chooser.constraint
        if token in self._ends:
            return "stop" if held is None else held.ending
        ending = None if held is None else held.accept(token)
        if self._say(self._detokenizer.push(token)):
            return "stop"
        return ending or ("length" if self.made >= self._most else None)

    def end(self, ending: Ending) -> None:
        """Give what there is to the job."""
        if not self._filter.stopped and not self._say(self._detokenizer.flush()) and (rest := self._filter.flush()):
            self._give(rest)
        text, logprobs = "".join(self._texts), tuple(self._logprobs)
        self.job.settle(GenerationResult(text, self._prompt, self.made, ending, self.cached, logprobs))

    def _say(self, text: str) -> bool:
        self._pushed += len(text)
        self._give(self._filter.push(text))
        return self._filter.stopped

    def _give(self, text: str) -> None:
        if text:
            self._texts.append(text)
            self._given += len(text)
            self.job.push(text, self._told())

    def _told(self) -> tuple[TokenLogprob, ...]:
        # Of the tokens whose text begins in what was given: what a stop string held back is told with it, or never.
        told: list[TokenLogprob] = []
        while self._untold and self._untold[0][1] < self._given:
            told.append(self._untold.popleft()[0])
        self._logprobs += told
        return tuple(told)


def _chooser(model: LoadedModel, settings: Settings) -> Chooser:
    return Chooser(
        temperature=_first(settings.temperature, model.defaults.temperature, 1.0),
        top_p=_first(settings.top_p, model.defaults.top_p, 1.0),
        top_k=settings.top_k or model.defaults.top_k or None,  # 0 in a model's defaults is all
        generator=generator_for(settings.seed),
    )


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)
