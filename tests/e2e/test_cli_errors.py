"""Every command, option, exit status and error message of `manifold`, by the real program, a line of a table each."""

from __future__ import annotations

import json
import os
import resource
import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import pytest
from tests.held import HeldTime

from llm.testing import Fault, MockUpstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.forking import Forking

    Served: TypeAlias = Callable[..., AbstractContextManager[MockUpstream]]

KEY = "sk-a-long-secret-key"
ROW = (
    '{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", '
    '"body": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}}\n'
)
HASH = "0" * 64
WAIT: Final = threading.Event()


class Case(NamedTuple):
    """What is typed, how it ends, and what is said: a piece of stdout, and of stderr."""

    words: str
    status: int
    out: str = ""
    err: str = ""
    stdin: str = ""
    variables: dict[str, str] = {}  # noqa: RUF012 - never changed


WORKS = [
    Case("--version", 0, "manifold "),
    Case("-h", 0, "Ask:\n  chat "),
    Case("--show-completion", 0, "_MANIFOLD_COMPLETE", variables={"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": ""}),
    Case("chat Hi", 0, "Hi\n"),
    Case("chat Hi -p openai -m gpt-4o-mini --no-stream -s Brief. --no-history", 0, "Hi\n"),
    Case("chat Hi --json", 0, '"content": "Hi"'),
    Case("chat", 0, "from stdin\n", stdin="from stdin"),
    Case("batch in.jsonl -o new.jsonl", 0, "", "rows: 1 answered\n"),
    Case("batch in.jsonl -o new.jsonl --resume --ordered", 0, "", "1 of 1 row done already\n"),
    Case("batch in.jsonl -o new.jsonl --restart --json", 0, '"answered": 1'),
    Case("batch in.jsonl -o named.jsonl -p openai -m gpt-4o --concurrency 2 --errors named.err", 0, "", "1 answered"),
    Case("batch - -o piped.jsonl", 0, "", "rows: 1 answered\n", stdin=ROW),
    Case("batch in.csv -o table.jsonl --id id --prompt {text} --system Brief.", 0, "", "rows: 1 answered\n"),
    Case("batch in.jsonl --dry-run", 0, "gpt-4o-mini\t1\t", "1 row"),
    Case("batch in.jsonl -o fresh.jsonl --dry-run --json", 0, '"invalid_rows": 0'),
    Case("batch empty.jsonl -o none.jsonl", 0, "", "rows: none\n"),
    Case("status", 0, "openai\thealthy\t"),
    Case("models", 0, "openai\tgpt-4o-mini\t1\tdefault\n"),
    Case("config check", 0, "llm.yaml: good (openai: 1 key, 2 models)\n"),
    Case("config check --config llm.yaml", 0, "llm.yaml: good"),
    Case("config show", 0, "api_keys:\n    - '**********'"),
    Case("config schema --json", 0, '{"$schema"'),
    Case("stats", 0, "openai/gpt-4o-mini\t", "since "),
    Case("stats --since 7d --by day --by command", 0, "\tbatch\t"),
    Case("stats --since 2020-01-01 --by provider --json", 0, '"provider": "openai"'),
    Case("cache stats", 0, "disk\t", variables={"LLM__CACHE__BACKEND": "disk"}),
    Case("cache list --limit 1 --content", 0, variables={"LLM__CACHE__BACKEND": "disk"}, err="nothing was cached yet"),
    Case("cache invalidate --older-than 1h", 0, "0 answers removed\n", variables={"LLM__CACHE__BACKEND": "disk"}),
    Case("cache clear --yes", 0, "0 answers removed\n", variables={"LLM__CACHE__BACKEND": "disk"}),
    Case("cache export -", 0, variables={"LLM__CACHE__BACKEND": "disk"}, err="nothing was cached yet"),
    Case("stats --clear --yes --json", 0, '"cleared": '),
    Case("stats", 0, "", "nothing was counted since "),
]

