"""What a batch would take through a vendor's batch API: tokens, dollars at the price of batches, and parts."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from llm.batch.foretold import Forecast, ModelTally, by_name
from llm.batch.index import IdIndex
from llm.batch.planning import Planner
from llm.batch.values import BadRow
from llm.core.exceptions import LLMException
from llm.core.types import request_with

from .intake import Reading, sent_of, weight_of
from .prices import BatchPrices
from .run import ENGINES, apis_of, client_of
from .spool import Room
from .values import Pace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from llm.batch.planning import Basis
    from llm.batch.values import Row
    from llm.core.manager import LLMManager

    from .intake import Way
    from .values import Engine


_MARK: Final = "0" * 12 + "-0"
"""As long as a part's, whose name stands in each of its rows."""


class RemoteForecast(NamedTuple):
    """What a batch would take.

    Attributes:
        forecast: The numbers; of time it tells nothing, as the vendors promise a day and no more.
        parts: Batches that would be submitted.
    """

    forecast: Forecast
    parts: int


async def forecast_remote(  # noqa: PLR0913 - what a dry run is of
    manager: LLMManager,
    portions: AsyncIterator[Sequence[Row | BadRow]],
    *,
    engine: Engine,
    provider: str | None = None,
    default_model: str | None = None,
    finished: Callable[[str | int], bool] | None = None,
) -> RemoteForecast:
    """Return what a batch would take through a vendor's batch API; sends nothing.

    Args:
        manager: Whose configuration and prices.
        portions: The rows.
        engine: Whose batch API.
        provider: Section that rows go to which name none.
        default_model: Model of rows that name none.
        finished: Returns whether the row of this id is done already, or submitted; a bad row's is its line.

    Raises:
        LLMConfigurationError: No provider has such an API.
        Exception: What the reader raised.
    """
    reckoning = await asyncio.to_thread(_Reckoning, manager, engine, provider, default_model)
    async for portion in portions:
        await asyncio.to_thread(reckoning.read, portion, finished)
    return reckoning.result()


class _Reckoning:
    """Goes over the rows once."""

    def __init__(self, manager: LLMManager, engine: Engine, provider: str | None, model: str | None) -> None:
        self._apis = apis_of(manager, engine, Pace())
        client = client_of(manager, self._apis, engine, provider, model)
        self._reading = Reading(client, self._apis, ENGINES[engine].kind)
        self._planner = Planner(manager, next(iter(self._apis)))
        self._prices = BatchPrices(manager.parts)
        self._names = IdIndex()
        self._rooms: dict[Way, Room] = {}
        self._models: dict[tuple[str, str], ModelTally] = {}
        self._invalid = Counter[str]()
        self._bases = Counter["Basis"]()
        self._rows = self._done = self._parts = 0

    def read(self, portion: Sequence[Row | BadRow], finished: Callable[[str | int], bool] | None) -> None:
        for row in portion:
            name = (row.line or row.order + 1) if isinstance(row, BadRow) else row.custom_id
            if finished is not None and finished(name):
                self._done += 1
                continue
            self._rows += 1
            if isinstance(row, BadRow):
                self._invalid[row.code] += 1
            elif not self._names.add(row.custom_id):
                self._invalid["duplicate_custom_id"] += 1
            else:
                self._take(row)

    def _take(self, row: Row) -> None:
        try:
            ready = self._reading.ready(row)
            way, api = ready.way, self._apis[ready.way.provider]
            size, weight = len(sent_of(api, ready, _MARK, 0)), weight_of(ready.request)
            plan = self._planner.plans(request_with(ready.request, model=f"{way.provider}/{way.model}"))[0]
        except LLMException as error:
            self._invalid[type(error).__name__] += 1
            return
        room = self._rooms.get(way)
        if room is None or not room.fits(size, weight):
            room = self._rooms[way] = Room(api.bounds, *map(len, api.envelope(_MARK)))
            self._parts += 1
        room.add(size, weight)
        cost = self._prices.cost(way.provider, way.model, plan.usage)
        self._models.setdefault((way.provider, way.model), ModelTally()).add(plan.usage, cost)
        self._bases[plan.basis] += 1

    def result(self) -> RemoteForecast:
        models = by_name(self._models)
        forecast = Forecast(
            rows=self._rows,
            invalid_rows=self._invalid.total(),
            cache_hits=0,
            input_tokens=sum(model.input_tokens for model in models.values()),
            output_tokens=sum(model.output_tokens for model in models.values()),
            cost=sum(model.cost for model in self._models.values()),
            seconds=0.0,
            models=models,
            finished_rows=self._done,
            invalid=dict(self._invalid),
            bases=dict(self._bases),
            unpriced=tuple(name for name, model in models.items() if model.cost is None),
            latency_known=True,  # no word of how long one answer takes
        )
        return RemoteForecast(forecast, self._parts)
