"""Finished files in the order of their input. Files, processes and signals are real."""

# ruff: noqa: ASYNC240 - files are what is tested here, and no other task waits meanwhile

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import threading
import tracemalloc
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llm.batch.claim import claim
from llm.batch.journal import errors_beside
from llm.batch.ordering import sort_output
from llm.batch.values import CHAT, BadRow, Row
from llm.core.exceptions import LLMConfigurationError
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence

ROOT = Path(__file__).parents[3]


def answer(name: str, text: str = "yes") -> bytes:
    return b'{"id":"1","custom_id":%b,"response":{"body":"%b"},"error":null}\n' % (
        json.dumps(name, ensure_ascii=False).encode(),
        text.encode(),
    )


def failure(name: str) -> bytes:
    return b'{"id":"1","custom_id":"%b","response":null,"error":{"code":"x","message":"no"}}\n' % name.encode()


def bad(line: int, name: str = "") -> bytes:
    custom_id = json.dumps(name or None).encode()
    return b'{"id":"1","custom_id":%b,"response":null,"error":{"code":"x","line":%d}}\n' % (custom_id, line)


def row(name: str, order: int = 0) -> Row:
    return Row(order, name, CHAT, {}, order + 1)


def bad_row(line: int) -> BadRow:
    return BadRow(line - 1, line, None, "invalid_json", "no")


async def portions(rows: Iterable[Row | BadRow], size: int = 3) -> AsyncGenerator[Sequence[Row | BadRow]]:
    rest = list(rows)
    for start in range(0, len(rest), size):
        yield rest[start : start + size]


def hash_of(name: str) -> bytes:
    return sha256(name.encode()).digest()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


@pytest.fixture
def errors(out: Path) -> Path:
    return errors_beside(out)


async def test_answers_and_errors_come_in_the_order_of_the_input(out: Path, errors: Path) -> None:
    names = [f"row-{n}" for n in range(300)]
    answered = [name for n, name in enumerate(names) if n % 7]
    shuffled = sorted(answered, key=hash_of)
    out.write_bytes(b"".join(map(answer, shuffled)))
    errors.write_bytes(b"".join(failure(name) for name in reversed(names) if name not in answered))
    out.chmod(0o604)
    await sort_output(out, errors, portions(row(name) for name in names))
    assert out.read_bytes() == b"".join(map(answer, answered))
    assert errors.read_bytes() == b"".join(failure(name) for name in names if name not in answered)
    assert out.stat().st_mode & 0o777 == 0o604
    assert sorted(out.parent.iterdir()) == [errors, out]


async def test_bad_rows_and_second_rows_of_a_name_stand_where_their_lines_do(out: Path, errors: Path) -> None:
    rows: list[Row | BadRow] = [row("a", 0), bad_row(2), row("a", 2), row("b", 3), row("c", 4)]
    out.write_bytes(answer("b") + answer("a"))
    errors.write_bytes(failure("c") + bad(3, "a") + bad(2))
    await sort_output(out, errors, portions(rows))
    assert out.read_bytes() == answer("a") + answer("b")
    assert errors.read_bytes() == bad(2) + bad(3, "a") + failure("c")


async def test_what_the_input_does_not_have_comes_last_and_nothing_is_lost(out: Path) -> None:
    lines = [answer("gone"), b"noise\n", answer("b"), answer("a", "1"), answer("a", "2"), b"noise\n", answer("c")[:-1]]
    out.write_bytes(b"".join(lines))
    await sort_output(out, None, portions([row("a"), row("b"), row("x")]))
    assert out.read_bytes().splitlines(keepends=True) == [
        answer("a", "1"), answer("b"), answer("gone"), b"noise\n", answer("a", "2"), b"noise\n", answer("c"),
    ]  # fmt: skip


async def test_a_last_line_without_its_newline_is_a_line(out: Path) -> None:
    out.write_bytes(answer("a") + answer("b")[:-1])
    await sort_output(out, None, portions([row("a")]))
    assert out.read_bytes() == answer("a") + answer("b")


@pytest.mark.parametrize("name", ['quo"te', "back\\slash", "ünï", "\u2028", "", '","response":{'])
async def test_every_name_is_found(out: Path, name: str) -> None:
    out.write_bytes(answer("z") + answer(name) + b'{"response": {}, "custom_id": "other form"}\n')
    await sort_output(out, None, portions([row("other form"), row(name), row("z")]))
    assert out.read_bytes() == b'{"response": {}, "custom_id": "other form"}\n' + answer(name) + answer("z")


async def test_files_that_are_not_there_or_empty_stay_so(out: Path, errors: Path) -> None:
    await sort_output(out, errors, portions([row("a")]))
    assert list(out.parent.iterdir()) == []
    out.touch()
    await sort_output(out, errors, portions([row("a")]))
    assert (list(out.parent.iterdir()), out.read_bytes()) == ([out], b"")


