"""Faults that a `MockUpstream` plays, and which request they meet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

REFUSALS: Final[Mapping[str, str]] = {
    "rate_limit": "429, though no limit of the mock's is reached",
    "quota": "the credit is gone: 429 insufficient_quota (OpenAI), 402 (Anthropic)",
    "server_error": "500",
    "bad_gateway": "502 with an HTML page, as proxies send it",
    "unavailable": "503",
    "overloaded": "529",
    "auth": "401: the key is refused",
    "forbidden": "403: the key may not use the model",
    "invalid": "400",
    "context_length": "400: the prompt does not fit",
    "redirect": "307 to another address",
    "reset_before": "the connection is reset before the answer's head",
}
"""Kinds in place of an answer, and what they are; they cost no capacity."""

DAMAGES: Final[Mapping[str, str]] = {
    "reset_after": "the connection is reset after the head",
    "truncated": "the connection ends in the middle of the body",
    "polite_cut": "the body ends in an orderly way, in the middle; a stream without its closing event",
    "stalled": "nothing more comes, and the connection stays",
    "slow": "the answer comes `seconds` late",
    "garbage": "something that is no JSON",
    "empty": "nothing at all",
    "wrong_type": "JSON of another shape",
    "error_in_200": "an error's envelope under the status 200",
    "error_event": "an error event in the middle of a stream; like error_in_200 for a whole answer",
    "html": "an HTML page under the status 200",
}
"""Kinds that spoil an answer which was admitted and is paid for."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong with some requests.

    Requests for answers are counted from 1: chat completions, responses, messages and embeddings, refused ones too.
    Lists of models, token counts, files and batches are not counted and never spoilt, but by a fault with a `route`.
    Of several faults that meet a request the first is played.

    Attributes:
        kind: One of `REFUSALS` and `DAMAGES` in `llm.testing.faults`.
        at: The first request that it meets; with none of `at`, `every` and `rate` given, the first.
        key: Only requests with this key are counted and met; None for all.
        times: How many requests it meets; by default one for `at`, all for `every` and `rate`.
        every: It meets each request whose number is a multiple.
        rate: It meets a request with this probability, 0 to 1, by the mock's seed.
        retry_after: Value of the `retry-after` header of a refusal: seconds, or the text itself.
        after_chunks: Chunks of a stream that come before it; a whole answer is spoilt at its half.
        seconds: For `slow`: how late.
        message: What the refusal says instead of the vendor's words; `{key}` in it becomes the key.
        headers: More headers of a refusal.
        route: Only requests with this method and path, with `*` for any text in it, such as `POST */batches`, which are
            counted by themselves; None: requests for answers.
    """

    kind: str
    at: int | None = None
    key: str | None = field(default=None, kw_only=True, repr=False)
    times: int | None = field(default=None, kw_only=True)
    every: int | None = field(default=None, kw_only=True)
    rate: float | None = field(default=None, kw_only=True)
    retry_after: float | str | None = field(default=None, kw_only=True)
    after_chunks: int = field(default=1, kw_only=True)
    seconds: float = field(default=1.0, kw_only=True)
    message: str | None = field(default=None, kw_only=True)
    headers: Mapping[str, str] | None = field(default=None, kw_only=True)
    route: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse what could never be played.

        Raises:
            ValueError: An unknown kind, two ways to say when, or a number out of range.
        """
        if self.kind not in REFUSALS and self.kind not in DAMAGES:
            kinds = ", ".join([*REFUSALS, *DAMAGES])
            raise ValueError(f"Fault: unknown kind {self.kind!r}; expected one of {kinds}")
        if sum(way is not None for way in (self.at, self.every, self.rate)) > 1:
            raise ValueError("Fault: at, every and rate exclude each other; give one of them")
        for name, number in (("at", self.at), ("every", self.every), ("times", self.times)):
            if number is not None and number < 1:
                raise ValueError(f"Fault: {name} is {number}; expected 1 or more, for requests are counted from 1")

    @property
    def is_refusal(self) -> bool:
        """Whether it comes in place of an answer."""
        return self.kind in REFUSALS


class FaultPlan:
    """Decides which fault a request meets."""

    def __init__(self, faults: Iterable[Fault], random: Random) -> None:
        """Play `faults`; `random` decides for those with a rate."""
        self._faults = tuple(faults)
        self._random = random
        self._met: Counter[int] = Counter()
        self._came: Counter[int] = Counter()  # of those with a route: requests that came there

    def meet(self, number: int, key: str | None, number_of_key: int) -> Fault | None:
        """Return the fault of a request: the `number`-th of all, and the `number_of_key`-th with its key."""
        for place, fault in enumerate(self._faults):
            counted = number if fault.key is None else number_of_key
            if fault.route is None and fault.key in (None, key) and self._meets(fault, counted, self._met[place]):
                self._met[place] += 1
                return fault
        return None

    def meet_aside(self, method: str, path: str, key: str | None) -> Fault | None:
        """Return the fault of a request that is for no answer."""
        met: Fault | None = None
        for place, fault in enumerate(self._faults):
            if fault.route is None or fault.key not in (None, key) or not fnmatchcase(f"{method} {path}", fault.route):
                continue
            self._came[place] += 1
            if met is None and self._meets(fault, self._came[place], self._met[place]):
                self._met[place] += 1
                met = fault
        return met

    def _meets(self, fault: Fault, number: int, met: int) -> bool:
        if fault.rate is not None:
            return (fault.times is None or met < fault.times) and self._random.random() < fault.rate
        if fault.every is not None:
            return (fault.times is None or met < fault.times) and number % fault.every == 0
        first = fault.at or 1
        return first <= number < first + (fault.times or 1)
