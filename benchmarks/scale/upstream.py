"""The provider: it keeps its own books of every account, and refuses what they do not allow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Final

from llm.core.call import Charge, LimitReport
from llm.testing.accounts import Account, Lease

if TYPE_CHECKING:
    from llm.core.call import ReportedUnit
    from llm.testing.accounts import Unit
    from llm.utils.clock import Clock

    from .work import Job, Work

_SHOWN: Final[tuple[tuple[Unit, ReportedUnit], ...]] = (("requests", "requests"), ("tokens", "total_tokens"))


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request.

    Attributes:
        used: What it took; None where it was refused.
        retry_after: Seconds after which it may be sent again, where it was refused.
        reports: What the headers say of the account.
    """

    used: Charge | None
    retry_after: float
    reports: tuple[LimitReport, ...]


class Upstream:
    """A provider with one key for each account, which counts as `MockUpstream` does, apart from `llm.limits`.

    Attributes:
        admitted: Requests that were served, by account.
        refused: Requests that were refused.
    """

    def __init__(self, work: Work, clock: Clock) -> None:
        """Start with full buckets."""
        self._clock = clock
        self._net_s = work.net_s
        self._dice = Random(f"{work.seed} network")  # noqa: S311 - a benchmark's dice
        self._accounts = [Account(limits, start=clock.now(), mode="bucket") for limits in work.limits]
        self.admitted: list[int] = [0] * len(self._accounts)
        self.refused: int = 0

    async def send(self, account: int, job: Job) -> Answer:
        """Answer a request on an account, after the time that this takes."""
        await self._clock.sleep(self._dice.uniform(*self._net_s))
        now = self._clock.now()
        mine = self._accounts[account]
        lease = mine.admit(now, job.charge)
        if isinstance(lease, Lease):
            answer = Answer(job.used, 0.0, _reports(mine, now, refused=False))
            self.admitted[account] += 1
            await self._clock.sleep(job.service_s)
            lease.settle(self._clock.now(), job.used)
        else:
            answer = Answer(None, math.ceil(lease.seconds), _reports(mine, now, refused=True))
            self.refused += 1
        await self._clock.sleep(self._dice.uniform(*self._net_s))
        return answer


def _reports(account: Account, now: float, *, refused: bool) -> tuple[LimitReport, ...]:
    """Return what the headers say, in OpenAI's manner: whole numbers, and seconds until all is there again."""
    reports: list[LimitReport] = []
    for name, unit in _SHOWN:
        rule = account.shown(name)
        if rule is not None:
            book = rule.allowance
            left, reset = math.floor(book.remaining(now)), round(book.reset(now), 3)
            reports.append(LimitReport(unit, book.limit, left, reset, refused=refused))
    return tuple(reports)
