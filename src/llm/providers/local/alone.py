"""A model that attends in its own way: one request at a time, through the network as it came."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch

from .job import failed
from .sampling import choose, unusable
from .vectors import watched

if TYPE_CHECKING:
    from collections.abc import Callable

    from .model import LoadedModel
    from .sequence import Sequence
    from .vectors import Pool


class _Blocks(NamedTuple):
    used: int = 0
    blocks: int = 0


class Alone:
    """What `Batch` is, for a model that cannot share one: who came first is answered first, then the next."""

    room: ClassVar[_Blocks] = _Blocks()
    store: ClassVar[tuple[()]] = ()
    cached_tokens: ClassVar[int] = 0
    put_back: ClassVar[int] = 0

    def __init__(self, model: LoadedModel, now: Callable[[], float]) -> None:
        """Serve nobody yet; `now` tells the time in seconds."""
        self.model: LoadedModel = model
        self.waiting: deque[Sequence] = deque()
        self.latest: int = 0
        self.made_tokens: int = 0
        self.waits: tuple[int, float] = (0, 0.0)
        self._now = now
        self._served: Sequence | None = None
        self._memory: Any = None

    @property
    def running(self) -> int:
        """Requests that read or answer: one or none."""
        return int(self._served is not None)

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.waiting) or self._served is not None

    def add(self, sequence: Sequence) -> None:
        """Queue a request."""
        sequence.arrived = self._now()
        self.waiting.append(sequence)

    def step(self) -> int:
        """Run one pass for the first, and return how many tokens it made; where it fails, so does that request."""
        self._drop_cancelled()
        served = self._served = self._served or self._next()
        self.latest = self.running
        if served is None:
            return 0
        try:
            if served.pool is not None:
                self._pool(served, served.pool)
                return 0
            ending = served.accept(self._read(served))
            while served.others:
                self.add(served.others.pop(0))
            if ending is not None:
                self._leave()
                served.end(ending)
        except Exception as failure:  # noqa: BLE001 - whatever the network does, it fails a request and not the thread
            self._leave()
            served.job.fail(failed(failure))
            return 0
        self.made_tokens += 1
        return 1

    def clear(self, failure: BaseException) -> None:
        """Fail all requests."""
        everyone = [*self.waiting, *([] if self._served is None else [self._served])]
        self.waiting.clear()
        self._leave()
        for sequence in everyone:
            sequence.job.fail(failed(failure))

    def _drop_cancelled(self) -> None:
        for sequence in [sequence for sequence in self.waiting if sequence.job.cancelled]:
            self.waiting.remove(sequence)
            sequence.end("cancelled")
        if self._served is not None and self._served.job.cancelled:
            served = self._served
            self._leave()
            served.end("cancelled")

    def _next(self) -> Sequence | None:
        if not self.waiting:
            return None
        sequence = self.waiting.popleft()
        count, seconds = self.waits
        self.waits = (count + 1, seconds + self._now() - sequence.arrived)
        return sequence

    def _leave(self) -> None:
        self._served = self._memory = None

    def _pool(self, sequence: Sequence, pool: Pool) -> None:
        with torch.inference_mode():
            ids = torch.tensor([sequence.tokens], device=self.model.network.device)
            with watched(self.model.network) as seen:
                self.model.network(input_ids=ids, use_cache=False, logits_to_keep=1)
            self.model.passes += 1
            pool.add(seen[0][0])
        self._leave()
        pool.done()

    def _read(self, sequence: Sequence) -> int:
        with torch.inference_mode():
            ids = torch.tensor([sequence.tokens[sequence.read :]], device=self.model.network.device)
            output = self.model.network(input_ids=ids, past_key_values=self._memory, use_cache=True, logits_to_keep=1)
        self.model.passes += 1
        self._memory = getattr(output, "past_key_values", None)
        if self._memory is not None:  # else it reads all tokens each time
            sequence.read = len(sequence.tokens)
        logits = output.logits[:, -1]
        if any(unusable(logits)):
            raise ArithmeticError("its logits are no numbers")
        [token] = choose(logits, [sequence.chooser])
        if sequence.likely is not None:
            sequence.observe(logits[0], token)
        return token
