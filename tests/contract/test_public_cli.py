"""`manifold`: commands, options, exit statuses, and what goes to stdout and what to stderr. The real program runs."""

# ruff: noqa: ANN401 - public names are looked up as tests run: a missing one fails its tests, not the collection

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    Program = Callable[..., subprocess.CompletedProcess[str]]

EVERYWHERE = "--config --json --quiet"
OPTIONS = {
    "chat": "-p --provider -m --model --stream --no-stream --continue --no-history",
    "batch": "-o --errors --concurrency --resume --restart --dry-run --ordered --engine local ray openai-batch "
    "anthropic-batch --workers --ray-address --cancel -p -m --prompt --id --system",
    "stats": "--since --by --clear --yes",
    "status": "",
    "config check": "",
    "config schema": "",
    "config show": "",
    "models fetch": "",
    "cache stats": "",
    "cache list": "--provider --model --user --tag --older-than --limit --content",
    "cache get": "KEY",
    "cache invalidate": "KEY --provider --model --user --tag --older-than --dry-run",
    "cache clear": "--yes",
    "serve": "--host --port --workers",
    "cache export": "FILE --provider --model --user --tag --older-than",
    "keys create": "NAME --user --models --expires --operator --write",
    "keys list": "",
    "keys revoke": "NAME --write",
}
GOOD = "providers: {openai: {base_url: 'BASE', api_keys: [sk-one], models: [gpt-4o-mini]}}\n"


@pytest.fixture
def configured(tmp_path: Path) -> Callable[[str], Path]:
    """A folder's `llm.yaml` with one provider at this address, tried once."""

    def write(base_url: str) -> Path:
        text = GOOD.replace("BASE", base_url) + "retry: {max_attempts: 1}\n"
        (tmp_path / "llm.yaml").write_text(text, encoding="utf-8")
        return tmp_path

    return write


@pytest.fixture
async def upstream() -> AsyncIterator[Any]:
    """A server of the OpenAI dialect on a real socket."""
    async with import_module("llm.testing").MockUpstream(dialect="openai") as up:
        yield up


