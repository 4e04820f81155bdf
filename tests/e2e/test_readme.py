"""The README does what it says: its program, its layer, its configuration, its commands and its links.

`tests/arch/test_package.py` holds the `make` targets that it shows; what they do is what continuous integration does.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from llm import LLMManager
from llm.core.config import load_config
from llm.testing import MockUpstream

if TYPE_CHECKING:
    from pathlib import Path

KEYS = ("first-key-0001", "second-key-0002")


@pytest.fixture
def readme(root: Path) -> str:
    return (root / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def environment(root: Path, tmp_path: Path) -> dict[str, str]:
    """What the README's reader has: keys in the environment, and no `llm.yaml`."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "COVERAGE"))}
    ours = {"PYTHONPATH": str(root / "src"), "PYTHONUTF8": "1", "COLUMNS": "120", "HOME": str(tmp_path)}
    return kept | ours | {"OPENAI_API_KEY": ",".join(KEYS)}


def block(readme: str, language: str, having: str) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    [one] = [text for text in found if having in text]
    return str(one)


async def run(
    *words: str, up: MockUpstream, folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-W", "error", *words],
        cwd=folder,
        env=environment | {"OPENAI_BASE_URL": up.base_url},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )


async def test_its_program_runs_and_both_keys_take_turns(
    readme: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    program = tmp_path / "program.py"
    program.write_text(block(readme, "python", "asyncio.run("), encoding="utf-8")
    async with MockUpstream("openai") as up:
        done = await run(str(program), up=up, folder=tmp_path, environment=environment)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Hello, how are you?")  # the server echoes
    assert "'successful_requests': 23" in done.stdout
    asked = [request.key for request in up.requests]
    assert len(asked) == 23
    assert min(asked.count(key) for key in KEYS) >= 10


async def test_its_layer_does_what_its_name_says(readme: str) -> None:
    names: dict[str, Any] = {}
    exec(compile(block(readme, "python", "call_next("), "README.md", "exec"), names)  # noqa: S102 - our own README
    provider = {"api_keys": ["k1"], "models": ["gpt-4o-mini"]}
    async with MockUpstream("openai") as up:
        config = {"providers": {"openai": provider | {"base_url": up.base_url}}}
        async with LLMManager.open(config) as manager:
            client = manager.get_client(middleware=["rate_limit", "retry", names["in_english"]])
            assert (await client.chat("Hallo")).content == "Hallo"
            assert (await client.stream_complete("Hallo").response()).content == "Hallo"
    assert [request.body["messages"][0]["content"] for request in up.requests] == ["Answer in English."] * 2


def test_its_configuration_is_one(readme: str, tmp_path: Path) -> None:
    (tmp_path / "llm.yaml").write_text(block(readme, "yaml", "providers:"), encoding="utf-8")
    config = load_config(tmp_path / "llm.yaml", environ={"OPENAI_KEY_1": "k1", "OPENAI_KEY_2": "k2"})
    assert len(config.providers["openai"].slots) == 2


async def test_its_commands_run(readme: str, tmp_path: Path, environment: dict[str, str]) -> None:
    commands = re.findall(r"`(manifold [^`]+)`", readme)
    assert len(commands) >= 4
    async with MockUpstream("openai") as up:
        for command in commands:
            words = ["-m", "llm", *shlex.split(command)[1:]]
            done = await run(*words, up=up, folder=tmp_path, environment=environment)
            assert done.returncode == 0, f"{command}: {done.stderr}"
            assert done.stdout


async def test_its_batch_runs_goes_on_and_is_counted(
    readme: str, root: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    await asyncio.to_thread(shutil.copytree, root / "examples", tmp_path / "examples")
    lines = [shlex.split(line, comments=True) for line in block(readme, "sh", "manifold batch").splitlines()]
    async with MockUpstream("openai") as up:
        told = [await run("-m", "llm", *line[1:], up=up, folder=tmp_path, environment=environment) for line in lines]
        assert len(up.requests) == 8
    assert [(done.returncode, "error" in done.stderr) for done in told] == [(0, False)] * 3
    assert told[-1].stdout.splitlines()[-1].split("\t")[:2] == ["total", "8"]


@pytest.mark.parametrize("page", ["README.md", "docs/testing.md", "docs/cli.md", "CHANGELOG.md"])
def test_what_a_page_links_to_is_there(root: Path, page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)", (root / page).read_text(encoding="utf-8"))
    near = [link for link in links if "://" not in link]
    assert [link for link in near if not (root / page).parent.joinpath(link).exists()] == []
