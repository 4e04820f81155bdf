"""`manifold batch` as it is typed: what it answers, what it says where, how it ends, and how it goes on."""

from __future__ import annotations

import gzip
import json
import os
import signal
import threading
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.patience import PATIENCE

from llm.testing import Fault, MockUpstream
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.forking import Ended, Forking

    Served = Callable[..., AbstractContextManager[MockUpstream]]

KEY = "sk-a-long-secret-key"
NOWHERE = "http://127.0.0.1:9/v1"
CLOCK: Final = SystemClock()
PAUSE: Final = threading.Event()
FIELDS = "rows invalid_rows cache_hits input_tokens output_tokens cost seconds models"


def row(name: str, text: str = "Hello there", **body: Any) -> str:  # noqa: ANN401 - JSON
    message = {"role": "user", "content": text}
    fields = {"custom_id": name, "method": "POST", "url": "/v1/chat/completions"}
    return json.dumps({**fields, "body": {"messages": [message], "max_tokens": 16, **body}}) + "\n"


class Bench:
    """A folder with a configuration and an input of ten rows, and the program run in it."""

    def __init__(self, folder: Path, forking: Forking) -> None:
        self.folder = folder
        self.forking = forking

    def configure(self, base_url: str = NOWHERE, more: str = "") -> None:
        section = f"{{base_url: '{base_url}', api_keys: [{KEY}], models: [gpt-4o-mini]}}"
        text = f"providers: {{openai: {section}}}\nretry: {{max_attempts: 1}}\n{more}"
        (self.folder / "llm.yaml").write_text(text, encoding="utf-8")

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")

    def read(self, name: str) -> list[Any]:
        return [json.loads(line) for line in (self.folder / name).read_text(encoding="utf-8").splitlines()]

    def ids(self, name: str) -> list[str]:
        return [line["custom_id"] for line in self.read(name)]

    def __call__(self, *words: str, **options: Any) -> Ended:  # noqa: ANN401 - those of `Forking`
        done = self.forking(self.folder, *words, **options)
        assert KEY not in done.out + done.err
        assert "Traceback" not in done.err
        return done

    def batch(self, *words: str, **options: Any) -> Ended:  # noqa: ANN401 - as above
        return self("batch", "in.jsonl", "-o", "out.jsonl", *words, **options)


@pytest.fixture
def bench(tmp_path: Path, forking: Forking) -> Bench:
    bench = Bench(tmp_path, forking)
    bench.configure()
    bench.write("in.jsonl", "".join(row(f"r{number}", f"Question {number}") for number in range(10)))
    return bench


def test_every_row_is_answered_and_a_second_run_has_nothing_left(bench: Bench, served: Served) -> None:
    with served() as up:
        bench.configure(up.base_url)
        done = bench.batch("-m", "gpt-4o-mini")
        assert (done.status, done.out) == (0, "")
        assert "rows: 10 answered\n" in done.err
        assert "answers in out.jsonl\n" in done.err
        again = bench.batch("--json")
        assert len(up.requests) == 10
    assert sorted(bench.ids("out.jsonl")) == [f"r{number}" for number in range(10)]
    lines = bench.read("out.jsonl")
    texts = {line["custom_id"]: line["response"]["body"]["choices"][0]["message"]["content"] for line in lines}
    assert texts == {f"r{number}": f"Question {number}" for number in range(10)}
    assert again.err.startswith("10 of 10 rows done already\n")
    assert (again.status, again.json["answered"], again.json["skipped"], again.json["unmet"]) == (0, 0, 10, 0)
    assert not (bench.folder / "out.errors.jsonl").exists()


def test_rows_of_an_earlier_run_that_the_input_has_no_more_are_told(bench: Bench, served: Served) -> None:
    with served() as up:
        bench.configure(up.base_url)
        assert bench.batch("-m", "gpt-4o-mini").status == 0
        bench.write("in.jsonl", row("r0") + row("new"))
        done = bench.batch("-m", "gpt-4o-mini")
        again = bench.batch("-m", "gpt-4o-mini", "--json")
    assert "answers in out.jsonl; 9 rows of an earlier run that this input has not\n" in done.err
    assert (again.json["rows"], again.json["unmet"]) == (2, 9)


