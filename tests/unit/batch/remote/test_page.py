"""What `docs/batch-api.md` says is so."""

from __future__ import annotations

import ast
import inspect
import re
from typing import TYPE_CHECKING, Any

from llm.batch.remote.anthropic import AnthropicBatches
from llm.batch.remote.openai import OpenAIBatches

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def _page(root: Path) -> str:
    return (root / "docs" / "batch-api.md").read_text(encoding="utf-8")


async def test_its_examples_print_what_it_says(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = _page(root)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        result = eval(compile(block, "page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)  # noqa: S307 - ours
        if inspect.isawaitable(result):
            await result
    said = re.findall(r"print\(.*\) +# (.+)", page)
    assert capsys.readouterr().out.splitlines() == said != []


def test_its_bounds_are_those_of_the_code(root: Path) -> None:
    page = _page(root)
    ours, theirs = OpenAIBatches.bounds, AnthropicBatches.bounds
    assert f"| rows in a batch | {ours.rows:,}; of embeddings so many texts | {theirs.rows:,} |" in page
    assert f"| bytes in a batch | {ours.size // 10**6} MB | {theirs.size // 10**6} MB |" in page