@pytest.fixture
async def silent() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A server that takes a request and never answers; the event tells that one came."""
    asked, left = asyncio.Event(), asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()
            writer.close()
            await writer.wait_closed()
        left.set()

    async with await asyncio.start_server(hold, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}/v1", asked
        if asked.is_set():
            await left.wait()


def test_help_names_every_command_of_now(started: Program, tmp_path: Path) -> None:
    done = started("--help", cwd=tmp_path)
    assert done.returncode == 0
    assert [
        word
        for word in ("batch", "cache", "chat", "config", "models", "serve", "stats", "status")
        if word not in done.stdout
    ] == []


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
@pytest.mark.parametrize("command", OPTIONS)
def test_a_command_has_its_options_and_those_of_everywhere(manifold: Program, command: str) -> None:
    done = manifold(*command.split(), "--help")
    assert done.returncode == 0, done.stderr
    assert [word for word in f"{OPTIONS[command]} {EVERYWHERE}".split() if word not in done.stdout] == []


def test_models_lists_the_models(manifold: Program, configured: Callable[[str], Path]) -> None:
    done = manifold("models", "--json", cwd=configured("http://127.0.0.1:9/v1"))
    assert done.returncode == 0, done.stderr
    assert "gpt-4o-mini" in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("chat", "--nonsense"),
        ("config", "check", "--config", "nowhere.yaml"),
        ("chat", "Hi", "--config", "nowhere.yaml"),
        ("models", "fetch", "nonsense"),
    ],
    ids=" ".join,
)
def test_bad_usage_exits_with_2_and_says_why_on_stderr(manifold: Program, words: tuple[str, ...]) -> None:
    done = manifold(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert words[-1].lstrip("-") in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["config check", "config show", "status", "chat Hi"])
def test_a_bad_configuration_exits_with_2_and_names_the_place(manifold: Program, tmp_path: Path, command: str) -> None:
    (tmp_path / "llm.yaml").write_text(GOOD + "retry: {max_attempts: many}\n", encoding="utf-8")
    done = manifold(*command.split(), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "llm.yaml:2:" in done.stderr
    assert "retry.max_attempts" in done.stderr


def test_a_good_configuration_exits_with_0(manifold: Program, configured: Callable[[str], Path]) -> None:
    assert manifold("config", "check", cwd=configured("http://127.0.0.1:9/v1")).returncode == 0


def test_config_names_the_file_wherever_it_is(manifold: Program, configured: Callable[[str], Path]) -> None:
    path = configured("http://127.0.0.1:9/v1") / "llm.yaml"
    assert manifold("config", "check", "--config", str(path)).returncode == 0


def test_an_unreachable_provider_exits_with_3(started: Program, configured: Callable[[str], Path]) -> None:
    done = started("chat", "Hi", "--no-stream", cwd=configured("http://127.0.0.1:9/v1"))
    assert (done.returncode, done.stdout) == (3, "")
    assert "Traceback" not in done.stderr
    assert "sk-one" not in done.stderr


async def test_ctrl_c_exits_with_130(
    shell: dict[str, str], silent: tuple[str, asyncio.Event], configured: Callable[[str], Path]
) -> None:
    base_url, asked = silent
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "llm", "chat", "Hi"),
        cwd=configured(base_url),
        env=shell,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    ended = asyncio.create_task(program.communicate())
    waiting = asyncio.create_task(asked.wait())
    await asyncio.wait({ended, waiting}, return_when=asyncio.FIRST_COMPLETED, timeout=30)
    waiting.cancel()
    if not ended.done():
        program.send_signal(signal.SIGINT)
        await asyncio.wait({ended}, timeout=20)
    if not ended.done():
        program.kill()
    _, told = await ended
    assert program.returncode == 130, told.decode()
    assert b"Traceback" not in told


@pytest.mark.parametrize("how", ["--stream", "--no-stream"])
async def test_chat_puts_the_answer_on_stdout(
    manifold: Program, configured: Callable[[str], Path], upstream: Any, how: str
) -> None:
    cwd = configured(upstream.base_url)
    done = await asyncio.to_thread(manifold, "chat", "Hello", "-p", "openai", "-m", "gpt-4o-mini", how, cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert len(upstream.requests) == 1


async def test_text_on_stdin_joins_the_prompt(
    started: Program, configured: Callable[[str], Path], upstream: Any
) -> None:
    cwd = configured(upstream.base_url)
    done = await asyncio.to_thread(started, "chat", "Summarise:", stdin="a long story", cwd=cwd)
    assert done.returncode == 0, done.stderr
    sent = str(upstream.requests[0].body)
    assert "Summarise:" in sent
    assert "a long story" in sent


async def test_chat_as_json_is_one_document(
    manifold: Program, configured: Callable[[str], Path], upstream: Any
) -> None:
    done = await asyncio.to_thread(manifold, "chat", "Hi", "--json", cwd=configured(upstream.base_url))
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert {"content", "model", "provider", "usage", "finish_reason"} <= set(answer)


def test_status_as_json_is_the_managers(manifold: Program, configured: Callable[[str], Path]) -> None:
    done = manifold("status", "--json", cwd=configured("http://127.0.0.1:9/v1"))
    assert done.returncode in {0, 3}, done.stderr
    assert {"metrics", "providers", "pool", "cache", "limits"} <= set(json.loads(done.stdout))


async def test_a_batch_of_which_some_rows_failed_exits_with_1(
    manifold: Program, configured: Callable[[str], Path], upstream: Any
) -> None:
    cwd = configured(upstream.base_url)
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]}
    row = {"custom_id": "one", "method": "POST", "url": "/v1/chat/completions", "body": body}
    (cwd / "in.jsonl").write_text(json.dumps(row) + "\n{not json\n", encoding="utf-8")
    done = await asyncio.to_thread(manifold, "batch", "in.jsonl", "-o", "out.jsonl", cwd=cwd)
    assert done.returncode == 1, done.stderr
    assert (cwd / "out.jsonl").exists()


def test_a_dry_run_tells_these_numbers(manifold: Program, configured: Callable[[str], Path]) -> None:
    cwd = configured("http://127.0.0.1:9/v1")
    (cwd / "in.jsonl").write_text("", encoding="utf-8")
    done = manifold("batch", "in.jsonl", "-o", "out.jsonl", "--dry-run", "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    expected = "rows invalid_rows cache_hits input_tokens output_tokens cost seconds models"
    assert set(json.loads(done.stdout)) == set(expected.split())


def test_a_host_beyond_loopback_without_keys_is_refused_with_2(
    started: Program, configured: Callable[[str], Path]
) -> None:
    done = started("serve", "--host", "192.0.2.1", "--port", "0", cwd=configured("http://127.0.0.1:9/v1"))
    assert done.returncode == 2
    assert "keys create" in done.stderr