def test_rows_that_failed_are_in_the_errors_file_and_the_status_is_1(bench: Bench, served: Served) -> None:
    bench.write("in.jsonl", row("good") + "{no json\n" + row("bad", temperature=99) + row("good"))
    with served() as up:
        bench.configure(up.base_url)
        done = bench.batch("--errors", "wrong.jsonl", "--concurrency", "1", "--quiet")
        again = bench.batch("--errors", "wrong.jsonl", "--json")
        told = bench.batch("--errors", "wrong.jsonl", "--restart", "--concurrency", "1")
    assert (done.status, done.out, done.err) == (1, "", "")
    assert bench.ids("out.jsonl") == ["good"]
    assert sorted(str(name) for name in bench.ids("wrong.jsonl")) == ["None", "bad", "good"]
    assert (again.status, again.json["skipped"], again.json["failed"]) == (1, 1, 3)
    assert again.json["errors_file"] == "wrong.jsonl"
    assert "rows: 1 answered, 3 failed (3 of them wrong requests)\n" in told.err
    assert "; 3 rows without one in wrong.jsonl\n" in told.err


def test_an_input_that_lost_rows_is_told_without_a_part_that_is_more_than_the_whole(
    bench: Bench, served: Served
) -> None:
    with served() as up:
        bench.configure(up.base_url)
        bench.batch()
        bench.write("in.jsonl", row("r1"))
        done = bench.batch()
    assert done.err.startswith("10 rows done already\n1 of 1 rows (100 %)")


def test_interrupted_in_a_restart_it_says_to_go_on_without(bench: Bench, served: Served) -> None:
    with served(faults=[Fault("quota", at=n) for n in range(4, 20)]) as up:
        bench.configure(up.base_url)
        done = bench.batch("--concurrency", "1", "--restart")
    assert "; everything finished is kept, run the same command without --restart to go on\n" in done.err


def test_restart_asks_everything_anew_and_keeps_what_was_there(bench: Bench, served: Served) -> None:
    with served() as up:
        bench.configure(up.base_url)
        bench.batch()
        done = bench.batch("--restart", "--ordered", "--concurrency", "3")
        assert len(up.requests) == 20
    assert done.status == 0
    assert bench.ids("out.jsonl") == [f"r{number}" for number in range(10)]
    assert (bench.folder / "out.jsonl.bak").exists()


