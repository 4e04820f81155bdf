"""`examples/llm_usage.py` as a first-time reader runs it: both dialects, the model on the box, and Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Literal

import pytest

from llm.testing import Fault, MockUpstream

if TYPE_CHECKING:
    from pathlib import Path

SECTIONS = (
    "One question",
    "A conversation, with options",
    "A stream, printed as it comes",
    "Twenty calls at once",
    "An error, handled",
    "What it came to",
)


async def start(root: Path, *words: str, **variables: str) -> asyncio.subprocess.Process:
    """Run the example, or what else is named, from the root, with no key in its environment but those given."""
    kept = {name: value for name, value in os.environ.items() if not name.endswith(("_API_KEY", "_BASE_URL"))}
    kept.pop("LLM_CONFIG", None)
    return await asyncio.create_subprocess_exec(
        *(sys.executable, *(words or ("examples/llm_usage.py",))),
        cwd=root,
        env=kept | {"PYTHONPATH": "src", "PYTHONUTF8": "1", "COLUMNS": "80"} | variables,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def told(program: asyncio.subprocess.Process) -> tuple[str, str]:
    out, err = await program.communicate()
    return out.decode(), err.decode()


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
async def test_a_server_of_either_dialect_answers_it_and_both_keys_take_turns(
    root: Path, dialect: Literal["openai", "anthropic"]
) -> None:
    async with MockUpstream(dialect) as up:
        variables = {
            f"{dialect.upper()}_API_KEY": "first-key-0001,second-key-0002",
            f"{dialect.upper()}_BASE_URL": up.base_url,
        }
        program = await start(root, **variables)
        out, err = await told(program)

        assert (program.returncode, err) == (0, "")
        assert [section for section in SECTIONS if section not in out] == []
        assert "20 answers, 20 of them from the cache" in out
        assert "LLMTimeoutError" in out
        asked = [request.key for request in up.requests]
        assert min(asked.count("first-key-0001"), asked.count("second-key-0002")) >= 10
        assert "first-key" not in out


async def test_without_a_key_the_model_on_the_box_answers_it(root: Path) -> None:
    program = await start(root)
    out, err = await told(program)
    assert (program.returncode, err) == (0, "")
    assert [section for section in SECTIONS if section not in out] == []
    assert "local/smollm2-135m" in out
    assert "20 answers, 20 of them from the cache" in out


async def test_the_questions_are_answered_by_the_model_on_the_box_with_nothing_configured(
    root: Path, tmp_path: Path
) -> None:
    questions = (root / "examples" / "questions.jsonl").read_text(encoding="utf-8")
    words = ("-m", "llm", "batch", "examples/questions.jsonl", "-o", str(tmp_path / "answers.jsonl"))
    program = await start(root, *words, LLM_STATE_DIR=os.devnull)
    _, err = await told(program)
    assert program.returncode == 0, err
    assert "rows: 8 answered\n" in err
    lines = (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    answers = {line["custom_id"]: line["response"]["body"] for line in map(json.loads, lines)}
    assert set(answers) == {json.loads(line)["custom_id"] for line in questions.splitlines()}
    assert {body["model"] for body in answers.values()} == {"smollm2-135m"}
    assert all(body["choices"][0]["message"]["content"].strip() for body in answers.values())


async def interrupted(program: asyncio.subprocess.Process, after: bytes) -> tuple[int | None, str]:
    assert program.stdout is not None
    await program.stdout.readuntil(after)
    program.send_signal(signal.SIGINT)
    _, err = await told(program)
    return program.returncode, err


async def test_ctrl_c_while_the_model_on_the_box_answers_ends_it_with_130_and_no_traceback(root: Path) -> None:
    program = await start(root, PYTHONUNBUFFERED="1")
    assert await interrupted(program, b"A conversation") == (130, "")


async def test_ctrl_c_in_the_middle_of_a_stream_ends_it_with_130_and_no_traceback(root: Path) -> None:
    async with MockUpstream(faults=[Fault("stalled", at=4)]) as up:
        program = await start(root, PYTHONUNBUFFERED="1", OPENAI_API_KEY="a-key-0001", OPENAI_BASE_URL=up.base_url)
        assert await interrupted(program, b"A stream") == (130, "")


async def test_a_model_that_is_not_there_is_one_line_that_says_what_to_type(root: Path, tmp_path: Path) -> None:
    program = await start(root, LLM_MODELS_DIR=str(tmp_path))
    _, err = await told(program)
    assert program.returncode == 1
    assert err.count("\n") == 1
    assert "manifold models fetch smollm2-135m" in err