WRONG = [  # by the arguments, the files or the configuration; no provider is asked
    Case("nonsense", 2, err="no such command 'nonsense'; `manifold -h` shows"),
    Case("--nonsense", 2, err="no such option: --nonsense; `manifold -h` shows"),
    Case("chat --nonsense", 2, err="no such option: --nonsense"),
    Case("chat one two", 2, err="(two); `manifold chat -h` shows"),
    Case("chat -m", 2, err="option '-m' requires an argument"),
    Case("chat", 2, err="there is nothing to say; pass TEXT, or text on stdin"),
    Case("chat -c Hi", 2, err="there is no conversation to go on with; begin one with `manifold chat`"),
    Case("chat Hi -p nobody", 2, err="nobody"),
    Case("chat Hi -m nothing", 2, err="nothing"),
    Case("chat Hi --config nowhere.yaml", 2, err="nowhere.yaml"),
    Case("batch", 2, err="missing argument 'IN'; `manifold batch -h` shows"),
    Case("batch in.jsonl", 2, err="nothing says where the answers go; name a file: -o answers.jsonl"),
    Case("batch in.jsonl -o out.jsonl.gz", 2, err="out.jsonl.gz would be packed"),
    Case("batch in.jsonl -o -", 2, err="answers go to a file"),
    Case("batch nowhere.jsonl -o out.jsonl", 2, err="there is no file 'nowhere.jsonl'; check its name and the folder"),
    Case("batch . -o out.jsonl", 2, err="'.' is a folder; name a file in it"),
    Case("batch in.jsonl -o in.jsonl", 2, err="in.jsonl is the output and the input; name a file for each"),
    Case("batch in.jsonl -o out.jsonl --errors out.jsonl", 2, err="out.jsonl is the output and the errors file"),
    Case("batch in.jsonl -o no/such/folder.jsonl", 2, err="no/such"),
    Case("batch in.jsonl -o foreign.jsonl", 2, err="foreign.jsonl"),
    Case("batch in.jsonl -o out.jsonl --concurrency 0", 2, err="invalid value for '--concurrency': "),
    Case("batch in.jsonl -o out.jsonl --concurrency many", 2, err="invalid value for '--concurrency': "),
    Case("batch in.jsonl -o out.jsonl -p nobody", 2, err="nobody"),
    Case("batch in.jsonl -o out.jsonl --prompt {text}", 2, err="--prompt: only for tables, and in.jsonl is none"),
    Case("batch in.jsonl -o /", 2, err="/ is no plain file"),
    Case("batch in.jsonl -o folder/", 2, err="folder/ is no plain file"),
    Case("batch - -o out.jsonl --ordered", 2, err="--ordered reads IN again at the end, which stdin does not allow"),
    Case("batch in.csv -o out.jsonl", 2, err="in.csv is a table; say what to ask of each record, as in --prompt"),
    Case("batch in.csv -o out.jsonl --prompt {no}", 2, err="in.csv has no column 'no'; its columns are 'id', 'text'"),
    Case("batch in.csv -o out.jsonl --prompt {text", 2, err="prompt has a lone '{'"),
    Case("batch in.csv -o out.jsonl --prompt {text} --id no", 2, err="in.csv has no column 'no'"),
    Case("batch nowhere.jsonl --dry-run", 2, err="there is no file 'nowhere.jsonl'"),
    Case("models fetch", 2, err="missing argument 'NAME'"),
    Case("models fetch nonsense", 2, err="nonsense"),
    Case("stats --since yesterday", 2, err="'--since': 'yesterday' is no age; write"),
    Case("stats --since 2026-13-01", 2, err="'2026-13-01' is no day of the calendar"),
    Case("stats --by nobody", 2, err="'nobody' is not one of 'day', 'model', 'provider', 'command'"),
    Case("stats --clear", 2, err="clearing asks first, and nobody is there to answer; pass --yes"),
    Case(
        "stats", 2, err="nothing is counted: $LLM_STATE_DIR is the null device", variables={"LLM_STATE_DIR": os.devnull}
    ),
    Case("cache list", 2, err="nothing is cached; switch the cache on with `cache: {backend: disk}`"),
    Case("cache stats", 2, err="cache.backend is memory", variables={"LLM__CACHE__BACKEND": "memory"}),
    Case("cache get xyz", 2, err="'xyz' is no key; expected up to 64 hex", variables={"LLM__CACHE__BACKEND": "disk"}),
    Case(f"cache get {HASH}", 1, err="no answer is kept whose key is", variables={"LLM__CACHE__BACKEND": "disk"}),
    Case("cache invalidate", 2, err="nothing says which answers", variables={"LLM__CACHE__BACKEND": "disk"}),
    Case("cache invalidate a --model b", 2, err="a KEY names one answer", variables={"LLM__CACHE__BACKEND": "disk"}),
    Case("cache clear", 2, err="clearing asks first", variables={"LLM__CACHE__BACKEND": "disk"}),
    Case("cache export .", 2, err=". is no plain file", variables={"LLM__CACHE__BACKEND": "disk"}),
    Case("cache list --older-than soon", 2, err="'--older-than': 'soon' is no age"),
    Case("status", 2, err="pool.min_size", variables={"LLM__POOL__MIN_SIZE": "many"}),
    Case("chat Hi", 2, err="retry.max_attempts", variables={"LLM__RETRY__MAX_ATTEMPTS": "0"}),
    Case("batch in.jsonl -o out.jsonl", 2, err="pool.min_size", variables={"LLM__POOL__MIN_SIZE": "many"}),
    Case("config check --config bad.yaml", 2, err="bad.yaml:1:"),
    Case("models", 2, err="nowhere.yaml", variables={"LLM_CONFIG": "nowhere.yaml"}),
]


