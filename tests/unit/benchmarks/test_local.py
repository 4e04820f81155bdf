from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import pytest
from aiohttp import web
from benchmarks.local import cli, gguf_file, report
from benchmarks.local.figures import HELD_UP, IDLE, WARM_PREFIX, Figures, Promise, Turn, gaps_of, turn_of
from benchmarks.local.files import without_end
from benchmarks.local.measure import FailedError, Plan, answers_of, in_turn
from benchmarks.local.promises import held_up, idle, kept, warm_prefix
from benchmarks.local.prompts import LONGEST, SHORTEST, prompts
from benchmarks.local.saved import as_json, load, save
from benchmarks.local.shape import (
    LLAMA,
    LLAMA_Q8,
    NAIVE,
    OURS,
    SERVE,
    STATIC,
    Answer,
    Engine,
    Files,
    NotHereError,
    Request,
    Room,
)
from benchmarks.local.ways import way
from benchmarks.local.ways.served import serving, started
from benchmarks.local.ways.together import together
from benchmarks.local.worker import turn
from gguf.quants import dequantize
from transformers import AutoTokenizer

from llm.providers.local.fetch import fetch_model
from llm.utils.clock import SystemClock

import_module("benchmarks.local.ways.ours")  # so that transformers is read here, not in a running loop

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncGenerator, Callable, Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.no_cover,  # shorter tests reach the same lines, and being measured takes as long again
    pytest.mark.xdist_group("local"),  # one worker loads torch and the model, not each
]


@pytest.fixture(scope="module")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = without_end(fetch_model("smollm2-135m"), tmp_path_factory.mktemp("local") / "folder")
    return Files(folder, folder, folder)


def one_turn(engine: str, tokens_s: float, *, at_once: int = 4, number: int = 0) -> Turn:
    return Turn(engine, at_once, number, tokens_s, (0.5, 1.5), (0.02, 0.03, 0.75), 700 << 20)


def figures(ours: float = 120.0) -> Figures:
    slow = [one_turn(OURS, ours / 4, number=1), one_turn(NAIVE, 10.0, number=1)]  # both had a slow moment
    slow += [one_turn(OURS, ours, number=2), one_turn(NAIVE, 20.0, number=2)]  # naive had it alone
    turns = [one_turn(engine, 40.0) for engine in (NAIVE, STATIC, SERVE, LLAMA, LLAMA_Q8)]
    return Figures("Measured here.", [one_turn(OURS, ours), *turns, *slow])


def test_a_ratio_is_taken_round_by_round_so_that_a_slow_moment_hits_both() -> None:
    found = {target.against: (target.ratio, target.word) for target in figures().targets()}
    assert found == {
        NAIVE: (3.0, "met"),
        STATIC: (3.0, ""),
        SERVE: (3.0, "met"),
        LLAMA: (3.0, "met"),
        LLAMA_Q8: (3.0, ""),
    }
    slow = {target.against: target.word for target in figures(ours=44.0).targets()}
    assert (slow[NAIVE], slow[SERVE], slow[LLAMA]) == ("missed", "met", "missed")


def test_without_figures_of_ours_there_is_no_target_unless_it_failed() -> None:
    alone = Figures("", [one_turn(NAIVE, 40.0)])
    assert alone.targets() == []
    assert [target.word for target in alone.with_failure(OURS, "it broke").targets()] == ["missed"]


def test_a_turn_tells_speed_first_tokens_and_gaps_of_all_its_answers() -> None:
    answers = [Answer(0.0, [1.0, 1.5, 2.0], 3), Answer(0.5, [2.5, 2.75, 4.0], 3)]
    found = turn_of(OURS, 2, answers, 1024)
    assert (found.at_once, found.number, found.peak) == (2, 2, 1024)
    assert found.tokens_s == 6 / 4.0
    assert found.first == (1.5, 2.0)
    assert found.gaps == (0.5, 1.25, 1.25)
    assert gaps_of(answers[1], since=3.0) == [1.25]


def test_prompts_have_the_tokens_they_say_and_nobody_has_seen_them(model_files: Files) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(model_files.folder), local_files_only=True)
    texts = prompts(16, seed="a")
    lengths = [len(tokenizer.encode(text)) for text in texts]
    assert lengths == [len(text.split()) for text in texts]
    assert sorted(lengths) == [SHORTEST + round((LONGEST - SHORTEST) / 15 * number) for number in range(16)]
    assert prompts(16, seed="a") == texts
    assert not set(texts) & set(prompts(16, seed="b"))
    assert len(prompts(1, seed="a")[0].split()) == (SHORTEST + LONGEST) // 2


