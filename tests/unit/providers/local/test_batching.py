"""Many requests in one running batch of a small model: what each gets, and what becomes of memory."""

from __future__ import annotations

import asyncio
import gc
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from tests.unit.providers.local.asking import PROMPTS, ask, idle
from transformers import MistralConfig, MistralForCausalLM, PreTrainedModel

from llm.core.exceptions import (
    LLMConfigurationError,
    LLMContextLengthError,
    LLMOverloadedError,
    LLMServerError,
)
from llm.providers.local import InferenceEngine, batching
from llm.providers.local.model import LoadedModel, load
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from llm.providers.local.request import GenerationResult


async def ask_all(engine: InferenceEngine, prompts: list[str], tokens: int = 24) -> list[GenerationResult]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(engine, prompt, tokens)) for prompt in prompts]
    return [task.result() for task in tasks]


@pytest.fixture(scope="module")
def plain(small_folder: Path) -> LoadedModel:
    """The same model, unchanged, to compare with."""
    return load("plain", small_folder, device="cpu", dtype="float32")


def surprise(plain: LoadedModel, prompt: str, text: str) -> float:
    """Return by how much a greedy text was not the likeliest, token by token, at most."""
    before, after = plain.encode(prompt), plain.encode(text)
    with torch.inference_mode():
        logits = plain.network(input_ids=torch.tensor([before + after]), use_cache=False).logits[0]
    asked = logits[len(before) - 1 : -1]
    return max(float(asked[at].max() - asked[at][token]) for at, token in enumerate(after))


async def test_alone_in_a_full_batch_and_after_prefix_hits_each_token_is_the_likeliest(
    small: InferenceEngine, plain: LoadedModel
) -> None:
    prompts = [*PROMPTS, "z" * 300, "y" * 130]
    alone = [await ask(small, prompt) for prompt in prompts[:3]]
    together = await ask_all(small, prompts, 80)
    again = await ask_all(small, prompts, 80)
    assert sum(result.cached_tokens for result in again) > 500
    for prompt, result in zip([*prompts[:3], *prompts, *prompts], [*alone, *together, *again], strict=True):
        assert surprise(plain, prompt, result.text) < 1e-3


def with_tokenizer_of(folder: Path, network: PreTrainedModel, to: Path) -> Path:
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("config.json", "*.safetensors"))
    network.save_pretrained(str(to))
    return to


@pytest.fixture
def sliding_folder(small_folder: Path, tmp_path: Path) -> Path:
    torch.manual_seed(6)
    config = MistralConfig(
        vocab_size=96, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, sliding_window=24, initializer_range=0.3, dtype="float32",
    )  # fmt: skip
    network = MistralForCausalLM(config)
    with torch.inference_mode():
        network.lm_head.weight[-1] = 0.0  # the end never comes, as in the small model
    return with_tokenizer_of(small_folder, network, tmp_path / "mistral")


async def test_a_window_that_slides_hides_what_is_behind_it(sliding_folder: Path) -> None:
    engine = InferenceEngine(device="cpu", threads=1)
    await engine.load_model(str(sliding_folder))
    plain = await asyncio.to_thread(load, "plain", sliding_folder, device="cpu", dtype="float32")
    prompts = [*PROMPTS[:5], "w" * 200]
    for prompt, result in zip(prompts, await ask_all(engine, prompts, 40), strict=True):
        assert surprise(plain, prompt, result.text) < 1e-3
    await engine.close()


async def test_a_warm_prefix_is_not_read_again(small: InferenceEngine) -> None:
    system = "s" * 320
    first = await ask(small, system + "one")
    second = await ask(small, system + "two")
    assert (first.cached_tokens, second.cached_tokens) == (0, 320)
    assert small.stats().cached_tokens == 320
    exact = await ask(small, "s" * 320)
    assert exact.cached_tokens == 288  # the last token is always read: what comes after it is asked


async def test_a_seed_decides_the_text_whatever_runs_beside_it(small: InferenceEngine) -> None:
    alone = await ask(small, "draw", seed=7)
    async with asyncio.TaskGroup() as group:
        for prompt in PROMPTS:
            group.create_task(ask(small, prompt))
        beside = group.create_task(ask(small, "draw", seed=7))
        other = group.create_task(ask(small, "draw", seed=8))
    assert beside.result().text == alone.text != other.result().text


