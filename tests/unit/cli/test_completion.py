"""The words that Tab offers, by the real program, and the scripts that ask for them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONFIG = """
providers:
  openai: {base_url: 'http://127.0.0.1:9/v1', api_keys: ['${KEY_OF_DOTENV}'], models: [gpt-4o-mini, gpt-4o, '*']}
  local: {models: [smollm2-135m]}
aliases: {fast: {targets: [openai/gpt-4o-mini]}}
"""


@pytest.fixture
def offered(
    manifold: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[str], list[str]]:
    (tmp_path / "llm.yaml").write_text(CONFIG, encoding="utf-8")
    (tmp_path / ".env").write_text("KEY_OF_DOTENV=k\n", encoding="utf-8")
    monkeypatch.setenv("KEY_OF_DOTENV", "k")

    def complete(line: str) -> list[str]:
        monkeypatch.setenv("_MANIFOLD_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line.replace(" ", "\n"))
        monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
        done = manifold()
        assert done.err == ""
        return list(done.out.split())

    return complete


def test_commands_options_providers_and_models_are_offered(offered: Callable[[str], list[str]], tmp_path: Path) -> None:
    assert offered("manifold ch") == ["chat"]
    assert "--concurrency" in offered("manifold batch --con")
    assert offered("manifold stats --by ") == ["day", "model", "provider", "command"]
    assert offered("manifold chat -p ") == ["openai", "local"]
    assert offered("manifold batch -m g") == ["gpt-4o-mini", "gpt-4o"]
    assert offered("manifold chat -p local -m ") == ["smollm2-135m"]
    assert set(offered("manifold chat -m ")) == {
        *("fast", "gpt-4o-mini", "gpt-4o", "smollm2-135m"),
        *("openai/gpt-4o-mini", "openai/gpt-4o", "local/smollm2-135m"),
    }
    (tmp_path / "other.yaml").write_text("providers: {mine: {type: local, models: [m]}}", encoding="utf-8")
    assert offered("manifold --config other.yaml chat -p ") == ["mine"]
    (tmp_path / "llm.yaml").write_text("providers: nonsense", encoding="utf-8")
    assert offered("manifold chat -m ") == offered("manifold chat -p ") == []


@pytest.mark.parametrize(
    ("shell", "variables", "told"),
    [
        ("zsh", {}, '"fast":"openai/gpt-4o-mini"'),
        ("fish", {"_TYPER_COMPLETE_FISH_ACTION": "get-args"}, "fast\topenai/gpt-4o-mini\n"),
    ],
)
def test_zsh_and_fish_are_told_what_the_words_are(  # noqa: PLR0913, PLR0917 - fixtures
    manifold: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    shell: str,
    variables: dict[str, str],
    told: str,
) -> None:
    (tmp_path / "llm.yaml").write_text(CONFIG, encoding="utf-8")
    words = {"_MANIFOLD_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": "manifold chat -m fa"}
    for name, value in {"KEY_OF_DOTENV": "k", **words, **variables}.items():
        monkeypatch.setenv(name, value)
    assert told in manifold().out


@pytest.mark.parametrize(
    ("shell", "file"),
    [
        ("bash", ".bash_completions/manifold.sh"),
        ("zsh", ".zfunc/_manifold"),
        ("fish", ".config/fish/completions/manifold.fish"),
    ],
)
def test_its_script_is_shown_and_installed(
    manifold: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shell: str, file: str
) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    shown = manifold("--show-completion", shell)
    installed = manifold("--install-completion", shell)
    assert (shown.status, installed.status) == (0, 0)
    assert (tmp_path / file).read_text(encoding="utf-8").strip() == shown.out.strip() != ""


def test_bash_completes_in_earnest(root: Path, tmp_path: Path) -> None:
    (tmp_path / "llm.yaml").write_text(CONFIG, encoding="utf-8")
    program = tmp_path / "bin" / "manifold"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m llm "$@"\n', encoding="utf-8")
    program.chmod(0o700)
    script = """
    eval "$(manifold --show-completion bash)"
    COMP_WORDS=(manifold chat -m fa) COMP_CWORD=3
    _manifold_completion manifold
    echo "${COMPREPLY[*]}"
    """
    ours = {"PYTHONPATH": str(root / "src"), "HOME": str(tmp_path), "KEY_OF_DOTENV": "k"}
    environ = {**ours, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    done = subprocess.run(  # noqa: S603 - a shell, which is what completes
        ["/bin/bash", "-c", script],
        cwd=tmp_path,
        env=environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stderr, done.stdout) == ("", "fast\n")
