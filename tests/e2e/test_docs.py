"""The examples of the pages in `docs/` run, from top to bottom, as a reader would type them.

One rule for every block of every page, also of those that are written later: it is run or checked, by the tests below
or by those in `RUN_BY`, or a comment right above it says why not: `<!-- not run: … -->`.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest
import typer

from llm import LLMInvalidRequestError, LLMManager
from llm.cli.cache import app
from llm.core.config import load_config
from llm.providers import SERVERS
from llm.testing import MockUpstream

if TYPE_CHECKING:
    from collections.abc import Callable


PAGES: Final = sorted((Path(__file__).parents[2] / "docs").glob("*.md"))
RUN_BY: Final = {
    ("batch-api.md", "python"): "unit/batch/remote/test_page.py",
    ("batch-files.md", "json"): "unit/batch/test_page.py",
    ("batch-files.md", "python"): "unit/batch/test_page.py",
    ("gateway.md", "python"): "e2e/test_docs_gateway.py",
    ("tutorial.md", "python"): "e2e/test_docs_tutorial.py",
    ("tutorial.md", "sh"): "e2e/test_docs_tutorial.py",
}
"""Tests that run a page's blocks of a language in place of those below."""
CHECKED: Final = {"json", "python", "sh", "toml", "yaml"}
"""Languages of which every block is run or checked; `test_docs_commands.py` has those of the shell."""
IN_ITS_OWN_WAY: Final = {"blocking.md", "progress.md", "providers.md", "testing.md", "tracing.md"}
"""Pages whose Python has a test of its own below."""


class Block(NamedTuple):
    """A fenced block of a page.

    Attributes:
        line: The page's line that it begins at, from 1.
        why_not: Why it is not run.
    """

    language: str
    text: str
    line: int
    why_not: str


def blocks_of(page: str, language: str = r"[\w-]*") -> list[Block]:
    """Return a page's blocks of a language, all by default."""
    fences = re.finditer(
        rf"^(?:<!-- not run: (?P<why>[^>]+) -->\n\n?)?```(?P<language>{language})\n(?P<text>.*?)^```$",
        page,
        re.MULTILINE | re.DOTALL,
    )
    return [
        Block(found["language"], found["text"], page.count("\n", 0, found.start("text")) + 1, found["why"] or "")
        for found in fences
    ]


def run_here(language: str) -> list[Path]:
    """Return the pages whose blocks of a language are run by the test of all pages."""
    return [
        page
        for page in PAGES
        if (page.name, language) not in RUN_BY
        and any(not block.why_not for block in blocks_of(page.read_text(encoding="utf-8"), language))
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    blocks = blocks_of(text)
    assert 2 * len(blocks) == len(re.findall(r"^ *```", text, re.MULTILINE)), "a fence that this test does not see"
    assert [block for block in blocks if block.language not in CHECKED and not block.why_not] == []


def test_what_is_run_by_other_tests_is_named_there(root: Path) -> None:
    for (page, language), test in RUN_BY.items():
        assert blocks_of((root / "docs" / page).read_text(encoding="utf-8"), language), f"{page} has no {language}"
        assert page in (root / "tests" / test).read_text(encoding="utf-8"), f"{test} does not name {page}"


async def run(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Run a page's examples; return the names they leave, and what they should have printed."""
    page = await asyncio.to_thread(path.read_text, encoding="utf-8")
    names: dict[str, Any] = {}
    for block in blocks_of(page, "python"):
        if block.why_not:
            continue
        above = "\n" * (block.line - 1)  # a failure then names the page's own line
        here = block.text.replace("asyncio.run(main())", "await main()")  # a whole program, in our loop
        code = compile(above + here, str(path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, names)  # noqa: S307 - our own page
        if inspect.isawaitable(result):
            await result
    return names, re.findall(r"print\(.*\)\)? +# (.+)", page)


@pytest.mark.parametrize(
    "page", [page for page in run_here("python") if page.name not in IN_ITS_OWN_WAY], ids=lambda page: page.name
)
async def test_the_examples_of_a_page_run_in_their_order_and_print_what_they_say(
    page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # some write files
    async with MockUpstream("openai") as up:
        monkeypatch.setenv("OPENAI_BASE_URL", up.base_url)  # for programs that take their keys from the environment
        monkeypatch.setenv("OPENAI_API_KEY", "k1")
        _, said = await run(page)
    printed = capsys.readouterr().out.splitlines()
    assert printed
    assert printed == said or (not said and up.requests)  # a page need not say what a model would


@pytest.mark.parametrize("page", run_here("yaml"), ids=lambda page: page.name)
def test_the_configurations_of_a_page_are_right(page: Path, tmp_path: Path) -> None:
    for block in blocks_of(page.read_text(encoding="utf-8"), "yaml"):
        if not block.why_not:
            names = re.findall(r"\$\{(\w+)", block.text)
            (tmp_path / "llm.yaml").write_text(block.text.replace("sha256:…", f"sha256:{'0' * 64}"), encoding="utf-8")
            load_config(tmp_path / "llm.yaml", environ={name: f"redis://{name}" for name in [*names, "OPENAI_API_KEY"]})


@pytest.mark.parametrize("page", [*run_here("json"), *run_here("toml")], ids=lambda page: page.name)
def test_the_data_of_a_page_can_be_read(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert all(json.loads(line) for block in blocks_of(text, "json") for line in block.text.splitlines())
    assert all(tomllib.loads(block.text) for block in blocks_of(text, "toml"))


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


def test_the_examples_on_tracing_run_in_their_order(root: Path, fresh_python: Callable[[str], str]) -> None:
    """In an interpreter of their own, for a process is set up for OpenTelemetry once."""
    page = (root / "docs" / "tracing.md").read_text(encoding="utf-8")
    code = "".join(re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    lines = "\n".join(f"    {line}" for line in code.splitlines())
    printed = fresh_python(f"import asyncio\nasync def page():\n{lines}\nasyncio.run(page())")
    assert printed.splitlines() == re.findall(r"print\(.*\)\)? +# (.+)", page) != []


async def test_the_examples_on_progress_run_in_their_order(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, said = await run(root / "docs" / "progress.md")
    shown = capsys.readouterr()
    assert shown.out.splitlines() == said != []
    assert shown.err.startswith("4 of 4 rows (100 %) in ")


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
