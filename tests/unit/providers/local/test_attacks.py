"""What callers, threads, numbers and memory can do to an engine, and that it serves the next request all the same."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import traceback
import weakref
from typing import TYPE_CHECKING

import pytest
import torch
from tests.patience import PATIENCE, until
from tests.unit.providers.local.asking import PROMPTS, ask, idle
from transformers import BloomConfig, BloomForCausalLM, LlamaForCausalLM

from llm.core.exceptions import (
    LLMConfigurationError,
    LLMConnectionError,
    LLMContextLengthError,
    LLMException,
    LLMInvalidRequestError,
    LLMServerError,
)
from llm.providers.local import InferenceEngine
from llm.providers.local.kv import Shelf
from llm.providers.local.model import LoadedModel, load
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from pathlib import Path

    from llm.providers.local.engine import GenerationStream, Options
    from llm.providers.local.request import GenerationResult


async def ended(*calls: asyncio.Task[GenerationResult]) -> list[GenerationResult | BaseException]:
    await asyncio.wait(calls)
    return [call.exception() or call.result() for call in calls]


def model_of(engine: InferenceEngine) -> LoadedModel:
    gc.collect()
    [model] = [thing for thing in gc.get_objects() if type(thing) is LoadedModel and thing.name in engine.models]
    return model


async def passed(engine: InferenceEngine, passes: int) -> None:
    target = engine.forward_passes + passes
    await SystemClock().sleep(0)  # for calls that were just made
    async with SystemClock().timeout(30):
        while engine.forward_passes < target and engine.stats().running + engine.stats().waiting:
            await SystemClock().sleep(0.001)


async def test_a_call_cancelled_at_any_moment_leaves_nothing_and_the_next_is_right(small: InferenceEngine) -> None:
    wanted = (await ask(small, "next")).text
    beside = small.generate_stream(
        "beside", max_tokens=480, temperature=0, ignore_eos=True
    )  # so that prompts are read in pieces
    await anext(beside)
    for moment in range(8):  # queued, reading (three passes), answering
        call = asyncio.create_task(ask(small, f"{moment}" * 300, 6))
        await SystemClock().sleep(0)
        if moment:
            await passed(small, moment - 1)
        call.cancel()
        [end] = await asyncio.gather(call, return_exceptions=True)  # noqa: TID251 - its end is what is asked
        assert isinstance(end, asyncio.CancelledError) or moment > 5
    assert (await ask(small, "next")).text == wanted
    beside.close()
    await idle(small)
    assert small.stats().blocks_used == 0


async def test_where_memory_runs_out_requests_are_put_back_and_their_texts_stay_right(small_folder: Path) -> None:
    token = 2 * 2 * 2 * 8 * 4  # bytes: keys and values, layers, heads, dimensions, float32
    tight = InferenceEngine(device="cpu", threads=1, memory_limit=160_000 + 4 * 640 * token, max_batch=8)
    await tight.load_model(str(small_folder))
    prompts = [letter * 105 for letter in "abcdef"]
    wanted = [(await ask(tight, prompt, 40)).text for prompt in prompts]
    assert tight.stats().put_back == 0
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(ask(tight, prompt, 40)) for prompt in prompts]
    assert [call.result().text for call in calls] == wanted
    assert tight.stats().put_back > 0
    assert tight.stats().blocks_used == 0
    await tight.close()


async def test_a_request_without_numbers_fails_alone_and_leaves_none_to_the_next(small: InferenceEngine) -> None:
    wanted = [(await ask(small, prompt)).text for prompt in PROMPTS[:6]]
    network = model_of(small).network
    assert isinstance(network, LlamaForCausalLM)
    [sick] = model_of(small).encode("Q")
    with torch.inference_mode():
        network.model.embed_tokens.weight[sick] = float("nan")  # type: ignore[attr-defined]  # a llama has one
    for _ in range(2):  # the second finds the rows of the first
        calls = [asyncio.create_task(ask(small, prompt)) for prompt in [*PROMPTS[:6], "Q" * 120, f"Q{'x' * 99}"]]
        ends = await ended(*calls)
        assert [end.text for end in ends if not isinstance(end, BaseException)] == wanted
        assert [type(end) for end in ends[6:]] == [LLMServerError] * 2
        assert all("no numbers" in str(end) for end in ends[6:])
    async with asyncio.TaskGroup() as group:  # where they were, beside one that is as long
        group.create_task(ask(small, "z" * 110))
        again = [group.create_task(ask(small, prompt)) for prompt in PROMPTS[:6] * 2]
    assert [call.result().text for call in again] == wanted * 2
    assert small.stats().blocks_used == 0


async def test_one_that_fails_does_not_make_numbers_of_what_another_has_read_in_part(small: InferenceEngine) -> None:
    beside = asyncio.create_task(ask(small, PROMPTS[0], 60))  # while somebody answers, a pass reads 128 tokens
    await passed(small, 2)
    model = model_of(small)
    assert isinstance(model.network, LlamaForCausalLM)
    [sick] = model.encode("Q")
    with torch.inference_mode():
        model.network.model.embed_tokens.weight[sick] = float("nan")  # type: ignore[attr-defined]  # a llama has one
    ends = await ended(*(asyncio.create_task(ask(small, prompt)) for prompt in ("Q" * 120, f"Q{'x' * 99}")))
    assert [type(end) for end in ends] == [LLMServerError] * 2
    assert (await beside).output_tokens == 60


async def test_a_text_that_cannot_be_written_fails_alone(small: InferenceEngine) -> None:
    wanted = (await ask(small, "whole")).text
    model = model_of(small)

    def broken(tokens: list[int]) -> str:
        raise RuntimeError(f"cannot decode {len(tokens)}")

    decode = model.decode
    call = asyncio.create_task(ask(small, "whole", 40))
    await passed(small, 2)
    model.decode = broken  # type: ignore[method-assign]  # a double for one request
    broken_one = asyncio.create_task(ask(small, "broken"))
    await ended(broken_one)
    model.decode = decode  # type: ignore[method-assign]  # its place back
    assert isinstance(broken_one.exception(), LLMServerError)
    assert (await call).text.startswith(wanted)
    assert small.stats().blocks_used == 0


async def test_no_memory_for_a_row_fails_requests_and_not_the_thread(
    small: InferenceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ask(small, "first")
    threads = {thread.ident for thread in threading.enumerate() if thread.name.startswith("llm-engine")}

    def full(*_: object) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(Shelf, "resize", full)
        with pytest.raises(LLMServerError, match="out of memory"):
            await ask(small, "r" * 300)
    assert (await ask(small, "r" * 300)).output_tokens == 24
    assert threads == {thread.ident for thread in threading.enumerate() if thread.name.startswith("llm-engine")}
    assert small.stats().blocks_used == 0


@pytest.mark.parametrize("when", ["before", "during"])
async def test_closing_ends_and_frees_the_models_also_where_the_thread_died(small_folder: Path, when: str) -> None:
    engine = InferenceEngine(device="cpu", threads=1)
    await engine.load_model(str(small_folder))
    model = model_of(engine)
    at_work, go_on = threading.Event(), threading.Event()

    def deadly(*_: object) -> torch.Tensor:
        at_work.set()
        go_on.wait(PATIENCE)
        raise SystemExit

    model.forward = deadly  # type: ignore[method-assign,assignment]  # a double of its last pass
    del model
    call = asyncio.create_task(ask(engine, "last words"))
    await asyncio.to_thread(at_work.wait, PATIENCE)
    if when == "before":
        go_on.set()
        await ended(call)
    closing = asyncio.create_task(engine.close())
    await SystemClock().sleep(0.01)
    go_on.set()
    async with SystemClock().timeout(30):
        await closing
    [end] = await ended(call)
    assert isinstance(end, LLMServerError if when == "before" else LLMConnectionError)
    assert engine.models == ()
    assert engine.stats().running + engine.stats().waiting == 0


async def test_an_engine_closed_under_load_answers_or_refuses_each_call(small_folder: Path) -> None:
    engine = InferenceEngine(device="cpu", threads=1, max_batch=4)
    await engine.load_model(str(small_folder))
    calls = [asyncio.create_task(ask(engine, prompt, 60)) for prompt in PROMPTS]
    await SystemClock().sleep(0)
    await passed(engine, 3)
    async with SystemClock().timeout(30):
        await engine.close()
        ends = await ended(*calls)
    assert all(isinstance(end, LLMConnectionError) or not isinstance(end, BaseException) for end in ends)
    assert any(isinstance(end, LLMConnectionError) for end in ends)


async def test_loops_that_close_in_many_threads_take_only_their_own_requests(small: InferenceEngine) -> None:
    wanted = (await ask(small, "loops")).text
    got: list[str] = []

    def leave() -> None:
        loop = asyncio.new_event_loop()

        async def begin() -> GenerationStream:
            stream = small.generate_stream("left behind", max_tokens=400, ignore_eos=True)
            await anext(stream)
            return stream

        left.append(loop.run_until_complete(begin()))
        loop.close()

    def stay() -> None:
        got.append(asyncio.run(ask(small, "loops")).text)

    left: list[GenerationStream] = []
    threads = [threading.Thread(target=work) for work in (leave, stay) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join, 20)
    assert got == [wanted] * 4
    await idle(small)
    assert small.stats().blocks_used == 0


async def test_the_ends_of_the_window_and_of_the_options(small: InferenceEngine) -> None:
    last = await ask(small, "w" * 511, 50)
    assert (last.output_tokens, last.finish_reason) == (1, "length")
    with pytest.raises(LLMContextLengthError):
        await ask(small, "w" * 512)
    full = await ask(small, "w" * 100, 5000)
    assert (full.output_tokens, full.finish_reason) == (412, "length")
    greedy = (await ask(small, "options")).text
    assert (await ask(small, "options", 1)).text == greedy[0]
    sure: list[Options] = [{"top_k": 1}, {"top_p": 0.0}, {"temperature": 1e-300}, {"top_k": 1, "temperature": 50.0}]
    for options in sure:
        asked: Options = {"max_tokens": 24, "ignore_eos": True, **options}
        drawn = await small.generate("options", **asked)
        assert drawn.text == greedy
    whole = await small.generate("options", max_tokens=24, temperature=0.7, seed=-1, ignore_eos=True)
    wide = await small.generate("options", max_tokens=24, temperature=0.7, seed=-1, top_k=10**30, ignore_eos=True)
    assert wide.output_tokens == whole.output_tokens == 24
    stopped = await small.generate("options", max_tokens=24, temperature=0, stop=greedy[0], ignore_eos=True)
    assert (stopped.text, stopped.output_tokens, stopped.finish_reason) == ("", 1, "stop")
    spanning = await small.generate("options", max_tokens=24, temperature=0, stop=greedy[2:6], ignore_eos=True)
    assert spanning.text == greedy[: greedy.index(greedy[2:6])]


async def test_half_a_surrogate_pair_is_refused_and_named(small: InferenceEngine) -> None:
    with pytest.raises(LLMInvalidRequestError, match="the prompt holds half of a surrogate pair at 2"):
        await ask(small, "ab\ud83d")
    with pytest.raises(LLMInvalidRequestError, match=r"messages\[1\] holds half"):
        await small.count_tokens([{"role": "user", "content": "a"}, {"role": "user", "content": "\udc00"}])
    with pytest.raises(LLMInvalidRequestError, match=r"messages\[0\] has a NoneType"):
        await small.generate([{"role": "user"}])
    assert (await ask(small, "whole")).output_tokens == 24


async def test_other_models_go_on_while_one_is_unloaded_that_still_answers(small_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "b").symlink_to(small_folder)
    first, second = str(small_folder), str(tmp_path / "b")
    engine = InferenceEngine(device="cpu", threads=1)
    await engine.load_model(first)
    with pytest.raises(LLMConfigurationError, match="not loaded"):
        await engine.unload_model(second)
    stream = engine.generate_stream("goes on", model=first, max_tokens=400, temperature=0, ignore_eos=True)
    await anext(stream)
    await engine.load_model(second)  # while the first runs
    leaving = asyncio.create_task(ask(engine, "leaves", 100, second))
    await SystemClock().sleep(0)
    before = engine.stats().generated_tokens
    await engine.unload_model(second)
    assert (await leaving).output_tokens == 100
    after = engine.stats().generated_tokens
    assert after - before > 150  # the stream had its tokens meanwhile, and the counts do not fall with what is gone
    stream.close()
    await engine.close()
    assert engine.stats().generated_tokens >= after


async def test_two_models_that_take_turns_under_one_limit_lose_no_call(small_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "b").symlink_to(small_folder)
    names = [str(small_folder), str(tmp_path / "b")]
    engine = InferenceEngine(device="cpu", threads=1, memory_limit=400_000, max_batch=2)
    for name in names:
        await engine.load_model(name)
    assert len(engine.models) == 1
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(ask(engine, prompt, 4, names[at % 2])) for at, prompt in enumerate(PROMPTS[:8])]
    assert [call.result().output_tokens for call in calls] == [4] * 8
    with pytest.raises(LLMConfigurationError, match="no model was named"):  # which is there is chance
        await ask(engine, "which?")
    for name in names:
        await engine.unload_model(name)
    with pytest.raises(LLMConfigurationError, match="is not loaded"):
        await ask(engine, "gone", model=names[0])
    await engine.close()


async def test_a_loaded_model_is_seen_at_every_moment(small: InferenceEngine) -> None:
    names, seen = small.models, set[tuple[str, ...]]()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.add(small.models)
            small.stats()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        looking = asyncio.create_task(asyncio.to_thread(look))
        for prompt in PROMPTS * 2:
            await ask(small, prompt, 1)
    finally:
        done.set()
        sys.setswitchinterval(interval)
    await looking
    assert seen == {names}


@pytest.fixture
def bloom_folder(small_folder: Path, tmp_path: Path) -> Path:
    torch.manual_seed(3)
    load_tokenizer = load("tokenizer", small_folder, device="cpu", dtype="float32").tokenizer
    network = BloomForCausalLM(
        BloomConfig(vocab_size=96, hidden_size=32, n_layer=2, n_head=2, initializer_range=0.5, eos_token_id=95)
    )
    folder = tmp_path / "bloom"
    network.save_pretrained(str(folder))
    load_tokenizer.save_pretrained(str(folder))
    return folder


async def test_a_model_that_attends_in_its_own_way_answers_one_request_after_the_other(
    bloom_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = await asyncio.to_thread(load, "plain", bloom_folder, device="cpu", dtype="float32")
    engine = InferenceEngine(device="cpu", threads=1)
    await engine.load_model(str(bloom_folder))
    assert [record.message.rpartition("; ")[2] for record in caplog.records] == ["it answers one request at a time"]
    calls = [asyncio.create_task(ask(engine, prompt)) for prompt in PROMPTS[:4]]
    gone = [asyncio.create_task(ask(engine, prompt, 60)) for prompt in ("served", "queued")]
    await SystemClock().sleep(0)
    gone[1].cancel()
    await asyncio.wait([gone[1]])
    for prompt, call in zip(PROMPTS, calls, strict=False):
        tokens = plain.encode(prompt)
        whole = plain.network.generate(torch.tensor([tokens]), max_new_tokens=24, do_sample=False)
        assert (await call).text == plain.decode(whole[0].tolist()[len(tokens) :])
    assert engine.stats().running <= 1
    several = await engine.generate("x", choices=2, logprobs=1, seed=1, temperature=1.0, max_tokens=2)
    assert len(several.logprobs) == len(several.others[0].logprobs) == 2
    made = await engine.embed(["one", "another"])
    with torch.inference_mode():
        ids = torch.tensor([plain.encode("one")])
        mean = plain.network(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states[-1][0].mean(0)
    assert made.values[0] == pytest.approx((mean / mean.norm()).tolist(), abs=1e-4)
    gone[0].cancel()
    await idle(engine)
    model = model_of(engine)
    with torch.inference_mode():
        next(model.network.parameters())[model.encode("Q")[0]] = float("nan")
    with pytest.raises(LLMServerError, match="no numbers"):
        await ask(engine, "Q")
    stats = engine.stats()
    assert (stats.admitted, stats.blocks_total, stats.put_back) == (10, 0, 0)
    await engine.close()


async def test_a_model_of_its_own_attention_fails_its_requests_with_its_thread(bloom_folder: Path) -> None:
    engine = InferenceEngine(device="cpu", threads=1)
    await engine.load_model(str(bloom_folder))

    def deadly(*_: object, **__: object) -> object:
        raise SystemExit

    model_of(engine).network.forward = deadly  # type: ignore[attr-defined]  # a double of its last pass
    calls = [asyncio.create_task(ask(engine, prompt)) for prompt in PROMPTS[:3]]
    assert [type(end) for end in await ended(*calls)] == [LLMServerError] * 3
    await engine.close()


ELSEWHERE = """
import asyncio, os, signal, sys
from llm.core.exceptions import LLMConfigurationError
from llm.providers.local import InferenceEngine

