"""The output file as the journal: locks, kills, damage, full disks. Files, processes and signals are real."""

# ruff: noqa: ASYNC240 - files are what is tested here, and no other task waits meanwhile

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import tracemalloc
from collections import Counter
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llm.batch.claim import claim
from llm.batch.earlier import Found
from llm.batch.journal import Journal, Standing, errors_beside
from llm.batch.sifting import Verdict, sift
from llm.core.exceptions import LLMConfigurationError
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT = Path(__file__).parents[3]


def answer(name: str, text: str = "yes") -> bytes:
    line = {"id": "1", "custom_id": name, "response": {"status_code": 200, "body": {"text": text}}, "error": None}
    return json.dumps(line).encode() + b"\n"


def failure(name: str, code: str = "bad_request") -> bytes:
    line = {"id": "1", "custom_id": name, "response": None, "error": {"code": code, "message": "no"}}
    return json.dumps(line).encode() + b"\n"


def bad(line: int, name: str | None = None) -> bytes:
    told = {"code": "invalid_json", "message": "no", "line": line}
    return json.dumps({"id": "1", "custom_id": name, "response": None, "error": told}).encode() + b"\n"


def may_pass(line: Mapping[str, Any]) -> bool:
    return bool(line["error"]["code"] == "server_error")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


@pytest.fixture
def errors(out: Path) -> Path:
    return errors_beside(out)


def names(path: Path) -> list[str]:
    return [json.loads(line)["custom_id"] for line in path.read_bytes().splitlines()]


async def found_in(out: Path) -> Found:
    async with Journal(out, may_pass=may_pass) as journal:
        return journal.found


async def refusal(journal: Journal) -> str:
    with pytest.raises(LLMConfigurationError) as caught:
        async with journal:
            pass
    return str(caught.value)


# What a rerun finds


async def test_a_rerun_knows_what_is_finished_and_what_the_input_repeats(out: Path) -> None:
    async with Journal(out, may_pass=may_pass) as journal:
        assert journal.met("a") is Standing.NEW
        assert journal.met("b") is Standing.NEW
        await journal.answer(answer("a"))
        await journal.error(failure("b"))
        assert journal.met("a") is Standing.REPEATED
    async with Journal(out, may_pass=may_pass) as journal:
        assert journal.found == Found(answers=1, errors=1)
        assert journal.unmet == 2
        standings = [journal.met(name) for name in ("a", "b", "c", "a", "c")]
        new, finished, repeated, _ = Standing
        assert standings == [finished, finished, new, repeated, repeated]
        assert journal.unmet == 0


async def test_a_bad_row_leaves_the_errors_file_to_be_met_again_and_its_name_is_free(out: Path, errors: Path) -> None:
    errors.write_bytes(bad(7, "a") + failure("b") + bad(9))
    async with Journal(out, may_pass=may_pass) as journal:
        assert journal.found == Found(errors=1, again=2)
        assert journal.met("a") is Standing.NEW
        assert journal.met("b") is Standing.FINISHED
    assert names(errors) == ["b"]


async def test_failures_that_may_pass_leave_the_errors_file_and_are_asked_again(out: Path, errors: Path) -> None:
    errors.write_bytes(failure("a") + failure("b", "server_error") + failure("c") + failure("d", "server_error"))
    errors.chmod(0o640)
    async with Journal(out, may_pass=may_pass) as journal:
        assert journal.found == Found(errors=2, again=2)
        assert [journal.met(name) for name in "abcd"].count(Standing.NEW) == 2
        await journal.error(failure("b"))
    assert names(errors) == ["a", "c", "b"]
    assert errors.stat().st_mode & 0o777 == 0o640


async def test_a_row_in_both_files_counts_once_and_the_answer_stays(out: Path, errors: Path) -> None:
    out.write_bytes(answer("a"))
    errors.write_bytes(failure("a") + failure("b") + failure("b"))
    assert await found_in(out) == Found(answers=1, errors=1)
    assert (names(out), names(errors)) == (["a"], ["b"])


async def test_a_name_with_half_a_character_is_known_again(out: Path) -> None:
    out.write_bytes(answer("\ud800", "\udfff"))
    async with Journal(out, may_pass=may_pass) as journal:
        assert journal.met("\ud800") is Standing.FINISHED


