"""`manifold cache` on real stores, and what programs see of it that use them at the same time."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.forking import Ended
from tests.patience import PATIENCE

from llm import LLMManager, LLMResponse, TokenUsage
from llm.cache.answer import Answer
from llm.cli.main import run
from llm.core.config import load_config
from llm.runtime.stores import open_store
from llm.testing import MockUpstream
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractContextManager

    from tests.conftest import RedisServer

pytestmark = pytest.mark.usefixtures("patient_cache")

PASSWORD = "hunter2-of-the-store"  # noqa: S105 - planted
SECTION = (
    "providers: {openai: {base_url: 'http://127.0.0.1:9/v1', api_keys: [sk-planted-key], models: [gpt-4o-mini]}}\n"
)
ENTRIES = (  # text, provider, model, user
    ("The sky is blue\nsince light scatters.", "openai", "gpt-4o-mini", None),
    ("Grass is green. " * 8, "openai", "gpt-4o", "alice"),
    ("\x1b]0;owned\x07snow", "anthropic", "claude", "bob\tthe second"),
)


PATIENT = f"""
import llm.__main__, llm.cache.link, llm.cache.redis
llm.cache.link._PATIENCE = llm.cache.link._OPENING = llm.cache.redis._CONNECT = {PATIENCE}
llm.__main__.main()
"""
"""The program in a process of its own, where Redis has as long as in this one."""


def key(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


@dataclass
class Bench:
    """A folder with a configuration, and the program run in it."""

    folder: Path
    capture: pytest.CaptureFixture[str]
    patch: pytest.MonkeyPatch

    def configure(self, cache: str) -> None:
        (self.folder / "llm.yaml").write_text(f"{SECTION}{cache}\n", encoding="utf-8")

    def __call__(self, *words: str) -> Ended:
        """Run the program in this process, which is quicker by far."""
        self.patch.setattr(sys, "argv", ["manifold", "cache", *words])
        try:
            status = run()
        except SystemExit as ended:
            status = int(ended.code or 0)
        out, err = self.capture.readouterr()
        assert PASSWORD not in out + err
        return Ended(status, out, err)

    def fill(self) -> None:
        asyncio.run(self.put())

    async def put(self) -> None:
        cache = load_config(self.folder / "llm.yaml").cache
        assert cache is not None
        store = open_store(cache, SystemClock())
        for number, (text, provider, model, user) in enumerate(ENTRIES):
            response = LLMResponse("id", text, model, provider, TokenUsage(3, 5), "stop")
            tags = [f"provider:{provider}", f"model:{model}", *([f"user:{user}"] if user else []), f"n:{number}"]
            await store.put(key(number), Answer.of(response).encode(), ttl=3600 + number, tags=tags)
        await store.put(key(9), b"damaged", ttl=60)
        await store.close()


@pytest.fixture
def quiet_logs() -> Iterator[None]:
    """The program adds a handler for its stderr, which is another one in each test."""
    ours = [logging.getLogger(name) for name in ("llm", "llm.calls", "llm.keys")]
    before = [(logger, logger.handlers[:], logger.level) for logger in ours]
    yield
    for logger, handlers, level in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)


@pytest.fixture
def bench(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, quiet_logs: None
) -> Bench:
    del quiet_logs
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLM_CONFIG", raising=False)
    bench = Bench(tmp_path, capsys, monkeypatch)
    bench.configure("cache: {backend: disk, path: store}")
    return bench


@pytest.fixture(scope="module")
def server(redis_server: Callable[..., AbstractContextManager[RedisServer]]) -> Iterator[RedisServer]:
    with redis_server("valkey") as server:
        server.command("ACL", "SETUSER", "ops", "on", f">{PASSWORD}", "~*", "&*", "+@all")
        yield server


@pytest.fixture
def redis_url(server: RedisServer) -> str:
    server.command("FLUSHALL")
    return server.url.replace("redis://", f"redis://ops:{PASSWORD}@")


@pytest.fixture(params=["disk", "redis"])
def kept(request: pytest.FixtureRequest, bench: Bench) -> Bench:
    """Both stores, with three answers and something that is none."""
    if request.param == "redis":
        bench.configure(f"cache: {{backend: redis, url: '{request.getfixturevalue('redis_url')}'}}")
    bench.fill()
    return bench


def test_stats_tell_where_how_many_and_how_large(kept: Bench) -> None:
    told = kept("stats", "--json").json
    assert (told["entries"], told["max_entries"], told["max_bytes"]) == (4, 10_000, 268_435_456)
    assert told["bytes"] > 0
    row = kept("stats").out.strip().split("\t")
    assert row[:3] == [told["backend"], told["place"], "4 of 10,000"]


def test_list_tells_facts_and_never_content(kept: Bench) -> None:
    done = kept("list")
    rows = {row.split("\t")[0]: row.split("\t")[1:] for row in done.out.splitlines()}
    assert rows[key(0)][:3] == ["openai", "gpt-4o-mini", ""]
    assert rows[key(1)][2] == "alice"
    assert rows[key(2)][2] == "bob the second"  # a line each, whatever a name holds
    assert rows[key(9)][:3] == ["", "", ""]
    assert [rows[key(0)][3][-1], rows[key(0)][4]] == ["s", "59m" if rows[key(0)][4] == "59m" else "1h"]
    assert "sky" not in done.out
    facts = {row["key"]: row for row in kept("list", "--json").json}
    assert facts[key(1)]["tags"] == ["n:1"]
    assert "content" not in facts[key(1)]


def test_list_shows_how_answers_begin_where_that_is_asked_for(kept: Bench) -> None:
    done = kept("list", "--content")
    rows = {row.split("\t")[0]: row.split("\t")[-1] for row in done.out.splitlines()}
    assert rows[key(0)] == "The sky is blue since light scatters."
    assert rows[key(1)].endswith("…")
    assert rows[key(9)] == "(damaged)"
    whole = {row["key"]: row["content"] for row in kept("list", "--content", "--json", "--limit", "0").json}
    assert whole == {key(n): entry[0] for n, entry in enumerate(ENTRIES)} | {key(9): None}


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--provider", "openai"], {0, 1}),
        (["--model", "gpt-4o"], {1}),
        (["--user", "alice"], {1}),
        (["--tag", "n:1", "--tag", "model:gpt-4o"], {1}),
        (["--older-than", "1h30m"], set[int]()),
        (["--older-than", "0"], {0, 1, 2, 9}),
    ],
    ids=str,
)
def test_list_and_a_dry_run_find_what_fits_every_option(kept: Bench, options: list[str], found: set[int]) -> None:
    assert {row["key"] for row in kept("list", "--json", *options).json} == {key(number) for number in found}
    if options[1] != "0":
        assert kept("invalidate", "--dry-run", "--json", *options).json == {"would_be_removed": len(found)}
    assert kept("stats", "--json").json["entries"] == 4


def test_a_limit_keeps_the_newest_and_tells_of_the_others(bench: Bench) -> None:
    bench.fill()
    newest, done = [row["key"] for row in bench("list", "--json").json], bench("list", "-n", "2")
    assert [row.split("\t")[0] for row in done.out.splitlines()] == newest[:2]
    assert "the newest 2 of 4" in done.err
    assert bench("list", "-n", "2", "--quiet").err == ""


def test_get_shows_an_answer_by_the_beginning_of_its_key(kept: Bench) -> None:
    assert kept("get", key(0)[:8].upper()).out == ENTRIES[0][0] + "\n"
    whole = kept("get", key(1), "--json").json
    assert (whole["key"], whole["user"], whole["answer"]["content"]) == (key(1), "alice", ENTRIES[1][0])
    assert whole["answer"]["usage"]["output_tokens"] == 5


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["get", "0" * 64], 1, "no answer is kept"),
        (["get", "0000"], 1, "no answer is kept"),
        (["get", key(9)], 1, "damaged"),
        (["get", "nonsense"], 2, "no key"),
        (["invalidate", "0" * 64], 1, "no answer is kept"),
        (["invalidate"], 2, "nothing says which"),
        (["invalidate", "--older-than", "0s"], 2, "nothing says which"),
        (["invalidate", key(0), "--model", "m"], 2, "leave out"),
        (["invalidate", "--older-than", "soon"], 2, "'soon' is no age"),
        (["list", "--older-than", "-1h"], 2, "no age"),
        (["list", "--limit", "-1"], 2, "--limit"),
        (["list", "--model", ""], 2, "model is ''"),
        (["clear"], 2, "--yes"),
        (["export", "."], 2, "no plain file"),
        (["export", "nowhere/out.jsonl"], 2, "cannot be written"),
    ],
    ids=str,
)
def test_odd_input_is_refused_and_removes_nothing(bench: Bench, words: list[str], status: int, told: str) -> None:
    bench.fill()
    done = bench(*words)
    assert (done.status, done.out) == (status, "")
    assert told in done.err
    assert bench("stats", "--json").json["entries"] == 4


def test_a_beginning_of_several_keys_names_them(bench: Bench) -> None:
    cache = load_config(bench.folder / "llm.yaml").cache
    assert cache is not None

    async def fill() -> None:
        store = open_store(cache, SystemClock())
        for end in "abcdef":
            await store.put("1" * 63 + end, b"x", ttl=60)
        await store.close()

    asyncio.run(fill())
    done = bench("get", "1111")
    assert done.status == 2
    assert done.err.count("1" * 16) == 4


def test_an_answer_without_text_is_told_to_be_one(bench: Bench) -> None:
    cache = load_config(bench.folder / "llm.yaml").cache
    assert cache is not None

    async def fill() -> None:
        store = open_store(cache, SystemClock())
        response = LLMResponse("id", "", "m", "openai", embeddings=((0.5, 1.5),))
        await store.put(key(0), Answer.of(response).encode(), ttl=60)
        await store.close()

    asyncio.run(fill())
    assert "--json" in bench("get", key(0)).err
    assert bench("get", key(0), "--json").json["answer"]["embeddings"] == [[0.5, 1.5]]


def test_invalidate_removes_one_or_what_fits(kept: Bench) -> None:
    assert kept("invalidate", key(0)[:10], "--dry-run").out == "1 answer would be removed\n"
    assert kept("invalidate", key(0)[:10]).out == "1 answer removed\n"
    assert kept("invalidate", "--provider", "openai", "--json").json == {"removed": 1}
    assert {row["key"] for row in kept("list", "--json").json} == {key(2), key(9)}


def test_clear_removes_all_when_it_may(kept: Bench) -> None:
    assert kept("clear", "--yes").out == "4 answers removed\n"
    assert kept("clear", "--yes", "--json").json == {"removed": 0}
    done = kept("list")
    assert (done.status, done.out) == (0, "")
    assert "no such answers" in done.err
    assert kept("list", "--json").json == []


def test_export_writes_a_line_each_for_the_owner_alone(kept: Bench) -> None:
    out = kept.folder / "out.jsonl"
    out.write_text("before", encoding="utf-8")
    assert "4 answers" in kept("export", "out.jsonl").err
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert {line["key"]: line["answer"] and line["answer"]["content"] for line in lines} == {
        key(n): entry[0] for n, entry in enumerate(ENTRIES)
    } | {key(9): None}
    assert out.stat().st_mode & 0o777 == 0o600
    assert kept("export", "out.jsonl", "--json", "--model", "gpt-4o").json == {"file": "out.jsonl", "exported": 1}
    assert json.loads(kept("export", "-", "--user", "alice").out)["key"] == key(1)
    assert [path.name for path in kept.folder.iterdir() if path.name.startswith(".")] == []


def test_questions_of_the_semantic_cache_are_no_answers_and_leave_with_them(kept: Bench) -> None:
    asyncio.run(put_question(kept))
    assert kept("list", "--content", "--user", "carol").out == ""
    assert kept("export", "-", "--user", "carol").out == ""
    assert len(kept("list").out.splitlines()) == 4
    assert kept("invalidate", "--user", "carol", "--dry-run", "--json").json == {"would_be_removed": 1}
    assert kept("invalidate", "--user", "carol", "--json").json == {"removed": 1}


async def put_question(bench: Bench) -> None:
    cache = load_config(bench.folder / "llm.yaml").cache
    assert cache is not None
    store = open_store(cache, SystemClock())
    await store.put(f"semantic:{key(1)}:{key(0)}", b"something private", ttl=60, tags=["user:carol"])
    await store.close()


def test_an_export_that_fails_leaves_what_was_there(bench: Bench, redis_url: str, server: RedisServer) -> None:
    bench.configure(f"cache: {{backend: redis, url: '{redis_url}'}}")
    (bench.folder / "out.jsonl").write_text("before", encoding="utf-8")
    server.kill()
    try:
        done = bench("export", "out.jsonl")
    finally:
        server.start()
        server.command("ACL", "SETUSER", "ops", "on", f">{PASSWORD}", "~*", "&*", "+@all")
    assert done.status == 3
    assert f"redis://127.0.0.1:{server.port}/0" in done.err
    assert [path.name for path in bench.folder.iterdir()] == ["llm.yaml", "out.jsonl"] or sorted(
        path.name for path in bench.folder.iterdir()
    ) == ["llm.yaml", "out.jsonl"]
    assert (bench.folder / "out.jsonl").read_text(encoding="utf-8") == "before"


@pytest.mark.parametrize(
    ("cache", "told"),
    [
        ("", "nothing is cached"),
        ("cache: {backend: none}", "nothing is cached"),
        ("cache: {}", "each process keeps its own"),
        ("cache: {backend: redis}", "cache.url"),
        ("cache: {backend: disk, path: llm.yaml}", "is a file"),
    ],
    ids=str,
)
def test_where_there_is_nothing_to_see_it_says_what_to_configure(bench: Bench, cache: str, told: str) -> None:
    bench.configure(cache)
    done = bench("stats")
    assert (done.status, done.out) == (2, "")
    assert told in done.err


def test_looking_at_a_store_that_is_not_there_makes_none(bench: Bench) -> None:
    done = bench("stats", "--json")
    assert done.json["entries"] == 0
    assert "another folder" in done.err
    assert not (bench.folder / "store").exists()
    bench.configure(f"cache: {{backend: disk, path: {bench.folder / 'store'}}}")
    assert "another folder" not in bench("stats", "--json").err


@pytest.fixture
async def up() -> AsyncIterator[MockUpstream]:
    async with MockUpstream() as up:
        yield up


@pytest.mark.parametrize("store", ["disk", "redis"])
async def test_what_the_program_removes_a_running_manager_asks_for_again(
    root: Path, tmp_path: Path, up: MockUpstream, redis_url: str, store: str
) -> None:
    cache = "backend: disk, path: store" if store == "disk" else f"backend: redis, url: '{redis_url}'"
    section = f"{{base_url: '{up.base_url}', api_keys: [sk-planted-key], models: [gpt-4o-mini]}}"
    path = tmp_path / "llm.yaml"
    await asyncio.to_thread(
        path.write_text, f"providers: {{openai: {section}}}\ncache: {{{cache}}}\n", encoding="utf-8"
    )
    config = await asyncio.to_thread(path.read_text, encoding="utf-8")
    (tmp_path / "here.yaml").write_text(config.replace("path: store", f"path: {tmp_path}/store"), encoding="utf-8")
    async with LLMManager.open(tmp_path / "here.yaml") as manager:
        client = manager.get_client()
        for _ in range(3):
            await client.chat("hello")
        while manager.get_status()["cache"]["stored"] == 0:
            await SystemClock().sleep(0.002)
        assert len(up.requests) == 1
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PATIENT, "cache", "invalidate", "--model", "gpt-4o-mini"),
            cwd=tmp_path,
            env=environment(root, tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = await program.communicate()
        assert (program.returncode, out) == (0, b"1 answer removed\n"), err
        assert not (await client.chat("hello")).cached
        assert len(up.requests) == 2


def environment(root: Path, folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "COVERAGE"))}
    return kept | {"PYTHONPATH": str(root / "src"), "PYTHONUTF8": "1", "HOME": str(folder)}


async def test_ctrl_c_during_an_export_is_130_and_leaves_no_file(root: Path, bench: Bench) -> None:
    held = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as silent:
        host, port = silent.sockets[0].getsockname()
        bench.configure(f"cache: {{backend: redis, url: 'redis://{host}:{port}/0'}}")
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PATIENT, "cache", "export", "out.jsonl"),
            cwd=bench.folder,
            env=environment(root, bench.folder),
            stderr=subprocess.PIPE,
        )
        await held.wait()
        program.send_signal(signal.SIGINT)
        _, err = await program.communicate()
    assert program.returncode == 130, err
    assert b"Traceback" not in err
    assert [path.name for path in bench.folder.iterdir()] == ["llm.yaml"]