async def test_half_of_a_hundred_cancelled_leave_the_others_right_and_no_block_lost(small: InferenceEngine) -> None:
    prompts = [f"{PROMPTS[at % 24]} {at}" for at in range(100)]
    wanted = [(await ask(small, prompt)).text for prompt in prompts[:4]]
    tasks = [asyncio.create_task(ask(small, prompt)) for prompt in prompts]
    passes = small.stats().forward_passes
    while small.stats().forward_passes < passes + 4:
        await SystemClock().sleep(0.001)
    for task in tasks[1::2]:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)  # noqa: TID251 - a group would end with the first
    await idle(small)
    assert all(isinstance(end, asyncio.CancelledError) for end in ended[1::2])
    kept = [end for end in ended[::2] if not isinstance(end, BaseException)]
    assert len(kept) == 50
    assert all(result.output_tokens == 24 for result in kept)
    assert [kept[0].text, kept[1].text] == [wanted[0], wanted[2]]
    assert (small.stats().blocks_used, small.stats().running) == (0, 0)


async def test_more_than_may_run_and_wait_are_refused_at_once_and_the_others_are_served(small_folder: Path) -> None:
    engine = InferenceEngine(device="cpu", threads=1, max_batch=2, max_waiting=3)
    await engine.load_model(str(small_folder))
    tasks = [asyncio.create_task(ask(engine, prompt)) for prompt in PROMPTS[:5]]
    await SystemClock().sleep(0)
    with pytest.raises(LLMOverloadedError, match="has 5 requests, as many as may run and wait"):
        await ask(engine, "one more")
    with pytest.raises(LLMOverloadedError):
        engine.generate_stream("one more")
    assert [len((await task).text) > 0 for task in tasks] == [True] * 5
    assert (await ask(engine, "and now")).output_tokens == 24
    await engine.close()


async def test_a_prompt_longer_than_the_memory_for_it_is_refused_and_the_next_works(small_folder: Path) -> None:
    token = 2 * 2 * 2 * 8 * 4  # bytes: keys and values, layers, heads, dimensions, float32
    engine = InferenceEngine(device="cpu", threads=1, memory_limit=160_000 + 4 * 500 * token, max_batch=2)
    await engine.load_model(str(small_folder))
    assert engine.stats().blocks_total * 32 < 2 * 512
    with pytest.raises(LLMContextLengthError, match=r"the prompt has 400 tokens and the memory for one request .* 256"):
        await ask(engine, "x" * 400)
    both = await ask_all(engine, ["x" * 200, "y" * 200], 50)
    assert [result.output_tokens for result in both] == [50, 50]
    await engine.close()


async def test_where_memory_runs_out_the_youngest_waits_and_all_texts_stay_right(small_folder: Path) -> None:
    token = 2 * 2 * 2 * 8 * 4
    tight = InferenceEngine(device="cpu", threads=1, memory_limit=160_000 + 4 * 640 * token, max_batch=8)
    await tight.load_model(str(small_folder))
    wanted = [await ask(tight, prompt, 110) for prompt in PROMPTS[:6]]
    got = await ask_all(tight, PROMPTS[:6], 110)
    assert [result.text for result in got] == [result.text for result in wanted]
    assert tight.stats().blocks_used == 0
    await tight.close()


async def test_a_running_stream_is_not_held_up_by_a_long_prompt(small: InferenceEngine) -> None:
    stream = small.generate_stream("count", max_tokens=40, temperature=0, ignore_eos=True)
    await anext(stream)
    before = small.stats()
    await ask(small, "l" * 480, 1)
    after = small.stats()
    assert after.forward_passes - before.forward_passes >= 480 // 128  # it was read in pieces,
    assert after.generated_tokens - before.generated_tokens > 480 // 128  # and each pass made a token of the stream
    stream.close()


async def test_of_a_prompt_of_which_much_was_read_a_pass_reads_fewer_tokens(
    small: InferenceEngine, read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "_TWICE", 128)
    stream = small.generate_stream("count", max_tokens=40, temperature=0, ignore_eos=True)
    await anext(stream)
    await ask(small, "m" * 480, 1)
    stream.close()
    pieces = [tokens - 1 for tokens in read if tokens > 8]  # one of each is the stream's; shorter ones are its guesses
    assert pieces[:4] == [128, 64, 52, 45]


async def test_a_failing_pass_fails_the_requests_in_it_and_the_next_are_served(small: InferenceEngine) -> None:
    model = next(thing for thing in gc.get_objects() if type(thing) is LoadedModel and thing.name in small.models)
    forward = model.forward

    def broken(*_: object) -> torch.Tensor:
        model.forward = forward  # type: ignore[method-assign]  # the double gives its place back
        raise RuntimeError("no memory")

    model.forward = broken  # type: ignore[method-assign,assignment]  # a double of one pass
    ended = await asyncio.gather(*(ask(small, prompt) for prompt in PROMPTS[:4]), return_exceptions=True)  # noqa: TID251
    assert any(isinstance(end, LLMServerError) and "RuntimeError: no memory" in str(end) for end in ended)
    assert (await ask(small, "again")).output_tokens == 24
    assert small.stats().blocks_used == 0


