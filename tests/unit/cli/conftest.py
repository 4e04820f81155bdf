"""Commands run in this process, which is quick, and measured."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Any

import pytest
from tests.forking import Ended

from llm.cli import serve
from llm.cli.main import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ROW = {"method": "POST", "url": "/v1/chat/completions"}


@pytest.fixture
def _quiet_logs() -> Iterator[None]:
    """The program adds a handler for its stderr, which is another one in each test."""
    ours = [logging.getLogger(name) for name in ("llm", "llm.calls", "llm.keys")]
    before = [(logger, logger.handlers[:], logger.level) for logger in ours]
    yield
    for logger, handlers, level in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., None]:
    """Writes `llm.yaml`, and ten requests, into the current folder."""

    def write(base_url: str = "http://127.0.0.1:9/v1", more: str = "") -> None:
        section = f"{{base_url: '{base_url}', api_keys: [sk-a-long-secret-key], models: [gpt-4o-mini, gpt-4o]}}"
        text = f"providers: {{openai: {section}}}\nretry: {{max_attempts: 1}}\n{more}"
        (tmp_path / "llm.yaml").write_text(text, encoding="utf-8")
        bodies = [{"messages": [{"role": "user", "content": f"Question {n}"}], "max_tokens": 8} for n in range(10)]
        rows = [json.dumps({"custom_id": f"r{n}", **ROW, "body": body}) for n, body in enumerate(bodies)]
        (tmp_path / "in.jsonl").write_text("\n".join(rows), encoding="utf-8")

    return write


@pytest.fixture
def manifold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, _quiet_logs: None
) -> Callable[..., Ended]:
    """Runs the program in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLM_CONFIG", raising=False)
    monkeypatch.setenv("LLM_STATE_DIR", str(tmp_path / "state"))

    def typed(*words: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["manifold", *words])
        try:
            status = run()
        except SystemExit as ended:
            status = int(ended.code or 0)
        out, err = capsys.readouterr()
        return Ended(status, out, err)

    return typed


@pytest.fixture
def asked() -> Iterator[list[tuple[Any, ...]]]:
    """Stands in for the gateway; what it was asked for."""
    asked: list[tuple[Any, ...]] = []

    def stand_in(
        config: Path | None, host: str | None, port: int | None, workers: int, *, say: Callable[[str], object]
    ) -> int:
        asked.append((config, host, port, workers))
        say("listening")
        return 143

    before = serve.lend(stand_in)
    yield asked
    if before is not None:
        serve.lend(before)
