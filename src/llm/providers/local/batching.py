"""The running batch of one model: who reads a prompt, who answers, and one pass of the network for all of them."""

from __future__ import annotations

import itertools
import math
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from .blocks import BLOCK
from .job import failed
from .prefix import PrefixStore
from .room import Room
from .sampling import choose, unusable
from .vectors import watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

    from .attention import Part
    from .kv import Shape
    from .model import LoadedModel
    from .sequence import Sequence

_ALONE: Final = 512  # tokens of prompts in one pass while nobody answers
_TWICE: Final = 1024  # tokens of a prompt that were read, after which the next ones take twice as long as the first
_WORTH: Final = 2  # tokens of the longest guess at least: else nobody guesses
_KEPT: Final = 4096 // BLOCK  # blocks that are kept for prompts that begin alike


class _Turn(NamedTuple):
    # One pass: who reads one token and what is guessed of the next, and who reads how many of its prompt.
    answering: list[Sequence]
    guesses: list[list[int]]
    parts: list[Part]
    chunks: list[tuple[Sequence, int]]

    @property
    def everyone(self) -> list[Sequence]:
        return [*self.answering, *(sequence for sequence, _ in self.chunks)]


class _Row(NamedTuple):
    # What the network says of the token that comes after one: what was chosen, whether that is of no use, the scores.
    token: int
    useless: bool
    scores: torch.Tensor


