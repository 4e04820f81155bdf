"""The real model over a long time: memory, pauses, and every token of a full batch judged."""

# ruff: noqa: T201 - figures are what a soak is run for

from __future__ import annotations

import asyncio
import gc
import os
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import pytest
import torch

from llm.providers.local import InferenceEngine
from llm.providers.local.fetch import fetch_model
from llm.providers.local.model import LoadedModel, load
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from llm.providers.local.request import GenerationResult

WORDS = (
    "The old lighthouse stood at the end of the long pier and every evening its keeper climbed the iron stairs to "
    "light the lamp while the gulls cried over the grey water and the fishing boats came home one after the other "
)


def prompt(at: int) -> list[dict[str, str]]:
    words = WORDS.split()
    told = " ".join(words[(at * 7 + place) % len(words)] for place in range(15 + (at * 37) % 250))
    return [{"role": "user", "content": f"Story {at}: {told}. What happens next?"}]


def resident() -> int:
    """Return the bytes of memory that this process has."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def ask_briefly(engine: InferenceEngine, count: int) -> None:
    async with asyncio.TaskGroup() as group:
        for at in range(count):
            group.create_task(engine.generate(f"Number {at}", max_tokens=2, temperature=0))


async def ask_all(engine: InferenceEngine, count: int, tokens: int) -> list[GenerationResult]:
    async with asyncio.TaskGroup() as group:
        calls = [
            group.create_task(engine.generate(prompt(at), max_tokens=tokens, temperature=0)) for at in range(count)
        ]
    return [call.result() for call in calls]


def surprise(plain: LoadedModel, asked: list[dict[str, str]], text: str) -> float:
    """Return by how much a greedy text was not the likeliest, token by token, at most; in logits of float32."""
    before, after = plain.encode(asked), plain.encode(text)
    with torch.inference_mode():
        logits = plain.network(input_ids=torch.tensor([before + after]), use_cache=False).logits[0].float()
    asked_for = logits[len(before) - 1 : -1]
    return max(float(asked_for[at].max() - asked_for[at][token]) for at, token in enumerate(after))


@pytest.fixture(scope="module")
def judge(model_folder: Path) -> LoadedModel:
    return load("smollm2-135m", model_folder, device="cpu", dtype="float32")


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
@pytest.mark.parametrize(
    ("requests", "tokens"), [(3, 5), pytest.param(32, 64, marks=pytest.mark.soak)], ids=["some", "full"]
)
async def test_every_token_of_a_batch_of_the_real_model_is_the_likeliest_but_for_near_ties(
    engine: InferenceEngine, judge: LoadedModel, requests: int, tokens: int
) -> None:
    judged: set[tuple[int, str]] = set()  # the second texts are mostly the first ones
    for hits in (False, True):  # of the prefix
        results = await ask_all(engine, requests, tokens)
        assert not hits or sum(result.cached_tokens for result in results) > 0
        for at, text in {(at, result.text) for at, result in enumerate(results)} - judged:
            assert surprise(judge, prompt(at), text) < 0.6  # what bfloat16 moves the logits by, twice
            judged.add((at, text))


@pytest.mark.soak
async def test_a_thousand_short_requests_leave_the_process_as_large_as_it_was(engine: InferenceEngine) -> None:
    for _ in range(3):
        await ask_briefly(engine, 32)
    before = resident()
    for _ in range(32):
        await ask_briefly(engine, 32)
    grown = resident() - before
    print(f"grown by {grown / 1e6:.1f} MB")
    assert grown < 16e6


@pytest.mark.soak
async def test_unloading_makes_the_process_smaller_by_the_weights(model_folder: Path) -> None:
    engine = InferenceEngine(models_directory=model_folder.parent, device="cpu")
    loaded: list[int] = []
    for _ in range(6):
        await engine.load_model("smollm2-135m")
        await ask_briefly(engine, 16)
        loaded.append(resident())
        await engine.unload_model("smollm2-135m")
        unloaded = resident()
        print(f"loaded {loaded[-1] / 1e6:.0f} MB, unloaded {unloaded / 1e6:.0f} MB")
        assert loaded[-1] - unloaded > 200e6
    # What is left behind is left each time; what the allocator takes for a heap more, once. Looked at while loaded: of
    # what is free, it keeps now more and now less.
    assert median(after - before for before, after in pairwise(loaded)) < 7e6
    await engine.close()


@pytest.mark.soak
async def test_a_running_stream_pauses_less_than_half_as_long_as_a_long_prompt_takes(
    engine: InferenceEngine, read: list[int]
) -> None:
    long = " ".join(WORDS.split() * 70)
    stream = engine.generate_stream(prompt(1), max_tokens=120, temperature=0, ignore_eos=True)
    for _ in range(5):
        await anext(stream)
    read.clear()
    asked = await engine.generate(f"other {long}", max_tokens=1, temperature=0)
    longest, passes = max(read), len(read)
    stream.close()
    print(f"{asked.input_tokens} tokens in {passes} passes; {longest} in the longest")
    assert longest < asked.input_tokens / 2


@pytest.mark.soak
async def test_an_idle_engine_uses_no_cpu_for_two_seconds(engine: InferenceEngine) -> None:
    await ask_all(engine, 2, 2)
    spent: list[float] = []
    while len(spent) < 10 and min(spent, default=1.0) >= 0.02:  # what else this process has to do comes and goes
        before = time.process_time()
        await SystemClock().sleep(2)
        spent.append(time.process_time() - before)
    print(f"{min(spent) * 1000:.1f} ms of CPU in two seconds")
    assert min(spent) < 0.02


@pytest.mark.soak
async def test_sentences_that_mean_the_same_are_nearer_than_others_by_the_real_encoder() -> None:
    await asyncio.to_thread(fetch_model, "all-minilm-l6-v2")
    engine = InferenceEngine(device="cpu")
    await engine.load_model("all-minilm-l6-v2")
    pairs = [
        ("A cat sat on the mat.", "A kitten lay on the rug."),
        ("How do I reset my password?", "I forgot my login credentials."),
        ("Quarterly earnings fell.", "The company made less profit this quarter."),
        ("It will rain tomorrow.", "The forecast says wet weather for the next day."),
    ]
    made = await engine.embed([text for pair in pairs for text in pair])
    await engine.close()
    vectors = torch.tensor(made.values)
    for at, vector in enumerate(vectors.unbind()):
        alike = [float((vector * other).sum()) for other in vectors.unbind()]
        others = max(alike[: at // 2 * 2] + alike[at // 2 * 2 + 2 :])
        print(f"{alike[at ^ 1]:.2f} with its pair, {others:.2f} at most with another")
        assert alike[at ^ 1] > others + 0.2