def prepare(folder: Path, base_url: str) -> None:
    section = f"{{base_url: '{base_url}', api_keys: [{KEY}], models: [gpt-4o-mini, gpt-4o]}}"
    files = {
        "llm.yaml": f"providers: {{openai: {section}}}\nretry: {{max_attempts: 1}}\n",
        "bad.yaml": "nonsense: 1\n",
        "in.jsonl": ROW,
        "empty.jsonl": "\n",
        "foreign.jsonl": '{"somebody": "else"}\n',
        "in.csv": "id,text\n7,snow\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


def wrong_with(case: Case, folder: Path, forking: Forking) -> str | None:
    """Run it; return what is not as it should be."""
    done = forking(folder, *case.words.split(), stdin=case.stdin, variables=case.variables)
    right = (
        done.status == case.status
        and case.out in done.out
        and case.err in done.err
        and (case.status == 0 or done.out == "")
        and (case.status == 0 or sum(line.startswith("error: ") for line in done.err.splitlines()) == 1)
        and KEY not in done.out + done.err
        and "Traceback" not in done.err
    )
    return None if right else f"{case}: {done}"


def test_every_command_and_option_does_what_it_says(served: Served, forking: Forking, tmp_path: Path) -> None:
    with served() as up:
        prepare(tmp_path, up.base_url)
        assert [told for case in WORKS if (told := wrong_with(case, tmp_path, forking))] == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("wrong")
    prepare(folder, "http://127.0.0.1:9/v1")
    yield folder
    assert (folder / "in.jsonl").read_text(encoding="utf-8") == ROW
    assert list(folder.glob("out*")) == []


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.words)
def test_what_is_wrong_is_one_line_and_its_status(case: Case, forking: Forking, folder: Path) -> None:
    assert wrong_with(case, folder, forking) is None


