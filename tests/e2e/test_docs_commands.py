"""The shell's blocks of the pages in `docs/`: each command runs, in a folder that has what the pages speak of.

A command that is typed elsewhere, or cannot run here, stands in `ELSEWHERE` with the reason.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import signal
import subprocess
import tomllib
from pathlib import Path
from shutil import copytree
from threading import Event
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

from llm.testing import BatchScript, MockUpstream
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    Forking = Callable[..., Any]
    Served = Callable[..., AbstractContextManager[MockUpstream]]

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
MODELS: Final = os.environ.get("LLM_MODELS_DIR") or str(
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llm-manifold" / "models"
)
PAGES: Final = sorted(
    page for page in DOCS.glob("*.md") if page.name != "tutorial.md"
)  # test_docs_tutorial.py types it
ELSEWHERE: Final = {
    "curl": "test_docs_gateway.py types it to a gateway",
    "pip install": "see the test of extras below",
    "manifold chat --continue": "a conversation is kept on a terminal alone; test_cli_terminal.py has one",
    "manifold serve --host 0.0.0.0": "it would take a fixed port; test_gateway_workers.py has workers",
}


def lines(page: Path) -> list[str]:
    """Return the commands of a page, each in one piece."""
    blocks = re.findall(
        r"^(<!-- not run: .*\n\n?)?```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    return [line for why, block in blocks if not why for line in block.replace("\\\n", " ").splitlines()]


def typed(page: Path) -> list[str]:
    """Return those that are run here."""
    return [line for line in lines(page) if not line.startswith(tuple(ELSEWHERE))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the pages name."""
    copytree(ROOT / "examples", tmp_path / "examples")
    questions = (ROOT / "examples" / "questions.jsonl").read_text(encoding="utf-8")
    (tmp_path / "questions.jsonl").write_text(questions, encoding="utf-8")
    (tmp_path / "questions.jsonl.gz").write_bytes(gzip.compress(questions.encode()))
    (tmp_path / "reviews.csv").write_text("number,text,language\n1,Good,French\n", encoding="utf-8")
    return tmp_path


def config(openai: MockUpstream, anthropic: MockUpstream) -> str:
    """Return a configuration with the providers, models and keys that the pages name."""
    return yaml.safe_dump(
        {
            "providers": {
                "openai": {"base_url": openai.base_url, "api_keys": ["k1"], "models": ["gpt-4o-mini"]},
                "anthropic": {"base_url": anthropic.base_url, "api_keys": ["k2"], "models": ["claude-sonnet-4-5"]},
            },
            "aliases": {"fast": {"targets": ["openai/gpt-4o-mini"]}},
            "cache": {"backend": "disk"},
        }
    )


def ended(folder: Path) -> Callable[[int], None]:
    """Return what ends a server as soon as it listens."""

    def end(process: int) -> None:
        due = SystemClock().now() + 20.0
        while "listening on" not in (folder / ".stderr").read_text(encoding="utf-8"):
            assert SystemClock().now() < due
            Event().wait(0.01)
        os.kill(process, signal.SIGTERM)

    return end


@pytest.mark.parametrize("page", [page for page in PAGES if typed(page)], ids=lambda page: page.name)
def test_every_command_of_a_page_runs(page: Path, folder: Path, forking: Forking, served: Served) -> None:
    batches = BatchScript(running=0.05)
    with served(dialect="openai", batches=batches) as openai, served(dialect="anthropic", batches=batches) as anthropic:
        (folder / "llm.yaml").write_text(config(openai, anthropic), encoding="utf-8")
        assert forking(folder, "chat", "Hello", "--no-stream").status == 0  # the cache then holds something
        [kept] = json.loads(forking(folder, "cache", "list", "--json").out)
        for line in typed(page):
            before, _, command = line.rpartition("| ")
            words = shlex.split(re.sub(r"(?<=cache get )\w+", kept["key"], command), comments=True)
            assert words[0] == "manifold", f"{page.name}: nobody runs {line!r}; see ELSEWHERE"
            serves = words[1] == "serve"
            done = forking(
                folder,
                *words[1:],
                stdin=piped(before, folder),
                during=ended(folder) if serves else None,
                variables={"PORT": "0", "LLM_MODELS_DIR": MODELS},
            )
            assert done.status == (143 if serves else 0), f"{line}: {done.status} {done.err}"


def piped(command: str, folder: Path) -> str:
    """Return what a command that stands before a `|` prints; nothing, where there is none."""
    words = ["bash", "-c", command]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603 - our own page
    return done.stdout


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "pip install" in "".join(lines(page))], ids=lambda page: page.name
)
def test_what_a_page_installs_is_an_extra(page: Path) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"llm-manifold\[([\w,]+)\]", text)
    assert named
    assert {name for each in named for name in each.split(",")} <= extras.keys()
