"""The examples of the pages in `docs/` run, from top to bottom, as a reader would type them."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from typing import TYPE_CHECKING, Any

from llm import LLMManager
from llm.core.config import load_config

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


async def run(root: Path, name: str) -> tuple[dict[str, Any], list[str]]:
    """Run a page's examples; returns their names, and what they say that they print."""
    page = (root / "docs" / name).read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for found in re.finditer(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        above = "\n" * page.count("\n", 0, found.start(1))  # a failure then names the page's own line
        code = compile(above + found[1], f"docs/{name}", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, names)  # noqa: S307 - our own page
        if inspect.isawaitable(result):
            await result
    return names, re.findall(r"print\(.*\)\)? +# (.+)", page)


async def test_the_examples_on_testing_run_in_their_order(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names, said = await run(root, "testing.md")
    assert capsys.readouterr().out.splitlines() == said != []
    assert names["clock"].now() == 86400.0


async def test_the_examples_on_answers_run_in_their_order(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, said = await run(root, "answers.md")
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