class Batch:
    """Requests of one model, from the queue to the end of their answers; used by one thread.

    Each pass reads one token of every request that answers, where these are few also guesses at the next ones, then
    the next tokens of the prompts, first come first served. A request comes in when there is memory for its prompt.
    Where one that answers finds no memory for its next token, the youngest gives its own back and waits; it reads its
    tokens again later.
    """

    def __init__(  # noqa: PLR0913 - options
        self,
        model: LoadedModel,
        shape: Shape,
        *,
        blocks: int,
        size: int,
        now: Callable[[], float],
        beside: int,
        together: int = 0,
    ) -> None:
        """Start with no request.

        Args:
            model: Made ready for batches.
            shape: What one of its tokens takes.
            blocks: Memory for requests.
            size: Requests that run at once, at most.
            now: Tells the time in seconds.
            beside: Tokens of prompts in one pass while somebody answers, whose next token has to wait for them; fewer
                of a prompt of which much was read.
            together: Tokens of answers in one pass that holds guesses: more would cost more than they bring. 0: nobody
                guesses.
        """
        kept = min(_KEPT, blocks // 8)
        self.model: LoadedModel = model
        self.room: Room = Room(shape, blocks=blocks - kept, window=model.window)
        self.store: PrefixStore = PrefixStore(shape, kept)
        self.waiting: deque[Sequence] = deque()
        self.reading: list[Sequence] = []
        self.latest: int = 0
        self.made_tokens: int = 0
        self.cached_tokens: int = 0
        self.waits: tuple[int, float] = (0, 0.0)
        self.put_back: int = 0
        self._size = size
        self._beside = beside
        self._together = together
        self._now = now
        self._numbers = itertools.count()

    @property
    def running(self) -> int:
        """Requests that read or answer."""
        return len(self.reading) + len(self.room.answering)

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.waiting) or self.running > 0

    def add(self, sequence: Sequence) -> None:
        """Queue a request whose tokens fit the room's longest."""
        sequence.number, sequence.arrived = next(self._numbers), self._now()
        self.waiting.append(sequence)

    def step(self) -> int:
        """Run one pass, and return how many tokens it made; where it fails, so do the requests in it, and no others."""
        try:
            self._drop_cancelled()
            self._widen()
            turn = self._plan()
        except Exception as failure:  # noqa: BLE001 - such as no memory on the device: it fails all, not the thread
            self.clear(failure)
            return 0
        self.latest = len(turn.everyone)
        if not turn.everyone:
            return 0
        try:
            return self._run(turn)
        except Exception as failure:  # noqa: BLE001 - whatever the network does, it fails a pass and not the thread
            for sequence in turn.everyone:
                self._fail(sequence, failure)
            return 0

    def clear(self, failure: BaseException) -> None:
        """Fail all requests."""
        for sequence in [*self.waiting, *self.reading, *self.room.answering]:
            self._fail(sequence, failure)

    def _drop_cancelled(self) -> None:
        for sequence in [*self.waiting, *self.reading, *self.room.answering]:
            if sequence.job.cancelled:
                self._remove(sequence)
                sequence.end("cancelled")

    def _widen(self) -> None:
        for sequence in self.room.answering:
            while sequence not in self.waiting and not self.room.widen(sequence):
                self._put_back(max(self.room.answering, key=lambda other: other.number))

    def _plan(self) -> _Turn:
        answering = self.room.answering
        chunks = self._chunks(self._beside, _TWICE) if answering else self._chunks(_ALONE, math.inf)
        guesses: list[list[int]] = [[] for _ in answering] if chunks else self._guess(answering)
        if not any(guesses):
            return _Turn(answering, guesses, self.room.parts(), chunks)
        parts = [self.room.chunk(one, 1 + len(guess)) for one, guess in zip(answering, guesses, strict=True)]
        return _Turn(answering, guesses, parts, chunks)

    def _chunks(self, budget: float, twice: float) -> list[tuple[Sequence, int]]:
        # The budget is what first tokens of prompts take; later ones see more tokens and take longer.
        chunks: list[tuple[Sequence, int]] = []
        readers = self._readers()
        while budget >= 1 and (sequence := next(readers, None)):
            each = 1 + sequence.read / twice
            tokens = min(math.ceil(budget / each), len(sequence.tokens) - sequence.read)
            chunks.append((sequence, tokens))
            budget -= tokens * each
        return chunks

    def _guess(self, answering: list[Sequence]) -> list[list[int]]:
        # Where few answer, the weights that are fetched cost more than the tokens that are read.
        each = self._together // len(answering) - 1 if answering else 0
        return [
            one.guesses.next(one.tokens, min(each, one.left - 1, self.room.left(one) - 1))
            if each >= _WORTH and one.chooser.plain
            else []
            for one in answering
        ]

    def _readers(self) -> Iterator[Sequence]:
        yield from list(self.reading)
        while self.waiting and self.running < self._size and self.room.enter(self.waiting[0]):
            sequence = self.waiting.popleft()
            self.reading.append(sequence)
            self._recall(sequence)
            yield sequence

    def _recall(self, sequence: Sequence) -> None:
        if sequence.pool is None:  # else all its tokens are to be read
            sequence.read = self.store.recall(sequence.tokens, self.room.view(sequence))
        if not sequence.made:  # else it was here before
            sequence.cached = sequence.read
            self.cached_tokens += sequence.read
            count, seconds = self.waits
            self.waits = (count + 1, seconds + self._now() - sequence.arrived)

    def _run(self, turn: _Turn) -> int:
        parts = list(turn.parts)
        tokens: list[int] = []
        positions: list[int] = []
        ends: list[int] = []
        asked = list(zip(turn.answering, turn.guesses, strict=True))
        for sequence, guess in asked:
            ends += range(len(tokens), len(tokens) + 1 + len(guess))
            positions += range(sequence.read, sequence.read + 1 + len(guess))
            tokens += [sequence.tokens[-1], *guess]
        for sequence, count in turn.chunks:
            start, end = sequence.read, sequence.read + count
            tokens += sequence.tokens[start:end]
            positions += range(start, end)
            parts.append(self.room.chunk(sequence, count))
            if end == len(sequence.tokens) and sequence.pool is None:
                asked.append((sequence, []))
                ends.append(len(tokens) - 1)
        pools = any(sequence.pool is not None for sequence, _ in turn.chunks)
        with watched(self.model.network, not_at_all=not pools) as seen:
            logits = self.model.forward(tokens, positions, ends or [0], parts)
        self._count(turn)
        for states in seen:
            self._pool(turn, states[0])
        if not asked:
            return 0
        choosers = [sequence.chooser for sequence, guess in asked for _ in range(1 + len(guess))]
        told = zip(choose(logits, choosers), unusable(logits), logits.unbind(), strict=True)
        every = iter([_Row(*row) for row in told])
        answers = [(sequence, guess, list(itertools.islice(every, 1 + len(guess)))) for sequence, guess in asked]
        for sequence, guess, rows in answers:  # of all, before one ends: another takes its row, with what it has read
            sequence.read += _right(guess, rows)
        return sum(self._take(*answer) for answer in answers)

    def _take(self, sequence: Sequence, guess: list[int], rows: list[_Row]) -> int:
        # What the network chose after the last token counts, and after each guess as long as they were right.
        made = 0
        try:
            for (token, useless, scores), guessed in zip(rows, [*guess, None], strict=True):
                if useless:
                    self.room.cleanse(sequence)  # rows move: whoever gets one next must not read it
                    raise ArithmeticError("its logits are no numbers")  # noqa: TRY301 - one of several
                if sequence.likely is not None:
                    sequence.observe(scores, token)
                made += 1
                if self._accept(sequence, token) or token != guessed:
                    break
        except Exception as failure:  # noqa: BLE001 - what one request meets, it alone fails of
            self._fail(sequence, failure)
            return made
        if guess:
            sequence.guesses.judge(len(guess), made - 1)
        return made

    @staticmethod
    def _count(turn: _Turn) -> None:
        for sequence in turn.answering:
            sequence.read += 1
        for sequence, count in turn.chunks:
            sequence.read += count

    def _pool(self, turn: _Turn, states: torch.Tensor) -> None:
        at = len(turn.answering) + sum(map(len, turn.guesses))
        for sequence, count in turn.chunks:
            if sequence.pool is not None:
                sequence.pool.add(states[at : at + count])
                if sequence.read == len(sequence.tokens):
                    self._remove(sequence)
                    sequence.pool.done()
            at += count

    def _accept(self, sequence: Sequence, token: int) -> bool:
        reading = sequence in self.reading
        if reading:
            self.reading.remove(sequence)
            self.room.answer(sequence)
        self.made_tokens += 1
        ending = sequence.accept(token)
        if reading or ending:
            self._keep(sequence)
        while sequence.others:  # what was read is kept for them
            self.add(sequence.others.pop(0))
        if ending:
            self.room.leave(sequence)
            sequence.end(ending)
        return ending is not None

    def _keep(self, sequence: Sequence) -> None:
        self.store.keep(sequence.tokens[: sequence.read], self.room.view(sequence))

    def _put_back(self, sequence: Sequence) -> None:
        self._keep(sequence)
        self._remove(sequence)
        self.put_back += 1
        sequence.read = 0
        self.waiting.appendleft(sequence)

    def _remove(self, sequence: Sequence) -> None:
        if sequence in self.waiting:
            self.waiting.remove(sequence)
            return
        if sequence in self.reading:
            self.reading.remove(sequence)
        self.room.leave(sequence)

    def _fail(self, sequence: Sequence, failure: BaseException) -> None:
        self._remove(sequence)
        sequence.job.fail(failed(failure))


def _right(guess: list[int], rows: list[_Row]) -> int:
    """Return how many tokens of a guess are those that the network chose."""
    chosen = [None if row.useless else row.token for row in rows]
    return next((at for at, guessed in enumerate(guess) if chosen[at] != guessed), len(guess))