# Files


async def test_missing_files_are_made_and_an_errors_file_without_errors_goes_again(out: Path, errors: Path) -> None:
    async with Journal(out, may_pass=may_pass):
        assert out.exists()
        assert errors.exists()
    assert out.exists()
    assert not errors.exists()


async def test_an_errors_file_goes_when_all_its_rows_are_asked_again_and_answered(out: Path, errors: Path) -> None:
    errors.write_bytes(failure("a", "server_error"))
    async with Journal(out, may_pass=may_pass) as journal:
        await journal.answer(answer("a"))
    assert not errors.exists()


async def test_an_empty_errors_file_that_was_there_stays(out: Path, errors: Path) -> None:
    errors.touch()
    await found_in(out)
    assert errors.exists()


def test_the_errors_file_stands_beside_the_output() -> None:
    assert errors_beside("a/out.jsonl") == Path("a/out.errors.jsonl")
    assert errors_beside("out") == Path("out.errors.jsonl")


async def test_a_second_run_on_the_same_output_is_refused_by_name(out: Path) -> None:
    async with Journal(out, may_pass=may_pass) as journal:
        said = await refusal(Journal(out, may_pass=may_pass, errors=out.with_name("other")))
        assert said == f"another run writes {out} now; wait for its end, or name another file"
        await journal.answer(answer("a"))
    assert names(out) == ["a"]
    assert (await found_in(out)).answers == 1


async def test_a_second_run_with_the_same_errors_file_is_refused_and_leaves_nothing(out: Path, errors: Path) -> None:
    async with Journal(out, may_pass=may_pass):
        other = out.with_name("other.jsonl")
        assert f"another run writes {errors}" in await refusal(Journal(other, may_pass=may_pass, errors=errors))
        assert not other.exists()


async def test_the_lock_holds_after_the_file_was_replaced(out: Path, errors: Path) -> None:
    errors.write_bytes(failure("a", "server_error") + failure("b"))
    async with Journal(out, may_pass=may_pass):
        assert names(errors) == ["b"]
        other = out.with_name("other.jsonl")
        assert "another run" in await refusal(Journal(other, may_pass=may_pass, errors=errors))


@pytest.mark.parametrize("twin", ["same", "link", "hard link", "other name"])
async def test_output_errors_and_input_must_be_three_files(tmp_path: Path, twin: str) -> None:
    one = tmp_path / "rows.jsonl"
    one.write_bytes(b'{"custom_id": "a"}\n')
    two = tmp_path / "two.jsonl"
    match twin:
        case "link":
            two.symlink_to(one)
        case "hard link":
            two.hardlink_to(one)
        case "other name":
            two = tmp_path / ".." / tmp_path.name / "rows.jsonl"
        case _:
            two = one
    third = tmp_path / "third.jsonl"
    said = await refusal(Journal(two, may_pass=may_pass, source=one))
    assert said == f"{two} is the output and the input; name a file for each"
    said = await refusal(Journal(third, may_pass=may_pass, errors=two, source=one))
    assert said == f"{two} is the errors file and the input; name a file for each"
    said = await refusal(Journal(two, may_pass=may_pass, errors=one))
    assert said == f"{two} is the output and the errors file; name a file for each"
    assert one.read_bytes() == b'{"custom_id": "a"}\n'
    assert not third.exists()


async def test_an_output_that_is_its_errors_file_is_refused_before_it_is_there(out: Path) -> None:
    assert "output and the errors file" in await refusal(Journal(out, may_pass=may_pass, errors=out))
    assert not out.exists()


async def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, Path(os.devnull), Path("-")):
        said = await refusal(Journal(path, may_pass=may_pass))
        assert said == f"{path} is no plain file; a rerun reads back what was written, so name a file that stays"


def test_a_pipe_behind_the_standard_output_is_refused(fresh_python: Callable[[str], str]) -> None:
    code = """
from llm.batch.claim import claim
try: claim("/dev/stdout")
except Exception as error: print(type(error).__name__, error)
"""
    assert fresh_python(code).startswith("LLMConfigurationError /dev/stdout is no plain file")


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "no" / "out.jsonl"
    said = await refusal(Journal(path, may_pass=may_pass))
    assert said == f"{path} cannot be made, for its folder is not there; make the folder, or name another file"


