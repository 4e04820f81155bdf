"""The dry run: what a batch would take, before a cent is spent; it sends nothing and takes nothing from the limits."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from llm.core.exceptions import LLMException, LLMInvalidRequestError, LLMRateLimitError
from llm.limits.rehearsal import Rehearsal
from llm.limits.rotation import Rotation

from .dialect import request_of
from .foretold import Forecast, ModelTally, by_name
from .index import IdIndex
from .planning import Planner
from .values import BadRow, Row

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from llm.core.manager import LLMManager
    from llm.utils.clock import Clock

    from .planning import Basis, Plan

__all__ = ["Forecast", "forecast"]


async def forecast(  # noqa: PLR0913 - what a dry run is of
    manager: LLMManager,
    portions: AsyncIterator[Sequence[Row | BadRow]],
    *,
    concurrency: int,
    provider: str | None = None,
    default_model: str | None = None,
    finished: Callable[[str | int], bool] | None = None,
    clock: Clock,
) -> Forecast:
    """Return what a batch would take if it ran now; sends nothing, and takes nothing from the limits.

    It takes the memory of a portion, of `concurrency` rows, and about 21 bytes a row (as much again with a cache).

    Args:
        manager: Whose keys, limits, prices and cache.
        portions: The rows.
        concurrency: How many calls the run makes at the same time.
        provider: Who is asked; None: the default one.
        default_model: Model of rows that name none; None: the provider's.
        finished: Returns whether an earlier run has done the row of this id; a bad row's is its line.
        clock: Its time.

    Raises:
        LLMException: The run could not begin: no key is left.
        Exception: What the reader raised.
    """
    planner = await asyncio.to_thread(Planner, manager, provider)
    reckoning = await asyncio.to_thread(_Reckoning, planner, clock.now(), concurrency, default_model, finished)
    async for portion in portions:
        asked = await asyncio.to_thread(reckoning.read, portion)
        kept = await reckoning.look_up(asked)
        await asyncio.to_thread(reckoning.count, asked, kept)
    return await asyncio.to_thread(reckoning.result)


class _Reckoning:
    """Goes over the rows once. Its methods run in a thread, but for `look_up`."""

    def __init__(
        self,
        planner: Planner,
        now: float,
        concurrency: int,
        default_model: str | None,
        finished: Callable[[str | int], bool] | None,
    ) -> None:
        self._parts = planner.parts
        self._planner = planner
        self._default_model = default_model
        self._finished = finished
        queues = [chain.pool.queue for chain in self._parts.chains.values()]
        limited = [queue for queue in queues if isinstance(queue, Rotation)]
        self._soon = Rehearsal(limited, now, workers=concurrency, kind="bucket")
        self._late = Rehearsal(limited, now, workers=concurrency, kind="window")
        self._names = IdIndex()
        self._questions = IdIndex()
        self._rows = self._done = 0
        self._invalid = Counter[str]()
        self._models: dict[tuple[str, str], ModelTally] = {}
        self._saved = ModelTally()
        self._bases = Counter["Basis"]()
        self._timed = True

    def read(self, portion: Sequence[Row | BadRow]) -> list[list[Plan]]:
        """Return what the rows would take that could be sent."""
        asked: list[list[Plan]] = []
        for row in portion:
            if self._finished is not None and self._finished(_name(row)):
                self._done += 1
                continue
            self._rows += 1
            if isinstance(row, BadRow):
                self._invalid[row.code] += 1
            elif not self._names.add(row.custom_id):
                self._invalid["duplicate_custom_id"] += 1
            elif plans := self._plans(row):
                asked.append(plans)
        return asked

    def _plans(self, row: Row) -> list[Plan]:
        """Return what a row takes, for each of the models that it may be given; nothing where it is invalid."""
        plans: list[Plan] = []
        failure: Exception | None = None
        try:
            for plan in self._planner.plans(request_of(row, self._default_model)):
                never = self._soon.why_never(plan.late)
                failure = failure or never
                if never is None:
                    plans.append(plan)
        except LLMException as error:
            failure = error
        if not plans and failure is not None:
            if not isinstance(failure, LLMInvalidRequestError | LLMRateLimitError):
                raise failure
            self._invalid["invalid_request" if isinstance(failure, LLMInvalidRequestError) else "too_large"] += 1
        return plans

    async def look_up(self, asked: list[list[Plan]]) -> set[str]:
        """Return those of the rows' keys under which the cache has an answer."""
        answers = self._parts.answers
        keys = {plan.key for plans in asked for plan in plans if plan.key is not None}
        fresh = [key for key in keys if key not in self._questions]
        if answers is None or not fresh:
            return set()
        async with asyncio.TaskGroup() as group:
            tasks = {key: group.create_task(answers.has(key)) for key in fresh}
        return {key for key, task in tasks.items() if task.result()}

    def count(self, asked: list[list[Plan]], kept: set[str]) -> None:
        """Count the rows, and send them in the rehearsals."""
        for plans in asked:
            plan = plans[0] if len(plans) == 1 else self._chosen(plans)
            key = plan.key
            if key is not None and (not self._questions.add(key) or key in kept):
                self._saved.add(plan.usage, plan.cost)
                continue
            provider, model, *_ = plan.soon
            counted = self._models.get((provider, model)) or self._models.setdefault((provider, model), ModelTally())
            counted.add(plan.usage, plan.cost)
            self._bases[plan.basis] += 1
            self._timed = self._timed and plan.timed
            self._soon.send(plan.soon)
            self._late.send(plan.late)

    def _chosen(self, plans: list[Plan]) -> Plan:
        first = plans[0].soon
        models = tuple(plan.soon.model for plan in plans)
        return plans[models.index(self._soon.choose_model(first.provider, models))]

    def result(self) -> Forecast:
        """Return the forecast; nothing can be read after it."""
        models = by_name(self._models)
        seconds = self._soon.finish()
        saved = self._saved.saved()
        features = self._parts.config.features
        return Forecast(
            rows=self._rows,
            invalid_rows=self._invalid.total(),
            cache_hits=saved.calls,
            input_tokens=sum(model.input_tokens for model in models.values()),
            output_tokens=sum(model.output_tokens for model in models.values()),
            cost=sum(model.cost for model in self._models.values()),
            seconds=seconds,
            models=models,
            seconds_at_most=max(seconds, self._late.finish()),
            finished_rows=self._done,
            invalid=dict(self._invalid),
            saved=saved,
            brakes=tuple(brake for brake in self._soon.brakes if brake.seconds > 0.0),
            refused_after=self._soon.refused_after,
            bases=dict(self._bases),
            unpriced=tuple(name for name, model in models.items() if model.cost is None),
            latency_known=self._timed,
            semantic_cache=features.semantic_cache and self._parts.answers is not None,
        )


def _name(row: Row | BadRow) -> str | int:
    if isinstance(row, Row):
        return row.custom_id
    return row.order + 1 if row.line is None else row.line