async def test_a_thread_that_dies_fails_what_it_had_and_another_serves_the_next(small: InferenceEngine) -> None:
    model = next(thing for thing in gc.get_objects() if type(thing) is LoadedModel and thing.name in small.models)
    forward = model.forward

    def deadly(*_: object) -> torch.Tensor:
        model.forward = forward  # type: ignore[method-assign]  # the double gives its place back
        raise SystemExit

    model.forward = deadly  # type: ignore[method-assign,assignment]  # a double of one pass
    with pytest.raises(LLMServerError, match="SystemExit"):
        await ask(small, "last words")
    assert (await ask(small, "again")).output_tokens == 24


async def test_a_thousand_short_requests_end_with_the_memory_they_began_with(small: InferenceEngine) -> None:
    def held() -> int:
        gc.collect()
        return sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())

    async def hundreds(count: int) -> None:
        for start in range(0, count, 100):
            await ask_all(small, [f"{start} {at}" for at in range(100)], 2)

    await hundreds(200)
    before, blocks = held(), small.stats().blocks_used
    await hundreds(1000)
    assert held() - before < 20  # what is left of the latest pass, and nothing per request
    assert small.stats().blocks_used == blocks


async def test_figures_tell_what_went_on(small: InferenceEngine) -> None:
    await ask_all(small, PROMPTS)
    await idle(small)
    stats = small.stats()
    assert stats.generated_tokens == 24 * len(PROMPTS)
    assert stats.tokens_per_second > 0
    assert stats.queue_wait >= 0
    assert stats.blocks_total > stats.blocks_used == 0
    assert stats.prefix_blocks > 0
    assert stats.forward_passes < 60  # nobody stays once answered: two rounds of 16 at once, 24 tokens each


async def test_the_least_recently_used_model_makes_room_and_comes_back_when_asked(
    small_folder: Path, tmp_path: Path
) -> None:
    names = [str(small_folder)]
    for name in ("b", "c"):
        (tmp_path / name).symlink_to(small_folder)
        names.append(str(tmp_path / name))
    engine = InferenceEngine(device="cpu", threads=1, memory_limit=700_000, max_batch=2)
    for name in names[:2]:
        await engine.load_model(name)
    assert engine.models == tuple(names[:2])
    await engine.generate("x", model=names[0], max_tokens=1)
    await engine.load_model(names[2])
    assert engine.models == (names[0], names[2])
    assert (await engine.generate("x", model=names[1], max_tokens=1)).output_tokens == 1
    assert engine.models == (names[2], names[1])
    await engine.close()


async def test_a_model_that_does_not_fit_alone_is_refused_with_both_numbers(small_folder: Path) -> None:
    engine = InferenceEngine(device="cpu", threads=1, memory_limit=50_000)
    with pytest.raises(LLMConfigurationError, match=r"takes [\d,]+ bytes, and memory_limit is 50,000"):
        await engine.load_model(str(small_folder))
    assert engine.models == ()
    await engine.close()


@pytest.mark.parametrize("option", ["threads", "memory_limit", "max_batch", "max_waiting"])
def test_a_number_out_of_range_is_named(option: str) -> None:
    with pytest.raises(LLMConfigurationError, match=f"{option} is -1"):
        InferenceEngine(**{option: -1})  # type: ignore[arg-type]  # that is the question


async def test_threads_are_those_that_were_asked_for(small_folder: Path) -> None:
    engine = InferenceEngine(device="cpu", threads=1)
    await engine.load_model(str(small_folder))
    one = await ask(engine, "threads")
    assert one.output_tokens == 24
    await engine.close()


def turns() -> list[list[str]]:
    """Return how long the threads of engines have run so far, and how often each was woken or stopped."""
    threads = [Path(f"/proc/self/task/{one.native_id}") for one in threading.enumerate() if "llm-engine" in one.name]
    ticks = [(thread / "stat").read_text().rpartition(")")[2].split()[11:13] for thread in threads]
    told = [line for thread in threads for line in (thread / "status").read_text().splitlines()]
    return [*ticks, [line for line in told if "voluntary_ctxt_switches" in line]]


async def test_an_idle_engine_uses_no_cpu(small: InferenceEngine) -> None:
    await ask(small, "work")
    await idle(small)
    before = await asyncio.to_thread(turns)
    for _ in range(20):  # what the work left to do may take a while
        await SystemClock().sleep(0.5)
        after = await asyncio.to_thread(turns)
        if after == before:  # who looks again and again has had a turn
            return
        before = after
    raise AssertionError(f"it goes on: {before}")
