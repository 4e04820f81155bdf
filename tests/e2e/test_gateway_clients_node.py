"""The Vercel AI SDK, unchanged but for base URL and key, against `manifold serve` as a program."""

# ruff: noqa: ANN401 - JSON, and fixtures of this room's conftest.py
from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.patience import PATIENCE

from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Node = Callable[..., Any]

pytestmark = pytest.mark.node

CLOCK: Final = SystemClock()
HELLO: Final = "Hello there, who are you?"
MODELS: Final = ("gpt-4o-mini", "claude-haiku-4-5")

each_kind = pytest.mark.parametrize("kind", ["chat", "responses", "messages"])
each_model = pytest.mark.parametrize("model", MODELS)


@pytest.fixture
def node(gateway_process: Any, root: Path) -> Node:
    """Does one thing: `node(kind, model, what)`; returns what it told."""
    program, folder = shutil.which("node"), root / ".cache" / "node"
    if program is None or not (folder / "node_modules").is_dir():
        pytest.skip("the Vercel AI SDK is not installed; `make test-all` does so where there is Node")
    script = (root / "tests" / "e2e" / "node" / "clients.mjs").read_text(encoding="utf-8")

    def do(kind: str, model: str, what: str, *, key: str | None = None) -> Any:
        # A script from stdin finds its packages in the current folder.
        words = [
            program,
            "--input-type=module",
            "-",
            gateway_process.url,
            key or gateway_process.key,
            kind,
            model,
            what,
        ]
        done = subprocess.run(  # noqa: S603 - our own script
            words, input=script, cwd=folder, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return do


@each_kind
@each_model
@pytest.mark.parametrize("what", ["whole", "stream"])
def test_gets_an_answer_with_its_usage(node: Node, kind: str, model: str, what: str) -> None:
    told = node(kind, model, what)
    assert (told["text"], told["finishReason"]) == (HELLO, "stop")
    assert told["tokens"] > 10


@each_kind
@each_model
def test_calls_a_tool_and_tells_what_it_found(node: Node, kind: str, model: str) -> None:
    assert node(kind, model, "tool") == {"text": "It is sunny in Paris there.", "steps": 2}


@each_kind
@each_model
def test_gets_a_structured_answer(node: Node, kind: str, model: str) -> None:
    assert node(kind, model, "structured") == {"name": "Paris", "people": 2_100_000}


@each_kind
def test_hears_that_its_key_is_wrong(node: Node, kind: str) -> None:
    said = node(kind, MODELS[0], "whole", key="sk-manifold-mallory")
    assert said["status"] == 401
    assert "does not know the key" in said["message"]


@each_kind
@pytest.mark.parametrize("what", ["whole", "stream"])
def test_promise_39_hears_of_its_keys_own_quota_and_how_long_to_wait(
    gateway_process: Any, node: Node, kind: str, what: str
) -> None:
    key = gateway_process.limited_key()
    assert node(kind, MODELS[1], what, key=key)["text"] == HELLO
    said = node(kind, MODELS[1], what, key=key)
    assert said["status"] == 429
    assert 3590 < int(said["retryAfter"]) <= 3601


@each_kind
@pytest.mark.parametrize("model", ["slow-gpt", "slow-claude"])
def test_leaves_a_stream_which_ends_it_upstream(gateway_process: Any, node: Node, kind: str, model: str) -> None:
    upstream = gateway_process.upstream(model)
    assert node(kind, model, "leave")["piece"] in HELLO
    began = CLOCK.now()
    while upstream.active:
        assert CLOCK.now() - began < PATIENCE
    assert upstream.requests[-1].key == "k-stalls"