def test_stdin_and_packed_files_are_read_and_go_on_by_id(bench: Bench, served: Served) -> None:
    text = (bench.folder / "in.jsonl").read_text(encoding="utf-8")
    (bench.folder / "in.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    with served() as up:
        bench.configure(up.base_url)
        first = bench("batch", "-", "-o", "out.jsonl", stdin="".join(text.splitlines(keepends=True)[:4]))
        second = bench("batch", "-", "-o", "out.jsonl", stdin=text)
        third = bench("batch", "in.jsonl.gz", "-o", "out.jsonl")
        assert len(up.requests) == 10
    assert [done.status for done in (first, second, third)] == [0, 0, 0]
    assert second.err.startswith("4 rows done already\n")
    assert third.err.startswith("10 of 10 rows done already\n")


def test_tables_become_requests_by_a_template(bench: Bench, served: Served) -> None:
    bench.write("in.csv", "number,text\n7,snow\n8,rain\n")
    bench.write("in.tsv", "number\ttext\n9\thail\n")
    with served() as up:
        bench.configure(up.base_url)
        words = ("--prompt", "What is {text}?", "--id", "number", "--system", "Be brief.", "--ordered")
        done = bench("batch", "in.csv", "-o", "out.jsonl", *words)
        tabs = bench("batch", "in.tsv", "-o", "tabs.jsonl", *words)
        sent = sorted(str(request.body["messages"]) for request in up.requests)
    assert (done.status, tabs.status) == (0, 0)
    assert (bench.ids("out.jsonl"), bench.ids("tabs.jsonl")) == (["7", "8"], ["9"])
    assert "Be brief." in sent[0]
    assert ["What is hail?" in sent[0], "What is rain?" in sent[1], "What is snow?" in sent[2]] == [True] * 3


def test_a_dry_run_sends_nothing_and_tells_what_is_left(bench: Bench, served: Served) -> None:
    bench.write("half.jsonl", "".join(row(f"r{number}") for number in range(4)))
    with served() as up:
        bench.configure(up.base_url, "cache: {backend: memory}\n")
        bench("batch", "half.jsonl", "-o", "out.jsonl")
        before = len(up.requests)
        told = bench.batch("--dry-run")
        as_json = bench.batch("--dry-run", "--json")
        alone = bench("batch", "in.jsonl", "--dry-run", "--json")
        assert len(up.requests) == before
    assert (told.status, told.err.splitlines()[0]) == (0, "Done already: 4 rows.")
    model, total = told.out.splitlines()
    assert (model.split("\t")[:2], total.split("\t")[:2]) == (["gpt-4o-mini", "6"], ["to send", "6"])
    assert set(as_json.json) == set(FIELDS.split())
    assert 0.02 < as_json.json["seconds"] < 20.0  # no limit bounds it, but the run takes its time to begin
    assert (as_json.json["rows"], alone.json["rows"], alone.json["models"]["gpt-4o-mini"]["rows"]) == (6, 10, 10)
    assert bench.ids("out.jsonl") == [f"r{number}" for number in range(4)]


def test_a_dry_run_tells_invalid_rows_the_cache_and_that_nothing_is_left(bench: Bench, served: Served) -> None:
    bench.write("in.jsonl", row("one") + row("two") + "{no json\n")
    with served() as up:
        bench.configure(up.base_url, "cache: {backend: disk, path: store}\n")
        told = bench.batch("--dry-run")
        assert not (bench.folder / "store").exists()  # nor is anything written
        bench.batch()
        done = bench.batch("--dry-run")
        bench.write("in.jsonl", row("one") + row("two"))
        good = bench.batch("--dry-run")
    assert "1 row cannot be sent: invalid_json 1.\n" in told.err
    assert "The cache answers 1 row and saves " in told.err
    assert done.err.splitlines() == ["Done already: 2 rows.", "1 row cannot be sent: invalid_json 1."]
    assert (good.out, good.err.splitlines()[1]) == ("", "There is nothing left to do.")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_long_before_its_answers_and_the_same_command_goes_on(
    bench: Bench, served: Served, number: signal.Signals, status: int
) -> None:
    ended: list[float] = []
    with served(faults=[Fault("slow", at=n, seconds=60) for n in range(5, 15)]) as up:
        bench.configure(up.base_url)

        def interrupt(process: int) -> None:
            while len(up.requests) < 5:
                PAUSE.wait(0.01)
            os.kill(process, number)
            ended.append(CLOCK.now())

        done = bench.batch("--concurrency", "2", during=interrupt)
        took = CLOCK.now() - ended[0]
        kept = len(bench.ids("out.jsonl"))
    with served() as up:
        bench.configure(up.base_url)
        again = bench.batch()
        assert len(up.requests) == 10 - kept
    assert (done.status, done.out) == (status, "")
    assert "error: interrupted; everything finished is kept, run the same command again to go on\n" in done.err
    assert 3 <= kept <= 4
    assert took < PATIENCE  # and not after the minute of the answers
    assert again.err.startswith(f"{kept} of 10 rows done already\n")
    assert sorted(bench.ids("out.jsonl")) == [f"r{number}" for number in range(10)]


def test_a_provider_that_does_not_serve_is_3_and_the_rest_is_kept(bench: Bench, served: Served) -> None:
    with served(faults=[Fault("quota", at=n) for n in range(4, 20)]) as up:
        bench.configure(up.base_url)
        done = bench.batch("--concurrency", "1", "--json")
    assert done.status == 3
    assert (done.json["complete"], done.json["answered"], done.json["failed"]) == (False, 3, 0)
    assert "; everything finished is kept, run the same command again to go on\n" in done.err
    assert not (bench.folder / "out.errors.jsonl").exists()


def test_what_it_came_to_is_in_the_stats_also_when_it_was_interrupted(bench: Bench, served: Served) -> None:
    with served() as up:
        bench.configure(up.base_url, "cache: {backend: disk, path: store}\n")
        bench.batch()
        bench("chat", "Question 1")
        bench.batch("--restart")
    by_command = bench("stats", "--by", "command", "--by", "model", "--json").json
    rows = {(row["command"], row["model"]): row for row in by_command["rows"]}
    both = rows["batch", "openai/gpt-4o-mini"]
    assert set(rows) == {("batch", "openai/gpt-4o-mini"), ("chat", "openai/gpt-4o-mini")}
    assert (both["calls"], both["cache_hits"], both["failed"]) == (20, 10, 0)
    assert both["cost"] == pytest.approx(both["cost_saved"]) != 0
    assert by_command["total"]["calls"] == 21
    told = bench("stats")
    assert [line.split("\t")[:4] for line in told.out.splitlines()] == [
        ["openai/gpt-4o-mini", "21", "0", "10"],
        ["total", "21", "0", "10"],
    ]
    assert bench("stats", "--clear", "--yes").status == 0
    assert bench("stats", "--json").json["rows"] == []
