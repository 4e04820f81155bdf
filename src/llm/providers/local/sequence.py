"""One request in the batch: its tokens, its text, and how it chooses and ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .request import GenerationResult
from .sampling import Chooser, generator_for
from .text import Detokenizer, StopFilter

if TYPE_CHECKING:
    from .job import Generation
    from .model import LoadedModel
    from .request import Ending, Settings

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
    """

    def __init__(self, model: LoadedModel, tokens: list[int], settings: Settings, job: Generation, most: int) -> None:
        """Start with a prompt that was read by nobody, and may be answered with `most` tokens."""
        self.tokens: list[int] = tokens
        self.read: int = 0
        self.job: Generation = job
        self.chooser: Chooser = _chooser(model, settings)
        self.number: int = 0
        self.arrived: float = 0.0
        self.cached: int = 0
        self._prompt = len(tokens)
        self._most = most
        self._ends = frozenset[int]() if settings.ignore_eos else model.end_tokens
        self._detokenizer = Detokenizer(model.decode, tokens[-_CONTEXT:])
        self._filter = StopFilter(settings.stop)
        self._texts: list[str] = []

    @property
    def made(self) -> int:
        """Tokens of the answer so far."""
        return len(self.tokens) - self._prompt

    def accept(self, token: int) -> Ending | None:
        """Take the next token, and return how the answer ends with it; None: it goes on."""
        self.tokens.append(token)
        if token in self._ends or self._say(self._detokenizer.push(token)):
            return "stop"
        return "length" if self.made >= self._most else None

    def end(self, ending: Ending) -> None:
        """Give what there is to the job."""
        if not self._filter.stopped and not self._say(self._detokenizer.flush()) and (rest := self._filter.flush()):
            self._give(rest)
        text = "".join(self._texts)
        self.job.settle(GenerationResult(text, self._prompt, self.made, ending, self.cached))

    def _say(self, text: str) -> bool:
        self._give(self._filter.push(text))
        return self._filter.stopped

    def _give(self, text: str) -> None:
        if text:
            self._texts.append(text)
            self.job.push(text)


def _chooser(model: LoadedModel, settings: Settings) -> Chooser:
    return Chooser(
        temperature=_first(settings.temperature, model.defaults.temperature, 1.0),
        top_p=_first(settings.top_p, model.defaults.top_p, 1.0),
        top_k=settings.top_k or model.defaults.top_k or None,  # 0 in a model's defaults is all
        generator=generator_for(settings.seed),
    )


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)
