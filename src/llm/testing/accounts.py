"""The accounts that a `MockUpstream` counts on: which key draws on which limits."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from .allowance import Allowance, BucketAllowance, FixedAllowance, InFlightAllowance, SlidingAllowance

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm.core.call import Charge

    from .allowance import Taken

Unit: TypeAlias = Literal["requests", "tokens", "input_tokens", "output_tokens", "concurrent_requests"]
Limits: TypeAlias = "Mapping[str, float | str]"
"""Limits of one key or group, under the names of `rate_limits` in `llm.yaml`, and `mode` and `phase`."""

_PERIODS: Final = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0}
_UNITS: Final[tuple[Unit, ...]] = ("requests", "tokens", "input_tokens", "output_tokens")
_FIELDS: Final[dict[str, tuple[Unit, float]]] = {
    **{f"{unit}_per_{name}": (unit, _PERIODS[name]) for unit, name in product(_UNITS, _PERIODS)},
    "concurrent_requests": ("concurrent_requests", 0.0),
}
_MODES: Final = ("bucket", "fixed", "sliding")


@dataclass(frozen=True, slots=True)
class Rule:
    """One limit of an account.

    Attributes:
        name: Its field in the configuration.
        unit: What it counts.
        period: Seconds; 0 for calls in flight.
        allowance: What is left of it.
    """

    name: str
    unit: Unit
    period: float
    allowance: Allowance


class Refusal(NamedTuple):
    """Why a request is not admitted.

    Attributes:
        rule: The limit that makes it wait longest.
        seconds: Until it could be admitted if nothing else came; infinite where it never fits.
    """

    rule: Rule
    seconds: float


class Lease:
    """What an admitted request took from its account."""

    def __init__(self, taken: list[tuple[Rule, Taken]]) -> None:
        """Keep what was taken."""
        self._taken = taken

    def settle(self, now: float, used: Charge) -> None:
        """Correct the tokens to what was used; once."""
        taken, self._taken = self._taken, []
        for rule, part in taken:
            rule.allowance.settle(now, part, _amount(used, rule.unit))


class Account:
    """Limits that one key, or the keys of one group, draw on."""

    def __init__(self, limits: Limits, *, start: float, mode: str) -> None:
        """Read the limits; `mode` is for those that name none.

        Raises:
            ValueError: An unknown field or mode, or a limit that is no number above zero.
        """
        settings = dict(limits)
        mode = str(settings.pop("mode", mode))
        phase = settings.pop("phase", None)
        if mode not in _MODES:
            raise ValueError(f"limits: unknown mode {mode!r}; expected one of {', '.join(_MODES)}")
        self.rules: tuple[Rule, ...] = tuple(
            _rule(name, value, mode, start, None if phase is None else float(phase)) for name, value in settings.items()
        )

    def admit(self, now: float, charge: Charge) -> Lease | Refusal:
        """Take what the request costs from all limits, or nothing from any."""
        waits = [(rule.allowance.wait(now, _amount(charge, rule.unit)), rule) for rule in self.rules]
        seconds, rule = max(waits, key=lambda wait: wait[0], default=(0.0, None))
        if rule is not None and seconds > 0:
            return Refusal(rule, seconds)
        return Lease([(rule, rule.allowance.take(now, _amount(charge, rule.unit))) for rule in self.rules])

    def shown(self, unit: Unit) -> Rule | None:
        """Return the limit on `unit` that headers tell of: the one with the shortest period."""
        return min((rule for rule in self.rules if rule.unit == unit), key=lambda rule: rule.period, default=None)


def _rule(name: str, value: float | str, mode: str, start: float, phase: float | None) -> Rule:
    if name not in _FIELDS:
        known = ", ".join([*_FIELDS, "mode", "phase"])
        raise ValueError(f"limits: unknown field {name!r}; expected one of {known}")
    limit = float(value)
    if not limit > 0:
        raise ValueError(f"limits: {name} is {value}; expected a number above zero")
    unit, period = _FIELDS[name]
    allowance: Allowance
    if unit == "concurrent_requests":
        allowance = InFlightAllowance(limit)
    elif mode == "bucket":
        allowance = BucketAllowance(limit, period, start)
    elif mode == "fixed":
        allowance = FixedAllowance(limit, period, start, period if phase is None else phase)
    else:
        allowance = SlidingAllowance(limit, period)
    return Rule(name, unit, period, allowance)


def _amount(charge: Charge, unit: Unit) -> float:
    match unit:
        case "requests":
            return charge.requests
        case "tokens":
            return charge.total_tokens
        case "input_tokens":
            return charge.input_tokens
        case "output_tokens":
            return charge.output_tokens
        case "concurrent_requests":
            return 1