def test_every_engine_has_its_turn_another_one_first_each_time() -> None:
    plan = Plan(rounds=2, at_once=(1, 32), engines=(OURS, NAIVE, LLAMA))
    turns = list(plan.turns())
    assert [engine for _, _, engine in turns] == [
        *(OURS, NAIVE, LLAMA, NAIVE, LLAMA, OURS),
        *(NAIVE, LLAMA, OURS, LLAMA, OURS),  # naive at 32 tells nothing new in the second round
    ]
    assert plan.room == Room(32, 512)
    assert in_turn("abc", 4) == ["b", "c", "a"]


def test_the_page_shows_engines_targets_promises_and_what_did_not_install(tmp_path: Path) -> None:
    whole = figures(ours=100.0).with_failure(LLAMA_Q8, "not installed").with_failure("other", "it broke")
    promised = [Promise(WARM_PREFIX, OURS, 0.9), Promise(IDLE, OURS, 0.01), Promise(HELD_UP, SERVE, None)]
    report.write(tmp_path, replace(whole, promises=promised))
    page = (tmp_path / "local.md").read_text(encoding="utf-8")
    assert "Measured here." in page
    assert f"| {OURS} | 100.0 | 0.50 | 1.50 | 20 | 30 | 750 | 700 |" in page
    assert f"| {NAIVE} | 4 | 2.50 | 2.8 | missed |" in page
    assert f"| {STATIC} | 4 | 2.50 |  |  |" in page
    assert f"| {WARM_PREFIX} | {OURS} | 0.90 | 0.17 | missed |" in page
    assert f"| {IDLE} | {OURS} | 0.01 | 0.05 | met |" in page
    assert f"| {HELD_UP} | {SERVE} | failed |  |  |" in page
    assert f"- {LLAMA_Q8} has no figures, or no more: not installed" in page
    assert report.PICTURE in page


def test_a_page_without_other_engines_has_no_place_for_a_picture(tmp_path: Path) -> None:
    report.write(tmp_path, Figures("", [one_turn(OURS, 10.0)], [], {NAIVE: "it broke"}))
    page = (tmp_path / "local.md").read_text(encoding="utf-8")
    assert report.PICTURE not in page
    assert f"| {NAIVE} | failed |" in page