async def test_a_file_that_another_run_writes_is_refused(out: Path, errors: Path) -> None:
    out.write_bytes(answer("b") + answer("a"))
    errors.write_bytes(failure("d") + failure("c"))
    claimed = await asyncio.to_thread(claim, errors)
    with pytest.raises(LLMConfigurationError, match="another run writes"):
        await sort_output(out, errors, portions([row("a")]))
    claimed.close()
    (await asyncio.to_thread(claim, out)).close()  # given back
    assert out.read_bytes() == answer("b") + answer("a")


@pytest.mark.parametrize("size", [100, 50_000])  # one fails at the end, the other on the way
async def test_a_full_disk_leaves_the_file_as_it_was(out: Path, size: int) -> None:
    before = b"".join(answer(f"{n}", "x" * size) for n in range(50))
    out.write_bytes(before)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
        with pytest.raises(OSError, match=r"out\.jsonl: File too large; what it holds stays"):
            await sort_output(out, None, portions(row(f"{n}") for n in reversed(range(50))))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert out.read_bytes() == before
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize("ticks", [0, 1, 5, 20, 100])
async def test_cancelled_at_any_moment_the_file_is_as_it_was_or_sorted(out: Path, ticks: int) -> None:
    before = b"".join(answer(f"{n}", "x" * 100) for n in range(3000))
    out.write_bytes(before)
    rows = [row(f"{n}") for n in reversed(range(3000))]
    sorting = asyncio.create_task(sort_output(out, None, portions(rows, 500)))
    for _ in range(ticks):
        await SystemClock().sleep(0)
    sorting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sorting
    assert out.read_bytes() == before
    assert list(out.parent.iterdir()) == [out]
    (await asyncio.to_thread(claim, out)).close()  # given back


async def test_a_cancellation_does_not_wait_for_the_rest_of_a_portion(out: Path) -> None:
    loop, reached = asyncio.get_running_loop(), list[str]()
    heard = threading.Event()

    class Portion(list[Row]):
        def __iter__(self) -> Iterator[Row]:
            loop.call_soon_threadsafe(sorting.cancel)
            loop.call_soon_threadsafe(loop.call_later, 0.02, heard.set)
            heard.wait(5)
            for one in super().__iter__():
                reached.append(one.custom_id)
                yield one

    async def one_portion() -> AsyncGenerator[Sequence[Row]]:
        yield Portion([row("b"), row("a")])

    out.write_bytes(answer("a") + answer("b"))
    sorting = asyncio.create_task(sort_output(out, None, one_portion()))
    with pytest.raises(asyncio.CancelledError):
        await sorting
    assert reached == ["b"]


async def test_an_input_that_fails_leaves_the_file_as_it_was(out: Path) -> None:
    async def broken() -> AsyncGenerator[Sequence[Row | BadRow]]:
        yield [row("a")]
        raise OSError("the input is gone")

    out.write_bytes(answer("b") + answer("a"))
    with pytest.raises(OSError, match="the input is gone"):
        await sort_output(out, None, broken())
    assert out.read_bytes() == answer("b") + answer("a")
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
async def test_memory_is_a_few_bytes_a_line_however_long_lines_are(out: Path) -> None:
    many = 2000
    with out.open("wb") as file:
        for n in range(many):
            file.write(answer(f"{n}"))
        file.write(answer("long", "x" * 20_000_000))
    tracemalloc.start()
    try:
        rows = [row("long"), *(row(f"{n}") for n in range(many))]
        before = tracemalloc.get_traced_memory()[0]
        await sort_output(out, None, portions(rows, 256))
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert peak < 28 * many + 6_500_000
    assert out.read_bytes().startswith(answer("long", "x" * 20_000_000) + answer("0"))


PROGRAM = """
import asyncio, os, random, signal, sys, time
from llm.batch.ordering import sort_output
from llm.batch.values import CHAT, Row
out, names = sys.argv[1], [f"{n}" for n in range(3000)]
async def portions():
    for start in range(0, 3000, 100):
        yield [Row(0, name, CHAT, {}, 1) for name in names[start:start + 100]]
LINE = b'{"id":"1","custom_id":"%b","response":{"x":"%b"},"error":null}\\n'
def line(name): return LINE % (name.encode(), b"y" * 200)
done = b"".join(map(line, names))
begun = b"".join(map(line, reversed(names)))
dice, seen = random.Random(3), []
for seconds in [*(dice.random() * 0.08 for _ in range(10)), 5]:
    with open(out, "wb") as file:
        file.write(begun)
    child = os.fork()
    if not child:
        asyncio.run(sort_output(out, None, portions()))
        os._exit(0)
    if seconds < 5:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with open(out, "rb") as file:
        seen.append({begun: "begun", done: "done"}.get(file.read(), "broken"))
print(*seen)
"""


def test_killed_at_any_moment_the_file_is_as_it_was_or_sorted(out: Path) -> None:
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-W", "error", "-c", PROGRAM, out],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "src"},
    )
    assert done.stderr == ""
    *seen, last = done.stdout.split()
    assert set(seen) <= {"begun", "done"}
    assert "begun" in seen
    assert last == "done"
    assert list(out.parent.iterdir()) == [out]
