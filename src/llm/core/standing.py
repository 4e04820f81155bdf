"""How a provider stands: whether it can serve, and what its limits would do with a request now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from .exceptions import LimitScope


@dataclass(frozen=True, slots=True)
class HealthStatus:
    """What a provider answered when it was asked how it is.

    Attributes:
        healthy: Whether it can serve.
        latency: Seconds that the answer took; None where it was not asked.
        error: What is wrong, and what to do; None when healthy.
    """

    healthy: bool
    latency: float | None = None
    error: str | None = None

    def __bool__(self) -> bool:
        """Return whether it can serve."""
        return self.healthy


@dataclass(frozen=True, slots=True)
class EngineStanding:
    """How what runs a provider's models in this process does.

    Attributes:
        figures: Its figures, by name.
        saturation: Of each model how full each limit of its own is, 0 to 1, by the limit's name in the configuration.
    """

    figures: Mapping[str, float]
    saturation: Mapping[str, Mapping[str, float]]


class Room(NamedTuple):
    """What one of a user's limits still lets through, as far as this process knows.

    Attributes:
        unit: What it counts: `requests`, `input_tokens`, `output_tokens` or `total_tokens`.
        limit: How many in its time.
        remaining: How many of them now.
        reset: Seconds until all of them are there again.
    """

    unit: str
    limit: float
    remaining: float
    reset: float


@dataclass(frozen=True, slots=True)
class Admission:
    """What the limiter would do with a request now.

    Attributes:
        admitted: Whether it would be sent at once.
        wait_seconds: Seconds until it could be sent, after those who wait already and if nothing else came; infinite
            where it never fits.
        level: Level of the binding limit: `global`, `provider`, `user` or `key`; None where nothing binds.
        limit: Its field's name in the configuration.
        key: Fingerprint of the key that would be taken.
        saturation: How full the binding limit is, 0 to 1.
        as_of: Monotonic seconds of this view.
    """

    admitted: bool
    wait_seconds: float = 0.0
    level: LimitScope | None = None
    limit: str | None = None
    key: str | None = None
    saturation: float = 0.0
    as_of: float = 0.0
