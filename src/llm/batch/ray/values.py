"""What goes between the process that runs a batch and its workers."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, Self, cast

from llm.batch.trouble import PATIENCE
from llm.core.config import LLMConfig
from llm.utils.redact import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from llm.batch.values import Outcome, Row
    from llm.core.exceptions import LLMException


_PART: Final = 64 * 1024
"""Bytes of a part: what is larger than 100 KiB, Ray does not send but lays into its store, and from there on disks."""


class WorkerLostError(Exception):
    """A worker died, or cannot be reached any more; says why."""


class View(NamedTuple):
    """What a worker's calls came to so far, as its manager tells it.

    Attributes:
        models: `get_status()["models"]`: `calls`, `tokens`, `saved` and `cost` of each.
        saturation: How full each key's limits are, 0 to 1.
    """

    models: Mapping[str, Any]
    saturation: Mapping[str, float]


class News(NamedTuple):
    """What a worker has to tell.

    Attributes:
        outcomes: Rows that have ended since it told last.
        waiting: Why nothing goes on there; None: it goes on.
        view: What its calls came to; None: nothing new.
        reason: Why it takes no more rows: what the provider failed with, or the configuration; None while it does.
    """

    outcomes: Sequence[Outcome] = ()
    waiting: str | None = None
    view: View | None = None
    reason: LLMException | None = None


class Worker(Protocol):
    """Answers rows somewhere. Each method but `dismiss` raises `WorkerLostError` once it is gone."""

    async def begin(self) -> None:
        """Wait until it is there."""
        ...

    async def put(self, rows: Sequence[Row]) -> None:
        """Hand it rows."""
        ...

    async def news(self) -> News:
        """Wait until it has something to tell."""
        ...

    async def close(self) -> News:
        """Have it put its affairs in order; returns what it has still to tell."""
        ...

    def dismiss(self) -> None:
        """End it at once, and what runs there; whoever waits for it then hears that it is lost."""


class Team(NamedTuple):
    """Workers that can be had, in a cluster that this process is part of.

    Attributes:
        address: Where the cluster is; None: it was started here.
        processors: How many it has.
        machines: How many it has.
        hire: Has a worker somewhere in it, as soon as there is room.
    """

    address: str | None
    processors: int
    machines: int
    hire: Callable[[Duty], Worker]


class Place(Protocol):
    """A cluster that can be joined or started."""

    def team(self, workers: int | None) -> AbstractAsyncContextManager[Team]:
        """Be part of it in the block; what is started is ended with that, what is joined is left.

        Args:
            workers: How many it must have room for, where it is started; None: one for each processor.

        Raises:
            LLMConnectionError: It cannot be reached, or does not start.
        """
        ...


def _secret(secret: Secret) -> tuple[type[Secret], tuple[str]]:
    return Secret, (secret.reveal(),)


@dataclass(frozen=True, slots=True)
class Duty:
    """What every worker is to do.

    Attributes:
        config: Its manager's.
        provider: Who is asked; None: the configured one.
        model: Model of rows that name none.
        concurrency: Its rows in flight, at most.
        patience: Seconds without one answer after which a provider in trouble is given up.
        pause: Seconds for which it gathers news once it has some.
    """

    config: LLMConfig = field(repr=False)
    provider: str | None = None
    model: str | None = None
    concurrency: int = 64
    patience: float = PATIENCE
    pause: float = 0.02

    def parts(self) -> list[bytes]:
        """Return it in parts that are small enough to go from memory to memory, the keys of its configuration included.

        A `Secret` refuses to be pickled elsewhere, so that no file comes to hold it; these parts go to no file.
        """
        file = io.BytesIO()
        pickler = pickle.Pickler(file)
        pickler.dispatch_table = {Secret: _secret}
        pickler.dump(self)
        pickled = file.getvalue()
        return [pickled[start : start + _PART] for start in range(0, len(pickled), _PART)]

    @classmethod
    def of(cls, parts: Sequence[bytes]) -> Self:
        """Return the one that these are parts of."""
        return cast("Self", pickle.loads(b"".join(parts)))  # noqa: S301 - made above
