"""`docs/promises.md` names tests, and each of them is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
ROW = re.compile(r"\| (\d+)\. .* \| (.*) \|")


@cache
def names_in(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_every_test_that_the_table_of_promises_names_is_there(root: Path) -> None:
    page = (root / "docs/promises.md").read_text(encoding="utf-8")
    named = NAMED.findall(page)
    assert len(named) == page.count("::") > 50
    assert [f"{path}::{name}" for path, name in named if name not in names_in(root / path)] == []


def test_every_promise_of_the_table_stands_there_once_and_names_a_test(root: Path) -> None:
    page = (root / "docs/promises.md").read_text(encoding="utf-8")
    rows = ROW.findall(page)
    numbers = [int(number) for number, _ in rows]
    assert numbers == sorted(set(numbers))
    assert {*range(1, 13), *range(14, 23), 27, 28, 29, 30, *range(31, 35)} <= set(numbers)
    assert [number for number, tests in rows if not NAMED.search(tests)] == []
