"""`docs/gateway.md` and the README: every command for every route, typed as it stands there, with the real curl."""

# ruff: noqa: ANN401 - fixtures of this room's conftest.py, and JSON
from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest
import typer
import yaml

from llm.cli.main import app
from llm.core.config import load_config
from llm.gateway.entry import ROUTES

if TYPE_CHECKING:
    from pathlib import Path

HERE: Final = "http://127.0.0.1:8000"
OTHERS: Final = {("POST", "/graphql"), ("GET", "/dashboard"), ("GET", "/v1/models/gpt-4o-mini")}
STATUS: Final = "\n%{http_code}"
# What is to be found in the answer of each, where its first line is not enough.
SAYS: Final = {
    "/v1/chat/completions": "Hello",
    "/v1/responses": "Hello",
    "/v1/completions": "Once upon a time",
    "/v1/embeddings": '"embedding"',
    "/v1/models": "claude-haiku-4-5",
    "/v1/models/gpt-4o-mini": '"owned_by"',
    "/v1/messages": "Hello",
    "/v1/messages/count_tokens": '"input_tokens"',
    "/v1/health": '"healthy"',
    "/livez": '"ok"',
    "/readyz": '"ok"',
    "/v1/generate": "time",
    "/v1/metrics": "llm_gateway_requests_total",
    "/openapi.json": '"openapi"',
    "/docs": "<html",
    "/redoc": "<html",
    "/dashboard": "<html",
    "/graphql": '"data"',
}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    """Return the page's command lines, each in one piece."""
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", "").splitlines()
    return [line for line in lines if line.startswith("curl ")]


def curled(command: str, url: str, key: str = "") -> tuple[int, str]:
    """Type a command; returns status and body."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    typed = command.replace("curl ", f"curl -sS --max-time 120 -w '{STATUS}' ", 1).replace(HERE, url)
    environ = {"PATH": os.environ["PATH"], "KEY": key}
    done = subprocess.run(["bash", "-c", typed], env=environ, capture_output=True, text=True, check=True)  # noqa: S603, S607 - our own page
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def path_of(command: str) -> str:
    found = re.search(rf"{HERE}(\S+)", command)
    assert found is not None
    return found[1]


def events(body: str) -> list[Any]:
    data = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in data if line != "[DONE]"]


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs" / "gateway.md").read_text(encoding="utf-8")


def test_every_route_has_a_command(page: str) -> None:
    typed = {("POST" if " -d " in line else "GET", path_of(line)) for line in commands(page)}
    there = {(method, path) for method, path in ROUTES if "assets" not in path}
    assert typed == there | OTHERS


def test_every_command_gets_its_answer_and_its_stream(page: str, gateway_process: Any) -> None:
    for command in commands(page):
        status, body = curled(command, gateway_process.url, gateway_process.key)
        assert status == 200, f"{command}: {body}"
        if "-N" in command:
            assert len(events(body)) > 2, command
        else:
            assert SAYS[path_of(command)] in body, f"{command}: {body}"


def test_without_the_key_every_command_is_refused_but_those_for_health(page: str, gateway_process: Any) -> None:
    public = {path for (_, path), route in ROUTES.items() if route.public}
    for command in commands(page):
        status, _ = curled(command, gateway_process.url, "sk-manifold-unknown")
        assert status == (200 if path_of(command) in public else 401), command


def test_several_streams_come_over_one_websocket(page: str, gateway_process: Any) -> None:
    (program,) = blocks(page, "python")
    code = program.replace("ws://127.0.0.1:8000", gateway_process.url.replace("http", "ws"))
    environ = {"PATH": os.environ["PATH"], "KEY": gateway_process.key}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)  # noqa: S603 - our own page
    assert done.returncode == 0, done.stderr
    said = [line.split(" ", 2) for line in done.stdout.splitlines()]
    texts = {
        number: "".join(text[0] for name, kind, *text in said if (name, kind) == (number, "chunk"))
        for number in ("1", "2")
    }
    assert texts == {"1": "Hello there", "2": "And you there"}
    assert sorted(name for name, kind, *_ in said if kind == "done") == ["1", "2"]


def test_the_pages_configurations_are_right(page: str, tmp_path: Path) -> None:
    for text in blocks(page, "yaml"):
        (tmp_path / "llm.yaml").write_text(text.replace("sha256:…", f"sha256:{'0' * 64}"), encoding="utf-8")
        assert load_config(tmp_path / "llm.yaml", environ={"CI_KEY": "k"}).gateway.model_fields_set
        assert yaml.safe_load(text)


def test_the_pages_other_commands_are_taken(page: str) -> None:
    group: Any = typer.main.get_command(app)
    typed = [line for block in blocks(page, "sh") for line in block.splitlines() if line.startswith("manifold keys")]
    assert len(typed) == 3
    for line in typed:
        _, name, command, *words = line.split()
        group.commands[name].commands[command].make_context(command, words)


@pytest.mark.xdist_group("served_alone")
def test_with_nothing_configured_the_readmes_commands_get_an_answer_and_a_stream(root: Path, served_alone: str) -> None:
    whole, stream = commands((root / "README.md").read_text(encoding="utf-8"))
    status, body = curled(whole, served_alone)
    assert status == 200, body
    answer = json.loads(body)
    assert answer["model"] == "smollm2-135m"
    assert answer["choices"][0]["message"]["content"].strip()
    status, body = curled(stream, served_alone)
    chunks = events(body)
    assert status == 200
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"]).strip()
    assert body.rstrip().endswith("data: [DONE]")
