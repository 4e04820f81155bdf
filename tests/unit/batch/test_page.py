"""What `docs/batch-files.md` says of the files is so."""

from __future__ import annotations

import ast
import inspect
import re
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from llm.batch.dialect import answer_line, error_line, may_pass
from llm.batch.lines import MAX_ROW_BYTES, read_line
from llm.batch.values import CHAT, BadRow, Row
from llm.core.exceptions import LLMContextLengthError, LLMTimeoutError
from llm.core.types import LLMResponse

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs" / "batch-files.md").read_text(encoding="utf-8")


def _lines(page: str, heading: str) -> list[bytes]:
    _, section = page.split(f"\n## {heading}\n")
    blocks: list[str] = re.findall(r"^```json\n(.*?)^```", section.split("\n## ")[0], re.MULTILINE | re.DOTALL)
    return [line.encode() for block in blocks for line in block.splitlines()]


async def test_its_examples_print_what_it_says(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    said: list[str] = []
    for block in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        result = eval(compile(block, "page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)  # noqa: S307 - ours
        if inspect.isawaitable(result):
            await result
        said += re.findall(r"^print\(.* # (.+)|^# (.+)", block, re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == ["".join(line) for line in said] != []


def test_its_lines_are_read(page: str) -> None:
    rows = [read_line(line, order, order + 1) for order, line in enumerate(_lines(page, "In: JSON Lines"))]
    assert [row.url for row in rows if isinstance(row, Row)] == [
        "/v1/chat/completions",
        "/v1/embeddings",
        "/v1/responses",
    ]


def _shape(line: bytes) -> Any:  # noqa: ANN401 - JSON
    told: dict[str, Any] = orjson.loads(line)
    assert told.pop("id").startswith("batch_req_")
    if told["error"]:
        told["error"]["message"] = ""
    if told["response"]:
        body = told["response"]["body"]
        told["response"]["body"] = {"error": {**body["error"], "message": ""}} if "error" in body else body["object"]
    return told


def test_its_answers_and_errors_are_those_that_are_written(page: str) -> None:
    row = Row(0, "q-1", CHAT, {})
    refused = LLMContextLengthError("x", status=400, request_id="req_1")
    refused.attempts = 1
    written = [
        answer_line(row, LLMResponse(id="chatcmpl-1"), created=1),
        error_line(row, refused),
        error_line(row, LLMTimeoutError("x", phase="total")),
        error_line(BadRow(1, 7, None, "invalid_json", "x")),
    ]
    shown = [*_lines(page, "Out: answers"), *_lines(page, "Out: errors")]
    assert list(map(_shape, shown)) == list(map(_shape, written))
    assert [list(orjson.loads(line)) for line in shown] == [list(orjson.loads(line)) for line in written]


def test_it_names_every_code_and_status(root: Path, page: str) -> None:
    modules = [path for path in (root / "src" / "llm" / "batch").glob("*.py") if not path.stem.startswith("fore")]
    sources = [path.read_text(encoding="utf-8") for path in modules]  # a forecast has words of its own
    kinds = "(?:invalid|missing|wrong|empty|damaged|row_too|duplicate)"
    codes = set(re.findall(rf'"({kinds}_[a-z0-9_]+)"', "\n".join(sources))) | {"duplicate_custom_id"}
    codes -= {"invalid_request_error"}  # of a failure, and no bad row's
    table = page[page.index("| code |") :]
    assert set(re.findall(r"`([a-z0-9]+_[a-z0-9_]+)`", table)) - {"custom_id"} == codes
    (again,) = re.findall(r"The next run asks again.*?\n\n", page, re.DOTALL)
    codes = set(re.findall(r"`(\w+)`", again))
    assert len(codes) == 10
    assert all(may_pass({"error": {"code": code}}) for code in codes)
    told = {int(status) for status in re.findall(r"\d{3}", again)}
    assert told == {status for status in range(400, 501) if may_pass({"response": {"status_code": status}})}
    assert f"{MAX_ROW_BYTES >> 20} MiB" in page
