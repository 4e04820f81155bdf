"""`manifold batch` and what it leaves for `manifold stats`, run in this process."""

from __future__ import annotations

import gzip
import json
from inspect import signature
from typing import TYPE_CHECKING, Any

import pytest

from llm.batch.run import CONCURRENCY
from llm.cli.batch import batch
from llm.testing import Fault, MockUpstream

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    Served = Callable[..., AbstractContextManager[MockUpstream]]
    Program = Callable[..., Any]

BATCH = ("batch", "in.jsonl", "-o", "out.jsonl")


def test_a_run_a_rerun_and_their_stats(
    manifold: Program, configure: Callable[..., None], served: Served, tmp_path: Path
) -> None:
    with served() as up:
        configure(up.base_url, "cache: {backend: disk, path: store}\n")
        foretold = manifold(*BATCH, "--dry-run", "-m", "gpt-4o")
        first = manifold(*BATCH, "-m", "gpt-4o")
        again = manifold(*BATCH, "--json")
        nothing = manifold(*BATCH, "--dry-run")
        anew = manifold(*BATCH, "--restart", "--ordered", "-m", "gpt-4o")
        assert len(up.requests) == 10
    assert foretold.out.startswith("gpt-4o\t10\t")
    assert first.status == again.status == anew.status == 0
    assert "rows: 10 answered\n" in first.err
    assert again.err.startswith("10 of 10 rows done already\n")
    assert (again.json["skipped"], again.json["complete"]) == (10, True)
    assert nothing.err.startswith("Done already: 10 rows.\nThere is nothing left to do.\n")
    assert "; 10 from the cache; " in anew.err
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["custom_id"] for line in lines] == [f"r{number}" for number in range(10)]
    told = manifold("stats", "--by", "command", "--json").json
    assert [(row["command"], row["calls"], row["cache_hits"]) for row in told["rows"]] == [("batch", 20, 10)]


def test_rows_that_fail_a_table_and_what_the_dry_run_says_of_them(
    manifold: Program, configure: Callable[..., None], served: Served, tmp_path: Path
) -> None:
    with served(faults=[Fault("invalid", at=1), Fault("server_error", at=2)]) as up:
        configure(up.base_url, "cache: {backend: memory}\n")
        (tmp_path / "in.csv.gz").write_bytes(gzip.compress(b"id,text\n1,snow\n2,rain\n3,\n4,snow\n"))
        words = ("batch", "in.csv.gz", "-o", "out.jsonl", "--prompt", "{text}", "--id", "id")
        foretold = manifold(*words, "--dry-run")
        done = manifold(*words, "--concurrency", "1")
        again = manifold(*words, "--dry-run", "--json")
    assert "1 row cannot be sent: empty_cell 1.\n" in foretold.err
    assert "The cache answers 1 row and saves " in foretold.err
    assert done.status == 1
    assert "rows: 1 answered, 3 failed (2 of them wrong requests)\n" in done.err
    assert "; 3 rows without one in out.errors.jsonl\n" in done.err
    assert (again.json["rows"], again.json["invalid_rows"]) == (2, 1)


def test_a_provider_that_gives_up_and_a_file_that_is_not_there(
    manifold: Program, configure: Callable[..., None], served: Served
) -> None:
    with served(faults=[Fault("quota", at=n) for n in range(4, 9)]) as up:
        configure(up.base_url)
        refused = manifold(*BATCH, "--concurrency", "1", "--quiet")
    assert refused.status == 3
    assert refused.err.startswith("error: ")
    assert refused.err.endswith("; everything finished is kept, run the same command again to go on\n")
    nowhere = manifold("batch", "nowhere.jsonl", "-o", "out.jsonl")
    assert (nowhere.status, nowhere.err.startswith("error: there is no file 'nowhere.jsonl'")) == (2, True)


def test_as_many_calls_go_at_once_as_in_a_program() -> None:
    assert signature(batch).parameters["concurrency"].default == CONCURRENCY


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("in.jsonl", "nothing says where the answers go"),
        ("in.jsonl -o -", "answers go to a file"),
        ("- -o out.jsonl --ordered", "--ordered reads IN again"),
        ("in.csv -o out.jsonl", "in.csv is a table; say what to ask"),
        ("in.jsonl -o out.jsonl --id a --system b", "--system and --id: only for tables"),
        ("- -o out.jsonl --prompt a", "--prompt: only for tables, and stdin is none"),
    ],
)
def test_options_that_do_not_go_together_are_refused(manifold: Program, words: str, said: str) -> None:
    refused = manifold("batch", *words.split())
    assert (refused.status, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert said in refused.err
