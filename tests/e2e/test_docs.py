"""The examples of the pages in `docs/` run, from top to bottom, as a reader would type them."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
import typer

from llm import LLMInvalidRequestError, LLMManager
from llm.cli.cache import app
from llm.core.config import load_config
from llm.providers import SERVERS
from llm.testing import MockUpstream

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


async def run(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Run a page's examples; return the names they leave, and what they should have printed."""
    page = await asyncio.to_thread(path.read_text, encoding="utf-8")
    names: dict[str, Any] = {}
    for found in re.finditer(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        above = "\n" * page.count("\n", 0, found.start(1))  # a failure then names the page's own line
        code = compile(above + found[1], str(path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, names)  # noqa: S307 - our own page
        if inspect.isawaitable(result):
            await result
    return names, re.findall(r"print\(.*\)\)? +# (.+)", page)


async def test_the_examples_on_testing_run_in_their_order(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names, said = await run(root / "docs" / "testing.md")
    assert capsys.readouterr().out.splitlines() == said != []
    assert names["clock"].now() == 86400.0


async def test_the_providers_of_the_page_serve(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, said = await run(root / "docs" / "providers.md")
    assert capsys.readouterr().out.splitlines() == said != []
    async with MockUpstream() as up:
        section = {"type": "acme", "base_url": up.base_url, "api_keys": ["k"], "models": ["m"]}
        async with LLMManager.open({"providers": {"mine": section}}) as manager:
            client = manager.get_client()
            assert (await client.complete("Hello", seed=7)).content == "Hello"
            with pytest.raises(LLMInvalidRequestError, match="no embeddings"):
                await client.embed("Hello")
    assert up.requests[0].body["random_seed"] == 7


def test_the_provider_of_the_page_takes_forty_lines(root: Path) -> None:
    page = (root / "docs" / "providers.md").read_text(encoding="utf-8")
    (found,) = re.findall(r"^```python\n((?:(?!```).)*^class Parrot.*?)^section = ", page, re.MULTILINE | re.DOTALL)
    classes = [node for node in ast.parse(found).body if isinstance(node, ast.ClassDef)]
    told = sum(ast.get_docstring(each) is not None for each in classes)  # a line each
    assert len([line for line in found.splitlines() if line.strip()]) - told <= 40


def test_the_pages_table_is_the_packages(root: Path) -> None:
    page = (root / "docs" / "providers.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `(.+?)` \| (yes|\S) \| (yes|\S) \|", page, re.MULTILINE)
    told = {name: (url, keys == "yes", vectors == "yes") for name, url, keys, vectors in rows}
    assert told == {name: (row.base_url, row.needs_key, row.embeddings) for name, row in SERVERS.items()}
    assert list(told) == sorted(told)


async def test_the_examples_on_answers_run_in_their_order(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, said = await run(root / "docs" / "answers.md")
    assert capsys.readouterr().out.splitlines() == said != []


def test_the_examples_on_tracing_run_in_their_order(root: Path, fresh_python: Callable[[str], str]) -> None:
    """In an interpreter of their own, for a process is set up for OpenTelemetry once."""
    page = (root / "docs" / "tracing.md").read_text(encoding="utf-8")
    code = "".join(re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    lines = "\n".join(f"    {line}" for line in code.splitlines())
    printed = fresh_python(f"import asyncio\nasync def page():\n{lines}\nasyncio.run(page())")
    assert printed.splitlines() == re.findall(r"print\(.*\)\)? +# (.+)", page) != []


async def test_the_examples_on_resilience_run_in_their_order(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, said = await run(root / "docs" / "resilience.md")
    assert capsys.readouterr().out.splitlines() == said != []


async def test_the_examples_on_operations_run_in_their_order(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, said = await run(root / "docs" / "operations.md")
    assert capsys.readouterr().out.splitlines() == said != []


async def test_the_examples_on_batches_run_in_their_order(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # they write files
    _, said = await run(root / "docs" / "batch.md")
    assert capsys.readouterr().out.splitlines() == said != []


async def test_the_examples_on_progress_run_in_their_order(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, said = await run(root / "docs" / "progress.md")
    shown = capsys.readouterr()
    assert shown.out.splitlines() == said != []
    assert shown.err.startswith("4 of 4 rows (100 %) in ")


async def test_the_examples_on_dry_runs_run_in_their_order(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, said = await run(root / "docs" / "dry-run.md")
    assert capsys.readouterr().out.splitlines() == said != []


async def test_the_examples_on_the_cache_run_in_their_order(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, said = await run(root / "docs" / "cache.md")
    assert capsys.readouterr().out.splitlines() == said != []


def test_the_examples_on_blocking_run_in_their_order(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where no loop runs."""
    page = (root / "docs" / "blocking.md").read_text(encoding="utf-8")
    exec("".join(re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)), {})  # noqa: S102 - our own page
    assert capsys.readouterr().out.splitlines() == re.findall(r"print\(.*\) +# (.+)", page) != []


def test_the_commands_on_the_cache_are_the_programs(root: Path) -> None:
    page = (root / "docs" / "cache.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line, comments=True) for line in block.splitlines()]
    commands = typer.main.get_group(app).commands
    for manifold, cache, name, *words in lines:
        assert (manifold, cache) == ("manifold", "cache")
        commands[name].make_context(name, words)  # which refuses what there is not
    assert {name for _, _, name, *_ in lines} == commands.keys()


async def test_the_examples_on_the_semantic_cache_run_in_their_order(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, said = await run(root / "docs" / "semantic-cache.md")
    assert capsys.readouterr().out.splitlines() == said != []


async def test_the_sections_on_transports_are_read_and_their_clients_made(root: Path, tmp_path: Path) -> None:
    page = (root / "docs" / "transports.md").read_text(encoding="utf-8")
    blocks: list[str] = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        (tmp_path / "llm.yaml").write_text(block, encoding="utf-8")
        config = await asyncio.to_thread(load_config, tmp_path / "llm.yaml", environ={"AZURE_OPENAI_API_KEY": "k"})
        (section,) = config.providers.values()
        assert section.transport == "sdk"
        if section.sdk is not None and section.sdk.client != "vertex":  # which needs a package that not everybody has
            async with LLMManager.open(config):
                pass