def test_figures_come_back_from_json_as_they_were(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = replace(figures().with_failure(SERVE, "gone"), promises=[Promise(IDLE, OURS, 0.01)])
    save(tmp_path / "new" / "local.json", whole)
    assert load(tmp_path / "new" / "local.json") == whole
    assert {target["word"] for target in json.loads(as_json(whole))["targets"]} == {"met", ""}
    (tmp_path / "other.json").write_text("{}")
    assert cli.main(["--json", str(tmp_path / "other.json"), "--redraw"]) == 2
    assert cli.main(["--redraw"]) == 2
    said = capsys.readouterr().err
    assert "does not hold figures of this benchmark" in said
    assert "needs --json" in said


def test_the_command_saves_what_it_has_and_tells_by_its_status(tmp_path: Path) -> None:
    file = tmp_path / "local.json"

    def met(asked: argparse.Namespace) -> Iterator[Figures]:
        assert asked.engines == ["ours", "naive"]
        yield figures()

    def missed(_asked: argparse.Namespace) -> Iterator[Figures]:
        yield figures(ours=44.0)

    def stopped(_asked: argparse.Namespace) -> Iterator[Figures]:
        yield figures()
        os.kill(os.getpid(), signal.SIGTERM)
        yield Figures()

    assert cli.main(["--engines", "ours", "naive", "--json", str(file)], met) == 0
    assert cli.main(["--json", str(file)], missed) == 1
    assert cli.main(["--json", str(file), "--results", str(tmp_path)], stopped) == 130
    assert load(file) == figures()
    assert "Measured here. **Incomplete**: it was stopped." in (tmp_path / "local.md").read_text(encoding="utf-8")
    assert cli.main(["--json", str(file), "--redraw"]) == 0


def test_the_folder_names_no_end_token_and_no_way_to_draw(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text('{"eos_token_id": 2, "vocab_size": 9}')
    (source / "generation_config.json").write_text('{"eos_token_id": 2, "do_sample": true, "pad_token_id": 2}')
    (source / "tokenizer_config.json").write_text('{"eos_token": "<end>", "bos_token": "<begin>"}')
    (source / "model.safetensors").write_bytes(b"weights")
    folder = without_end(source, tmp_path / "room" / "folder")
    told = {file.name: json.loads(file.read_text()) for file in folder.glob("*.json")}
    assert told == {
        "config.json": {"vocab_size": 9},
        "generation_config.json": {"pad_token_id": 2},
        "tokenizer_config.json": {"bos_token": "<begin>"},
    }
    assert (folder / "model.safetensors").read_bytes() == b"weights"


@pytest.mark.parametrize(("kind", "off_by"), [("BF16", 0.0), ("Q8_0", 0.01)])
def test_a_gguf_file_is_written_anew_with_all_it_says_and_its_matrices_rounded(
    tmp_path: Path, kind: str, off_by: float
) -> None:
    source, target = tmp_path / "source.gguf", tmp_path / "target.gguf"
    matrix, vector = np.arange(64, dtype=np.float32).reshape(2, 32) / 64, np.ones(32, dtype=np.float32)
    writer = gguf.GGUFWriter(str(source), "llama")
    writer.add_context_length(8192)
    writer.add_token_list(["a", "b"])
    writer.add_tensor("matrix", matrix)
    writer.add_tensor("vector", vector)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    gguf_file.main(str(source), str(target), kind)
    reader = gguf.GGUFReader(str(target))
    told = {field.name: field.contents() for field in reader.fields.values()}
    assert (told["llama.context_length"], told["tokenizer.ggml.tokens"]) == (8192, ["a", "b"])
    found = {tensor.name: tensor for tensor in reader.tensors}
    assert (found["matrix"].tensor_type.name, found["vector"].tensor_type.name) == (kind, "F32")
    read = dequantize(found["matrix"].data, found["matrix"].tensor_type)
    assert float(np.abs(read - matrix).max()) <= off_by


async def test_our_engine_makes_as_many_tokens_as_were_asked_for(model_files: Files) -> None:
    async with way(OURS)(model_files, Room(2, 512)) as engine:
        told = await turn(engine, {"requests": [{"prompt": "The end.<|im_end|>", "tokens": 3, "after": 0.01}]})
        assert "failed" not in told
        (answer,) = told["answers"]
        assert (answer["tokens"], answer["begun"] >= 0.01) == (3, True)
        assert told["peak"] >= told["resident"] > 0
        assert (await turn(engine, {"idle": 0.01}))["cpu"] < 0.1


async def test_plain_generate_answers_one_after_the_other_and_a_batch_at_once(model_files: Files) -> None:
    requests = [Request("The time", 2), Request("A way to go", 2)]
    for name, together_at in ((NAIVE, False), (STATIC, True)):
        async with way(name)(model_files, Room(2, 512)) as engine:
            first, second = await engine.ask(requests)
        assert (first.tokens, second.tokens, len(first.pieces), len(second.pieces)) == (2, 2, 2, 2)
        assert (first.pieces == second.pieces) is together_at
        assert together_at or first.pieces[-1] < second.pieces[0]


async def test_too_few_tokens_a_refusal_and_a_break_fail_the_turn() -> None:
    async def short(request: Request, came: Callable[[], None]) -> int:
        came()
        if request.prompt == "break":
            raise ValueError("no\nsuch word")
        return 1

    engine = Engine(os.getpid(), together(short))
    assert (await turn(engine, {"requests": [{"prompt": "a", "tokens": 2}]}))["failed"] == (
        "RuntimeError: an answer has 1 tokens and not 2"
    )
    assert (await turn(engine, {"requests": [{"prompt": "break", "tokens": 1}]}))[
        "failed"
    ] == "ValueError: no such word"
    assert "pieces" in (await turn(engine, {"requests": [{"prompt": "a", "tokens": 1}]}))["answers"][0]


@asynccontextmanager
async def server(*events: str, status: int = 200) -> AsyncGenerator[tuple[str, list[dict[str, Any]]]]:
    """Serve one text as events, cut in the middle of each."""
    asked: list[dict[str, Any]] = []

    async def complete(request: web.Request) -> web.StreamResponse:
        asked.append(await request.json())
        answer = web.StreamResponse(status=status)
        await answer.prepare(request)
        whole = "".join(f"data: {event}\n\n" for event in events).encode()
        for part in (whole[:9], whole[9:]):
            await answer.write(part)
            await asyncio.sleep(0)  # noqa: TID251 - lets the other side read
        return answer

    app = web.Application()
    app.router.add_post("/v1/completions", complete)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


async def test_a_served_stream_counts_pieces_of_text_and_takes_the_tokens_from_the_server() -> None:
    piece = json.dumps({"choices": [{"text": "a"}]})
    last = json.dumps({"choices": [{"text": ""}], "usage": {"completion_tokens": 2}})
    async with server(piece, piece, last, "[DONE]") as (root, asked), serving(root, {"ignore_eos": True}) as ask:
        (answer,) = await ask([Request("A way", 2)])
    assert (answer.tokens, len(answer.pieces)) == (2, 2)
    assert asked == [{"prompt": "A way", "max_tokens": 2, "temperature": 0, "stream": True, "ignore_eos": True}]


@pytest.mark.parametrize(("event", "status", "words"), [('{"error": "full"}', 200, "full"), ("{}", 503, "503")])
async def test_a_served_stream_that_fails_says_why(event: str, status: int, words: str) -> None:
    async with server(event, status=status) as (root, _), serving(root, {}) as ask:
        told = await turn(Engine(os.getpid(), ask), {"requests": [{"prompt": "a", "tokens": 1}]})
    assert words in told["failed"]


async def test_a_server_that_does_not_start_is_told_by_its_last_words() -> None:
    words = "import sys; sys.exit('no such thing here')"
    with pytest.raises(NotHereError, match="it does not start: no such thing here"):
        async with started([sys.executable, "-c", words], "http://127.0.0.1:9"):
            pass


def test_an_engine_that_says_it_failed_is_an_error() -> None:
    def worker(_turn: dict[str, Any]) -> dict[str, Any]:
        raise FailedError("it cannot")

    with pytest.raises(FailedError):
        answers_of(worker, [Request("a")])


def test_the_other_promises_are_read_off_the_answers() -> None:
    asked: list[dict[str, Any]] = []

    def worker(turn: dict[str, Any]) -> dict[str, Any]:
        asked.append(turn)
        if "idle" in turn:
            return {"cpu": 0.25, "resident": len(asked) << 20, "peak": 0}
        wait = 1.0 if len(asked) % 2 else 0.25  # every second request finds its prefix warm
        requests = turn["requests"]
        if len(requests) == 2:
            return {"answers": [_answer(0.0, [0.1, 0.9, 1.5, 1.6]), _answer(1.0, [1.4])], "peak": 0}
        return {"answers": [_answer(0.0, [wait]) for _ in requests], "peak": 0}

    assert warm_prefix(worker) == 0.25
    prefixes = [request["requests"][0]["prompt"].split()[:1000] for request in asked]
    assert [prefixes[0] == prefixes[1], prefixes[1] == prefixes[2]] == [True, False]
    assert held_up(worker) == pytest.approx(0.6)
    assert len(asked[-1]["requests"][1]["prompt"].split()) == 2800
    assert idle(worker) == 0.25
    before = len(asked)
    assert kept(worker) == len(asked) - before - 4
    assert sum(len(turn.get("requests", ())) for turn in asked[before + 4 :]) == 1024


def _answer(begun: float, pieces: list[float]) -> dict[str, Any]:
    return {"begun": begun, "pieces": pieces, "tokens": len(pieces)}


def test_a_stream_that_ended_before_the_long_prompt_came_tells_nothing() -> None:
    def worker(_turn: dict[str, Any]) -> dict[str, Any]:
        return {"answers": [_answer(0.0, [0.1, 0.2]), _answer(1.0, [1.4])], "peak": 0}

    with pytest.raises(FailedError, match="ended before"):
        held_up(worker)


async def test_requests_come_when_they_are_due() -> None:
    clock = SystemClock()
    order: list[str] = []

    async def one(request: Request, came: Callable[[], None]) -> int:
        order.append(request.prompt)
        await clock.sleep(0)
        came()
        return 1

    late, soon = await together(one)([Request("late", after=0.05), Request("soon")])
    assert order == ["soon", "late"]
    assert late.begun >= 0.05 > soon.begun
