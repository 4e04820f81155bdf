"""Hears of every call as a layer of the chain, and keeps what their decision logs come to."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from llm.core.exceptions import LLMException, LLMTimeoutError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from llm.core.call import Call
    from llm.core.decisions import Decision
    from llm.core.protocols import CallNext
    from llm.core.stream import LLMResult
    from llm.core.types import LLMRequest, LLMResponse

_LOG_LENGTH: Final = 64
_BROKEN: Final = ("LLMConnectionError", "LLMStreamInterruptedError", "LLMTimeoutError")


@dataclass(slots=True)
class Told:
    """What the logs of all calls of one text say.

    Attributes:
        ended: How many of these calls have ended.
        sent: Attempts that may have reached the vendor.
        excused: Of these, such as were cut off or lost their connection, so that they need not have arrived.
    """

    ended: int = 0
    sent: int = 0
    excused: int = 0


@dataclass
class Ledger:
    """What was heard of all calls.

    Attributes:
        calls: By text.
        outcomes: Calls by how they ended.
        retries: Sends after a call's first.
        paid: Attempts that were paid.
        released: Attempts that were settled or refunded.
        cut: Calls whose log was longer than it may be, and of which the count of sends alone is known.
        broken: What was wrong with a log.
    """

    calls: dict[str, Told] = field(default_factory=dict[str, Told])
    outcomes: Counter[str] = field(default_factory=Counter[str])
    retries: int = 0
    paid: int = 0
    released: int = 0
    cut: int = 0
    broken: list[str] = field(default_factory=list[str])

    def hear(self, text: str, call: Call, error: BaseException | None) -> None:
        """Count a call that has ended."""
        told = self.calls.setdefault(text, Told())
        told.ended += 1
        log = call.log
        events = Counter(decision.event for decision in log)
        self.outcomes[_outcome(error)] += 1
        self.retries += max(0, call.sends - 1)
        cut_off = int(_cut_off(error))
        if len(log) >= _LOG_LENGTH:
            self.cut += 1
            told.sent += call.sends
            told.excused += call.sends
            return
        self.paid += events["paid"]
        self.released += events["settled"] + events["refunded"]
        told.sent += events["sent"] - events["unsent"]
        told.excused += cut_off + sum(_is_broken(decision) for decision in log)
        fault = fault_of(log)
        if fault is not None:
            self.broken.append(f"{text}: {fault}: {' '.join(decision.event for decision in log)}")


LEDGER: Final[ContextVar[Ledger]] = ContextVar("ledger")
"""Where a `Witness` that is made now writes; the composition makes layers by their names alone."""


class Witness:
    """The innermost layer: it only hears."""

    def __init__(self) -> None:
        """Write into the ledger of the context."""
        self._ledger = LEDGER.get()

    def __call__(self, request: LLMRequest, call_next: CallNext) -> Awaitable[LLMResult]:
        """Pass on."""
        return call_next(request)

    def call_ended(
        self,
        call: Call,
        request: LLMRequest,
        response: LLMResponse | None,  # noqa: ARG002 - a `CallObserver`
        error: BaseException | None,
    ) -> None:
        """Count the call."""
        text = request.messages[-1].text if request.embed is None else request.embed.texts[0]
        self._ledger.hear(text, call, error)


_STEPS: Final[Mapping[tuple[str, str], str]] = {
    ("free", "paid"): "paid",
    ("paid", "sent"): "sent",
    ("paid", "refunded"): "free",
    ("sent", "unsent"): "paid",
    ("sent", "settled"): "free",
}
_EVENTS: Final = frozenset(event for _, event in _STEPS)


def fault_of(log: Sequence[Decision]) -> str | None:
    """Return what is wrong with a whole decision log; None where nothing is."""
    state = "free"
    for decision in log[:-1]:
        if decision.event == "ended":
            return "something after the end"
        if decision.event in _EVENTS:
            after = _STEPS.get((state, decision.event))
            if after is None:
                return f"{decision.event} while {state}"
            state = after
    if not log or log[-1].event != "ended":
        return "no end"
    return None if state == "free" else f"ended while {state}"


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return "answered"
    return "cancelled" if isinstance(error, asyncio.CancelledError | GeneratorExit) else type(error).__name__


def _cut_off(error: BaseException | None) -> bool:
    return error is not None and (isinstance(error, LLMTimeoutError) or not isinstance(error, LLMException))


def _is_broken(decision: Decision) -> bool:
    return decision.event == "failed" and decision.detail.startswith(_BROKEN)