async def child(engine):
    try:
        await engine.generate("x", max_tokens=1)
    except LLMConfigurationError as error:
        print("child:", error, flush=True)
    await engine.close()

async def main():
    engine = InferenceEngine(device="cpu", threads=1)
    await engine.load_model(sys.argv[1])
    print("parent:", (await engine.generate("x", max_tokens=3, ignore_eos=True)).output_tokens, flush=True)
    return engine

async def interrupted(engine):
    stream = engine.generate_stream("x", max_tokens=500, ignore_eos=True)
    await anext(stream)
    os.kill(os.getpid(), signal.SIGINT)
    async for _ in stream:
        pass

engine = asyncio.run(main())
forked = os.fork()
if forked == 0:
    asyncio.run(child(engine))
    sys.exit(7)
print("status:", os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]), flush=True)
try:
    asyncio.run(interrupted(engine))
except KeyboardInterrupt:
    print("interrupted", flush=True)
print("again:", asyncio.run(engine.generate("x", max_tokens=3, ignore_eos=True)).output_tokens, flush=True)
"""


async def test_a_forked_child_cannot_use_its_parents_engine(small: InferenceEngine) -> None:
    await ask(small, "parent")
    forked = os.fork()
    if not forked:
        try:
            asyncio.new_event_loop().run_until_complete(small.generate("child"))
        except LLMConfigurationError as error:
            os._exit(7 if "make a new one here" in str(error) else 1)
        finally:
            os._exit(2)
    _, status = await asyncio.to_thread(os.waitpid, forked, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert (await ask(small, "parent")).output_tokens == 24


async def test_an_error_that_somebody_keeps_does_not_keep_the_model(small_folder: Path) -> None:
    engine = InferenceEngine(device="cpu", threads=1)
    await engine.load_model(str(small_folder))
    model = model_of(engine)
    freed = weakref.ref(model.network)

    def broken(*_: object) -> torch.Tensor:
        raise RuntimeError("no memory")

    kept: list[LLMException] = []
    for prompt in ("w" * 512, "broken"):
        try:
            await ask(engine, prompt)
        except LLMException as error:
            kept.append(error)
        model.forward = broken  # type: ignore[method-assign,assignment]  # a double of the pass
    del model.forward, model, broken
    assert [type(error) for error in kept] == [LLMContextLengthError, LLMServerError]
    assert "in broken" in "".join(traceback.format_exception(kept[1]))  # where it failed is told all the same
    await engine.unload_model(str(small_folder))
    gc.collect()
    assert freed() is None
    await engine.close()


@pytest.mark.soak
def test_a_forked_child_is_told_to_make_its_own_engine_and_ctrl_c_ends_a_call_and_not_the_engine(
    small_folder: Path,
) -> None:
    run = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", ELSEWHERE, str(small_folder)],
        env={"PYTHONPATH": "src", "OMP_NUM_THREADS": "1"},
        check=False,
        capture_output=True,
        encoding="utf-8",
        timeout=240,
    )
    assert run.stdout.splitlines() == [
        "parent: 3",
        "child: this engine belongs to the process that was forked; make a new one here",
        "status: 7",
        "interrupted",
        "again: 3",
    ]
    assert (run.returncode, run.stderr) == (0, "")


async def test_a_prefix_is_not_remembered_over_an_unloading(small_folder: Path) -> None:
    engine = InferenceEngine(device="cpu", threads=1)
    texts: list[str] = []
    for _ in range(2):
        await engine.load_model(str(small_folder))
        for cached in (0, 320):
            result = await ask(engine, "s" * 320 + "one more")
            assert result.cached_tokens == cached
            texts.append(result.text)
        await engine.unload_model(str(small_folder))
    assert len(set(texts)) == 1
    await engine.close()


async def test_seeds_equal_and_different_in_one_batch(small: InferenceEngine) -> None:
    async with asyncio.TaskGroup() as group:
        drawn = [
            group.create_task(small.generate("seed", max_tokens=24, temperature=0.9, seed=seed, ignore_eos=True))
            for seed in (1, 1, 2, 0, 0)
        ]
        free = group.create_task(small.generate("seed", max_tokens=24, temperature=0.9, ignore_eos=True))
    one, again, other, none, nought = (call.result().text for call in drawn)
    assert one == again
    assert none == nought
    assert len({one, other, none, free.result().text}) == 4


async def test_what_is_asked_and_cannot_be_begun_counts_as_waiting_and_fills_the_limits(small_folder: Path) -> None:
    engine = InferenceEngine(device="cpu", threads=1, max_batch=2, max_waiting=4)
    assert engine.saturation() == {}
    await engine.load_model(str(small_folder))
    name = str(small_folder)
    assert engine.saturation() == {name: {"max_batch": 0.0, "max_waiting": 0.0}}
    model = model_of(engine)
    forward, go_on = model.forward, threading.Event()

    def slow(*arguments: object) -> torch.Tensor:
        go_on.wait(PATIENCE)
        return forward(*arguments)  # type: ignore[arg-type]  # as they came

    model.forward = slow  # type: ignore[method-assign,assignment]  # a double that waits
    calls = [asyncio.create_task(ask(engine, prompt, 3)) for prompt in PROMPTS[:6]]
    await until(lambda: engine.stats().running + engine.stats().waiting == 6)
    stats = engine.stats()
    assert (stats.running + stats.waiting, stats.max_batch, stats.max_waiting) == (6, 2, 4)
    assert engine.saturation()[name]["max_waiting"] == 1.0
    with pytest.raises(LLMException, match="as many as may run and wait"):
        await ask(engine, "one more")
    go_on.set()
    assert [call.output_tokens for call in await asyncio.gather(*calls)] == [3] * 6  # noqa: TID251 - none fails
    await idle(engine)
    assert engine.saturation() == {name: {"max_batch": 0.0, "max_waiting": 0.0}}
    assert engine.stats().admitted == 6
    assert engine.stats().waited_seconds > 0
    await engine.close()
