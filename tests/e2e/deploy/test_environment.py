"""The environment names that a container is set with hold in the program that serves, and the page lists them."""

from __future__ import annotations

import json
import os
import re
import signal
from contextlib import closing
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAMES = {"HOST", "PORT", "MODEL_NAME", "DEVICE", "MAX_LENGTH", "TEMPERATURE", "LOG_LEVEL", "METRICS_ENABLED"}


def test_each_of_them_holds_under_serve(
    forking: Callable[..., Any], tmp_path: Path, vendor: Callable[..., Any], until: Callable[..., None]
) -> None:
    def ask(port: int, path: str, body: object = None) -> tuple[int, Any]:
        with closing(HTTPConnection("127.0.0.2", port, timeout=10)) as connection:
            connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def look(pid: int) -> None:
        log = tmp_path / ".stderr"
        until(lambda: "listening on" in log.read_text(encoding="utf-8"))
        found = re.search(r"listening on http://127\.0\.0\.2:(\d+);", log.read_text(encoding="utf-8"))
        assert found is not None
        port = int(found[1])
        assert ask(port, "/v1/generate", {"prompt": "Hello"})[0] == 200
        assert ask(port, "/v1/metrics")[0] == 404
        assert ask(port, "/v1/generate", {"prompt": "Hello" * 100})[0] == 413
        assert ask(port, "/v1/health")[1]["providers"] == {"here": "healthy", "openai": "healthy"}
        os.kill(pid, signal.SIGINT)

    with vendor() as up:
        section = {"base_url": up.base_url, "api_keys": ["k1"], "models": ["gpt-4o", "gpt-4o-mini"]}
        local = {"type": "local", "models": ["smollm2-135m"]}
        config = {"global": {"default_provider": "openai"}, "providers": {"here": local, "openai": section}}
        (tmp_path / "llm.yaml").write_text(json.dumps(config), encoding="utf-8")
        bare = {
            "HOST": "127.0.0.2",
            "PORT": "0",
            "MODEL_NAME": "gpt-4o-mini",
            "DEVICE": "nonsense:9",
            "MAX_LENGTH": "7",
            "TEMPERATURE": "0.25",
            "LOG_LEVEL": "warning",
            "METRICS_ENABLED": "false",
        }
        assert set(bare) == NAMES
        ended = forking(tmp_path, "serve", during=look, variables=bare | {"LLM__GATEWAY__MAX_BODY_BYTES": "100"})
        [request] = up.requests
    assert request.body["model"] == "gpt-4o-mini"
    assert (request.body.get("max_completion_tokens") or request.body["max_tokens"]) == 7
    assert request.body["temperature"] == 0.25
    assert ended.status == 130
    assert '"level":"info"' not in ended.err


def test_the_page_lists_all_of_them(root: Path) -> None:
    page = (root / "docs" / "deployment.md").read_text(encoding="utf-8")
    table = re.search(r"^\| variable \| means \|\n\|[-|]+\|\n((?:\|.*\n)+)", page, re.MULTILINE)
    assert table is not None
    told = {name for row in table[1].splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert told == NAMES | {"LLM__SECTION__FIELD"}
    readme = (root / "docs" / "gateway.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in readme for name in NAMES)


def test_what_the_page_names_is_there_and_what_it_types_is_a_command(
    root: Path, tmp_path: Path, forking: Callable[..., Any]
) -> None:
    page = (root / "docs" / "deployment.md").read_text(encoding="utf-8")
    for path in re.findall(r"(?:deploy|config)/[\w./-]+\w", page):
        assert (root / path).exists() or path == "deploy/secrets", path
    for name in re.findall(r"`([\w.]+\.(?:yaml|sh))`", page):
        assert list((root / "deploy").rglob(name)), name
    typed = set(re.findall(r"manifold ((?:keys|config|serve|models) ?(?:create|revoke|check|fetch)?)", page))
    assert {"keys create", "keys revoke", "config check"} <= typed
    for words in typed:
        assert forking(tmp_path, *words.split(), "--help").status == 0, words
