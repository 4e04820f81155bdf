"""Scenarios from a seed, after the pattern of the stored one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from .scenario import Dialect, GroupLimits, Job, Mode, Resource, Scenario

_SIZES: Final = (128, 256, 512, 768, 1024, 1536, 2048, 3072, 4096)  # what people write as max_tokens
_DOUBLED: Final = 1024  # the largest of them that a careless caller doubles
_CARELESS: Final = 0.23
_MODELS: Final[Mapping[Dialect, str]] = {"openai": "gpt-4o-mini", "anthropic": "claude-3-5-haiku-20241022"}
_LETTERS: Final = "abcdefgh"


@dataclass(frozen=True, slots=True)
class _Pattern:
    """How a scenario differs from the others.

    Attributes:
        seconds: Resource → how long all of the work takes with that limit alone, about.
        weights: Each limit group's part of the whole.
        keys: Each limit group's number of keys.
        jitter: By how much the weights are off, at most.
        modes: Each group's way to count; all are buckets if there are none.
        streams: The part of the jobs that ask for a stream.
    """

    seconds: Mapping[Resource, float]
    weights: tuple[float, ...] = (1, 1, 1, 1)
    keys: tuple[int, ...] = (1, 1, 1, 1)
    jitter: float = 0.0
    modes: tuple[Mode, ...] = ()
    streams: float = 0.0
    dialect: Dialect = "openai"


_PATTERNS: Final[Mapping[str, _Pattern]] = {
    "equal": _Pattern({"requests": 120, "tokens": 100}),
    "unequal": _Pattern({"requests": 107, "tokens": 123}, weights=(1, 2.15, 4.64, 10), jitter=0.05),
    "window": _Pattern({"requests": 110, "tokens": -4}, modes=("fixed", "sliding", "fixed", "sliding")),
    "grouped": _Pattern({"requests": 100, "tokens": 94}, weights=(1, 1, 1), keys=(2, 1, 1), jitter=0.03),
    "anthropic": _Pattern({"requests": 95, "input": 124, "output": 134}, jitter=0.015, dialect="anthropic"),
    "mixed": _Pattern({"requests": 109, "tokens": 120}, weights=(1, 1, 3), keys=(1, 2, 1), jitter=0.04, streams=0.5),
}
SCENARIOS: Final = tuple(_PATTERNS)
"""Names of the scenarios: keys with equal limits; unequal by ten times; two fixed windows and two sliding ones; two
keys in one group; Anthropic's three limits; and unequal ones, grouped, half of the answers as streams."""


def generate(name: str, seed: int, *, jobs: int = 600, times: float = 1.0) -> Scenario:
    """Make a scenario; the same for the same seed.

    Args:
        name: One of `SCENARIOS`.
        seed: Any number.
        jobs: How many; the limits shrink with them, so that they take as long.
        times: How long they take, as a multiple of what is usual: about two minutes.
    """
    pattern = _PATTERNS[name]
    work = tuple(_job(number, pattern, Random(f"{seed} job {number}")) for number in range(jobs))  # noqa: S311 - a benchmark's dice
    dice = Random(f"{seed} {name}")  # noqa: S311 - a benchmark's dice
    groups = [f"org-{_LETTERS[index]}" for index, count in enumerate(pattern.keys) for _ in range(count)]
    keys = tuple(f"sk-test-{name}-{index}-{seed:04d}" for index in range(len(groups)))
    scenario = Scenario(
        name,
        seed,
        pattern.dialect,
        _MODELS[pattern.dialect],
        keys,
        dict(zip(keys, groups, strict=True)),
        {},
        (0.005, 0.06),
        work,
    )
    return replace(scenario, limits=_limits(scenario, pattern, dice, times))


def _job(number: int, pattern: _Pattern, dice: Random) -> Job:
    tag = f"job-{number:04d}-{dice.getrandbits(32):08x}"
    characters = _characters(dice)
    estimate = -(-characters // 4)
    prompt, output = estimate + 7, max(8, min(908, round(dice.lognormvariate(4.97, 0.9))))
    service = max(0.5, min(4.0, 0.25 + output / dice.lognormvariate(5.4, 0.4)))
    careless = dice.random() < _CARELESS
    needed = output if pattern.dialect == "anthropic" else prompt + output
    stream = dice.random() < pattern.streams
    return Job(number, tag, characters, prompt, _asked(needed, careless=careless), output, round(service, 3), stream)


def _characters(dice: Random) -> int:
    """Return a prompt's length: most are a few paragraphs, some a few pages, one in ten is long."""
    kind = dice.random()
    if kind < 0.75:
        return dice.randint(250, 1700)
    return dice.randint(2000, 6000) if kind < 0.9 else dice.randint(7300, 11200)


def _asked(needed: int, *, careless: bool) -> int:
    """Return a `max_tokens` that is enough, and sometimes twice that."""
    fitted = next(size for size in _SIZES if size >= needed)
    return 2 * fitted if careless and fitted <= _DOUBLED else fitted


def _limits(scenario: Scenario, pattern: _Pattern, dice: Random, times: float) -> dict[str, GroupLimits]:
    groups = tuple(dict.fromkeys(scenario.groups.values()))
    stretch = times * dice.uniform(0.9, 1.1)
    per_minute: dict[str, dict[Resource, int]] = {group: {} for group in groups}
    for resource, seconds in pattern.seconds.items():
        need = sum(scenario.use(job)[resource] for job in scenario.jobs)
        whole = need / (1 + stretch * seconds / 60)  # all of it is there at the start, and again every minute
        weights = [weight * dice.uniform(1 - pattern.jitter, 1 + pattern.jitter) for weight in pattern.weights]
        for group, weight in zip(groups, weights, strict=True):
            per_minute[group][resource] = max(1, round(whole * weight / sum(weights)))
        # A few jobs would make small limits: the last group's take any of them.
        largest = max(scenario.charge(job)[resource] for job in scenario.jobs)
        per_minute[groups[-1]][resource] = max(largest, per_minute[groups[-1]][resource])
    modes: tuple[Mode, ...] = pattern.modes or tuple("bucket" for _ in groups)
    return {
        group: GroupLimits(mode, per_minute[group], round(dice.uniform(10, 50), 1) if mode == "fixed" else 0.0)
        for group, mode in zip(groups, modes, strict=True)
    }
