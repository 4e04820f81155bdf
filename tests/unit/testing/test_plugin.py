from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

_SUITE = """
import json
import pytest

async def test_fixtures(fake_clock, fake_provider, mock_upstream):
    await fake_clock.advance(3600)
    assert fake_clock.now() == 3600.0
    assert fake_provider.calls == 0
    up = mock_upstream("openai", clock=fake_clock)
    assert up.requests == []


async def test_left_open(mock_upstream, fake_clock):
    up = mock_upstream("openai", clock=fake_clock)
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]}
    await up.transport().request("POST", "http://x/v1/chat/completions", headers={}, body=json.dumps(body).encode())
"""


def _pytest(folder: Path, root: Path, *options: str) -> str:
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{folder}"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:langsmith_plugin"]
    command += ["-o", "asyncio_mode=auto", *options]
    done = subprocess.run(  # noqa: S603 - our own suite
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout + done.stderr


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
def test_the_fixtures_are_there_and_a_request_left_open_is_an_error(tmp_path: Path, root: Path) -> None:
    (tmp_path / "test_it.py").write_text(_SUITE)
    installed = tmp_path / "llm_manifold-0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-manifold\nVersion: 0\n")
    (installed / "entry_points.txt").write_text("[pytest11]\nllm = llm.testing.plugin\n")
    shown = _pytest(tmp_path, root, "-o", f"pythonpath={root / 'src'}")
    assert "2 passed, 1 error" in shown
    assert "1 requests at a MockUpstream are still open" in shown


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
def test_it_imports_nothing_heavy_at_pytests_start(tmp_path: Path, root: Path) -> None:
    heavy = ["aiohttp", "pydantic", "openai", "anthropic", "llm.testing.upstream"]
    (tmp_path / "test_it.py").write_text(
        f"import sys\ndef test_it():\n    assert not sys.modules.keys() & set({heavy})\n"
    )
    assert "1 passed" in _pytest(tmp_path, root, "-p", "no:llm", "-p", "llm.testing.plugin")
