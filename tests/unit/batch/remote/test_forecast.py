from __future__ import annotations

import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest

from llm import LLMManager
from llm.batch.jsonl import read_rows
from llm.batch.remote.forecast import RemoteForecast, forecast_remote

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.batch.remote.conftest import Bench


async def _told(bench: Bench, finished: Callable[[str | int], bool] | None = None) -> RemoteForecast:
    section = {"api_keys": ["k"], "models": ["*"]}
    source = bench.folder / "in.jsonl"
    config = {"providers": {bench.dialect: section}}
    async with LLMManager.open(config) as manager, aclosing(read_rows(source)) as portions:
        return await forecast_remote(
            manager, portions, engine=bench.engine, default_model=bench.model, finished=finished
        )


async def test_it_tells_rows_tokens_dollars_and_parts(bench: Bench) -> None:
    lines = [bench.row(f"r {n}") for n in range(3)] + [
        bench.row("other", model="nobody-knows"),
        bench.row("r 1"),
        "{no\n",
    ]
    (bench.folder / "in.jsonl").write_text("".join([*lines, bench.row("wrong", temperature="hot"), bench.row("done")]))
    told, parts = await _told(bench, lambda name: name == "done")
    assert (told.rows, told.invalid_rows, told.finished_rows, parts) == (7, 3, 1, 2)
    assert dict(told.invalid) == {"duplicate_custom_id": 1, "invalid_json": 1, "LLMInvalidRequestError": 1}
    assert {name: model.rows for name, model in told.models.items()} == {bench.model: 3, "nobody-knows": 1}
    assert told.models[bench.model].output_tokens == 3 * 99
    assert told.unpriced == ("nobody-knows",)
    assert 0 < told.cost < 0.01
    assert (told.seconds, told.cache_hits) == (0.0, 0)
    assert not any("calls at once" in note or "seconds" in note for note in told.notes())


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
async def test_more_rows_than_a_batch_takes_are_more_parts(openai: Bench) -> None:
    body = {"model": "e", "input": ["x"] * 2000}
    rows = [{"custom_id": f"v{n}", "method": "POST", "url": "/v1/embeddings", "body": body} for n in range(30)]
    (openai.folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told: Any = await _told(openai)
    assert (told.forecast.rows, told.parts) == (30, 2)