async def test_a_name_that_cannot_be_is_told_with_the_systems_reason(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 300)
    assert await refusal(Journal(path, may_pass=may_pass)) == (
        f"{path} cannot be written: {os.strerror(errno.ENAMETOOLONG)}; name another file, or change that"
    )


def test_a_file_system_without_locks_is_told(out: Path, caplog: pytest.LogCaptureFixture) -> None:
    def lock(*_: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    claim(out, lock=lock).close()
    assert caplog.messages == [f"{out} is on a file system without locks: see that no other run writes it meanwhile"]


def test_any_other_failure_of_a_lock_refuses_the_file(out: Path) -> None:
    def lock(*_: int) -> None:
        raise OSError(errno.EIO, "broken")

    with pytest.raises(LLMConfigurationError, match="broken"):
        claim(out, lock=lock)


@pytest.mark.parametrize("what", ["replaced", "removed"])
def test_a_file_that_is_replaced_before_it_is_locked_is_opened_again(out: Path, what: str) -> None:
    out.write_bytes(b"old\n")
    tries = count()

    def lock(descriptor: int, how: int) -> None:
        if next(tries) == 0:
            out.unlink()
            if what == "replaced":
                out.write_bytes(b"new\n")
        fcntl.flock(descriptor, how)

    claimed = claim(out, lock=lock)
    assert claimed.identity() == (out.stat().st_dev, out.stat().st_ino)
    claimed.close()
    assert next(tries) == 2


async def test_through_a_link_the_file_is_written_and_the_link_stays(tmp_path: Path) -> None:
    real, link = tmp_path / "real.jsonl", tmp_path / "link.jsonl"
    real.write_bytes(answer("a") + b"noise\n" + answer("b"))
    link.symlink_to(real)
    await found_in(link)
    assert link.is_symlink()
    assert names(real) == ["a", "b"]


async def test_a_restart_keeps_what_was_there_under_names_of_its_own(out: Path, errors: Path) -> None:
    for n in range(3):
        async with Journal(out, may_pass=may_pass, restart=True) as journal:
            assert journal.found == Found()
            assert journal.met("a") is Standing.NEW
            await journal.answer(answer("a", str(n)))
            await journal.error(failure("b", str(n)))
            assert "another run" in await refusal(Journal(out, may_pass=may_pass))
    for path in (out, errors):
        held = [path, path.with_name(f"{path.name}.bak"), path.with_name(f"{path.name}.bak2")]
        assert [sorted(map(str.isdigit, one.read_text())) != [] for one in held] == [True] * 3
        assert len({one.read_bytes() for one in held}) == 3


# Damage


async def test_a_last_line_that_was_cut_short_goes(out: Path, errors: Path) -> None:
    out.write_bytes(answer("a") + answer("b")[:-20])
    errors.write_bytes(failure("c")[:9])
    async with Journal(out, may_pass=may_pass) as journal:
        assert journal.found == Found(answers=1, torn=2)
        assert journal.met("b") is Standing.NEW
        await journal.answer(answer("b"))
    assert names(out) == ["a", "b"]


@pytest.mark.parametrize("own", [b'{"my": "settings"}', b'{"id": 5, "name": "mine"}', b"{my: 'settings'}", b"{"])
async def test_a_file_of_somebodys_own_without_a_last_newline_is_not_taken_for_a_line_cut_short(
    out: Path, own: bytes
) -> None:
    out.write_bytes(own)
    if own == b"{":  # so much of it may be ours
        assert await found_in(out) == Found(torn=1)
    else:
        assert "holds 1 lines, none of which is a result" in await refusal(Journal(out, may_pass=may_pass))
        assert out.read_bytes() == own


async def test_a_whole_last_line_gets_its_newline(out: Path) -> None:
    out.write_bytes(answer("a") + answer("b")[:-1])
    async with Journal(out, may_pass=may_pass) as journal:
        assert journal.found == Found(answers=2)
        await journal.answer(answer("c"))
    assert names(out) == ["a", "b", "c"]


@pytest.mark.parametrize("last", [b"", b"\n"])
async def test_lines_that_are_no_results_are_moved_aside_and_told(
    out: Path, last: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    aside = out.with_name("out.jsonl.damaged")
    out.write_bytes(answer("a") + b"noise\n[1]\n" + answer("b") + b'{"custom_id": "c"}\n' + answer("d") + b"end" + last)
    assert await found_in(out) == Found(answers=3, damaged=4, aside=(str(aside),))
    assert names(out) == ["a", "b", "d"]
    assert aside.read_bytes() == b'noise\n[1]\n{"custom_id": "c"}\nend\n'
    assert caplog.record_tuples == [("llm.batch", logging.WARNING, f"4 damaged lines were moved to {aside}")]
    out.write_bytes(answer("a") + b"more\n")
    await found_in(out)
    assert aside.read_bytes().endswith(b"end\nmore\n")
    assert names(out) == ["a"]


async def test_zeros_that_a_loss_of_power_left_go_and_are_told(out: Path) -> None:
    out.write_bytes(answer("a") + bytes(4096) + b"\n" + answer("b")[:-1] + b"\n\n" + bytes(100_000))
    assert await found_in(out) == Found(answers=2, damaged=2)
    assert names(out) == ["a", "b"]
    assert list(out.parent.iterdir()) == [out]


async def test_zeros_alone_leave_an_empty_file(out: Path) -> None:
    out.write_bytes(bytes(4096))
    assert await found_in(out) == Found(damaged=1)
    assert out.read_bytes() == b""


async def test_somebody_elses_file_is_refused_and_untouched(out: Path, errors: Path) -> None:
    notes = b'{"custom_id": "a", "method": "POST", "url": "/v1", "body": {}}\nnotes\n'
    out.write_bytes(notes)
    said = await refusal(Journal(out, may_pass=may_pass))
    assert said == f"{out} holds 2 lines, none of which is a result of a batch; name another file"
    assert out.read_bytes() == notes
    out.unlink()
    errors.write_bytes(notes)
    assert str(errors) in await refusal(Journal(out, may_pass=may_pass))
    assert errors.read_bytes() == notes
    assert list(out.parent.iterdir()) == [errors]


def test_a_line_that_is_too_long_is_moved_in_pieces_none_of_which_is_a_result(out: Path) -> None:
    seen: list[bytes] = []

    def judge(line: bytes) -> Verdict:
        seen.append(line)
        return Verdict.KEEP if line.startswith(b"{") and line.endswith(b"}\n") else Verdict.FOREIGN

    out.write_bytes(b"{1}\n" + b"{" + b"x" * 19 + b"{2}\n" + b"{3}\n" + b"{" + b"y" * 30)
    claimed = claim(out)
    found = sift(claimed, judge, lambda: False, most=10)
    claimed.close()
    assert (found.kept, found.torn) == (2, False)
    assert out.read_bytes() == b"{1}\n{3}\n"
    assert Path(f"{out}.damaged").read_bytes() == b"{" + b"x" * 19 + b"{2}\n{" + b"y" * 30 + b"\n"
    assert max(map(len, seen)) == 10


async def test_a_file_that_cannot_be_put_right_stays_as_it_was(out: Path, errors: Path) -> None:
    before = b"".join(failure(f"{n}", "server_error" if n == 1 else "bad") for n in range(100))
    errors.write_bytes(before)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
        with pytest.raises(OSError, match=r"out\.errors\.jsonl: File too large; what it holds stays"):
            await found_in(out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert errors.read_bytes() == before
    assert list(out.parent.iterdir()) == [errors]
    assert await found_in(out) == Found(errors=99, again=1)


async def test_what_a_killed_run_was_making_goes(out: Path) -> None:
    left = out.with_name("out.jsonl.manifold-new")
    left.write_bytes(answer("a"))
    await found_in(out)
    assert not left.exists()


# Threads, cancellation and memory


async def test_opening_does_not_block_the_loop_and_can_be_cancelled(out: Path, errors: Path) -> None:
    out.write_bytes(b"".join(answer(f"{n}") for n in range(5000)))
    journal = Journal(out, may_pass=may_pass)
    opening = asyncio.create_task(journal.__aenter__())
    for _ in range(20):
        await SystemClock().sleep(0)
    assert not opening.done()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert not errors.exists()
    assert journal.found == Found()  # reading was given up
    assert (await found_in(out)).answers == 5000  # the lock is given back


async def test_leaving_writes_what_waits_also_when_it_is_cancelled(out: Path) -> None:
    journal = Journal(out, may_pass=may_pass)

    waiting = asyncio.Event()

    async def run() -> None:
        async with journal, asyncio.TaskGroup() as group:
            for n in range(500):
                group.create_task(journal.answer(answer(f"{n}")))
            await SystemClock().sleep(0)
            waiting.set()
            await asyncio.Event().wait()

    running = asyncio.create_task(run())
    await waiting.wait()
    while not running.done():
        running.cancel()
        await SystemClock().sleep(0)
    assert running.cancelled()
    assert sorted(names(out)) == sorted(f"{n}" for n in range(500))
    assert "llm-batch-journal" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("minded", [True, False])
async def test_a_full_disk_is_told_to_the_caller_or_at_the_end_and_costs_no_line_before(
    out: Path, minded: bool
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    async def run() -> None:
        async with Journal(out, may_pass=may_pass) as journal:
            await journal.answer(answer("a"))
            resource.setrlimit(resource.RLIMIT_FSIZE, (out.stat().st_size + 10, hard))
            with suppress(*() if minded else (OSError,)):
                await journal.answer(answer("b"))

    try:
        with pytest.raises(OSError, match=r"out\.jsonl: File too large; what it holds stays, and a rerun goes on"):
            await run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(out) == ["a"]


def test_reading_back_takes_the_memory_of_one_line(out: Path) -> None:
    with out.open("wb") as file:
        for n in range(60):
            file.write(answer(f"{n}", "x" * 300_000))
        file.write(b"noise\n" * 2000)
        file.write(answer("last"))
    claimed = claim(out)
    tracemalloc.start()
    try:
        sift(claimed, lambda line: Verdict.FOREIGN if line == b"noise\n" else Verdict.KEEP, lambda: False)
        assert tracemalloc.get_traced_memory()[1] < 6_000_000
    finally:
        tracemalloc.stop()
        claimed.close()
    assert len(names(out)) == 61


# Kills

PROGRAM = """
import asyncio, json, os, random, signal, sys, time
from llm.batch.journal import Journal, Standing
def may_pass(line): return line["error"]["code"] == "server_error"
async def main(out, rows):
    async with Journal(out, may_pass=may_pass) as journal:
        rest = iter(range(rows))
        async def worker():
            for n in rest:
                if journal.met(f"{n}") is not Standing.NEW: continue
                told = {"code": "server_error" if n % 3 else "bad"} if n % 10 == 0 else None
                response = None if told else {"text": "x" * (n % 700 * 10)}
                line = {"id": "1", "custom_id": f"{n}", "response": response, "error": told}
                await (journal.error if told else journal.answer)(json.dumps(line).encode() + b"\\n")
        async with asyncio.TaskGroup() as group:
            for _ in range(64): group.create_task(worker())
def run(out, rows, seconds=None):
    child = os.fork()
    if not child:
        asyncio.run(main(out, rows))
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
out, rows, dice = sys.argv[1], int(sys.argv[2]), random.Random(8)
print(*(run(out, rows, dice.random() * 0.06) for _ in range(12)), run(out, rows))
"""


def test_killed_at_any_moment_each_row_is_there_once_and_every_line_is_valid(out: Path, errors: Path) -> None:
    rows = 4000
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-W", "error", "-c", PROGRAM, out, str(rows)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "src"},
    )
    assert done.stderr == ""
    *killed, ended = map(int, done.stdout.split())
    assert ended == 0
    assert killed.count(-signal.SIGKILL) > 1
    assert Counter(names(out) + names(errors)) == Counter(str(n) for n in range(rows))
    assert sorted(out.parent.iterdir()) == [errors, out]
