"""The decision log of a call: noted as values, put into words only for who reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MOST: Final = 64
"""How many decisions about a call are kept: the last ones."""


class Decision(NamedTuple):
    """An entry of the decision log.

    Attributes:
        at: Monotonic seconds.
        event: What happened, as one word: `ticketed`, `queued`, `withdrawn` (from the queue), `paid`, `sent`,
            `unsent` (nothing left after all), `answering`, `refused` (by the provider, for a limit), `failed` (an
            attempt), `circuit_open` (not sent), `budget_spent` (not sent again), `settled`, `refunded`, `closed` (the
            ticket), `trial` (of a key that had been refused), `fell_back` (to another target), `continued` (a broken
            stream), `stale` (an answer over its time was given), `parked` (while another process asks the same),
            `followed` (the answer of an identical call in flight was shared), `similar` (the answer to a question like
            it was given), `not_compared` (with such), `ended`, and what layers note.
        detail: Which limit, key, amount or failure it was about.
    """

    at: float
    event: str
    detail: str = ""


Noted: TypeAlias = list[tuple[float, str, Any]]
"""When, what, and a text or the values that `_WORDS` has words for: noting a decision costs a tuple."""


def in_words(noted: Noted) -> tuple[Decision, ...]:
    """Return the last entries in words, oldest first."""
    return tuple([Decision(at, event, _told(event, detail)) for at, event, detail in noted[-MOST:]])


def _told(event: str, detail: Any) -> str:  # noqa: ANN401 - a detail is of the kind of its event
    return detail if isinstance(detail, str) else _WORDS.get(event, str)(detail)


def _asked(charge: Any) -> str:  # noqa: ANN401 - a `Charge`, which stands above
    return f"asks for {_amount(charge)}"


def _settled(amounts: tuple[Any, Any]) -> str:
    reserved, used = amounts
    return f"{_amount(reserved)} reserved, {'kept' if used is None else f'{_amount(used)} used'}"


def _refused(refusal: tuple[str, float]) -> str:
    key, seconds = refusal
    return f"{key} rests for {seconds:.3g} seconds"


def _failed(failure: tuple[str, str, int | None]) -> str:
    key, error, status = failure
    return f"{error} on {key}" if status is None else f"{error} ({status}) on {key}"


def _circuit_open(counts: tuple[int, int, float]) -> str:
    failures, attempts, seconds = counts
    return f"{failures} of {attempts} attempts had failed; refused for {seconds:.3g} seconds"


def _moved(move: tuple[str, str, str]) -> str:
    left, taken, why = move
    return f"from {left} to {taken}: {why}"


def _continued(part: tuple[str, int]) -> str:
    target, at = part
    return f"{target} goes on at character {at}"


def _similar(found: tuple[float, str]) -> str:
    similarity, key = found
    return f"{similarity:.4f} like the question answered under {key[:12]}"


def _stale(answer: tuple[float, str]) -> str:
    seconds, why = answer
    return f"given {seconds:.3g} seconds after its time, {why}"


def _amount(charge: Any) -> str:  # noqa: ANN401 - a `Charge`
    tokens = f"{charge.total_tokens} tokens ({charge.input_tokens} in, {charge.output_tokens} out)"
    return f"{tokens}, {charge.cost:.6g} US dollars" if charge.cost else tokens


_WORDS: Final[Mapping[str, Callable[[Any], str]]] = {
    "ticketed": _asked,
    "settled": _settled,
    "refunded": _amount,
    "refused": _refused,
    "failed": _failed,
    "circuit_open": _circuit_open,
    "fell_back": _moved,
    "continued": _continued,
    "similar": _similar,
    "stale": _stale,
}
