"""The parts of a run, each brought to its end: sent, looked at, collected, and sent again where that may help.

One thing is done at a time. Before and after each step it is noted; what is not noted after is looked for at the vendor
before it is done again.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from llm.core.exceptions import (
    LLMAuthenticationError,
    LLMConfigurationError,
    LLMConnectionError,
    LLMException,
    LLMInvalidRequestError,
    LLMQuotaExceededError,
    LLMRateLimitError,
)
from llm.providers.errors import error_for
from llm.providers.failure import Failure

from .collect import Collecting
from .ledger import Plan, State
from .patience import passes
from .timetable import Timetable
from .values import CANCELLED, Phase, Refusal, Search

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from llm.utils.clock import Clock

    from .collect import Books
    from .doors import Door, Doors
    from .ledger import Ledger, Part
    from .patience import Patience
    from .spool import PartWriter, Spool
    from .values import Pace, Standing
    from .vendor import BatchAPI
    from .view import View

TRIES: Final = 3
"""How often a row is submitted, at most, where it comes back without an answer for a reason that may pass."""

_MOST_SENDS: Final = 8
"""Submissions of a part in a row that fail, though the vendor answers otherwise, before it is given up."""

_READINGS: Final = 3
"""How often results are read that do not tell of all rows, before the vendor is believed."""

_BAD_REQUEST: Final = 400
_NOT_FOUND: Final = 404
_QUEUE_FULL: Final = "token_limit_exceeded"
_NO_WORDS: Final = Refusal("invalid_request", "the vendor refused the batch, and does not say why", None)
_CANCELLED_HERE: Final = "it was cancelled before it was submitted; run it again to ask"


class Work:
    """Brings the parts of a ledger to their end."""

    def __init__(  # noqa: PLR0913 - what it works with
        self,
        *,
        apis: Mapping[str, BatchAPI],
        doors: Mapping[str, Doors],
        ledger: Ledger,
        spool: Spool,
        books: Books,
        patience: Patience,
        view: View,
        clock: Clock,
        pace: Pace,
        cancel: bool,
    ) -> None:
        """Do nothing yet.

        Args:
            apis: The batch API of each provider.
            doors: The keys of each provider.
            ledger: The parts.
            spool: What is in them.
            books: Where rows that end are written.
            patience: How failures are borne.
            view: Is told how the batches stand.
            clock: Its time.
            pace: How it takes its time.
            cancel: End everything, and keep what was answered.
        """
        self._apis = apis
        self._doors = doors
        self._ledger = ledger
        self._spool = spool
        self._books = books
        self._patience = patience
        self._view = view
        self._clock = clock
        self._pace = pace
        self._cancel = cancel
        self._times = Timetable(pace)
        self._sends: dict[int, int] = {}
        self._searched: dict[int, float] = {}
        self._ended: set[int] = set()  # parts that were told to end

    async def run(self) -> None:
        """Bring all parts to their end.

        Raises:
            LLMException: The vendor was given up, or no key is left. What was noted stays.
            OSError: The disk is full.
        """
        while self._ledger.parts:
            now = self._clock.now()
            for part in [part for part in self._ledger.parts.values() if self._times.due(part.plan.number) <= now]:
                await self._step(part)
            self._view.show(self._ledger.parts.values())
            left = [self._times.due(number) for number in self._ledger.parts]
            if left and (pause := min(left) - self._clock.now()) > 0.0:
                await self._clock.sleep(pause)

    async def _step(self, part: Part) -> None:
        if part.plan.provider not in self._apis:
            raise _lost(part)
        match part.state:
            case State.PLANNED if self._cancel:
                await self._give_up(part)
            case State.PLANNED:
                await self._send(part)
            case State.SENDING:
                await self._search(part)
            case State.SENT:
                await self._look(part)

    async def _send(self, part: Part) -> None:
        """Submit a part with the key whose turn it is."""
        number, provider = part.plan.number, part.plan.provider
        api, doors = self._apis[provider], self._doors[provider]
        door = doors.next(part.plan.model, None if part.file is None else part.key)
        before = part.file
        body = await asyncio.to_thread(self._spool.body, number)
        try:
            if part.file is None or part.key != door.fingerprint:
                file = await self._patience.ask(lambda: api.upload(door, part, body))
                if file is not None:
                    await self._ledger.uploaded(part, door.fingerprint, file)
            newest = await self._patience.ask(lambda: api.newest(door))
            await self._ledger.sending(part, door.fingerprint, newest, self._clock.wall())
            batch = await api.submit(door, part, body)
        except LLMException as error:
            is_stale = isinstance(error, LLMInvalidRequestError) and before is not None and part.file == before
            if is_stale:  # the vendor may have removed it since; it goes over once more
                await self._ledger.refused(part, file=False)
            else:
                await self._unsent(part, door, error)
            return
        await self._submitted(part, batch)

    async def _submitted(self, part: Part, batch: str) -> None:
        self._searched.pop(part.plan.number, None)
        await self._ledger.sent(part, batch)
        self._sends.pop(part.plan.number, None)
        self._times.sent(part.plan.number, self._clock.now())

    async def _unsent(self, part: Part, door: Door, error: LLMException) -> None:
        """Do what helps where a part could not be submitted, or may not have been.

        Raises:
            LLMException: Nothing helps.
        """
        if isinstance(error, LLMAuthenticationError | LLMQuotaExceededError):
            await self._ledger.refused(part)
            self._doors[part.plan.provider].shut(door, error)
        elif isinstance(error, LLMRateLimitError):
            await self._ledger.refused(part)
            self._full(part, error.retry_after)
        elif not passes(error):
            await self._ledger.refused(part, file=False)
            raise error
        else:
            await self._fail(part, error)

    async def _fail(self, part: Part, error: LLMException) -> None:
        number = part.plan.number
        self._sends[number] = self._sends.get(number, 0) + 1
        if self._sends[number] >= _MOST_SENDS:
            raise error
        if isinstance(error, LLMConnectionError) and not error.sent:
            await self._ledger.refused(part)
        await self._patience.pause(error, self._sends[number])

    async def _search(self, part: Part) -> None:
        """Find out whether a part was submitted, which was about to be when a run or an answer broke off."""
        api, number = self._apis[part.plan.provider], part.plan.number
        known = {other.batch for other in self._ledger.parts.values() if other.batch is not None}
        doors = self._doors[part.plan.provider].named(part.key)
        certain = doors[0].fingerprint == part.key
        found = Search()
        for door in doors[:1] if certain else doors:
            found = await self._patience.ask(partial(api.find, door, part, known))
            if found.batch is not None:
                break
        if not certain and found.batch is None:  # another key may see other batches
            if not self._cancel:
                raise _lost(part)
            await self._give_up(part)
            return
        now = self._clock.now()
        since = self._searched.setdefault(number, now)  # the machine's date may have been set since it was noted
        left = self._pace.settle - max(self._clock.wall() - part.at, now - since)
        if found.batch is not None:
            await self._submitted(part, found.batch)
        elif found.undecided or left > 0.0:
            self._times.later(number, now, None if found.undecided else left)
        else:
            self._searched.pop(number)
            await self._ledger.refused(part)

    async def _look(self, part: Part) -> None:
        door, standing = await self._standing(part)
        if standing is None:
            if not self._cancel:
                raise _lost(part)
            await self._give_up(part)
            return
        self._view.stands(part, standing)
        match standing.phase:
            case Phase.ENDED:
                await self._collect(part, door, standing)
            case Phase.REFUSED:
                await self._refused(part, door, standing)
            case Phase.CHECKED | Phase.RUNNING:
                await self._end(part, door)
                self._times.looked(part.plan.number, self._clock.now())

    async def _standing(self, part: Part) -> tuple[Door, Standing | None]:
        """Ask how a part stands: with its own key, and where that is gone or does not know it, with the others."""
        api, doors = self._apis[part.plan.provider], self._doors[part.plan.provider].named(part.key)
        failure: LLMException | None = None
        for door in doors:
            try:
                return door, await self._patience.ask(partial(api.look, door, part.batch or ""))
            except (LLMInvalidRequestError, LLMAuthenticationError) as error:
                if isinstance(error, LLMInvalidRequestError) and error.status != _NOT_FOUND:
                    raise
                failure = failure or error
        if isinstance(failure, LLMAuthenticationError):
            raise failure
        return doors[0], None

    async def _end(self, part: Part, door: Door) -> None:
        """Tell the vendor to end a batch, once, where that is what is wanted."""
        number = part.plan.number
        if not self._cancel or number in self._ended:
            return
        api = self._apis[part.plan.provider]
        with suppress(LLMInvalidRequestError):  # it has ended in between
            await self._patience.ask(lambda: api.cancel(door, part.batch or ""))
        self._ended.add(number)
        self._times.sent(number, self._clock.now())

    async def _collect(self, part: Part, door: Door, standing: Standing) -> None:
        api, batch = self._apis[part.plan.provider], part.batch or ""
        again = None if self._cancel or part.plan.tries + 1 >= TRIES else self._again(part, part.plan.tries + 1)
        async with self._opened(part, again, door) as collecting:

            async def take() -> None:
                async with aclosing(api.results(door, batch, standing, self._pace)) as results:
                    await collecting.take(results)

            try:
                await self._read(take, collecting)
            except LLMInvalidRequestError:  # they are not kept for ever
                if not self._cancel:
                    raise
            await collecting.rest()
            await self._over(part, await collecting.finish())

    async def _read(self, take: Callable[[], Awaitable[None]], collecting: Collecting) -> None:
        for _ in range(_READINGS):  # a file that was cut in an orderly way looks whole
            await self._patience.ask(take)
            if collecting.complete:
                return
            await self._clock.sleep(self._pace.first)

    async def _refused(self, part: Part, door: Door, standing: Standing) -> None:
        """Do what helps where the vendor took a batch back: no row of it was asked."""
        if self._cancel:
            await self._give_up(part)
            return
        whole = [refusal for refusal in standing.refusals if refusal.line is None]
        kind = None if not whole else error_for(_BAD_REQUEST, Failure(whole[0].message, (whole[0].code,)))
        if whole and (whole[0].code == _QUEUE_FULL or isinstance(kind, LLMRateLimitError)):
            await self._no_room(part)
        elif isinstance(kind, LLMQuotaExceededError | LLMAuthenticationError):
            await self._ledger.refused(part)
            self._doors[part.plan.provider].shut(door, kind)
        else:
            await self._without(
                part, door, [refusal for refusal in standing.refusals if refusal.line is not None], whole
            )

    async def _without(self, part: Part, door: Door, lines: list[Refusal], whole: list[Refusal]) -> None:
        """Write off the rows that the vendor refuses, and send the others again: all, where it names none."""
        async with self._opened(part, self._again(part, part.plan.tries), door) as collecting:
            places = {(refusal.line or 0) - 1: refusal for refusal in lines}
            named = {place: refusal for place, refusal in places.items() if 0 <= place < part.plan.rows}
            if named:
                await collecting.refuse(named)
                await collecting.retry()
            else:
                await collecting.refuse_all((*whole, *lines, _NO_WORDS)[0])
            await self._over(part, await collecting.finish())

    async def _no_room(self, part: Part) -> None:
        """Wait for room in the vendor's queue; a part that has it for itself and does not fit is sent in halves."""
        await self._ledger.refused(part)
        alone = all(other.state is State.PLANNED for other in self._ledger.parts.values())
        if alone and part.plan.rows > 1:
            plans = await self._halves(part)
            for plan in plans:
                self._times.full(plan.number, self._clock.now(), None)
        else:
            self._full(part, None)

    async def _halves(self, part: Part) -> list[Plan]:
        middle, plans = part.plan.rows // 2, list[Plan]()
        for numbers in (range(middle), range(middle, part.plan.rows)):
            async with self._opened(part, self._again(part, part.plan.tries)) as collecting:
                await collecting.retry(numbers)
                plans += await collecting.finish()
        await self._over(part, plans)
        return plans

    def _full(self, part: Part, told: float | None) -> None:
        self._times.full(part.plan.number, self._clock.now(), told)
        self._view.queued(part)

    async def _give_up(self, part: Part) -> None:
        """End a part that the vendor has not got."""
        async with self._opened(part, None) as collecting:
            await collecting.rest(CANCELLED, _CANCELLED_HERE)
            await self._over(part, await collecting.finish())

    async def _over(self, part: Part, plans: list[Plan]) -> None:
        await self._ledger.over(part, plans)
        await asyncio.to_thread(self._spool.remove, part.plan.number)
        self._times.forget(part.plan.number)
        self._view.forget(part)

    def _opened(self, part: Part, again: Callable[[], PartWriter] | None, door: Door | None = None) -> Collecting:
        return Collecting(
            part,
            self._spool.rows(part.plan.number),
            api=self._apis[part.plan.provider],
            books=self._books,
            again=again,
            clean=str if door is None else door.redacted,
        )

    def _again(self, part: Part, tries: int) -> Callable[[], PartWriter]:
        plan, ledger = part.plan, self._ledger

        def begin() -> PartWriter:
            number = ledger.number()
            new = replace(plan, number=number, rows=0, tries=tries)
            return self._spool.begin(self._apis[plan.provider], ledger.mark(number), new)

        return begin


def _lost(part: Part) -> LLMException:
    batch = part.batch or "a batch that may have been submitted"
    return LLMConfigurationError(
        f"{batch} of provider {part.plan.provider!r} cannot be found with the keys that are configured; it went over "
        f"with {part.key}: configure that key again to collect its {part.plan.rows:,} rows, or give them up with "
        "--cancel"
    )
