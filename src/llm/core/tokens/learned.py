"""What answers teach: how far the estimate of a prompt is off, and how long answers are."""

from __future__ import annotations

from collections import deque
from math import ceil, inf
from typing import Final

_PROMPTS: Final = 128
_ANSWERS: Final = 256
_ENOUGH: Final = 20
_AFTER: Final = 16
_PARTS: Final = 8
_SHARE: Final = 0.95

_LEAST: Final = 0.25
_MOST: Final = 4.0
_FRAME: Final = 32
"""Tokens that a request may hold around its text (roles, marks), so that they do not make a short prompt's ratio."""


class PromptCalibration:
    """By how much a model's real prompts exceed their estimate: the 95th percentile of the last 128, by model.

    Four characters to a token is right for English and wrong by up to four times for other scripts, code or tables. So
    the factor is high rather than right: what is reserved should seldom fall short of what is used, and settling gives
    the rest back. It starts at 1, rises with the first answer that shows more, falls once 20 answers came, and stays
    within 0.25 and 4. Noting an answer takes a fraction of a microsecond on average.

    A prompt's tokens count whole here, those that the provider reads from its cache too: which these are is not known
    before, and where they do not count, settling gives them back.
    """

    def __init__(self) -> None:
        """Start with nothing known."""
        self._models: dict[tuple[str, str], _Running] = {}

    def tokens(self, kind: str, model: str, estimate: int) -> int:
        """Return the tokens to count on where the plain estimate says `estimate`; `kind` is the provider's type."""
        ratios = self._models.get((kind, model))
        if ratios is None or estimate <= 0:
            return estimate
        factor = ratios.value
        return ceil(estimate * factor if factor <= 1.0 else (estimate + _FRAME) * factor - _FRAME)

    def observe(self, kind: str, model: str, estimate: int, real: int) -> None:
        """Note an answer's real prompt tokens beside the plain estimate of that prompt."""
        if estimate <= 0 or real <= 0:
            return
        ratio = real / estimate if real <= estimate else (real + _FRAME) / (estimate + _FRAME)
        ratios = self._models.get((kind, model))
        if ratios is None:
            ratios = self._models.setdefault((kind, model), _Running(1.0, _PROMPTS, _LEAST, _MOST))
        ratios.add(ratio)


class OutputEstimate:
    """How long a model's answers are: the 95th percentile of the last 256, by model.

    Until 20 answers of a model came it is at least `start`. It is worked out anew after an eighth of them more, or
    after 16, so noting one takes a fraction of a microsecond on average.
    """

    def __init__(self, start: int = 512) -> None:
        """Take the tokens of an answer of which nothing is known."""
        self._start = start
        self._models: dict[str, _Running] = {}

    def expected(self, model: str) -> int:
        """Return the tokens to count on for an answer without `max_tokens`."""
        answers = self._models.get(model)
        return self._start if answers is None else max(1, int(answers.value))

    def observe(self, model: str, output_tokens: int) -> None:
        """Note the tokens of an answer that was not cut by `max_tokens`."""
        answers = self._models.get(model)
        if answers is None:
            answers = self._models.setdefault(model, _Running(self._start, _ANSWERS))
        answers.add(output_tokens)


class _Running:
    """The 95th percentile of the last `count` values, `least` to `most`; at first the start, or what exceeds it."""

    __slots__ = ("_last", "_least", "_most", "_next", "_seen", "value")

    def __init__(self, start: float, count: int, least: float = 0.0, most: float = inf) -> None:
        self._seen = 0
        self._next = _ENOUGH  # as so many were seen, the value is worked out anew
        self._last: deque[float] = deque(maxlen=count)
        self._least = least
        self._most = most
        self.value = start

    def add(self, value: float) -> None:
        self._last.append(value)
        self._seen += 1
        if self._seen < _ENOUGH:
            self.value = min(self._most, max(self.value, value))
        elif self._seen >= self._next:
            ordered = sorted(self._last.copy())
            self._next = self._seen + max(_AFTER, len(ordered) // _PARTS)
            self.value = min(self._most, max(self._least, ordered[ceil(_SHARE * len(ordered)) - 1]))
