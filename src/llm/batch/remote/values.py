"""What goes over to a batch API and what comes back, whichever vendor's."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from llm.core.exceptions import LLMException

Engine: TypeAlias = Literal["openai-batch", "anthropic-batch"]

CANCELLED: Final = "batch_cancelled"
EXPIRED: Final = "batch_expired"


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most that a vendor takes in one batch.

    Attributes:
        rows: Requests; of requests for vectors the texts in them are counted.
        size: Bytes of what is sent.
    """

    rows: int
    size: int


@dataclass(frozen=True, slots=True)
class Pace:
    """How a run takes its time, in seconds.

    Attributes:
        first: From a submission to the first look at it, which is doubled by each that finds no end; and the first
            pause after a failure.
        most: The longest of these pauses.
        settle: From a submission whose end is unknown until it is believed that the vendor has not got it.
        queue: The first pause where the vendor's queue is full; doubled each time.
        queue_most: The longest of these.
        control: What a small request may take.
        upload: What an upload may take.
        quiet: How long nothing may come while results are read.
        patience: Without one answer, until a vendor in trouble is given up.
    """

    first: float = 0.5
    most: float = 60.0
    settle: float = 60.0
    queue: float = 30.0
    queue_most: float = 600.0
    control: float = 60.0
    upload: float = 3600.0
    quiet: float = 120.0
    patience: float = 600.0


class Phase(Enum):
    """How far a batch is at its vendor.

    Attributes:
        CHECKED: The vendor looks whether it can take it.
        RUNNING: Rows are being answered, or the results put together.
        ENDED: The results are there, those of a batch that was cancelled or ran out of time included.
        REFUSED: The vendor did not take it; no row of it was asked.
    """

    CHECKED = auto()
    RUNNING = auto()
    ENDED = auto()
    REFUSED = auto()


class Refusal(NamedTuple):
    """Why a vendor did not take a batch.

    Attributes:
        code: The vendor's code.
        message: Its words.
        line: The row that it is about, from 1; None where it is all of them.
    """

    code: str
    message: str
    line: int | None


@dataclass(frozen=True, slots=True)
class Standing:
    """How a batch stands.

    Attributes:
        phase: How far it is.
        done: Rows that have come to their end, as far as the vendor tells.
        total: Rows that are in it; 0 where the vendor has not counted yet.
        files: Where its results are, by the vendor's names.
        refusals: Why it was refused.
    """

    phase: Phase
    done: int = 0
    total: int = 0
    files: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()


class Result(NamedTuple):
    """What the vendor says of one row: exactly one of `answer`, `error` and `code`.

    Attributes:
        sent_id: The name under which it was sent.
        answer: The body of its answer.
        error: The failure that it met.
        code: Why it was not asked at all.
        message: The vendor's words for that.
    """

    sent_id: str
    answer: bytes | None = None
    error: LLMException | None = None
    code: str | None = None
    message: str = ""


class Search(NamedTuple):
    """Whether a batch that may have been submitted is at the vendor.

    Attributes:
        batch: Its name; None where it was not found.
        undecided: Whether one is there that may be it, which only its end will tell.
    """

    batch: str | None = None
    undecided: bool = False
