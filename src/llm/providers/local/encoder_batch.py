"""Texts whose vectors are asked of one encoder, by many callers: which of them one pass reads together."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

from .job import failed
from .vectors import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from .encoder import LoadedEncoder

_ALONE: Final = 512  # tokens of one pass, padding included, while no other model answers
_BESIDE: Final = 128  # and while one does, whose next token has to wait for them; one text of more goes by itself
_PADDED: Final = 8  # one in so many of them may be padding
_AMONG: Final = 1024  # texts that have waited longest, of which those of a pass are


class _None(NamedTuple):
    used: int = 0
    blocks: int = 0


@dataclass(eq=False, slots=True)
class Text:
    """One text of those that somebody waits for.

    Attributes:
        tokens: Its tokens.
        job: Who waits.
        index: Its place among the texts of that one.
        arrived: When it came, in seconds.
    """

    tokens: list[int]
    job: Waiting
    index: int
    arrived: float = 0.0

    @property
    def left(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.job.cancelled or self.job.ended


class EncoderBatch:
    """What `Batch` is, for a model that makes vectors; used by one thread.

    A pass reads the text that has waited longest, and of the others those that are nearest to it in length: padding is
    computed like any token, and texts are short as well as long.
    """

    room: ClassVar[_None] = _None()
    store: ClassVar[tuple[()]] = ()
    cached_tokens: ClassVar[int] = 0
    made_tokens: ClassVar[int] = 0
    put_back: ClassVar[int] = 0

    def __init__(self, model: LoadedEncoder, size: int, now: Callable[[], float]) -> None:
        """Read at most `size` texts in one pass; `now` tells the time in seconds."""
        self.model: LoadedEncoder = model
        self.waiting: deque[Text] = deque()
        self.running: int = 0
        self.latest: int = 0
        self.waits: tuple[int, float] = (0, 0.0)
        self._size = size
        self._now = now

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.waiting)

    def add(self, text: Text) -> None:
        """Queue a text that fits the model."""
        text.arrived = self._now()
        self.waiting.append(text)

    def step(self, *, beside: bool = False) -> None:
        """Run one pass, `beside` models that answer; where it fails, so do those with a text in it, and no others."""
        self._drop_left()
        texts = self._chosen(_BESIDE if beside else _ALONE)
        self.latest = self.running = len(texts)
        if texts:
            self._admit(texts)
            self._read(texts)

    def clear(self, failure: BaseException) -> None:
        """Fail all that wait."""
        waiting, self.waiting = self.waiting, deque()
        for text in waiting:
            text.job.fail(failed(failure))

    def _drop_left(self) -> None:
        for text in self.waiting:
            if text.left:
                text.job.drop()
        self.waiting = deque(text for text in self.waiting if not text.left)

    def _read(self, texts: list[Text]) -> None:
        try:
            vectors = self.model.vectors([text.tokens for text in texts])
        except Exception as failure:  # noqa: BLE001 - whatever the network does, it fails a pass and not the thread
            self.running = 0
            for text in texts:
                text.job.fail(failed(failure))
            return
        self.running = 0  # who is served sees nobody in the pass any more
        for text, vector in zip(texts, vectors.unbind(), strict=True):
            _settle(text, vector)

    def _chosen(self, most: int) -> list[Text]:
        if not self.waiting:
            return []
        first, longest, own = len(self.waiting[0].tokens), 0, 0
        chosen: list[Text] = []
        for text in sorted(islice(self.waiting, _AMONG), key=lambda text: abs(len(text.tokens) - first)):
            longest, own = max(longest, len(text.tokens)), own + len(text.tokens)
            tokens = longest * (len(chosen) + 1)
            if chosen and (len(chosen) == self._size or tokens > most or tokens - own > most // _PADDED):
                break
            chosen.append(text)
        return chosen

    def _admit(self, texts: list[Text]) -> None:
        now, chosen = self._now(), {id(text) for text in texts}
        self.waiting = deque(text for text in self.waiting if id(text) not in chosen)
        count, seconds = self.waits
        self.waits = (count + len(texts), seconds + sum(now - text.arrived for text in texts))


def _settle(text: Text, vector: torch.Tensor) -> None:
    if not bool(vector.isfinite().all()):
        text.job.fail(failed(ArithmeticError("its vector holds what is no number")))
    else:
        text.job.put(text.index, tuple(vector.tolist()))
