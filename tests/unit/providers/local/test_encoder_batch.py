"""Texts of many callers in the passes of one encoder, and the models beside it."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import TYPE_CHECKING

import pytest
import torch
from tests.patience import PATIENCE
from tests.unit.providers.local.encoders import LETTERS, save_encoder, save_layout

from llm.core.exceptions import LLMConfigurationError, LLMServerError
from llm.providers.local import InferenceEngine
from llm.providers.local.encoder import LoadedEncoder
from llm.providers.local.vectors import Waiting
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

TEXTS = [LETTERS[at % 26] * (1 + at * 7 % 50) for at in range(90)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_layout(save_encoder(tmp_path_factory.mktemp("encoder")), {"pooling_mode": "mean"}, "Normalize")


@pytest.fixture
async def engine(folder: Path) -> AsyncIterator[InferenceEngine]:
    engine = InferenceEngine(device="cpu", threads=1)
    await engine.load_model(str(folder))
    yield engine
    await engine.close()


class Recorder:
    """What an encoder was given to read, pass by pass; one of them may be held until others have come."""

    def __init__(self, engine: InferenceEngine, *, held: int = 0) -> None:
        self._held, self._go_on = held, threading.Event()
        gc.collect()
        [self.model] = [
            thing for thing in gc.get_objects() if type(thing) is LoadedEncoder and thing.name in engine.models
        ]
        self.passes: list[list[int]] = []
        self._read = self.model.vectors
        self.model.vectors = self  # type: ignore[method-assign]  # a double that passes on

    def __call__(self, texts: Sequence[Sequence[int]]) -> torch.Tensor:
        self.passes.append([len(tokens) for tokens in texts])
        if len(self.passes) == self._held:
            self._go_on.wait(PATIENCE)
        return self._read(texts)

    async def reached(self) -> None:
        async with SystemClock().timeout(30):
            while len(self.passes) < self._held:
                await SystemClock().sleep(0.001)

    def go_on(self) -> None:
        self._go_on.set()


async def test_texts_of_many_callers_share_passes_and_get_the_vectors_they_get_alone(engine: InferenceEngine) -> None:
    alone = [(await engine.embed([text])).values[0] for text in TEXTS]
    seen = Recorder(engine, held=1)
    async with asyncio.TaskGroup() as group:
        group.create_task(engine.embed(["first"]))
        await seen.reached()
        calls = [group.create_task(engine.embed(TEXTS[at : at + 3])) for at in range(0, len(TEXTS), 3)]
        await SystemClock().sleep(0)
        seen.go_on()
    for at, call in enumerate(calls):
        for vector, wanted in zip(call.result().values, alone[at * 3 : at * 3 + 3], strict=True):
            assert vector == pytest.approx(wanted, abs=1e-5)
        assert call.result().input_tokens == sum(len(text) + 2 for text in TEXTS[at * 3 : at * 3 + 3])
    assert sum(map(len, seen.passes)) == len(TEXTS) + 1
    assert len(seen.passes) < 25
    for lengths in seen.passes:
        padded = max(lengths) * len(lengths)
        assert padded <= 512
        assert padded - sum(lengths) <= 64
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.admitted, stats.generated_tokens) == (0, 0, 2 * len(TEXTS) + 1, 0)


async def test_the_one_that_has_waited_longest_is_always_read_next(engine: InferenceEngine) -> None:
    seen = Recorder(engine)
    await engine.embed(["z" * 48, *["y"] * 300, "x" * 20])
    assert seen.passes == [[50, 22], *[[3] * 64] * 4, [3] * 44]


def waiting() -> set[Waiting]:
    """Return all that somebody still holds, also of tests before."""
    gc.collect()
    return {thing for thing in gc.get_objects() if type(thing) is Waiting}


async def begin_and_leave(engine: InferenceEngine, seen: Recorder) -> None:
    calls = [asyncio.create_task(engine.embed(["q" * 40] * 200)) for _ in range(3)]
    await seen.reached()
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    seen.go_on()


async def test_a_call_that_is_left_leaves_the_queue_and_nobody_remembers_it(engine: InferenceEngine) -> None:
    wanted = (await engine.embed(["beside"])).values
    before = waiting()
    seen = Recorder(engine, held=3)
    await begin_and_leave(engine, seen)
    assert (await engine.embed(["beside"])).values[0] == pytest.approx(wanted[0], abs=1e-5)
    assert seen.passes == [*[[42] * 12] * 3, [8]]
    assert engine.stats().waiting == 0
    await engine.embed(["last"])
    assert len(waiting() - before) <= 1


async def test_a_pass_that_fails_and_a_vector_without_numbers_fail_only_their_own(engine: InferenceEngine) -> None:
    wanted = (await engine.embed(["good"])).values
    seen = Recorder(engine)
    [sick] = seen.model.encode("Q")[1:-1]
    weight = seen.model.network.get_input_embeddings().weight  # type: ignore[attr-defined]  # every network has it
    with torch.inference_mode():
        weight[sick] = float("nan")
    good, bad = asyncio.create_task(engine.embed(["good"])), asyncio.create_task(engine.embed(["fine", "QQQQ"]))
    await asyncio.wait([good, bad])
    assert good.result().values[0] == pytest.approx(wanted[0], abs=1e-5)
    assert isinstance(bad.exception(), LLMServerError)
    assert "no number" in str(bad.exception())

    def broken(texts: Sequence[Sequence[int]]) -> torch.Tensor:
        raise RuntimeError(f"no memory for {len(texts)}")

    seen.model.vectors = broken  # type: ignore[method-assign]  # a double of one pass
    with pytest.raises(LLMServerError, match="no memory for 2"):
        await engine.embed(["one", "two"])
    seen.model.vectors = seen  # type: ignore[method-assign]  # its place back
    assert (await engine.embed(["good"])).values[0] == pytest.approx(wanted[0], abs=1e-5)


async def test_a_stream_of_another_model_goes_on_between_passes_that_are_short(
    folder: Path, small_folder: Path
) -> None:
    engine = InferenceEngine(device="cpu", threads=1)
    for name in (folder, small_folder):
        await engine.load_model(str(name))
    seen = Recorder(engine)
    stream = engine.generate_stream("goes on", model=str(small_folder), max_tokens=400, ignore_eos=True)
    await anext(stream)
    embedding = asyncio.create_task(engine.embed(TEXTS * 2, model=str(folder)))
    before = engine.stats().generated_tokens
    await embedding
    made, passes = engine.stats().generated_tokens - before, list(seen.passes)
    assert made >= len(passes) - 2 > 30
    assert max(max(lengths) * len(lengths) for lengths in passes) <= 128
    stream.close()
    with pytest.raises(LLMConfigurationError, match="no model was named"):
        await engine.embed(["which?"])
    await engine.close()


async def test_under_one_limit_it_takes_turns_with_a_model_that_answers(folder: Path, small_folder: Path) -> None:
    engine = InferenceEngine(device="cpu", threads=1, memory_limit=240_000, max_batch=2)
    answers, vectors = str(small_folder), str(folder)
    for name in (answers, vectors):
        await engine.load_model(name)
    assert engine.models == (vectors,)
    async with asyncio.TaskGroup() as group:
        texts = [
            group.create_task(engine.generate("on", model=answers, max_tokens=4, ignore_eos=True)) for _ in range(3)
        ]
        made = [group.create_task(engine.embed([text], model=vectors)) for text in TEXTS[:3]]
    assert [call.result().output_tokens for call in texts] == [4] * 3
    assert [len(call.result().values) for call in made] == [1] * 3
    assert len(engine.models) == 1
    await engine.unload_model(vectors)
    with pytest.raises(LLMConfigurationError, match="is not loaded"):
        await engine.embed(["gone"], model=vectors)
    await engine.close()
    small = InferenceEngine(device="cpu", memory_limit=10_000)
    with pytest.raises(LLMConfigurationError, match=r"takes .* bytes, and memory_limit is 10,000"):
        await small.load_model(vectors)
    await small.close()
