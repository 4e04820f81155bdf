"""The loop that makes one text: read the prompt, then choose, say and read back token after token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .model import Continuation
from .request import GenerationResult
from .sampling import generator_for, sample
from .text import Detokenizer, StopFilter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from .job import Generation
    from .model import LoadedModel
    from .request import Ending, Prompt, Settings

_CHUNK = 512  # tokens of a prompt read at once; between two chunks a cancelled request ends
_CONTEXT = 8  # last tokens of the prompt that the first ones of the answer are decoded with


def generate(model: LoadedModel, prompt: Prompt, settings: Settings, job: Generation) -> GenerationResult:
    """Generate one text, handing its pieces to `job`, and ending at the next token when that is cancelled.

    Raises:
        LLMContextLengthError: The prompt does not fit the model's window.
        LLMInvalidRequestError: The prompt is empty or does not fit the chat template.
    """
    tokens = model.encode(prompt)
    model.check_fits(len(tokens))
    most = settings.max_tokens or model.defaults.max_new_tokens or model.window
    return _Loop(model, tokens, settings, job).run(min(most, model.window - len(tokens)))


class _Loop:
    def __init__(self, model: LoadedModel, tokens: list[int], settings: Settings, job: Generation) -> None:
        self._tokens = tokens
        self._job = job
        self._ends = model.end_tokens
        self._continuation = Continuation(model)
        self._choose = _chooser(model, settings)
        self._detokenizer = Detokenizer(model.decode, tokens[-_CONTEXT:])
        self._filter = StopFilter(settings.stop)
        self._texts: list[str] = []

    def run(self, most: int) -> GenerationResult:
        unread: Sequence[int] = self._tokens
        made = 0
        ending: Ending = "length"
        while made < most:
            logits = self._read(unread)
            if logits is None:
                ending = "cancelled"
                break
            token = self._choose(logits)
            made += 1
            if token in self._ends or self._say(self._detokenizer.push(token)):
                ending = "stop"
                break
            unread = (token,)
        self._finish()
        return GenerationResult("".join(self._texts), len(self._tokens), made, ending)

    def _read(self, tokens: Sequence[int]) -> torch.Tensor | None:
        logits = None
        for start in range(0, len(tokens), _CHUNK):
            if self._job.cancelled:
                return None
            logits = self._continuation.feed(tokens[start : start + _CHUNK])
        return logits

    def _say(self, text: str) -> bool:
        text = self._filter.push(text)
        if text:
            self._texts.append(text)
            self._job.push(text)
        return self._filter.stopped

    def _finish(self) -> None:
        if not self._filter.stopped and not self._say(self._detokenizer.flush()) and (rest := self._filter.flush()):
            self._texts.append(rest)
            self._job.push(rest)


def _chooser(model: LoadedModel, settings: Settings) -> Callable[[torch.Tensor], int]:
    temperature = _first(settings.temperature, model.defaults.temperature, 1.0)
    top_p = _first(settings.top_p, model.defaults.top_p, 1.0)
    top_k = settings.top_k or model.defaults.top_k
    generator = generator_for(settings.seed)
    return lambda logits: sample(logits, temperature=temperature, top_p=top_p, top_k=top_k, generator=generator)


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)
