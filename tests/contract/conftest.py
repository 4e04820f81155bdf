"""What the contract tests share: the mark for later work, names looked up as they run, and a server to call."""

# ruff: noqa: ANN401 - public names are looked up as tests run: a missing one fails its tests, not the collection

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from tests.forking import Forking

ROOT = Path(__file__).parents[2]

# What a promise that nothing keeps yet may fail with. Anything else is a fault of the test or of the code.
NOT_THERE = (ImportError, AttributeError, AssertionError)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "planned(what): promised, not built yet; goes red as soon as it is, and the mark goes"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if mark := item.get_closest_marker("planned"):
            (what,) = mark.args
            item.add_marker(pytest.mark.xfail(strict=True, raises=NOT_THERE, reason=f"planned: {what}"))


@pytest.fixture
def named() -> Callable[[str], Any]:
    """Look a public name up, as in `llm.cache:InMemoryCache` or `llm:LLMManager.open`."""

    def look_up(path: str) -> Any:
        module, _, name = path.partition(":")
        found: Any = import_module(module)
        for part in filter(None, name.split(".")):
            found = getattr(found, part)
        return found

    return look_up


@pytest.fixture
def llm() -> ModuleType:
    """The front door, imported when a test runs, so that one that does not open fails tests and not collection."""
    return import_module("llm")


@pytest.fixture
def serving() -> Callable[..., dict[str, Any]]:
    """A configuration whose one provider is a `MockUpstream` of the OpenAI dialect."""

    def configuration(upstream: Any, **sections: Any) -> dict[str, Any]:
        provider = {"base_url": upstream.base_url, "api_keys": ["sk-one", "sk-two"], "models": ["gpt-4o-mini"]}
        return {"global": {"default_provider": "openai"}, "providers": {"openai": provider}, **sections}

    return configuration


@pytest.fixture(scope="session")
def shell() -> dict[str, str]:
    """An environment for the real program: no key, no colour, no line breaks in the help, nothing kept."""
    words = {"PYTHONPATH": str(ROOT / "src"), "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "240", "PYTHONUTF8": "1"}
    return words | {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LLM_STATE_DIR": os.devnull}


@pytest.fixture(scope="session")
def manifold(
    shell: dict[str, str], forking: Forking, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the real program to its end, in an empty folder where none is named; its modules are there already."""
    empty = tmp_path_factory.mktemp("empty")

    def run(*words: str, cwd: Path = empty, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        done = forking(cwd, *words, stdin=stdin, variables=shell | variables)
        return subprocess.CompletedProcess(words, done.status, done.out, done.err)

    return run


@pytest.fixture(scope="session")
def started(shell: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run it to its end as a shell does, with an interpreter of its own and what it reads and prints in pipes."""

    def run(*words: str, cwd: Path, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - our own program with the words of a test
            [sys.executable, "-m", "llm", *words],
            cwd=cwd,
            env=shell | variables,
            input=stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
            timeout=60,
        )

    return run
