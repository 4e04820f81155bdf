"""What callers were answered, beside what the gateway's log and its metrics say of it: call by call."""

from __future__ import annotations

from collections import Counter
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import orjson
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Mapping

_REQUESTS: Final = "llm_gateway_requests_total"
_TOKENS: Final = "llm_gateway_tokens_generated_total"
_ACTIVE: Final = "llm_gateway_active_requests"
_SHOWN: Final = 5


class Books:
    """Each call has a name of its own, which its line in the log has too.

    Attributes:
        calls: Calls by what they were.
        outcomes: Calls by the status that their callers got; `left` for those who did not wait for one.
        lines: Lines of the log, by status.
        refused: Requests that the server refuses by itself, without a line, by status.
        output: Tokens that answers took, by the log.
        reloads: That the log tells of.
        broken: Promises that were not kept, with what was seen.
    """

    def __init__(self) -> None:
        """Start without calls."""
        self.calls: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.lines: Counter[int] = Counter()
        self.refused: Counter[int] = Counter()
        self.output: int = 0
        self.reloads: int = 0
        self.broken: list[str] = []
        self._numbers = count(1)
        self._answered: dict[str, int] = {}  # who has no line yet
        self._logged: dict[str, int] = {}  # lines whose caller has said nothing yet
        self._left: set[str] = set()

    def next_id(self) -> str:
        """Return the name of the next call."""
        return f"soak-{next(self._numbers)}"

    def breach(self, promise: str, seen: str) -> None:
        """Note a broken promise."""
        self.broken.append(f"{promise}: {seen}")

    # --- what callers say ---------------------------------------------------------------------------------------------

    def answered(self, name: str, status: int) -> None:
        """Note the status that a caller got."""
        self.outcomes[str(status)] += 1
        logged = self._logged.pop(name, None)
        if logged is None:
            self._answered[name] = status
        else:
            self._compare(name, status, logged)

    def left(self, name: str) -> None:
        """Note that a caller left: its request may have come, or not."""
        self.outcomes["left"] += 1
        if self._logged.pop(name, None) is None:
            self._left.add(name)

    def was_refused(self, status: int) -> None:
        """Note a request that never came to a route."""
        self.outcomes[str(status)] += 1
        self.refused[status] += 1

    # --- what the gateway says ----------------------------------------------------------------------------------------

    def hear(self, line: bytes) -> None:
        """Read a line of the gateway's log."""
        try:
            told: dict[str, Any] = orjson.loads(line)
        except orjson.JSONDecodeError:
            self.breach("the log is JSON", line.decode(errors="replace"))
            return
        if "status" in told:
            self._hear_request(told)
        elif told["level"] in {"error", "critical"} or not told["logger"].startswith("llm."):
            self.breach("the gateway has no fault of its own", line.decode())
        elif told["message"].endswith("is in force"):
            self.reloads += 1

    def _hear_request(self, told: Mapping[str, Any]) -> None:
        name, status = told["request_id"], told["status"]
        self.lines[status] += 1
        if told.get("cached") is False:
            self.output += told.get("tokens", {}).get("output", 0)
        answered = self._answered.pop(name, None)
        if answered is not None:
            self._compare(name, answered, status)
        elif name in self._left:
            self._left.discard(name)
        else:
            self._logged[name] = status

    def _compare(self, name: str, answered: int, logged: int) -> None:
        if answered != logged:
            self.breach("the log tells what the caller got", f"{name} got {answered}, and the log has {logged}")

    # --- the end ------------------------------------------------------------------------------------------------------

    def close(self, page: str) -> None:
        """Hold the log against the callers, and the metrics against both, when all calls have ended."""
        if self._answered:
            self.breach(
                "each call has its line in the log", f"{len(self._answered)} have none: {_some(self._answered)}"
            )
        if self._logged:
            self.breach("each line is of one call", f"{len(self._logged)} are of none: {_some(self._logged)}")
        samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
        told = {int(each.labels["status"]): int(each.value) for each in samples if each.name == _REQUESTS}
        made = self.lines + self.refused
        if told != dict(made):
            self.breach("metrics add up to the calls", f"told {sorted(told.items())}, made {sorted(made.items())}")
        for name, expected in ((_TOKENS, self.output), (_ACTIVE, 1)):
            [value] = [int(each.value) for each in samples if each.name == name]
            if value != expected:
                self.breach("metrics add up to the calls", f"{name} is {value}, and should be {expected}")


def _some(names: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({status})" for name, status in list(names.items())[:_SHOWN])