@pytest.mark.parametrize("words", ["status", "chat Hi", "batch in.jsonl -o reached.jsonl"])
def test_a_provider_that_refuses_every_key_is_3(words: str, served: Served, forking: Forking, tmp_path: Path) -> None:
    with served(faults=[Fault("auth", at=n) for n in range(1, 9)]) as up:
        prepare(tmp_path, up.base_url if words != "status" else "http://127.0.0.1:9/v1")
        done = forking(tmp_path, *words.split())
    assert done.status == 3
    assert "error: " in done.err
    assert KEY not in done.out + done.err


def test_a_disk_that_is_full_is_1_and_what_was_written_is_kept(
    served: Served, forking: Forking, tmp_path: Path
) -> None:
    rows = "".join(ROW.replace('"a"', f'"{name}"') for name in "abcd")
    held = HeldTime()
    with served(faults=[Fault("slow", at=3)], clock=held) as up:
        prepare(tmp_path, up.base_url)
        (tmp_path / "in.jsonl").write_text(rows, encoding="utf-8")

        def fill(process: int) -> None:
            while len(up.requests) < 3:
                WAIT.wait(0.01)
            size = (tmp_path / "out.jsonl").stat().st_size
            resource.prlimit(process, resource.RLIMIT_FSIZE, (size, size))
            held.go_on(1.0)

        words = ("batch", "in.jsonl", "-o", "out.jsonl", "--concurrency", "1")
        full = forking(tmp_path, *words, during=fill)
        done = forking(tmp_path, *words)
        assert len(up.requests) == 5
    assert full.status == 1
    assert "out.jsonl: File too large; everything finished is kept, run the same command again" in full.err
    assert done.status == 0
    names = [
        json.loads(line)["custom_id"] for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert names == ["a", "b", "c", "d"]


def test_a_broken_or_locked_file_of_usage_fails_no_command(served: Served, forking: Forking, tmp_path: Path) -> None:
    usage = tmp_path / "state" / "usage.sqlite3"
    state = {"LLM_STATE_DIR": str(usage.parent)}
    with served() as up:
        prepare(tmp_path, up.base_url)
        assert forking(tmp_path, "chat", "Hi", variables=state).err == ""
        with closing(sqlite3.connect(usage, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            locked = forking(tmp_path, "chat", "Hi", variables=state)
        usage.write_bytes(b"no database" * 1000)
        broken = forking(tmp_path, "batch", "in.jsonl", "-o", "out.jsonl", variables=state)
    assert (locked.status, locked.out) == (0, "Hi\n")
    assert locked.err.count("\n") == 1
    assert "is not in `manifold stats`: " in locked.err
    assert "cannot be used: database is locked" in locked.err
    assert broken.status == 0
    assert "is damaged (file is not a database); `manifold stats --clear` removes it\n" in broken.err
    told = forking(tmp_path, "stats", variables=state)
    assert (told.status, told.out) == (1, "")
    assert told.err.startswith(f"error: {usage} is damaged")
    assert forking(tmp_path, "stats", "--clear", "--yes", variables=state).status == 0
    assert not usage.exists()


def test_nothing_of_what_was_said_and_no_key_is_kept_by_the_stats(
    served: Served, forking: Forking, tmp_path: Path
) -> None:
    with served() as up:
        prepare(tmp_path, up.base_url)
        (tmp_path / "in.jsonl").write_text(ROW.replace("Hi", "planted-question"), encoding="utf-8")
        done = [
            forking(tmp_path, "chat", "planted-question"),
            forking(tmp_path, "batch", "in.jsonl", "-o", "out.jsonl"),
        ]
    kept = [path for path in (tmp_path / ".local").rglob("*") if path.is_file()]
    assert kept
    assert [path for path in kept if b"planted" in path.read_bytes() or KEY.encode() in path.read_bytes()] == []
    assert [path for path in kept if path.stat().st_mode & 0o077] == []
    results = [path for path in tmp_path.glob("out*") if KEY in path.read_text(encoding="utf-8")]
    assert (results, [each for each in done if KEY in each.out + each.err]) == ([], [])
